//! Gateways that we did not write, in front of the real gate and the real tool server.
//!
//! The caller is the official Python MCP client; what must come true is in
//! `tests/clients/python/gated.py`. Hostile callers before Envoy are in `hitl-extauth/tests/it/gateway.rs`.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::{
    Outcome, cargo,
    clients::{PYTHON_MAJORS, client_environment},
    install,
    server::{Server, free_address},
};
use crate::workspace::{self, Workspace};

/// The reviewer of the suite, and the SHA-256 of the token below.
const REVIEWERS: &str = "reviewers:
- name: dana
  token_sha256: 0c1826c23ea4794ca971ec1a7ad3fb743873923acf225d41ce926694a0bb150c
";
const TOKEN: &str = "gateway-suite";

/// Names a binary of agentgateway to test behind, too. There is no package of it to install.
const AGENTGATEWAY: &str = "AGENTGATEWAY_BIN";

/// A gateway: its name, its configuration, and how it is started with one.
struct Gateway {
    name: &'static str,
    config: &'static str,
    program: PathBuf,
    args: &'static [&'static str],
}

pub(crate) fn run(workspace: &Workspace) -> Outcome {
    let installed = || -> anyhow::Result<(PathBuf, Vec<PathBuf>)> {
        let envoy = install::envoy(workspace)?;
        let clients = PYTHON_MAJORS.iter().map(|major| client_environment(workspace, major));
        Ok((envoy, clients.collect::<Result<_, _>>()?))
    };
    let (envoy, clients) = match installed() {
        Ok(installed) => installed,
        Err(error) => {
            return Outcome::Skipped(format!(
                "Envoy or its clients cannot be installed: {error:#}"
            ));
        }
    };
    let mut gateways = vec![Gateway {
        name: "Envoy",
        config: "envoy.yaml",
        program: envoy.clone(),
        args: &["--log-level", "warn", "--concurrency", "1", "--use-dynamic-base-id", "-c"],
    }];
    gateways.extend(env::var_os(AGENTGATEWAY).map(|program| Gateway {
        name: "agentgateway",
        config: "agentgateway.yaml",
        program: program.into(),
        args: &["-f"],
    }));
    let played = || -> anyhow::Result<String> {
        let attacks = cargo::with_envoy(workspace, &envoy)?;
        let played = play_all(workspace, &gateways, &clients)?;
        Ok(format!("{played}; {attacks} tests of hostile callers behind Envoy"))
    };
    played().into()
}

fn play_all(
    workspace: &Workspace,
    gateways: &[Gateway],
    clients: &[PathBuf],
) -> anyhow::Result<String> {
    for gateway in gateways {
        for client in clients {
            play(workspace, gateway, client).context(gateway.name)?;
        }
    }
    let names: Vec<_> = gateways.iter().map(|gateway| gateway.name).collect();
    let played = "passed, approved, denied and told to come back, behind";
    Ok(match names.as_slice() {
        [only] => format!("{played} {only}; {AGENTGATEWAY} names no agentgateway"),
        several => format!("{played} {}", several.join(" and ")),
    })
}

fn play(workspace: &Workspace, gateway: &Gateway, python: &Path) -> anyhow::Result<()> {
    let folder = workspace.target().join("gateway-suite");
    // A lab of its own for each client: all begin at schema v2 with nobody waiting.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).context("a folder for the suite")?;
    let path = |name: &str| folder.join(name).display().to_string();
    fs::write(path("reviewers.yaml"), REVIEWERS)?;
    let gate = Server::start(
        workspace,
        "hitl-extauth",
        &[
            "--grpc-listen=127.0.0.1:0",
            "--admin-listen=127.0.0.1:0",
            "--hold=3",
            "--denial-cooldown=0",
            &format!("--database={}", path("gate.db")),
            &format!("--receipt-key={}", path("key.pem")),
            &format!("--reviewers={}", path("reviewers.yaml")),
        ],
    )?;
    let keys = format!("{}/.well-known/jwks.json", gate.url("admin")?);
    let tools = Server::start(
        workspace,
        "mcp-ops-tools",
        &[
            "--listen=127.0.0.1:0",
            &format!("--receipt-keys={keys}"),
            &format!("--database={}", path("orders.db")),
        ],
    )?;
    let listen = free_address()?;
    let template = workspace.path("tests/gateway").join(gateway.config);
    let config = fs::read_to_string(template)?
        .replace("{{LISTEN}}", &listen.port().to_string())
        .replace("{{TOOLS}}", &tools.address("address")?.port().to_string())
        .replace("{{GATE}}", &gate.address("grpc")?.port().to_string());
    fs::write(path("gateway.yaml"), config)?;
    let mut command = workspace.command(&gateway.program);
    command.args(gateway.args).arg(path("gateway.yaml"));
    let _gateway = Server::start_other(&mut command, listen)?;
    let mut client = workspace.command(python);
    client.args(["tests/clients/python/gated.py", &format!("http://{listen}")]);
    workspace::run(client.args([&gate.url("admin")?, TOKEN]))
}
