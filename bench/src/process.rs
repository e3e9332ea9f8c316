//! A server as a process: started, asked what it used, stopped.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

/// A running server; stopped when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
    /// When it was started.
    pub(crate) started: Instant,
}

impl Process {
    /// Starts a server that says `address=…` in its first lines, on either output.
    pub(crate) fn start(binary: &Path, args: &[&str]) -> anyhow::Result<Self> {
        let started = Instant::now();
        let mut command = Command::new(binary);
        for (variable, _) in std::env::vars_os() {
            let foreign = ["OPS_TOOLS_", "HITL_", "OTEL_", "LOG_", "RUST_LOG", "PORT"];
            if foreign.iter().any(|prefix| variable.to_string_lossy().starts_with(prefix)) {
                command.env_remove(variable);
            }
        }
        let mut child = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let outputs: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|out| Box::new(out) as Box<dyn Read + Send>),
            child.stderr.take().map(|err| Box::new(err) as Box<dyn Read + Send>),
        ];
        let (found, address) = std::sync::mpsc::channel();
        for output in outputs.into_iter().flatten() {
            let found = found.clone();
            // Goes on reading, so that a server that logs is never held up by a full pipe.
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if let Some(address) = address_in(&line) {
                        // Nobody listens after the first one.
                        let _ = found.send(address);
                    }
                }
            });
        }
        drop(found);
        let address = address
            .recv_timeout(Duration::from_secs(30))
            .with_context(|| format!("{} did not say where it listens", binary.display()))?;
        Ok(Self { child, address, started })
    }

    /// CPU time used so far, by all threads.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = self.proc("stat")?;
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        let ticks: u64 = fields
            .split(' ')
            .skip(11)
            .take(2)
            .map(str::parse::<u64>)
            .sum::<Result<_, _>>()
            .context("/proc stat")?;
        Ok(Duration::from_micros(ticks * 1_000_000 / rustix::param::clock_ticks_per_second()))
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        let status = self.proc("status")?;
        for line in status.lines() {
            if let Some(value) = line.strip_prefix("VmRSS:") {
                return Ok(value.trim().trim_end_matches(" kB").parse()?);
            }
        }
        bail!("/proc status has no VmRSS")
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        fs::read_to_string(&path).with_context(|| format!("{path} (is this Linux?)"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("address=")?;
    rest.split_whitespace().next()?.parse().ok()
}
