//! Our servers and other people's, started for a suite.

use std::{
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::workspace::{self, Workspace, shown};

/// Longest a server may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running process; stopped when dropped.
pub(crate) struct Server {
    child: Child,
    /// What it said when it began to listen: the fields of that line of its log.
    listening: Value,
}

impl Server {
    /// Builds one of our servers and starts it. `args` must let it choose its own ports.
    pub(crate) fn start(workspace: &Workspace, name: &str, args: &[&str]) -> anyhow::Result<Self> {
        // Built now, so that it is never the binary of an earlier day.
        workspace::run(workspace.cargo().args(["build", "--workspace", "--locked", "--quiet"]))?;
        let mut command = workspace.command(workspace.binary(name));
        command.args(["--log-format", "json"]).args(args);
        // Nothing of this machine's settings.
        for (variable, _) in std::env::vars_os() {
            let foreign = ["OPS_TOOLS_", "HITL_", "OTEL_", "LOG_", "RUST_LOG", "PORT"];
            if foreign.iter().any(|prefix| variable.to_string_lossy().starts_with(prefix)) {
                command.env_remove(variable);
            }
        }
        let mut child = command.stderr(Stdio::piped()).spawn().context("cannot start it")?;
        let mut lines = BufReader::new(child.stderr.take().context("it has no log")?).lines();
        for line in lines.by_ref() {
            let line = line?;
            let listening: Value = serde_json::from_str(&line)
                .with_context(|| format!("{name} ended before it listened: {line}"))?;
            if ["address", "admin"].iter().any(|field| listening.get(field).is_some()) {
                // Goes on reading, so that the server never waits for a full pipe.
                std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
                return Ok(Self { child, listening });
            }
        }
        bail!("{name} ended before it listened")
    }

    /// Starts a server that is not ours and says `listening address=…` on its output.
    pub(crate) fn start_saying(command: &mut Command) -> anyhow::Result<Self> {
        println!("$ {}", shown(command));
        let mut child = command.stdout(Stdio::piped()).spawn();
        let child_output = child.as_mut().ok().and_then(|child| child.stdout.take());
        let child = child.with_context(|| format!("cannot start {}", shown(command)))?;
        let mut server = Self { child, listening: Value::Null };
        let mut lines = BufReader::new(child_output.context("it has no output")?).lines();
        for line in lines.by_ref() {
            if let Some((_, address)) = line?.split_once("listening address=") {
                server.listening = serde_json::json!({"address": address});
                std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
                return Ok(server);
            }
        }
        bail!("`{}` ended before it listened", shown(command))
    }

    /// Starts somebody else's server and waits until it listens.
    pub(crate) fn start_other(command: &mut Command, address: SocketAddr) -> anyhow::Result<Self> {
        println!("$ {}", shown(command));
        let child = command.spawn().with_context(|| format!("cannot start {}", shown(command)))?;
        let mut server = Self { child, listening: Value::Null };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("`{}` ended ({status}) before it listened", shown(command));
            }
            if begun.elapsed() > PATIENCE {
                bail!("`{}` does not listen on {address}", shown(command));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// An address it said, by the name of the field.
    pub(crate) fn address(&self, field: &str) -> anyhow::Result<SocketAddr> {
        let address = self.listening.get(field).and_then(Value::as_str);
        Ok(address.with_context(|| format!("it did not say its {field}"))?.parse()?)
    }

    /// The same as a URL.
    pub(crate) fn url(&self, field: &str) -> anyhow::Result<String> {
        Ok(format!("http://{}", self.address(field)?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address on loopback that nobody listens on now, for programs that cannot choose one.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
