//! Tasks in kagent's controller, where its dashboard looks for them.

use std::{path::PathBuf, time::Duration};

use reqwest::{RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use serde_json::json;

use super::{Asked, StoreError, Tasks};
use crate::a2a::Task;

/// Longest an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Longest name of a conversation, in characters.
const TITLE: usize = 20;

/// Tasks in the controller.
#[derive(Clone, Debug)]
pub struct KagentTasks {
    http: reqwest::Client,
    base: Url,
    /// The agent's name, as the controller knows it: `namespace__NS__name` with underscores.
    app: String,
    /// Where the agent's own token is, if it has one.
    token: PathBuf,
}

/// What every answer is wrapped in.
#[derive(Deserialize)]
struct Envelope<T> {
    data: Option<T>,
}

impl KagentTasks {
    /// The tasks of an agent at the controller.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(base: Url, namespace: &str, name: &str, token: PathBuf) -> Result<Self, StoreError> {
        // An error means that the process has chosen a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .map_err(|e| away(&e))?;
        let app = format!("{namespace}__NS__{name}").replace('-', "_");
        Ok(Self { http, base, app, token })
    }

    fn url(&self, path: &[&str]) -> Result<Url, StoreError> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| away(&"its URL cannot have a path"))?
            .pop_if_empty()
            .push("api")
            .extend(path);
        Ok(url)
    }

    /// With what the controller wants to know of whoever asks.
    async fn signed(&self, request: RequestBuilder, user: &str) -> RequestBuilder {
        let request = request.header("x-agent-name", &self.app).header("x-user-id", user);
        // Read each time: Kubernetes renews it.
        match tokio::fs::read_to_string(&self.token).await {
            Ok(token) => request.bearer_auth(token.trim()),
            Err(_) => request,
        }
    }

    /// What is at a path; none where it is not known.
    async fn read<T: serde::de::DeserializeOwned>(
        &self,
        user: &str,
        path: &[&str],
    ) -> Result<Option<Envelope<T>>, StoreError> {
        let request = self.signed(self.http.get(self.url(path)?), user).await;
        let answer = request.send().await.map_err(|error| away(&error))?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => {
                let body = answer.bytes().await.map_err(|error| away(&error))?;
                hitl_core::json::read(&body).map(Some).map_err(|error| away(&error))
            }
            status => Err(away(&status)),
        }
    }
}

/// A conversation's name, as kagent's page makes it from what was said first.
fn title(said: &str) -> String {
    let said = said.trim();
    let title: String = said.chars().take(TITLE).collect();
    if title.len() < said.len() { title + "..." } else { title }
}

fn away(why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Controller(why.to_string())
}

impl Tasks for KagentTasks {
    fn task<'a>(&'a self, user: &'a str, id: &'a str) -> Asked<'a, Option<Task>> {
        Box::pin(
            async move { Ok(self.read(user, &["tasks", id]).await?.and_then(|known| known.data)) },
        )
    }

    fn save<'a>(&'a self, user: &'a str, task: &'a Task) -> Asked<'a, ()> {
        Box::pin(async move {
            let body = serde_json::to_string(task).map_err(|error| away(&error))?;
            let request = self.http.post(self.url(&["tasks"])?).body(body);
            let request = request.header("content-type", "application/json");
            let answer = self.signed(request, user).await.send().await.map_err(|e| away(&e))?;
            match answer.status() {
                StatusCode::CONFLICT => Err(StoreError::NotYours),
                status if status.is_success() => Ok(()),
                status => Err(away(&status)),
            }
        })
    }

    fn of_context<'a>(&'a self, user: &'a str, context: &'a str) -> Asked<'a, Option<Vec<Task>>> {
        Box::pin(async move {
            let known = self.read::<Vec<Task>>(user, &["sessions", context, "tasks"]).await?;
            // A conversation in which nothing was said yet comes without data.
            let tasks = known.map(|known| known.data.unwrap_or_default());
            Ok(tasks.map(|mut tasks| {
                // Ids sort by time.
                tasks.sort_by(|a, b| a.id.cmp(&b.id));
                tasks
            }))
        })
    }

    // Only for a conversation that is not known: the controller would take one that is for renamed.
    fn begin_context<'a>(
        &'a self,
        user: &'a str,
        context: &'a str,
        said: &'a str,
    ) -> Asked<'a, ()> {
        Box::pin(async move {
            let body = json!({"id": context, "agent_ref": self.app, "name": title(said)});
            let request = self.http.post(self.url(&["sessions"])?).body(body.to_string());
            let request = request.header("content-type", "application/json");
            let answer = self.signed(request, user).await.send().await.map_err(|e| away(&e))?;
            if !answer.status().is_success() {
                // Tasks are kept without one as well; they are only not found by conversation.
                tracing::warn!(status = %answer.status(), "kagent does not take the conversation");
            }
            Ok(())
        })
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn contexts<'a>(&'a self, _: &'a str) -> Asked<'a, Vec<Task>> {
        // kagent's own dashboard lists them.
        Box::pin(async { Ok(Vec::new()) })
    }
}
