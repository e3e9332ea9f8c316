//! A program of ours as a process, for tests: started without the settings of whoever runs them, followed
//! by its log, and gone when the test is.
//!
//! Must never know what a program does. A broken assumption stops the test where it stands: nothing here
//! gives an error back.

#![allow(clippy::expect_used, clippy::missing_panics_doc, clippy::panic, clippy::unwrap_used)]

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::sync::watch;

/// Longest a condition may take to come true before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Longest a program may take until it listens, on a machine that has much else to do.
const STARTING: Duration = Duration::from_mins(2);

/// What every service says once it listens.
const LISTENS: &str = "is listening";

/// How variables begin that programs of ours read: a developer's own database is not a test's.
const FOREIGN: [&str; 15] = [
    "ANTHROPIC_",
    "DBA_",
    "DENIAL_FORM",
    "GRPC_PORT",
    "HITL_",
    "HTTP_PORT",
    "KAGENT_",
    "LOG_",
    "OPS_TOOLS_",
    "OTEL_",
    "PARK_",
    "PG",
    "PORT",
    "RUST_LOG",
    "SCRIPTED_",
];

/// How many rounds a test of chance plays: so many, or the full number where `SOAK` is set, as
/// `cargo xtask test --soak` does.
pub fn rounds(usual: u32, full: u32) -> u32 {
    if std::env::var_os("SOAK").is_some() { full } else { usual }
}

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: Log,
}

/// What it has written to standard error so far.
#[derive(Debug)]
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    count: watch::Receiver<usize>,
}

/// Whether a variable is a setting of a program of ours.
pub fn is_foreign(variable: &str) -> bool {
    FOREIGN.iter().any(|prefix| variable.starts_with(prefix))
}

/// A command that has no setting of whoever runs the tests, and logs as JSON unless it is told otherwise.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if is_foreign(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    command.env("LOG_FORMAT", "json").stdin(Stdio::null());
    command
}

