//! The strict reader beside readers of other languages: it refuses a text, or reads it as they do.
//!
//! Invariant: every reader answers every text, each with one line.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Instant,
};

use anyhow::{Context as _, bail};
use clap::Args;
use hitl_adversarial::{canon::canonical, texts::Texts};
use hitl_core::json::message;

/// Texts in memory at a time.
const BATCH: usize = 25_000;

/// Which readers, and how many texts
#[derive(Args)]
pub(crate) struct DifferentialArgs {
    /// A program and its script, which reads texts and prints canonical ones, a line each
    #[arg(long = "reader", value_name = "PROGRAM=SCRIPT", required = true)]
    readers: Vec<String>,

    /// Texts to generate
    #[arg(long, default_value_t = 50_000, value_name = "COUNT")]
    texts: usize,

    /// The same seed gives the same texts; random unless given
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    /// File that texts which are read differently are written to, one a line
    #[arg(long, value_name = "FILE")]
    keep: PathBuf,
}

/// A reader in another language.
struct Reader {
    name: String,
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    /// Of the texts that the strict reader accepts or refuses, how many it accepts.
    accepts: usize,
}

impl Reader {
    fn start(text: &str) -> anyhow::Result<Self> {
        let (program, script) = text.split_once('=').context("write it as PROGRAM=SCRIPT")?;
        let mut command = Command::new(program);
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        let output = BufReader::new(child.stdout.take().context("it has no output")?);
        Ok(Self { name: script.to_owned(), child, output, accepts: 0 })
    }

    /// What it makes of each text.
    fn read(&mut self, texts: &[Vec<u8>]) -> anyhow::Result<Vec<String>> {
        let mut input = self.child.stdin.take().context("it has no input")?;
        let lines = texts.join(&b'\n');
        let read = thread::scope(|scope| {
            // Written while its answers are read: neither pipe fills up.
            let writing = scope.spawn(move || {
                input.write_all(&lines)?;
                input.write_all(b"\n")?;
                input.flush()?;
                Ok::<_, std::io::Error>(input)
            });
            let mut lines = Vec::with_capacity(texts.len());
            while lines.len() < texts.len() {
                let mut line = String::new();
                if self.output.read_line(&mut line)? == 0 {
                    bail!("{} ended before it had read everything", self.name);
                }
                lines.push(line.trim_end_matches('\n').to_owned());
            }
            match writing.join() {
                Ok(input) => self.child.stdin = Some(input?),
                Err(_) => bail!("{} cannot be written to", self.name),
            }
            Ok(lines)
        })?;
        self.accepts += read.iter().filter(|line| *line != "!").count();
        Ok(read)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn run(args: &DifferentialArgs) -> anyhow::Result<()> {
    let begun = Instant::now();
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("{} texts of --seed {seed}", args.texts);
    let mut generator = Texts::new(seed);
    let started = args.readers.iter().map(|reader| Reader::start(reader));
    let mut readers = started.collect::<anyhow::Result<Vec<_>>>()?;
    let (mut left, mut accepted, mut different) = (args.texts, 0, Vec::new());
    while left > 0 {
        let batch = left.min(BATCH);
        left -= batch;
        let texts: Vec<_> = (0..batch).map(|_| generator.text()).collect();
        let others = read_by_all(&mut readers, &texts)?;
        for (number, text) in texts.iter().enumerate() {
            let Ok(value) = message(text) else { continue };
            accepted += 1;
            let ours = canonical(&value);
            for (reader, lines) in readers.iter().zip(&others) {
                let theirs = lines.get(number).map(String::as_str).unwrap_or_default();
                if theirs != ours {
                    println!("{}: {ours}, and {} reads {theirs}", text.escape_ascii(), reader.name);
                    different.push(text.clone());
                }
            }
        }
    }
    println!("the strict reader accepts {accepted}, in {:.1} s", begun.elapsed().as_secs_f64());
    for reader in &readers {
        println!("{} accepts {}", reader.name, reader.accepts);
    }
    if !different.is_empty() {
        std::fs::write(&args.keep, different.join(&b'\n'))?;
        bail!(
            "{} texts are read differently; they are in {}",
            different.len(),
            args.keep.display()
        );
    }
    // Otherwise nothing was compared.
    if accepted * 4 < args.texts || accepted == args.texts {
        bail!("of {} texts {accepted} were accepted; the comparison says nothing", args.texts);
    }
    println!("no difference");
    Ok(())
}

fn read_by_all(readers: &mut [Reader], texts: &[Vec<u8>]) -> anyhow::Result<Vec<Vec<String>>> {
    thread::scope(|scope| {
        let reading: Vec<_> =
            readers.iter_mut().map(|reader| scope.spawn(move || reader.read(texts))).collect();
        let joined = reading.into_iter().map(|reading| match reading.join() {
            Ok(read) => read,
            Err(_) => bail!("a reader's thread ended"),
        });
        joined.collect()
    })
}
