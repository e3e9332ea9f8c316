//! Everything around an agent: the real gate, the real tools, a real gateway; the scripted model, and
//! a stand-in for kagent's controller.
//!
//! Gate and tools are new for each conversation; what came before is no part of it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use axum::{Router, serve::ListenerExt as _};
use reqwest::Url;

use crate::{
    agents::{Agent, Surroundings},
    controller::Controller,
    process::{Process, command, free_address},
    script::Conversation,
    wire::{Up, Wire},
};

/// The reviewer of the stage, with the SHA-256 of the token below.
const REVIEWERS: &str = "reviewers:
- name: dana
  token_sha256: 5c0dc939187d4ae4bdb6abd314825f9f524c45c140b6e929ab93708e94b4f25f
";
const TOKEN: &str = "conversations";

/// Seconds that the gate holds a call, unless a conversation says otherwise.
const HOLD: u32 = 30;

/// Where a conversation is had.
#[derive(Clone, Debug)]
pub struct Place {
    /// The agent.
    pub agent: Url,
    /// The gate's admin API.
    pub gate: Url,
    /// The tool server.
    pub tools: Url,
    /// kagent's controller, where it is known.
    pub controller: Option<Url>,
    /// A reviewer's token.
    pub token: String,
    /// What can be cut before the gateway, where there is such a thing.
    pub wire: Option<Wire>,
}

/// A stage for one agent.
pub struct Stage {
    bin: PathBuf,
    envoy: PathBuf,
    agent: Agent,
    around: Surroundings,
    addresses: Addresses,
    wire: Wire,
    running: Running,
}

/// Where everything listens, also after it was started again.
struct Addresses {
    agent: SocketAddr,
    gateway: SocketAddr,
    checks: SocketAddr,
    admin: SocketAddr,
    tools: SocketAddr,
    controller: SocketAddr,
}

#[derive(Default)]
struct Running {
    agent: Option<Process>,
    gateway: Option<Process>,
    wire: Option<Up>,
    gate: Option<Process>,
    tools: Option<Process>,
}

/// Serves a router on loopback for as long as this process lives.
///
/// # Errors
/// When there is no port to be had.
pub async fn serve(router: Router) -> anyhow::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    // As our services do: else the end of a short stream waits for the reader's acknowledgement.
    let listener = listener.tap_io(|stream| {
        // An error means that it is gone already.
        let _ = stream.set_nodelay(true);
    });
    tokio::spawn(async { axum::serve(listener, router).await });
    Ok(address)
}

fn url(address: SocketAddr) -> anyhow::Result<Url> {
    Ok(format!("http://{address}/").parse()?)
}

