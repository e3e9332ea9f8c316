//! A conversation as it is had in kagent's page: under a name, and the same after a reload.

use serde_json::{Value, json};

use super::{Outcome, Play, PlayError, SOMEBODY};
use crate::{
    agents::Kind,
    page::{Page, outlives_a_reload},
    shape,
};

/// Whether what was told and what was kept have the form that they should.
pub(super) fn has_form(
    outcome: &Outcome,
    kept: Option<&Value>,
    wanted_told: Option<&Vec<String>>,
    wanted_kept: Option<&Vec<String>>,
) -> Result<(), String> {
    let Outcome::Turn(turn) = outcome else { return Ok(()) };
    let told = shape::told(&turn.events);
    if let Some(wanted) = wanted_told.filter(|wanted| **wanted != told) {
        return Err(format!("it told {told:#?}, not {wanted:#?}"));
    }
    let (Some(wanted), Some(kept)) = (wanted_kept, kept) else { return Ok(()) };
    let kept = shape::kept(kept);
    if *wanted == kept { Ok(()) } else { Err(format!("it kept {kept:#?}, not {wanted:#?}")) }
}

impl Play<'_> {
    /// Makes a conversation known to the controller before its first words, as kagent's page does.
    pub(super) async fn open_page(&mut self, words: &str, name: &str) -> Result<(), PlayError> {
        let (Some(page), Some(controller)) = (&mut self.page, &self.place.controller) else {
            return Ok(());
        };
        page.said(words);
        let agent = self.place.agent.path_segments().and_then(|mut path| {
            path.find(|part| *part == "a2a")?;
            Some(format!("{}/{}", path.next()?, path.next()?))
        });
        let session = json!({
            "id": self.context, "name": words,
            "agent_ref": agent.unwrap_or_else(|| "kagent/dba-assistant".to_owned()),
        });
        if self.turn.is_some() {
            return Ok(());
        }
        let mut url = controller.clone();
        url.set_path("/api/sessions");
        let request = self.http.post(url).header("x-user-id", self.user(name));
        let request = request.header("content-type", "application/json").body(session.to_string());
        let answer = request.send().await.map_err(|error| anyhow::anyhow!(error))?;
        answer.error_for_status().map_err(|error| anyhow::anyhow!(error))?;
        words.clone_into(&mut self.title);
        Ok(())
    }

    /// What the controller has at a path, for the user of this conversation.
    async fn stored(&self, path: &str) -> Result<Value, PlayError> {
        let Some(controller) = &self.place.controller else { return Ok(Value::Null) };
        let mut url = controller.clone();
        url.set_path(path);
        let request = self.http.get(url).header("x-user-id", self.user(SOMEBODY));
        let answer = request.send().await.map_err(|error| anyhow::anyhow!(error))?;
        let body = answer.bytes().await.map_err(|error| anyhow::anyhow!(error))?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        Ok(body.get("data").cloned().unwrap_or_default())
    }

    /// The task of a turn, as it is kept.
    pub(super) async fn kept(&self, outcome: &Outcome) -> Result<Option<Value>, PlayError> {
        let Outcome::Turn(turn) = outcome else { return Ok(None) };
        let task = self.stored(&format!("/api/tasks/{}", turn.task)).await?;
        Ok(Some(task).filter(|task| !task.is_null()))
    }

    /// Compares kagent's page with itself after a reload.
    pub(super) async fn outlives_a_reload(&self, live: &Page, kind: Kind) -> Result<(), PlayError> {
        let tasks = self.stored(&format!("/api/sessions/{}/tasks", self.context)).await?;
        let reloaded = Page::reloaded(tasks.as_array().map_or(&[], Vec::as_slice));
        let ours = matches!(kind, Kind::Rust | Kind::Langgraph);
        outlives_a_reload(live, &reloaded, ours).map_err(PlayError::End)?;
        // kagent's own runtimes string their sentences together until the answer is there.
        if let Some(glued) = live.glued().filter(|_| ours) {
            return Err(PlayError::End(format!(
                "kagent's page shows {glued:?} with nothing between"
            )));
        }
        let session = self.stored(&format!("/api/sessions/{}", self.context)).await?;
        let name = session.pointer("/session/name").and_then(Value::as_str).unwrap_or_default();
        if name == self.title {
            return Ok(());
        }
        Err(PlayError::End(format!("the conversation is called {name:?}, not {:?}", self.title)))
    }
}
