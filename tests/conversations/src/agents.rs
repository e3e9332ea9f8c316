//! The agents, and how each is started.
//!
//! All of them get the same description: the one that the chart renders.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::process::{Process, command, free_address};

/// Longest that a call may take, in seconds: more than any gate of the stage holds one.
const CALL_LIMIT: u32 = 120;

/// Which agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `dba-assistant`.
    Rust,
    /// `agents/langgraph`.
    Langgraph,
    /// kagent's Python runtime, running the declarative agent.
    AdkPython,
    /// kagent's Go runtime, running the declarative agent.
    AdkGo,
    /// One that is up already.
    Address,
}

impl Kind {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::Langgraph => "LangGraph",
            Self::AdkPython => "kagent's Python ADK",
            Self::AdkGo => "kagent's Go ADK",
            Self::Address => "the agent given",
        }
    }
}

/// An agent that can be started.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Which.
    pub kind: Kind,
    /// Its program: the binary, or the interpreter that has it.
    pub program: PathBuf,
}

/// Where an agent finds what it needs.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The checkout.
    pub root: PathBuf,
    /// For logs and configurations.
    pub folder: PathBuf,
    /// The gateway, without a path.
    pub gateway: String,
    /// The model.
    pub model: String,
    /// kagent's controller.
    pub controller: String,
}

/// The description that the chart renders all agents from.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Assistant {
    name: String,
    description: String,
    system_message: String,
    tools: Vec<Tool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tool {
    name: String,
    endpoint: String,
    #[serde(default)]
    require_approval: bool,
}

impl Assistant {
    fn read(root: &Path) -> anyhow::Result<Self> {
        let path = root.join("charts/dba-assistant/assistant.yaml");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        serde_saphyr::from_str(&text).with_context(|| path.display().to_string())
    }

    fn tools(&self, wanted: impl Fn(&Tool) -> bool) -> Vec<&str> {
        self.tools.iter().filter(|tool| wanted(tool)).map(|tool| tool.name.as_str()).collect()
    }
}

impl Agent {
    /// Starts it on an address, and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn start(
        &self,
        around: &Surroundings,
        address: SocketAddr,
    ) -> anyhow::Result<Process> {
        let assistant = Assistant::read(&around.root)?;
        let command = match self.kind {
            Kind::Rust | Kind::Langgraph => self.ours(around, &assistant, address),
            Kind::AdkPython | Kind::AdkGo => self.kagents(around, &assistant, address)?,
            Kind::Address => anyhow::bail!("it is up already"),
        };
        let name = format!("{:?}", self.kind).to_lowercase();
        let ready = Some("/.well-known/agent-card.json");
        Process::start(command, &name, &around.folder, address, ready).await
    }

    /// Starts it somewhere.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_anywhere(
        &self,
        around: &Surroundings,
    ) -> anyhow::Result<(Process, SocketAddr)> {
        let address = free_address()?;
        Ok((self.start(around, address).await?, address))
    }

    /// What both of ours read from the environment, as the chart sets it.
    fn ours(&self, around: &Surroundings, assistant: &Assistant, address: SocketAddr) -> Command {
        let mut command = command(&self.program);
        if self.kind == Kind::Langgraph {
            command.args(["-m", "dba_langgraph"]);
            command.env("PYTHONPATH", around.root.join("agents/langgraph/src"));
        }
        let gateway = &around.gateway;
        command
            .env("DBA_ASSISTANT_LISTEN", address.to_string())
            .env("DBA_ASSISTANT_NAME", &assistant.name)
            .env("DBA_ASSISTANT_DESCRIPTION", &assistant.description)
            .env("DBA_ASSISTANT_SYSTEM", &assistant.system_message)
            .env("DBA_ASSISTANT_TOOLS", assistant.tools(|_| true).join(","))
            .env(
                "DBA_ASSISTANT_REQUIRE_APPROVAL",
                assistant.tools(|t| t.require_approval).join(","),
            )
            .env("DBA_ASSISTANT_CALL_LIMIT", CALL_LIMIT.to_string())
            .env("OPS_TOOLS_PUBLIC_URL", format!("{gateway}/public/mcp"))
            .env("OPS_TOOLS_PRIVILEGED_URL", format!("{gateway}/privileged/mcp"))
            .env("ANTHROPIC_BASE_URL", &around.model)
            .env("ANTHROPIC_API_KEY", "scripted")
            .env("KAGENT_URL", &around.controller)
            .env("KAGENT_NAME", "dba-assistant")
            .env("KAGENT_NAMESPACE", "kagent");
        command
    }

    /// kagent's own runtimes, with the files that its controller renders for a declarative agent.
    fn kagents(
        &self,
        around: &Surroundings,
        assistant: &Assistant,
        address: SocketAddr,
    ) -> anyhow::Result<Command> {
        let folder = around.folder.join(format!("{:?}", self.kind).to_lowercase());
        fs::create_dir_all(&folder)?;
        let server = |endpoint: &str| {
            json!({
                "params": {
                    "url": format!("{}/{endpoint}/mcp", around.gateway),
                    "headers": {},
                    "timeout": CALL_LIMIT,
                    "sse_read_timeout": CALL_LIMIT,
                    "terminate_on_close": true,
                },
                "tools": assistant.tools(|tool| tool.endpoint == endpoint),
                "require_approval":
                    assistant.tools(|tool| tool.endpoint == endpoint && tool.require_approval),
                "allowed_headers": ["x-user-id"],
            })
        };
        let config = json!({
            "model": {"type": "anthropic", "model": "claude-haiku-4-5", "base_url": around.model},
            "description": assistant.description,
            "instruction": assistant.system_message,
            "http_tools": [server("public"), server("privileged")],
            "stream": false,
        });
        let card = json!({
            "name": assistant.name.replace('-', "_"),
            "description": assistant.description,
            "url": format!("http://{address}"),
            "version": "",
            "capabilities": {"streaming": true},
            "defaultInputModes": ["text"],
            "defaultOutputModes": ["text"],
            "skills": [],
            "protocolVersion": "0.3.0",
            "preferredTransport": "JSONRPC",
        });
        write(&folder.join("config.json"), &config)?;
        write(&folder.join("agent-card.json"), &card)?;
        let mut command = command(&self.program);
        if self.kind == Kind::AdkPython {
            command.args(["-c", "from kagent.adk.cli import run_cli; run_cli()", "static"]);
        }
        command
            .args(["--host", &address.ip().to_string(), "--port", &address.port().to_string()])
            .arg("--filepath")
            .arg(&folder)
            .env("ANTHROPIC_API_KEY", "scripted")
            .env("KAGENT_URL", &around.controller)
            .env("KAGENT_NAME", "dba-assistant")
            .env("KAGENT_NAMESPACE", "kagent");
        Ok(command)
    }
}

fn write(path: &Path, value: &Value) -> anyhow::Result<()> {
    fs::write(path, value.to_string()).with_context(|| path.display().to_string())
}
