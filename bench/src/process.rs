//! A server as a process: started, asked what it used, stopped.

use std::{
    collections::HashMap,
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
    addresses: HashMap<&'static str, SocketAddr>,
    /// When it was started.
    pub(crate) started: Instant,
}

impl Process {
    /// Starts a server that says in one line, on either output, where it listens: `field=…` for
    /// each of these fields.
    pub(crate) fn start(
        binary: &Path,
        args: &[&str],
        fields: &'static [&'static str],
    ) -> anyhow::Result<Self> {
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
        let (found, addresses) = std::sync::mpsc::channel();
        for output in outputs.into_iter().flatten() {
            let found = found.clone();
            // Goes on reading, so that a server that logs is never held up by a full pipe.
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let found_in = |field: &&'static str| Some((*field, address_in(&line, field)?));
                    if let Some(addresses) = fields.iter().map(found_in).collect::<Option<_>>() {
                        // Nobody listens after the first one.
                        let _ = found.send(addresses);
                    }
                }
            });
        }
        drop(found);
        let addresses = addresses
            .recv_timeout(Duration::from_secs(30))
            .with_context(|| format!("{} did not say where it listens", binary.display()))?;
        Ok(Self { child, addresses, started })
    }

    /// Where it listens, by the field it said that in.
    pub(crate) fn address(&self, field: &str) -> anyhow::Result<SocketAddr> {
        self.addresses.get(field).copied().with_context(|| format!("it did not say its {field}"))
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

fn address_in(line: &str, field: &str) -> Option<SocketAddr> {
    line.split_whitespace().find_map(|word| {
        let (name, address) = word.split_once('=')?;
        (name == field).then(|| address.parse().ok())?
    })
}
