//! What a part of the lab on this machine logs: `cargo xtask logs`, typed as for the lab on kind.
//!
//! Owns which part is which process. Must only read: a log is its service's alone.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use super::{Lab, NOTHING, process::Running};
use crate::workspace::Workspace;

/// How often it is looked whether there is more.
const AGAIN: Duration = Duration::from_millis(100);

/// How much of a log is read at a time, in bytes.
const PIECE: usize = 64 * 1024;

/// Whose logs
#[derive(Args)]
pub(crate) struct LogsArgs {
    /// The part; on kind also controller, kagent and metallb
    #[arg(value_enum)]
    part: Part,

    /// Go on as more is logged, until interrupted
    #[arg(long, short)]
    follow: bool,

    /// How many of the last lines
    #[arg(long, default_value_t = 100, value_name = "LINES")]
    tail: usize,
}

/// A part that logs; by the same names as on kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// hitl-extauth
    Gate,
    /// hitl-ui
    Queue,
    /// mcp-ops-tools
    Tools,
    /// The gateway
    Gateway,
    /// The agent
    Agents,
    /// The scripted model
    Model,
    /// agentgateway's controller, on kind
    #[value(hide = true)]
    Controller,
    /// kagent itself, on kind
    #[value(hide = true)]
    Kagent,
    /// Addresses for Services, on kind
    #[value(hide = true)]
    Metallb,
}

impl Part {
    /// What its process is called, one of these; nothing where only the lab on kind has it.
    fn processes(self) -> &'static [&'static str] {
        match self {
            Self::Gate => &["hitl-extauth"],
            Self::Queue => &["hitl-ui"],
            Self::Tools => &["mcp-ops-tools"],
            // The stand-in, or the real one.
            Self::Gateway => &["gateway", "agentgateway"],
            Self::Agents => &["dba-assistant"],
            Self::Model => &["scripted-model"],
            Self::Controller | Self::Kagent | Self::Metallb => &[],
        }
    }

    fn is(self, running: &Running) -> bool {
        self.processes().contains(&running.name.as_str())
    }
}

/// Prints what a part logs.
///
/// # Errors
/// When nothing is up, when the part is not in this lab, or when its log cannot be read.
pub(crate) fn logs(workspace: &Workspace, args: &LogsArgs) -> anyhow::Result<ExitCode> {
    let lab = Lab::of(workspace);
    let Some(up) = lab.read() else {
        let kept = lab.path("logs");
        if kept.is_dir() {
            bail!(
                "{NOTHING} What the last one on this machine has logged is in {}.",
                kept.display()
            );
        }
        bail!("{NOTHING}");
    };
    let Some(running) = up.running.iter().find(|running| args.part.is(running)) else {
        let there: Vec<_> = Part::value_variants()
            .iter()
            .filter(|part| up.running.iter().any(|running| part.is(running)))
            .map(|part| called(*part))
            .collect();
        bail!("the lab on this machine has no {}; it has {}", called(args.part), there.join(", "));
    };
    let follows = || args.follow && running.is_alive();
    match show(running.log(), args.tail, follows, &mut io::stdout()) {
        // Whoever read it has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        shown => shown.with_context(|| running.log().display().to_string())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A part as it is typed.
fn called(part: Part) -> String {
    part.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Writes the last lines of a file, and what comes to it as long as that is wanted.
fn show(
    log: &Path,
    tail: usize,
    follows: impl Fn() -> bool,
    to: &mut impl Write,
) -> io::Result<()> {
    let mut file = File::open(log)?;
    let from = beginning(&mut file, tail)?;
    file.seek(SeekFrom::Start(from))?;
    loop {
        // Asked before it is read: what a process writes before it ends is shown.
        let more = follows();
        io::copy(&mut file, to)?;
        to.flush()?;
        if !more {
            return Ok(());
        }
        std::thread::sleep(AGAIN);
    }
}

/// Where the last lines of a file begin; found from its end, however long it is.
fn beginning(file: &mut File, tail: usize) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    if tail == 0 {
        return Ok(end);
    }
    let (mut from, mut ends) = (end, 0_usize);
    let mut piece = vec![0; PIECE];
    while from > 0 {
        let length = usize::try_from(from).unwrap_or(PIECE).min(PIECE);
        let begin = from.saturating_sub(u64::try_from(length).unwrap_or(from));
        let piece = piece.get_mut(..length).unwrap_or_default();
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(piece)?;
        for (at, _) in piece.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let behind = begin.saturating_add(u64::try_from(at).unwrap_or(0)).saturating_add(1);
            // The end of the last line is where the file ends: nothing begins behind it.
            if behind < end {
                ends = ends.saturating_add(1);
            }
            if ends == tail {
                return Ok(behind);
            }
        }
        from = begin;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, fs};

    use super::*;

    fn file(name: &str, text: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("lab-logs-{name}-{}.log", std::process::id()));
        fs::write(&path, text).unwrap();
        path
    }

    fn last(text: &str, tail: usize) -> String {
        let path = file("tail", text);
        let mut shown = Vec::new();
        show(&path, tail, || false, &mut shown).unwrap();
        fs::remove_file(path).unwrap();
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn as_many_of_the_last_lines_are_shown_as_were_asked_for() {
        assert_eq!(last("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(last("a\nb\nc", 2), "b\nc");
        assert_eq!(last("a\n\n\n", 2), "\n\n");
        assert_eq!(last("a\nb\n", 2), "a\nb\n");
        assert_eq!(last("a\nb\n", 9), "a\nb\n");
        assert_eq!(last("a\nb\n", 0) + &last("a\nb", 0), "");
        assert_eq!(last("", 3), "");
        let long = format!("{}\n", "x".repeat(PIECE)).repeat(3);
        assert_eq!(last(&long, 2).len(), 2 * (PIECE + 1));
    }

    #[test]
    fn what_comes_to_a_log_is_shown_to_its_end_when_it_is_followed() {
        let path = file("follow", "a\nb\n");
        let asked = Cell::new(0);
        let follows = || {
            asked.set(asked.get() + 1);
            let mut more = File::options().append(true).open(&path).unwrap();
            writeln!(more, "{}", asked.get()).unwrap();
            asked.get() < 3
        };
        let mut shown = Vec::new();
        show(&path, 1, follows, &mut shown).unwrap();
        assert_eq!(String::from_utf8(shown).unwrap(), "b\n1\n2\n3\n");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn every_process_of_the_lab_has_the_name_of_a_part() {
        let parts = Part::value_variants().iter().flat_map(|part| part.processes());
        let mut named: Vec<_> = parts.copied().collect();
        named.sort_unstable();
        let mut processes = [
            "agentgateway",
            "dba-assistant",
            "gateway",
            "hitl-extauth",
            "hitl-ui",
            "mcp-ops-tools",
            "scripted-model",
        ];
        processes.sort_unstable();
        assert_eq!(named, processes);
    }
}
