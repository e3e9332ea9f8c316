//! One of our servers, started for a suite.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::workspace::Workspace;

/// A running server; stopped when dropped.
pub(crate) struct Server {
    child: Child,
    /// Where it listens, as `http://address:port`.
    pub(crate) url: String,
}

impl Server {
    /// Starts a binary that the Rust suite has built, on a free port.
    pub(crate) fn start(workspace: &Workspace, name: &str) -> anyhow::Result<Self> {
        let binary = workspace.binary(name);
        if !binary.is_file() {
            bail!("{} is not built; run the suite `rust` first", binary.display());
        }
        let mut command = workspace.command(&binary);
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]).env_remove("PORT");
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