impl Stage {
    /// A stage for an agent: its binaries are in `bin`, its logs and databases go to `folder`.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn set(
        root: &Path,
        bin: &Path,
        envoy: &Path,
        folder: &Path,
        agent: Agent,
    ) -> anyhow::Result<Self> {
        let folder = folder.join(agent.kind.id());
        // One that is not there needs no removing.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let addresses = Addresses {
            agent: free_address()?,
            gateway: free_address()?,
            checks: free_address()?,
            admin: free_address()?,
            tools: free_address()?,
            controller: serve(Controller::default().router()).await?,
        };
        // Agents reach the gateway through this.
        let wired = free_address()?;
        let wire = Wire::new(wired, addresses.gateway);
        let model = serve(scripted_model::routes::router()).await?;
        let around = Surroundings {
            root: root.to_owned(),
            gateway: format!("http://{wired}"),
            model: format!("http://{model}"),
            controller: format!("http://{}", addresses.controller),
            folder,
        };
        let (bin, envoy) = (bin.to_owned(), envoy.to_owned());
        let running = Running::default();
        let mut stage = Self { bin, envoy, agent, around, addresses, wire, running };
        stage.gateway_up().await?;
        stage.agent_up().await?;
        Ok(stage)
    }

    /// New gate, new tools: as a conversation wants them.
    ///
    /// # Errors
    /// When they do not start.
    pub async fn begin(&mut self, conversation: &Conversation) -> anyhow::Result<Place> {
        for process in [self.running.gate.take(), self.running.tools.take()].into_iter().flatten() {
            process.kill().await;
        }
        let path = |name: &str| self.around.folder.join(name);
        for file in ["gate.db", "gate.db-wal", "gate.db-shm"] {
            // One that is not there needs no removing.
            let _ = fs::remove_file(path(file));
        }
        fs::write(path("reviewers.yaml"), REVIEWERS)?;
        let Addresses { checks, admin, tools, .. } = self.addresses;
        let mut gate = command(&self.bin.join("hitl-extauth"));
        gate.arg(format!("--grpc-listen={checks}")).arg(format!("--admin-listen={admin}"));
        gate.arg(format!("--hold={}", conversation.hold.unwrap_or(HOLD)));
        gate.arg(format!("--database={}", path("gate.db").display()));
        gate.arg(format!("--receipt-key={}", path("key.pem").display()));
        gate.arg(format!("--reviewers={}", path("reviewers.yaml").display()));
        let folder = &self.around.folder;
        let gate = Process::start(gate, "gate", folder, admin, Some("/readyz")).await?;
        self.running.gate = Some(gate);
        let mut server = command(&self.bin.join("mcp-ops-tools"));
        server.arg(format!("--listen={tools}"));
        server.arg(format!("--receipt-keys=http://{admin}/.well-known/jwks.json"));
        let server = Process::start(server, "tools", folder, tools, Some("/healthz")).await?;
        self.running.tools = Some(server);
        self.gateway_up().await?;
        Ok(Place {
            agent: url(self.addresses.agent)?,
            gate: url(admin)?,
            tools: url(tools)?,
            controller: Some(url(self.addresses.controller)?),
            token: TOKEN.to_owned(),
            wire: Some(self.wire.clone()),
        })
    }

    /// Starts the gateway where there is none, and lets it be reached.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn gateway_up(&mut self) -> anyhow::Result<()> {
        if self.running.gateway.is_none() {
            self.start_gateway().await?;
        }
        if self.running.wire.is_none() {
            self.running.wire = Some(self.wire.up().await?);
        }
        Ok(())
    }

    async fn start_gateway(&mut self) -> anyhow::Result<()> {
        let template = self.around.root.join("tests/gateway/envoy.yaml");
        let config =
            fs::read_to_string(&template).with_context(|| template.display().to_string())?;
        let Addresses { gateway, checks, tools, .. } = self.addresses;
        let config = config
            .replace("{{LISTEN}}", &gateway.port().to_string())
            .replace("{{TOOLS}}", &tools.port().to_string())
            .replace("{{GATE}}", &checks.port().to_string());
        let path = self.around.folder.join("envoy.yaml");
        fs::write(&path, config)?;
        let mut envoy = command(&self.envoy);
        envoy.args(["--log-level", "warn", "--concurrency", "1", "--use-dynamic-base-id", "-c"]);
        envoy.arg(&path);
        let envoy = Process::start(envoy, "envoy", &self.around.folder, gateway, None).await?;
        self.running.gateway = Some(envoy);
        Ok(())
    }

    /// Stops the gateway.
    pub async fn gateway_down(&mut self) {
        self.unreachable();
        if let Some(gateway) = self.running.gateway.take() {
            gateway.kill().await;
        }
    }

    /// Lets the gateway go on, and refuses connections to it.
    pub fn unreachable(&mut self) {
        drop(self.running.wire.take());
        self.wire.cut();
    }

    async fn agent_up(&mut self) -> anyhow::Result<()> {
        let agent = self.agent.start(&self.around, self.addresses.agent).await?;
        self.running.agent = Some(agent);
        Ok(())
    }

    /// Kills the agent as a machine that fails would, and starts it again.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn kill_agent(&mut self) -> anyhow::Result<()> {
        if let Some(agent) = self.running.agent.take() {
            agent.kill().await;
        }
        self.agent_up().await
    }

    /// The ends of the logs, for whoever looks for what went wrong.
    pub fn last_lines(&self) -> String {
        let Running { agent, gate, tools, .. } = &self.running;
        let logs = [agent, gate, tools].into_iter().flatten().map(Process::last_lines);
        logs.collect::<Vec<_>>().join("\n")
    }
}
