//! One of our servers, started for a suite.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::workspace::{self, Workspace};

/// A running server; stopped when dropped.
pub(crate) struct Server {
    child: Child,
    /// Where it listens, as `http://address:port`.
    pub(crate) url: String,
}

impl Server {
    /// Builds a binary and starts it on a free port.
    pub(crate) fn start(workspace: &Workspace, name: &str) -> anyhow::Result<Self> {
        // Built now, so that it is never the binary of an earlier day.
        workspace::run(workspace.cargo().args(["build", "--workspace", "--locked", "--quiet"]))?;
        let mut command = workspace.command(workspace.binary(name));
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]);
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
            let line: Value = serde_json::from_str(&line?).context("its log is not JSON")?;
            if let Some(address) = line.get("address").and_then(Value::as_str) {
                let url = format!("http://{address}");
                // Goes on reading, so that the server never waits for a full pipe.
                std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
                return Ok(Self { child, url });
            }
        }
        bail!("{name} ended before it listened")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
