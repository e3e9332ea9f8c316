//! A program that was started, and ends with whoever started it.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use tokio::{
    process::{Child, Command},
    time::sleep,
};

/// Longest that a program may take until it answers. Python's take their time on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// How often it is looked again.
const AGAIN: Duration = Duration::from_millis(2);

/// Lines of a log that are shown when something is wrong.
const LAST_LINES: usize = 12;

/// Variables of whoever runs this that no program should hear of.
const FOREIGN: [&str; 17] = [
    "ANTHROPIC_",
    "DBA_",
    "HITL_",
    "KAGENT_",
    "LOG_",
    "OPS_TOOLS_",
    "OTEL_",
    "PORT",
    "PYTHON",
    "RUST_LOG",
    // A test's chats go to no recorder of its developer.
    "LANGCHAIN_",
    "LANGSMITH_",
    // Nor through anything else to loopback.
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "http_proxy",
    "https_proxy",
];

/// A running program.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
    /// From its start until it answered first.
    pub took: Duration,
}

/// A command that inherits none of the settings of whoever runs this.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if FOREIGN.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// An address on loopback that nobody listens on now.
///
/// # Errors
/// When there is none.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl Process {
    /// Starts a command with its log in `folder`, and waits until `ready` answers a GET with a
    /// success, or its port accepts connections where there is no path.
    ///
    /// # Errors
    /// When it ends before, or does not answer in time.
    pub async fn start(
        mut command: Command,
        name: &str,
        folder: &Path,
        address: SocketAddr,
        ready: Option<&str>,
    ) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).kill_on_drop(true);
        let begun = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let mut process = Self { child, name: name.to_owned(), log, took: Duration::ZERO };
        let http = hitl_client::plain_http()?;
        loop {
            let answers = match ready {
                Some(path) => {
                    let answer = http.get(format!("http://{address}{path}")).send().await;
                    answer.is_ok_and(|answer| answer.status().is_success())
                }
                None => tokio::net::TcpStream::connect(address).await.is_ok(),
            };
            if answers {
                process.took = begun.elapsed();
                return Ok(process);
            }
            if let Some(status) = process.child.try_wait()? {
                bail!("{name} ended ({status}) before it answered:\n{}", process.last_lines());
            }
            if begun.elapsed() > PATIENCE {
                bail!("{name} does not answer at {address}:\n{}", process.last_lines());
            }
            sleep(AGAIN).await;
        }
    }

    /// Kills it, and waits until it is gone.
    pub async fn kill(mut self) {
        // An error means that it is gone already.
        let _ = self.child.kill().await;
    }

    /// Resident memory, in KiB.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn resident(&self) -> anyhow::Result<u64> {
        let pid = self.child.id().context("it has ended")?;
        let path = format!("/proc/{pid}/status");
        let status =
            fs::read_to_string(&path).with_context(|| format!("{path} (is this Linux?)"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let value = line.with_context(|| format!("{path} has no VmRSS"))?;
        Ok(value.trim().trim_end_matches(" kB").parse()?)
    }

    /// The end of its log.
    pub fn last_lines(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(LAST_LINES);
        let last = lines.get(from..).unwrap_or_default();
        format!("    the end of the log of {}:\n    {}", self.name, last.join("\n    "))
    }
}
