//! The command line. Owns the settings and their validation.

// The documentation of the fields is the text of `--help`, where backticks are noise.
#![allow(clippy::doc_markdown)]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::Parser;
use hitl_service::{
    given::{
        self, HostName, List, Name, secrets,
        url::{BaseUrl, EndpointUrl},
    },
    healthcheck::HealthcheckArgs,
    telemetry::TelemetryArgs,
};

use crate::{model::Key, tools::ServerAddress};

/// What the agent does, as its card says.
const DESCRIPTION: &str = "Reads and changes the orders database. Asks before it empties a table; \
    schema changes are decided by the platform team.";

/// What the model is told of its work.
const SYSTEM: &str = "\
You are a database assistant for a small orders database. You read tables with cluster_db_query, empty
them with truncate_table, and change the schema with run_migration (v1 to v4). Before a call, say in one
sentence which tool you are going to use and why.

Approval is not yours to ask for. The system asks the user before a table is emptied, and the platform
team before a migration runs; call the tool and let it. A migration may take minutes to be decided.

Never claim that something was done that a tool has not confirmed. When the answer of a tool says that a
call was denied, rejected, expired or is still pending, tell the user its reason word for word, and do not
repeat the call unless the user asks for it.
";

/// An agent that asks before it destroys
///
/// It speaks A2A to people, MCP to tools and the Messages API to a model. Calls of the tools named in
/// --require-approval wait for the user who asked; what the gateway holds waits for the platform team.
#[derive(Clone, Debug, Parser)]
#[command(name = "dba-assistant", version, max_term_width = 100)]
pub struct Config {
    /// Address to listen on
    #[arg(long, env = "DBA_ASSISTANT_LISTEN", default_value_t = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080), value_name = "ADDRESS", value_parser = given::socket)]
    pub listen: SocketAddr,

    /// Where others reach this agent, as its card says; the address it listens on unless given
    #[arg(long, env = "DBA_ASSISTANT_URL", hide_env_values = true, value_name = "URL")]
    pub url: Option<BaseUrl>,

    /// The agent's name, as its card says
    #[arg(long, env = "DBA_ASSISTANT_NAME", default_value = "dba-assistant", value_name = "NAME")]
    pub name: Name,

    /// What the agent does, as its card says
    #[arg(long, env = "DBA_ASSISTANT_DESCRIPTION", default_value = DESCRIPTION, hide_default_value = true, value_name = "TEXT")]
    pub description: String,

    /// Base of the Messages API
    #[arg(
        long,
        env = "ANTHROPIC_BASE_URL",
        hide_env_values = true,
        default_value = "https://api.anthropic.com",
        value_name = "URL"
    )]
    pub model_url: BaseUrl,

    /// Key for the Messages API; any will do for a scripted model
    #[arg(
        long,
        env = "ANTHROPIC_API_KEY",
        hide_env_values = true,
        default_value = "",
        value_name = "KEY"
    )]
    pub api_key: String,

    /// The model
    #[arg(
        long,
        env = "DBA_ASSISTANT_MODEL",
        default_value = "claude-haiku-4-5",
        value_name = "NAME"
    )]
    pub model: Name,

    /// What the model is told of its work
    #[arg(long, env = "DBA_ASSISTANT_SYSTEM", default_value = SYSTEM, hide_default_value = true, value_name = "TEXT")]
    pub system: String,

    /// MCP endpoint of the tools that nobody stands before
    #[arg(
        long,
        env = "OPS_TOOLS_PUBLIC_URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8088/public/mcp",
        value_name = "URL"
    )]
    pub public_tools: EndpointUrl,

    /// MCP endpoint of the tools whose calls a platform reviewer may hold
    #[arg(
        long,
        env = "OPS_TOOLS_PRIVILEGED_URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8088/privileged/mcp",
        value_name = "URL"
    )]
    pub privileged_tools: EndpointUrl,

    /// Tools that the model may call; all that the servers have unless given. public/TOOL and
    /// privileged/TOOL are tools of one endpoint alone
    #[arg(long, env = "DBA_ASSISTANT_TOOLS", value_delimiter = ',', value_name = "TOOL")]
    tools: Vec<String>,

    /// Tools whose calls wait for the approval of the user who asked
    #[arg(
        long,
        env = "DBA_ASSISTANT_REQUIRE_APPROVAL",
        value_delimiter = ',',
        default_value = "truncate_table",
        value_name = "TOOL"
    )]
    require_approval: Vec<String>,

    /// Longest that one call may take, in seconds. More than the gate holds it
    #[arg(
        long,
        env = "DBA_ASSISTANT_CALL_LIMIT",
        default_value_t = 900,
        value_parser = clap::value_parser!(u64).range(1..=86_400),
        value_name = "SECONDS"
    )]
    call_limit: u64,

    /// A host name under which the agent may be reached where it serves its own pages, beside
    /// localhost; may be given several times
    #[arg(long, env = "DBA_ASSISTANT_ALLOWED_HOSTS", value_name = "NAME")]
    allowed_host: Vec<List<HostName>>,

    /// File to keep tasks in; in memory unless given. Not used with --kagent-url
    #[arg(long, env = "DBA_ASSISTANT_DATABASE", hide_env_values = true, value_name = "PATH", value_parser = secrets::file())]
    pub database: Option<PathBuf>,

    /// kagent's controller, to keep tasks in, where its dashboard looks for them
    #[arg(long, env = "KAGENT_URL", hide_env_values = true, value_name = "URL")]
    pub kagent_url: Option<BaseUrl>,

    /// This agent's name at kagent
    #[arg(long, env = "KAGENT_NAME", default_value = "dba-assistant", value_name = "NAME")]
    pub kagent_name: Name,

    /// This agent's namespace at kagent
    #[arg(long, env = "KAGENT_NAMESPACE", default_value = "kagent", value_name = "NAME")]
    pub kagent_namespace: Name,

    /// This agent's own token for kagent's controller, if there is one
    #[arg(
        long,
        env = "KAGENT_TOKEN_FILE",
        default_value = "/var/run/secrets/tokens/kagent-token",
        value_name = "PATH"
    )]
    pub kagent_token: PathBuf,

    /// How the service logs
    #[command(flatten)]
    pub telemetry: TelemetryArgs,

    /// Whether to ask another instead
    #[command(flatten)]
    pub healthcheck: HealthcheckArgs,
}