/// The same under a umask, in octal.
pub fn command_with_umask(umask: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = command("sh");
    command.args(["-c", r#"umask "$0"; exec "$@""#, umask]).arg(program);
    command
}

/// The files of a folder that group or others may use in any way, with their modes: none where all of
/// it is private.
pub fn open_to_others(folder: &Path) -> Vec<(String, String)> {
    let files = std::fs::read_dir(folder).unwrap().flatten();
    let modes = files.map(|file| {
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        (file.file_name().to_string_lossy().into_owned(), mode)
    });
    let open = modes.filter(|(_, mode)| mode & 0o077 != 0);
    open.map(|(name, mode)| (name, format!("{mode:o}"))).collect()
}

/// Another program of the workspace, beside the one that cargo has built for a test.
pub fn beside(own: &str, name: &str) -> PathBuf {
    Path::new(own).with_file_name(name)
}

impl Process {
    /// Starts a service, and waits until it says that it listens.
    pub fn start(command: &mut Command) -> Self {
        let (process, listening) = Self::followed(command);
        let listens = listening.recv_timeout(STARTING).is_ok();
        assert!(listens, "it ended, or does not listen:\n{}", process.lines().join("\n"));
        process
    }

    /// Starts a program, and waits for nothing.
    pub fn spawn(command: &mut Command) -> Self {
        Self::followed(command).0
    }

    /// What a program says that refuses to start: it ends by itself, with a failure, and has not listened.
    pub fn refused(command: &mut Command) -> String {
        let (mut process, listening) = Self::followed(command);
        let heard = listening.recv_timeout(STARTING);
        let said = process.lines().join("\n");
        assert_eq!(heard, Err(mpsc::RecvTimeoutError::Disconnected), "it listens:\n{said}");
        assert!(!process.child.wait().unwrap().success(), "it ended well:\n{said}");
        said
    }

    fn followed(command: &mut Command) -> (Self, mpsc::Receiver<()>) {
        let started = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = started.unwrap_or_else(|error| {
            let program = Path::new(command.get_program()).display();
            panic!("{program}: {error}; build it with `cargo build --workspace`")
        });
        let (log, listening) = Log::follow(child.stderr.take().unwrap());
        (Self { child, log }, listening)
    }

    /// An address that it has said under this name.
    pub fn address(&self, name: &str) -> SocketAddr {
        let lines = self.lines();
        let address = lines.iter().find_map(|line| field(line, name)?.parse().ok());
        address.unwrap_or_else(|| panic!("it has not said its {name}:\n{}", lines.join("\n")))
    }

    /// The same as a URL.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}", self.address(name))
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard error so far.
    pub fn lines(&self) -> Vec<String> {
        self.log.lines.lock().unwrap().clone()
    }

    /// The first line with this text, once there is one.
    pub async fn said(&self, text: &str) -> String {
        let found = || self.lines().into_iter().find(|line| line.contains(text));
        let mut count = self.log.count.clone();
        // Neither that it has ended nor that it was silent for long matters, where the line is there.
        let _ = tokio::time::timeout(PATIENCE, count.wait_for(|_| found().is_some())).await;
        found().unwrap_or_else(|| panic!("no line with {text:?}:\n{}", self.lines().join("\n")))
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop, as Kubernetes does.
    pub fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// Waits until it has ended by itself.
    pub async fn exited(mut self) -> ExitStatus {
        until("the process to end", || self.child.try_wait().unwrap()).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Log {
    /// Reads to the end, so that a program that logs never waits for a full pipe. What is given beside the
    /// log hears once the program listens, or is closed when it has ended.
    fn follow(stderr: impl Read + Send + 'static) -> (Self, mpsc::Receiver<()>) {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (counted, count) = watch::channel(0);
        let (listens, listening) = mpsc::channel();
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let begins = line.contains(LISTENS);
                kept.lock().unwrap().push(line);
                counted.send_modify(|count| *count += 1);
                if begins {
                    // Nobody waits for those that were only spawned.
                    let _ = listens.send(());
                }
            }
        });
        (Self { lines, count }, listening)
    }
}

/// What a line of a log says under a name, in either form of the log.
fn field(line: &str, name: &str) -> Option<String> {
    if let Ok(fields) = serde_json::from_str::<Value>(line) {
        return fields.get(name)?.as_str().map(str::to_owned);
    }
    let mut words = line.split_whitespace().filter_map(|word| word.split_once('='));
    words.find(|(word, _)| *word == name).map(|(_, value)| value.to_owned())
}

/// Waits until `condition` gives a value.
pub async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(value) = condition() {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited for {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> Command {
        let mut command = command("sh");
        command.args(["-c", text]);
        command
    }

    #[tokio::test]
    async fn where_a_program_listens_is_read_in_either_form_of_its_log() {
        let mut both = script(
            r#"echo '{"message":"a is listening","grpc":"127.0.0.1:1"}' >&2
               echo 'INFO b is listening address=127.0.0.1:2' >&2; exec sleep 60"#,
        );
        let mut process = Process::start(&mut both);
        assert_eq!(process.url("grpc"), "http://127.0.0.1:1");
        process.said("b is").await;
        assert_eq!(process.address("address").port(), 2);
        process.kill();
    }

    #[tokio::test]
    async fn a_program_ends_when_it_is_asked_to_and_with_whoever_started_it() {
        let process = Process::spawn(&mut script(
            "trap 'exit 3' TERM; echo on >&2; while :; do sleep 0.01; done",
        ));
        process.said("on").await;
        process.terminate();
        assert_eq!(process.exited().await.code(), Some(3));
        let dropped = Process::spawn(&mut script("exec sleep 60"));
        let id = Pid::from_child(&dropped.child);
        drop(dropped);
        assert!(kill_process(id, Signal::TERM).is_err());
    }

    #[test]
    #[should_panic(expected = "no such setting")]
    fn a_program_that_ends_before_it_listens_shows_what_it_said() {
        Process::start(&mut script("echo no such setting >&2"));
    }

    #[test]
    fn no_program_hears_of_settings_of_whoever_runs_the_tests() {
        for ours in ["HITL_DATABASE", "PORT", "DENIAL_FORM", "PGHOST", "RUST_LOG"] {
            assert!(is_foreign(ours), "{ours}");
        }
        for others in ["PATH", "HOME", "RUST_BACKTRACE", "TMPDIR"] {
            assert!(!is_foreign(others), "{others}");
        }
    }
}
