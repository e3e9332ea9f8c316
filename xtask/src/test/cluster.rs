//! The whole lab on a real kind cluster, behind a plain Envoy and with the Rust agent's chat, so that
//! nothing has to be pulled: up, status, every object before the API server, scenes, doctor, up again,
//! teardown.
//!
//! Must never leave a cluster behind, and never touch one that it has not made.

mod machine;
mod objects;
mod schemas;

use std::{fs, net::TcpListener, path::PathBuf, process::Command, time::Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use self::machine::Machine;
use super::Outcome;
use crate::workspace::{self, Workspace};

/// The cluster of the suite.
const NAME: &str = "hitl-test";

/// Longest that an `up` of a lab that is up may take, in seconds. It takes a few; the rest is for a
/// machine that does other things, too.
const AGAIN: f64 = 20.0;

pub(crate) fn run(workspace: &Workspace) -> Outcome {
    match Machine::find(workspace) {
        Ok(Some(machine)) => Suite { workspace, machine: &machine }.play().into(),
        Ok(None) => Outcome::Elsewhere(
            "this machine runs no cluster: kind, helm, kubectl and a running Docker are needed"
                .to_owned(),
        ),
        Err(error) => Outcome::Elsewhere(format!("this machine runs no cluster: {error:#}")),
    }
}

/// The suite, and what it runs on.
struct Suite<'a> {
    workspace: &'a Workspace,
    machine: &'a Machine,
}

impl Suite<'_> {
    fn play(&self) -> anyhow::Result<String> {
        // Both programs, as `cargo xtask` builds them.
        workspace::run(self.workspace.cargo().args(["build", "--workspace", "--locked"]))?;
        let ports = ports()?;
        // One that an interrupted run has left is ours.
        workspace::run(&mut self.xtask(&["teardown", "--yes", "--name", NAME]))?;
        let played = self.lab(&ports);
        let ended = workspace::run(&mut self.xtask(&["teardown", "--yes"]));
        let said = played?;
        ended?;
        // Once more: nothing is there, and that is fine.
        workspace::run(&mut self.xtask(&["teardown", "--yes", "--name", NAME]))?;
        let left = workspace::output(&mut self.tool("kind", &["get", "clusters"]))?;
        ensure!(
            !left.lines().any(|line| line.trim() == NAME),
            "teardown has left the cluster {NAME}"
        );
        Ok(said)
    }

    fn lab(&self, ports: &[String]) -> anyhow::Result<String> {
        let begun = Instant::now();
        let first = self.up(ports)?;
        let took = begun.elapsed();
        ensure!(
            first.contains("cluster hitl-test created"),
            "it says nothing of a new cluster:\n{first}"
        );
        workspace::run(&mut self.xtask(&["status"]))?;
        let status = workspace::output(&mut self.xtask(&["status", "--json"]))?;
        let status: Value = serde_json::from_str(&status).context("status --json")?;
        ensure!(status.get("healthy") == Some(&Value::Bool(true)), "not healthy: {status}");

        let accepted = objects::accepted(self)?;
        for (release, namespace) in [
            ("hitl", "hitl"),
            ("mcp-ops-tools", "ops-tools"),
            ("hitl-gateway", "hitl-gateway"),
            ("dba-assistant", "dba-assistant"),
        ] {
            let test = ["test", release, "--namespace", namespace, "--timeout", "2m"];
            workspace::run(&mut self.tool("helm", &test))?;
        }
        // Twice: the second time on what the first has left.
        workspace::run(&mut self.xtask(&["scenes"]))?;
        workspace::run(&mut self.xtask(&["scenes"]))?;
        let doctor = self.doctor()?;

        let begun = Instant::now();
        let again = self.up(ports)?;
        let second = begun.elapsed();
        ensure!(again.contains("Changed: nothing."), "a second up changes something:\n{again}");
        ensure!(second.as_secs_f64() < AGAIN, "a second up takes {:.1} s", second.as_secs_f64());
        Ok(format!(
            "up in {:.0} s, {accepted} objects accepted, four scenes twice, {doctor}, up again in {:.1} s with nothing changed, down",
            took.as_secs_f64(),
            second.as_secs_f64()
        ))
    }

    /// `doctor`, which must find nothing wrong. Where the network enforces nothing, it must notice that the
    /// gate's checks are reached, and nothing else.
    fn doctor(&self) -> anyhow::Result<&'static str> {
        if self.machine.enforces {
            workspace::run(&mut self.xtask(&["doctor"]))?;
            return Ok("doctor");
        }
        let mut doctor = self.xtask(&["doctor"]);
        println!("$ {}", workspace::shown(&doctor));
        let output = doctor.output().context("doctor")?;
        let said = String::from_utf8_lossy(&output.stdout);
        println!("{said}");
        let wrong: Vec<_> = said.lines().filter(|line| line.starts_with("WRONG")).collect();
        let noticed =
            matches!(wrong.as_slice(), [only] if only.contains("they reach the gate's checks"));
        ensure!(
            noticed && !output.status.success(),
            "the network here enforces no NetworkPolicies, and doctor finds this: {wrong:?}"
        );
        Ok("doctor (the network here enforces no NetworkPolicies, which it noticed)")
    }

    /// `up`, with what it said.
    fn up(&self, ports: &[String]) -> anyhow::Result<String> {
        let mut up = self.xtask(&["up", "--name", NAME, "--gateway", "envoy", "--skip", "kagent"]);
        up.args(ports).args(&self.machine.options);
        println!("$ {}", workspace::shown(&up));
        let said = workspace::output(&mut up)?;
        println!("{said}");
        Ok(said)
    }

    /// The one that the build leaves behind, which may have replaced this very program.
    fn xtask(&self, words: &[&str]) -> Command {
        let mut command = self.workspace.command(self.workspace.binary("xtask"));
        command.args(words).env("HITL_LAB", self.folder()).env("PATH", &self.machine.path);
        // Kind writes to it, and a person's own is none of this suite's business.
        command.env("KUBECONFIG", self.folder().join("kubeconfig-of-kind"));
        command.env_remove("ANTHROPIC_API_KEY");
        command
    }

    /// A tool, on the suite's cluster.
    fn tool(&self, program: &str, words: &[&str]) -> Command {
        let mut command = self.workspace.command(self.machine.program(program));
        command.args(words).env("PATH", &self.machine.path);
        command.env("KUBECONFIG", self.folder().join("cluster/kubeconfig"));
        command
    }

    fn folder(&self) -> PathBuf {
        let folder = self.workspace.target().join("cluster-test");
        // One that cannot be made is noticed by whoever writes into it.
        let _ = fs::create_dir_all(&folder);
        folder
    }
}

/// Free ports, as options; all at once, so that none is chosen twice.
fn ports() -> anyhow::Result<Vec<String>> {
    let flags = ["chat", "queue", "tools", "gateway"];
    let held: Vec<_> =
        flags.iter().map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let port = |(flag, listener): (&&str, &TcpListener)| match listener.local_addr() {
        Ok(address) => Ok(format!("--{flag}-port={}", address.port())),
        Err(error) => bail!("no port for {flag}: {error}"),
    };
    flags.iter().zip(&held).map(port).collect()
}