impl Config {
    /// The servers of tools.
    pub fn servers(&self) -> Vec<ServerAddress> {
        let server = |name: &str, url: &EndpointUrl, reviewed| ServerAddress {
            name: name.to_owned(),
            url: url.url().clone(),
            reviewed,
        };
        vec![
            server("public", &self.public_tools, false),
            server("privileged", &self.privileged_tools, true),
        ]
    }

    /// Whether the settings fit each other.
    ///
    /// # Errors
    /// [`UnknownTools`]: a misspelt name would mean that nobody is asked.
    pub fn check(&self) -> Result<(), UnknownTools> {
        let tools = self.tools();
        let is_tool =
            |name: &String| tools.iter().any(|tool| tool.rsplit('/').next() == Some(name.as_str()));
        let mut unknown = self.require_approval();
        unknown.retain(|name| !tools.is_empty() && !is_tool(name));
        if unknown.is_empty() { Ok(()) } else { Err(UnknownTools(unknown.join(", "))) }
    }

    /// The tools that the model may call; all of them when there are none here.
    pub fn tools(&self) -> Vec<String> {
        named(&self.tools)
    }

    /// The tools whose calls are asked about.
    pub fn require_approval(&self) -> Vec<String> {
        named(&self.require_approval)
    }

    /// The names that its pages answer to, beside localhost.
    pub fn allowed_hosts(&self) -> Vec<HostName> {
        self.allowed_host.iter().flat_map(|list| list.0.iter().cloned()).collect()
    }

    /// Longest that one call may take.
    pub fn call_limit(&self) -> Duration {
        Duration::from_secs(self.call_limit)
    }

    /// The key.
    pub fn key(&self) -> Key {
        Key::new(self.api_key.clone())
    }
}

/// Tools whose calls should wait for approval, and that the model may not even call.
#[derive(Debug, thiserror::Error)]
#[error("--require-approval names {0}, which --tools does not: is it spelt as the tool is?")]
pub struct UnknownTools(String);

/// A list as it is meant: `--tools=` is a list of nothing, not of one tool without a name.
fn named(list: &[String]) -> Vec<String> {
    list.iter().map(|name| name.trim()).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn no_flag_contradicts_another_and_truncating_is_asked_about() {
        Config::command().debug_assert();
        assert_eq!(Config::parse_from(["x"]).require_approval(), ["truncate_table"]);
        let nothing = Config::parse_from(["x", "--require-approval=", "--tools="]);
        assert!(nothing.require_approval().is_empty() && nothing.tools().is_empty());
        let check = |tools: &str| Config::parse_from(["x", tools]).check();
        assert!(check("--tools=").is_ok() && check("--tools=public/truncate_table,x").is_ok());
        let error = check("--tools=public/truncate_tables").unwrap_err().to_string();
        assert!(error.contains("names truncate_table, which"), "{error}");
    }

    #[test]
    fn a_host_that_pages_answer_to_is_a_name_and_there_may_be_none() {
        let hosts = |text: &str| {
            let parsed = Config::try_parse_from(["x".to_owned(), format!("--allowed-host={text}")]);
            parsed.map(|config| config.allowed_hosts().len()).map_err(|error| error.to_string())
        };
        assert_eq!(hosts("agent,agent.lab.svc"), Ok(2));
        assert_eq!(hosts(""), Ok(0));
        for (wrong, says) in [
            ("http://agent", "is not a host name"),
            ("agent/chat", "is not a host name"),
            ("*", "is not a host name"),
            ("agent:8080", "has a port"),
        ] {
            let error = hosts(wrong).unwrap_err();
            assert!(error.contains(says) && error.contains("--allowed-host"), "{wrong}: {error}");
        }
    }

    #[test]
    fn what_is_built_in_is_what_the_chart_describes() {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Tool {
            name: String,
            #[serde(default)]
            require_approval: bool,
        }
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Assistant {
            name: String,
            description: String,
            system_message: String,
            tools: Vec<Tool>,
            skill: serde_json::Value,
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/dba-assistant/assistant.yaml");
        let described: Assistant =
            serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let built_in = Config::parse_from(["x"]);
        assert_eq!(built_in.name.as_str(), described.name);
        assert_eq!(built_in.description, described.description);
        assert_eq!(built_in.system, described.system_message);
        assert_eq!(crate::routes::skill(), described.skill);
        let asked = described.tools.into_iter().filter(|tool| tool.require_approval);
        let asked: Vec<_> = asked.map(|tool| tool.name).collect();
        assert_eq!(built_in.require_approval(), asked);
    }

    #[test]
    fn the_readme_has_the_settings_as_they_are() {
        let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
        let table = hitl_service::settings::table(&Config::command());
        hitl_service::settings::check(readme.as_ref(), "dba-assistant", &table).unwrap();
    }
}
