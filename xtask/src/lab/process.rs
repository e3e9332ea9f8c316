//! One process of the lab: started with a log of its own, watched, and ended.

use std::{
    fs,
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{get, services::create_private};

/// Longest that a service may take to stop by itself: it answers what it holds first.
const STOPPING: Duration = Duration::from_secs(15);

/// Lines of a log that are shown when something is wrong.
const LAST_LINES: usize = 8;

/// A process, as it is known after it was started; also by another run of this program.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// What is asked to see whether it answers.
    ready: String,
    pid: i32,
    /// When it was started, as the system counts it: a process that came later is another.
    begun: String,
    log: PathBuf,
}

impl Running {
    /// Starts a command with its log in a file. It lives on when this program ends.
    pub(super) fn start(
        command: &mut Command,
        name: &str,
        address: SocketAddr,
        ready: &str,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let file = create_private(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // Not of the terminal's: Ctrl-C is for this program, which ends the others in order.
        let child =
            command.process_group(0).spawn().with_context(|| format!("cannot start {name}"))?;
        let pid = i32::try_from(child.id()).context("a process id")?;
        // Waited for, so that one that ends is gone and not a zombie.
        std::thread::spawn(move || {
            let mut child = child;
            let _ = child.wait();
        });
        Ok(Self {
            name: name.to_owned(),
            address,
            ready: ready.to_owned(),
            pid,
            begun: begun(pid).unwrap_or_default(),
            log: log.to_owned(),
        })
    }

    pub(super) fn written(&self) -> Value {
        json!({
            "name": self.name, "address": self.address.to_string(), "ready": self.ready,
            "pid": self.pid, "begun": self.begun, "log": self.log,
        })
    }

    pub(super) fn read(written: &Value) -> Option<Self> {
        let text = |name: &str| written.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            name: text("name")?,
            address: text("address")?.parse().ok()?,
            ready: text("ready")?,
            pid: i32::try_from(written.get("pid")?.as_i64()?).ok()?,
            begun: text("begun")?,
            log: text("log")?.into(),
        })
    }

    /// Whether this very process is there.
    pub(crate) fn is_alive(&self) -> bool {
        begun(self.pid).is_some_and(|begun| begun == self.begun)
    }

    /// Whether it answers.
    pub(crate) fn answers(&self) -> bool {
        get(self.address, &self.ready).is_some_and(|status| status < 500)
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            // An error means that it is gone already.
            let _ = kill_process(pid, signal);
        }
    }

    /// Ends it: in order if it can, for good if it does not.
    pub(crate) fn stop(&self) {
        for signal in [Signal::TERM, Signal::KILL] {
            if !self.is_alive() {
                return;
            }
            self.signal(signal);
            let begun = Instant::now();
            while self.is_alive() && begun.elapsed() < STOPPING {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// The file with its log.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// The end of its log.
    pub(crate) fn last_lines(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(LAST_LINES);
        let lines = lines.get(from..).unwrap_or_default();
        let mut shown: Vec<_> = lines.iter().map(|line| format!("    {line}")).collect();
        shown.push(format!(
            "    ({})
",
            self.log.display()
        ));
        shown.join(
            "
",
        )
    }
}

/// When a process was started, in the system's ticks: field 22 of its `stat`, none where it is gone
/// or only waits to be forgotten.
fn begun(pid: i32) -> Option<String> {
    if !Path::new("/proc/self/stat").exists() {
        // Elsewhere `ps` says it.
        let said =
            Command::new("ps").args(["-o", "lstart=", "-p", &pid.to_string()]).output().ok()?;
        let said = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        return (!said.is_empty()).then_some(said);
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything, also spaces and brackets.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    (state != "Z").then(|| fields.nth(18).map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_again_and_ended_and_another_one_is_left_alone() {
        let folder = std::env::temp_dir();
        let log = folder.join(format!("lab-process-{}.log", std::process::id()));
        let address = "127.0.0.1:1".parse().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo begun; exec sleep 60"]);
        let running = Running::start(&mut command, "sleeper", address, "/", &log).unwrap();
        let again = Running::read(&running.written()).unwrap();
        let started = Instant::now();
        while !again.last_lines().contains("begun") {
            assert!(started.elapsed() < STOPPING, "{}", again.last_lines());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(again.is_alive() && !again.answers());
        let other = Running { begun: "1".into(), ..again.clone() };
        assert!(!other.is_alive());
        other.stop();
        assert!(again.is_alive(), "another process was ended");
        again.stop();
        assert!(!running.is_alive());
        fs::remove_file(log).unwrap();
    }
}
