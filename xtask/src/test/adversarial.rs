//! Hostile input, held against the real gate and against programs of other projects: JSON readers,
//! MCP servers, and Envoy in front of them.
//!
//! Invariant: a suite without one of the programs is skipped, never shortened.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::{
    Outcome,
    clients::{PYTHON_MAJORS, client_environment},
    install::{self, go_program, npm_packages},
    server::{Server, free_address},
};
use crate::workspace::{self, Workspace};

/// Where the servers are.
const SERVERS: &str = "tests/adversarial/servers";

/// Where the JSON readers are.
const READERS: &str = "tests/adversarial/readers";

/// How much is generated.
struct Length {
    /// Texts for the JSON readers.
    texts: usize,
    /// Requests for the gate and the servers.
    requests: usize,
    /// Requests through each Envoy, beside the corpus.
    behind_envoy: usize,
}

const ORDINARY: Length = Length { texts: 50_000, requests: 20_000, behind_envoy: 200 };
const SOAK: Length = Length { texts: 1_000_000, requests: 1_000_000, behind_envoy: 10_000 };

/// Programs of other projects.
struct Programs {
    pythons: Vec<PathBuf>,
    typescript: PathBuf,
    go: PathBuf,
    envoy: PathBuf,
}

impl Programs {
    fn install(workspace: &Workspace) -> anyhow::Result<Self> {
        let pythons = PYTHON_MAJORS.iter().map(|major| client_environment(workspace, major));
        Ok(Self {
            pythons: pythons.collect::<Result<_, _>>()?,
            typescript: typescript(workspace)?,
            go: go_program(workspace, "go-server", &format!("{SERVERS}/go"), &["server.go"])?,
            envoy: install::envoy(workspace)?,
        })
    }
}

/// A running server: the kind it is counted as, and the paths it serves.
struct Running {
    kind: &'static str,
    paths: &'static [&'static str],
    server: Server,
}

pub(crate) fn run(workspace: &Workspace) -> Outcome {
    let length = if workspace.soak() { &SOAK } else { &ORDINARY };
    let programs = match Programs::install(workspace) {
        Ok(programs) => programs,
        Err(error) => {
            return Outcome::Skipped(format!("the servers cannot be installed: {error:#}"));
        }
    };
    let all = || {
        let folder = workspace.target().join("adversarial");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).context("a folder for the suite")?;
        workspace::run(workspace.cargo().args(["build", "--workspace", "--locked", "--quiet"]))?;
        differential(workspace, &folder, length)?;
        compare(workspace, &programs, &folder, length)?;
        readings(workspace, &programs, &folder, length)?;
        Ok(format!(
            "{} texts, {} requests, and {} through each Envoy beside the corpus: what ran was shown \
             and signed",
            length.texts, length.requests, length.behind_envoy
        ))
    };
    all().into()
}

/// The TypeScript server beside its packages, where Node looks for them.
fn typescript(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let source = format!("{SERVERS}/typescript");
    let folder = npm_packages(workspace, "typescript-server", &source, &["server.mjs"])?;
    Ok(folder.join("server.mjs"))
}

fn start_servers(workspace: &Workspace, programs: &Programs) -> anyhow::Result<Vec<Running>> {
    let mut running = Vec::new();
    let mut start = |kind, paths, command: &mut Command| -> anyhow::Result<()> {
        running.push(Running { kind, paths, server: Server::start_saying(command)? });
        Ok(())
    };
    for python in &programs.pythons {
        let mut command = workspace.command(python);
        command.arg(workspace.path(SERVERS).join("python_server.py"));
        start("python", &["mcp"], &mut command)?;
    }
    let mut node = workspace.command("node");
    start("typescript", &["mcp", "express"], node.arg(&programs.typescript))?;
    // One process for each SDK: each is a kind of its own and gets every case.
    start("go", &["mcp"], &mut workspace.command(&programs.go))?;
    start("go-sdk", &["official"], &mut workspace.command(&programs.go))?;
    Ok(running)
}

/// The strict JSON reader beside Python's and JavaScript's.
fn differential(workspace: &Workspace, folder: &Path, length: &Length) -> anyhow::Result<()> {
    let mut differential = workspace.command(workspace.binary("hitl-adversarial"));
    differential.args(["differential", "--texts", &length.texts.to_string()]);
    for (program, script) in [("python3", "reader.py"), ("node", "reader.mjs")] {
        differential.arg(format!("--reader={program}={READERS}/{script}"));
    }
    workspace::run(differential.arg("--keep").arg(folder.join("read-differently")))
}

/// The gate and the servers, side by side.
fn compare(
    workspace: &Workspace,
    programs: &Programs,
    folder: &Path,
    length: &Length,
) -> anyhow::Result<()> {
    let gate = gate(
        workspace,
        &folder.join("gate.db"),
        // A held call is answered at once, and next to nothing of it is kept.
        &["--hold=0", "--max-pending=1"],
    )?;
    let servers = start_servers(workspace, programs)?;
    let mut compare = workspace.command(workspace.binary("hitl-adversarial"));
    compare.args(["compare", "--gate", &gate.url("grpc")?]);
    compare.args(["--cases", &length.requests.to_string()]);
    compare.arg("--keep").arg(folder.join("differences"));
    for Running { kind, paths, server } in &servers {
        for path in *paths {
            compare.arg(format!("--server={kind}={}/{path}", server.address("address")?));
        }
    }
    workspace::run(&mut compare)
}

/// The servers behind Envoy and the gate, as the gateway suite configures them.
fn readings(
    workspace: &Workspace,
    programs: &Programs,
    folder: &Path,
    length: &Length,
) -> anyhow::Result<()> {
    let gate = gate(
        workspace,
        &folder.join("readings.db"),
        // Each request is a requester's own, so that no two calls share an approval.
        &["--hold=60", "--requester-from=header:x-case"],
    )?;
    let servers = start_servers(workspace, programs)?;
    let mut readings = workspace.command(workspace.binary("hitl-adversarial"));
    readings.args(["readings", "--admin", &gate.address("admin")?.to_string()]);
    readings.args(["--cases", &length.behind_envoy.to_string()]);
    readings.arg("--corpus").arg(workspace.path("tests/adversarial/corpus"));
    readings.arg("--keep").arg(folder.join("read-three-ways"));
    let template = fs::read_to_string(workspace.path("tests/gateway/envoy.yaml"))?;
    let mut envoys = Vec::new();
    for (number, Running { kind, paths, server }) in servers.iter().enumerate() {
        let (listen, server) = (free_address()?, server.address("address")?);
        let config = template
            .replace("{{LISTEN}}", &listen.port().to_string())
            .replace("{{TOOLS}}", &server.port().to_string())
            .replace("{{GATE}}", &gate.address("grpc")?.port().to_string());
        let file = folder.join(format!("envoy-{number}.yaml"));
        fs::write(&file, config)?;
        let mut envoy = workspace.command(&programs.envoy);
        envoy.args(["--log-level", "error", "--concurrency", "1", "--use-dynamic-base-id", "-c"]);
        envoys.push(Server::start_other(envoy.arg(&file), listen)?);
        for path in *paths {
            readings.arg(format!("--door={kind}={listen}/{server}/{path}"));
        }
    }
    workspace::run(&mut readings)
}

fn gate(workspace: &Workspace, database: &Path, args: &[&str]) -> anyhow::Result<Server> {
    let database = format!("--database={}", database.display());
    let common = ["--grpc-listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", &database];
    Server::start(
        workspace,
        "hitl-extauth",
        &[&common[..], &["--insecure-no-reviewer-auth"], args].concat(),
    )
}
