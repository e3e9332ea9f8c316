//! The lab on this machine: what it is made of, where its things are, and what of it is up.
//!
//! Owns `target/lab/`. Must never end a process that it did not start.

mod logs;
mod ports;
mod process;
mod services;
mod up;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use self::process::Running;
pub(crate) use self::{
    logs::{LogsArgs, logs},
    up::{UpArgs, up},
};
use crate::workspace::{self, Workspace};

/// Longest that a service may take to answer a look at it.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is said where no lab is up, with what to type.
const NOTHING: &str = "Nothing is up. `cargo xtask up` brings the lab up on kind, `cargo xtask up --local` on this machine, without Docker.";

/// The lab's folder, and what is written down in it.
pub(crate) struct Lab {
    folder: PathBuf,
}

/// What is up, as it was written down.
pub(crate) struct Up {
    /// The processes, in the order they were started.
    pub(crate) running: Vec<Running>,
    /// Addresses and what else there is to know, by name.
    pub(crate) facts: Value,
}

impl Lab {
    /// The lab of this checkout; `HITL_LAB` names another folder for another lab beside it.
    pub(crate) fn of(workspace: &Workspace) -> Self {
        let other = std::env::var_os("HITL_LAB").map(PathBuf::from);
        Self { folder: other.unwrap_or_else(|| workspace.target().join("lab")) }
    }

    /// A lab in a folder of a test's own.
    #[cfg(test)]
    pub(crate) fn at(folder: &std::path::Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes down what is up, for `status`, `teardown` and `scenes`; a token is in it.
    fn write_down(&self, up: &Up) -> anyhow::Result<()> {
        let running: Vec<_> = up.running.iter().map(Running::written).collect();
        let text = json!({"running": running, "facts": up.facts}).to_string();
        services::write_private(&self.path("up.json"), &text)
    }

    /// What is written down as being up; nothing where nothing is.
    pub(crate) fn read(&self) -> Option<Up> {
        let text = fs::read_to_string(self.path("up.json")).ok()?;
        let mut written: Value = serde_json::from_str(&text).ok()?;
        let running = written.get("running")?.as_array()?;
        let running = running.iter().filter_map(Running::read).collect();
        Some(Up { running, facts: written.get_mut("facts")?.take() })
    }

    fn forget(&self) {
        // One that is not there needs no removing.
        let _ = fs::remove_file(self.path("up.json"));
    }
}

impl Up {
    /// A fact by its name.
    pub(crate) fn fact(&self, name: &str) -> String {
        self.facts.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// Ends everything, the last first.
    fn stop(&self) {
        for running in self.running.iter().rev() {
            running.stop();
        }
    }
}

/// Says what of the lab is up.
pub(crate) fn status(workspace: &Workspace) -> ExitCode {
    let lab = Lab::of(workspace);
    let Some(up) = lab.read() else {
        println!("{NOTHING}");
        return ExitCode::FAILURE;
    };
    let mut all = true;
    for running in &up.running {
        let alive = running.is_alive();
        let answers = alive && running.answers();
        all &= answers;
        let word = match (alive, answers) {
            (true, true) => "up",
            (true, false) => "SILENT",
            (false, _) => "GONE",
        };
        println!("{word:<7} {:<16} {}", running.name, running.address);
        if !answers {
            print!("{}", running.last_lines());
        }
    }
    println!("\n{}", up.fact("screen"));
    if all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Ends what was started.
pub(crate) fn teardown(workspace: &Workspace) -> ExitCode {
    let lab = Lab::of(workspace);
    match lab.read() {
        None => println!(
            "{NOTHING} A cluster of a lab that is not known here any more: `cargo xtask teardown --name NAME`."
        ),
        Some(up) => {
            up.stop();
            lab.forget();
            println!("Stopped. Data and logs are kept in {}.", lab.folder.display());
        }
    }
    ExitCode::SUCCESS
}

/// How to play the scenes
#[derive(Args)]
pub(crate) struct ScenesArgs {
    /// Walk a person through them in the browser instead
    #[arg(long)]
    guide: bool,

    /// The agent to play with: in the lab on kind there are three, and all are played unless one is named
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
}

/// The only agent of the lab on this machine.
const AGENT: &str = "dba-assistant";

/// Plays the scenes against what is up.
pub(crate) fn scenes(workspace: &Workspace, args: &ScenesArgs) -> anyhow::Result<ExitCode> {
    let Some(up) = Lab::of(workspace).read() else {
        bail!("{NOTHING}");
    };
    if let Some(agent) = args.agent.as_ref().filter(|agent| *agent != AGENT) {
        bail!("no agent {agent:?} is in the lab on this machine; there is {AGENT}");
    }
    let mut command = workspace.command(workspace.binary("lab"));
    command.args(["scenes", "--agent", &up.fact("agent"), "--gate", &up.fact("gate")]);
    command.args(["--tools", &up.fact("tools"), "--chat", &up.fact("chat")]);
    // Not on a command line, which everybody on this machine can read.
    command.env("HITL_QUEUE", up.fact("queue")).env("HITL_TOKEN", up.fact("token"));
    if args.guide {
        command.arg("--guide");
    }
    let status = command.status().with_context(|| workspace::shown(&command))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What there is to say of a lab without boundaries, or of none.
pub(crate) fn doctor(workspace: &Workspace) -> anyhow::Result<ExitCode> {
    if Lab::of(workspace).read().is_none() {
        bail!("{NOTHING}");
    }
    bail!(
        "the doctor looks for ways past the gate on kind: the lab on this machine has no boundaries to look at. \
         `cargo xtask teardown`, and then `cargo xtask up`, brings one up that has"
    );
}

/// The status with which a path is answered; none where nothing answers.
fn get(address: SocketAddr, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    // "HTTP/1.1 200".
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).ok()?;
    std::str::from_utf8(&begin).ok()?.split(' ').nth(1)?.parse().ok()
}
