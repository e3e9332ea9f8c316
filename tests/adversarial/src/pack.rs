//! Corpora as one file, for what fuzzing leaves: see [`hitl_adversarial::packed`].
//!
//! Invariant: unpacking what was packed gives the same inputs.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use hitl_adversarial::packed;

/// What to pack
#[derive(Args)]
pub(crate) struct PackArgs {
    /// Folder with one input a file
    folder: PathBuf,
    /// File to write
    file: PathBuf,
}

/// What to unpack
#[derive(Args)]
pub(crate) struct UnpackArgs {
    /// File with one input a line
    file: PathBuf,
    /// Folder to write the inputs to
    folder: PathBuf,
}

pub(crate) fn pack(args: &PackArgs) -> anyhow::Result<()> {
    let read = |path: PathBuf| fs::read(&path).with_context(|| path.display().to_string());
    let entries = fs::read_dir(&args.folder).with_context(|| args.folder.display().to_string())?;
    let inputs = entries.map(|entry| read(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    println!("{} inputs", inputs.len());
    fs::write(&args.file, packed::pack(inputs)).with_context(|| args.file.display().to_string())
}

pub(crate) fn unpack(args: &UnpackArgs) -> anyhow::Result<()> {
    let file = fs::read_to_string(&args.file).with_context(|| args.file.display().to_string())?;
    fs::create_dir_all(&args.folder)?;
    let inputs =
        packed::unpack(&file).map_err(|error| anyhow!("{}: {error}", args.file.display()))?;
    for (number, input) in inputs.iter().enumerate() {
        fs::write(args.folder.join(format!("packed-{number}")), input)?;
    }
    Ok(())
}
