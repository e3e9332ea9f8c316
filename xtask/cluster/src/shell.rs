//! Other people's commands: kind, helm, docker, cargo.
//!
//! Must never put a secret on a command line, and never leave a command running when its step ends.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Command as StdCommand, Stdio},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::Command,
};

/// Lines of a command's output that an error carries.
const LAST_LINES: usize = 12;

/// A command that ends with its step, with everything it has started.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.process_group(0).stdin(Stdio::null());
    command
}

/// A group of processes that is asked to end when this is dropped before they have.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // An error means that all of it is gone.
            let _ = kill_process_group(group, Signal::TERM);
        }
    }
}

/// A command as a person would type it.
pub(crate) fn shown(command: &StdCommand) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs a command and gives what it printed on standard output.
///
/// # Errors
/// When it cannot be started or fails; the error carries the end of what it said.
pub(crate) async fn output(command: &mut Command) -> anyhow::Result<String> {
    follow(command, |_| ()).await
}

/// The same, with every line it says passed on as it is said.
///
/// # Errors
/// As [`output`].
pub(crate) async fn follow(command: &mut Command, line: impl Fn(&str)) -> anyhow::Result<String> {
    let name = shown(command.as_std());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start `{name}`"))?;
    let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let mut group = Group(id);
    let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
        bail!("`{name}` has no output");
    };
    let (out, err) = tokio::join!(lines(out, &line), lines(err, &line));
    let status = child.wait().await.with_context(|| format!("`{name}`"))?;
    group.0 = None;
    if status.success() {
        return Ok(out.join("\n"));
    }
    let said = if err.is_empty() { out } else { err };
    let from = said.len().saturating_sub(LAST_LINES);
    bail!("`{name}` failed ({status}):\n{}", said.get(from..).unwrap_or_default().join("\n"))
}

async fn lines(from: impl AsyncRead + Unpin, line: impl Fn(&str)) -> Vec<String> {
    let mut reader = BufReader::new(from);
    let (mut all, mut bytes) = (Vec::new(), Vec::new());
    // What cannot be read any more is the end.
    while reader.read_until(b'\n', &mut bytes).await.is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        line(&text);
        all.push(text);
        bytes.clear();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_that_fails_says_what_it_said() {
        let error = output(command("sh").args(["-c", "echo fine; echo broken >&2; exit 3"]))
            .await
            .unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("broken") && error.contains("sh -c") && error.contains('3'),
            "{error}"
        );
        let begun = std::time::Instant::now();
        let mut sleeping = command("sh");
        sleeping.args(["-c", "sleep 60 & wait"]);
        let ended =
            tokio::time::timeout(std::time::Duration::from_millis(200), output(&mut sleeping));
        ended.await.unwrap_err();
        assert!(
            begun.elapsed().as_secs() < 30,
            "a step that ends early waits for what it has started"
        );
        assert_eq!(output(command("echo").arg("said")).await.unwrap(), "said");
        let error = output(&mut command("no-such-program-here")).await.unwrap_err();
        assert!(error.to_string().contains("no-such-program-here"), "{error}");
    }
}
