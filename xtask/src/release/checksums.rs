//! SHA-256 of files, as `sha256sum` writes it and reads it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};

use crate::workspace::{self, Workspace};

/// What the file is called.
pub(super) const FILE: &str = "SHA256SUMS";

/// Writes the checksums of all files of a folder into it, but for those of this file.
///
/// # Errors
/// When the folder has no files, or one of them cannot be read.
pub(super) fn write(workspace: &Workspace, folder: &Path) -> anyhow::Result<PathBuf> {
    let said = || folder.display().to_string();
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(said)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name() != FILE {
            names.push(entry.file_name());
        }
    }
    ensure!(!names.is_empty(), "{}: no files to write checksums of", said());
    names.sort();
    let folder = fs::canonicalize(folder).with_context(said)?;
    let mut sums = workspace.command("sha256sum");
    let sums = workspace::output(sums.arg("--").args(&names).current_dir(&folder))?;
    let file = folder.join(FILE);
    fs::write(&file, sums).with_context(|| file.display().to_string())?;
    Ok(file)
}

/// Looks whether the files of a folder are those that its checksums are of.
///
/// # Errors
/// When one of them is not.
pub(super) fn check(workspace: &Workspace, folder: &Path) -> anyhow::Result<()> {
    let mut check = workspace.command("sha256sum");
    check.args(["--check", "--strict", "--quiet", FILE]).current_dir(folder);
    workspace::run(&mut check)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_another_by_now_is_noticed() {
        let workspace = Workspace::find().unwrap();
        let folder = std::env::temp_dir().join(format!("release-sums-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        assert!(write(&workspace, &folder).is_err());
        for name in ["b", "a", "a"] {
            fs::write(folder.join(name), name).unwrap();
            write(&workspace, &folder).unwrap();
        }
        let text = fs::read_to_string(folder.join(FILE)).unwrap();
        let names: Vec<_> = text.lines().filter_map(|line| line.split("  ").nth(1)).collect();
        assert_eq!(names, ["a", "b"]);
        check(&workspace, &folder).unwrap();
        fs::write(folder.join("b"), "c").unwrap();
        assert!(check(&workspace, &folder).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
