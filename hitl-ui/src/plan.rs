//! What a migration would run, asked of the tool server when somebody looks.
//!
//! Must never stand for what was approved: it is the plan of this moment, and says so.

use std::time::Duration;

use hitl_api::Request;
use reqwest::Url;
use serde::Deserialize;

/// Longest the tool server may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most bytes of a plan.
const LARGEST: usize = 256 * 1024;

/// The tool whose effects can be asked for.
const TOOL: &str = "run_migration";

/// What would run, in order.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Plan {
    /// The schema version now.
    pub from: String,
    /// The schema version asked for.
    pub to: String,
    /// The statements.
    pub statements: Vec<Statement>,
}

/// One statement of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Statement {
    /// Its SQL.
    pub sql: String,
    /// How many rows it touches.
    pub rows: u64,
}

/// What is known about the effects of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effects {
    /// The tool server has said what would run.
    Planned(Plan),
    /// It could not be asked; says why.
    Unknown(String),
    /// Nobody can say it for this tool.
    NotAsked,
}

/// Asks the tool server; a cheap handle.
#[derive(Clone, Debug)]
pub struct Plans {
    http: reqwest::Client,
    /// What the gate calls the server, and where it is.
    server: Option<(String, Url)>,
}

impl Plans {
    /// Asks this server; nobody where there is none.
    pub fn new(http: reqwest::Client, server: Option<(String, Url)>) -> Self {
        Self { http, server }
    }

    /// What a call would do. Only the server that it is for is asked: another one's plan would be
    /// another database's.
    pub async fn of(&self, request: &Request) -> Effects {
        if request.tool_name != TOOL {
            return Effects::NotAsked;
        }
        let Some((name, base)) = &self.server else {
            return Effects::Unknown("no tool server is configured (--ops-tools)".to_owned());
        };
        if *name != request.server {
            return Effects::NotAsked;
        }
        let Some(version) = request.tool_args.get("version").and_then(|value| value.as_str())
        else {
            return Effects::Unknown("the call names no version".to_owned());
        };
        // What is no plain word could be read as another word on the way.
        if version.is_empty() || !version.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Effects::Unknown("the call names no version that there could be".to_owned());
        }
        match self.ask(base, version).await {
            Ok(plan) if plan.to != version => {
                Effects::Unknown(format!("the tool server answered for {}", plan.to))
            }
            Ok(plan) => Effects::Planned(plan),
            Err(why) => Effects::Unknown(why),
        }
    }

    async fn ask(&self, base: &Url, version: &str) -> Result<Plan, String> {
        let mut url = base.clone();
        // A segment, whatever the caller wrote: never another path.
        url.path_segments_mut()
            .map_err(|()| "its URL cannot have a path".to_owned())?
            .pop_if_empty()
            .extend(["migrations", version]);
        let asked = self.http.get(url).timeout(PATIENCE).send().await;
        let mut answer = asked.map_err(|_| "the tool server does not answer".to_owned())?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| error.to_string())? {
            body.extend_from_slice(&chunk);
            if body.len() > LARGEST {
                return Err("the tool server's plan is too long to show".to_owned());
            }
        }
        if !status.is_success() {
            let said: serde_json::Value = hitl_core::json::read(&body).unwrap_or_default();
            let said = said.get("error").and_then(|error| error.as_str());
            return Err(format!("the tool server says: {}", said.unwrap_or(status.as_str())));
        }
        hitl_core::json::read(&body).map_err(|error| format!("not a plan: {error}"))
    }
}
