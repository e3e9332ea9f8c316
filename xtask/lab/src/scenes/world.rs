//! What the scenes look at: the agent, the gate as a reviewer, and the database's own account.

use std::time::{Duration, Instant};

use hitl_api::{Decision, Request, State};
use hitl_client::{Client, Query, Token};
use reqwest::Url;
use serde_json::Value;
use uuid::Uuid;

use super::{SceneError, chat::Chat};

/// Longest that something may take to come true.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked again.
const AGAIN: Duration = Duration::from_millis(50);

/// Everything that is up.
#[derive(Clone, Debug)]
pub struct World {
    agent: Url,
    tools: Url,
    gate: Client,
    http: reqwest::Client,
    /// The user of this run: nobody has asked for anything under this name before.
    pub user: String,
}

/// The database, as `/state` accounts for it.
#[derive(Clone, Debug)]
pub struct Account(Value);

impl Account {
    /// The schema's version.
    pub fn version(&self) -> &str {
        self.0.get("schema_version").and_then(Value::as_str).unwrap_or_default()
    }

    /// How many rows a table has.
    pub fn rows(&self, table: &str) -> Option<u64> {
        self.0.get("row_counts")?.get(table)?.as_u64()
    }

    fn rows_of_audit(&self) -> impl Iterator<Item = (u64, &Value)> {
        let rows = self.0.get("audit").and_then(Value::as_array).into_iter().flatten();
        rows.map(|row| (row.get("id").and_then(Value::as_u64).unwrap_or_default(), row))
    }

    /// The number of the last change; 0 where there was none.
    pub fn last_change(&self) -> u64 {
        self.rows_of_audit().map(|(id, _)| id).max().unwrap_or_default()
    }

    /// What was changed after the change of this number, oldest first: what was done, and to what.
    pub fn changes_after(&self, last: u64) -> Vec<String> {
        let change = |row: &Value| {
            let of = |pointer: &str| row.pointer(pointer).and_then(Value::as_str);
            let what = ["/detail/table", "/detail/to", "/detail/version"].into_iter().find_map(of);
            let what = what.unwrap_or_default();
            format!("{} {what}", of("/op").unwrap_or_default())
        };
        let rows = self.rows_of_audit().filter(|(id, _)| *id > last);
        rows.map(|(_, row)| change(row)).collect()
    }

    /// Who approved the last change.
    pub fn approved_by(&self) -> String {
        let last = self.0.get("audit").and_then(Value::as_array).and_then(|rows| rows.last());
        last.and_then(|row| row.get("approval")).map(Value::to_string).unwrap_or_default()
    }
}

impl World {
    /// What is up at these addresses; `token` is a reviewer's.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(agent: Url, gate: Url, tools: Url, token: &str) -> Result<Self, SceneError> {
        let gate = Client::new(gate, Some(Token::new(token)))?;
        let http = reqwest::Client::builder().no_proxy().build();
        let http = http.map_err(|error| SceneError::Away(error.to_string()))?;
        let user = format!("scenes-{}", Uuid::new_v4().simple());
        Ok(Self { agent, tools, gate, http, user })
    }

    /// The agent, as the user of this run.
    pub fn chat(&self) -> Chat {
        Chat::new(self.http.clone(), self.agent.clone(), &self.user)
    }

    /// Where the database's account is.
    pub fn state(&self) -> Url {
        let mut url = self.tools.clone();
        url.set_path("/state");
        url
    }

    /// The database's account.
    ///
    /// # Errors
    /// When it is not given.
    pub async fn account(&self) -> Result<Account, SceneError> {
        let url = self.state();
        let away = |error: &dyn std::fmt::Display| SceneError::Away(format!("{url}: {error}"));
        let answer = self.http.get(url.clone()).send().await.map_err(|error| away(&error))?;
        let body = answer.bytes().await.map_err(|error| away(&error))?;
        Ok(Account(serde_json::from_slice(&body).map_err(|error| away(&error))?))
    }

    /// Everything that was ever asked at the gate in this run, newest first.
    ///
    /// # Errors
    /// When the gate does not say.
    pub async fn requests(&self) -> Result<Vec<Request>, SceneError> {
        let query = Query::default().with("requester", Some(self.user.clone()));
        Ok(self.gate.requests(&query).await?.requests)
    }

    /// What was asked at the gate lately, by anybody, newest first.
    ///
    /// # Errors
    /// The same.
    pub async fn recent(&self) -> Result<Vec<Request>, SceneError> {
        Ok(self.gate.requests(&Query::default()).await?.requests)
    }

    /// All that waits at the gate, of anybody's.
    ///
    /// # Errors
    /// The same.
    pub async fn waiting(&self) -> Result<u64, SceneError> {
        Ok(self.gate.pending(&Query::default()).await?.total)
    }

    /// The request of this run that waits, with a caller waiting on it, once there is one.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn held(&self) -> Result<Request, SceneError> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let requests = self.requests().await?;
            let held = requests.into_iter().find(|r| r.state == State::Pending && r.waiting);
            if let Some(held) = held {
                return Ok(held);
            }
            tokio::time::sleep(AGAIN).await;
        }
        Err(SceneError::Otherwise("no call of this run reached the reviewer's queue".to_owned()))
    }

    /// Decides about a request, as the reviewer.
    ///
    /// # Errors
    /// When the gate says no.
    pub async fn decide(
        &self,
        request: &Request,
        approved: bool,
        reason: &str,
    ) -> Result<(), SceneError> {
        let decision = Decision { approved, reason: reason.to_owned() };
        Ok(self.gate.decide(request.id, &decision).await?)
    }

    /// The reviewer's name.
    ///
    /// # Errors
    /// When the gate does not know the token.
    pub async fn reviewer(&self) -> Result<String, SceneError> {
        Ok(self.gate.me().await?.name)
    }
}
