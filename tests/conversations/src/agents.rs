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
    /// What files and options call it.
    pub fn id(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Langgraph => "langgraph",
            Self::AdkPython => "adk-python",
            Self::AdkGo => "adk-go",
            Self::Address => "address",
        }
    }

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

    /// Every tool with its endpoint, as our agents read it.
    fn placed(&self) -> Vec<String> {
        self.tools.iter().map(|tool| format!("{}/{}", tool.endpoint, tool.name)).collect()
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
        let ready = Some("/.well-known/agent-card.json");
        Process::start(command, self.kind.id(), &around.folder, address, ready).await
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
            .env("DBA_ASSISTANT_TOOLS", assistant.placed().join(","))
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
        let folder = around.folder.join("config");
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What an Agent is told, in whichever form its kind is told it.
    #[derive(Debug, PartialEq)]
    struct Told {
        description: String,
        system: String,
        tools: Vec<String>,
        asked: Vec<String>,
    }

    fn rendered() -> Vec<Value> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../cluster/whole.yaml");
        let text = fs::read_to_string(path).unwrap();
        let documents: Vec<_> =
            text.split("\n---\n").filter(|d| d.contains("kind: Agent\n")).collect();
        documents.into_iter().map(|document| serde_saphyr::from_str(document).unwrap()).collect()
    }

    fn list(value: &str) -> Vec<String> {
        value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    fn strings(value: Option<&Value>) -> Vec<String> {
        let all = value.and_then(Value::as_array).into_iter().flatten();
        all.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    fn told(agent: &Value) -> Told {
        let spec = &agent["spec"];
        let description = spec["description"].as_str().unwrap().to_owned();
        if spec["type"] == "Declarative" {
            let declarative = &spec["declarative"];
            let servers = declarative["tools"].as_array().unwrap();
            let of = |field: &str| -> Vec<String> {
                servers.iter().flat_map(|server| strings(server["mcpServer"].get(field))).collect()
            };
            let placed = servers.iter().flat_map(|server| {
                let name = server["mcpServer"]["name"].as_str().unwrap();
                let endpoint = name.strip_prefix("ops-tools-").unwrap().to_owned();
                let tools = strings(server["mcpServer"].get("toolNames"));
                tools.into_iter().map(move |tool| format!("{endpoint}/{tool}"))
            });
            let system = declarative["systemMessage"].as_str().unwrap().to_owned();
            return Told {
                description,
                system,
                tools: placed.collect(),
                asked: of("requireApproval"),
            };
        }
        let deployment = &spec["byo"]["deployment"];
        let args = strings(deployment.get("args"));
        let of = |flag: &str, variable: &str| -> String {
            let flag = format!("--{flag}=");
            let arg = args.iter().find_map(|arg| arg.strip_prefix(&flag));
            let variables = deployment["env"].as_array().into_iter().flatten();
            let mut set = variables.filter(|set| set["name"] == variable);
            arg.or_else(|| set.next()?["value"].as_str()).unwrap().to_owned()
        };
        assert_eq!(of("description", "DBA_ASSISTANT_DESCRIPTION"), description);
        Told {
            description,
            system: of("system", "DBA_ASSISTANT_SYSTEM"),
            tools: list(&of("tools", "DBA_ASSISTANT_TOOLS")),
            asked: list(&of("require-approval", "DBA_ASSISTANT_REQUIRE_APPROVAL")),
        }
    }

    #[test]
    fn all_agents_that_the_chart_makes_are_told_the_same() {
        let agents = rendered();
        let names: Vec<_> =
            agents.iter().map(|a| a["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["dba-assistant", "dba-assistant-rs", "dba-assistant-langgraph"]);
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let described = Assistant::read(&root).unwrap();
        let expected = Told {
            description: described.description.clone(),
            system: described.system_message.clone(),
            tools: described.placed(),
            asked: described.tools(|t| t.require_approval).into_iter().map(str::to_owned).collect(),
        };
        assert_eq!(expected.asked, ["truncate_table"]);
        for agent in &agents {
            assert_eq!(told(agent), expected, "{}", agent["metadata"]["name"]);
        }
    }
}
