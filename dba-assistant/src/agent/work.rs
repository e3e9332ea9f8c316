//! One task at work: from what was asked or decided to the next pause, or to the end.
//!
//! Must never tell what is not kept, and never make a call that is not noted as begun.

use std::time::Duration;

use super::{Agent, Live};
use jiff::Timestamp;

use crate::{
    a2a::{Artifact, Event, Part, Task, TaskState, new_id},
    approval::{Call, call_part, request_part, response_part},
    model::ModelError,
    notice,
    store::StoreError,
    tools::{Answer, Called, Toolbox},
    turn::{KEY, MOST_ROUNDS, Next, Said, Turn},
};

/// A call of a reviewed tool that takes longer than this is being held.
const HELD: Duration = Duration::from_secs(1);

/// What is said of a task that was under way when its agent ended.
pub(super) const INTERRUPTED: &str = "The agent was stopped while it was at this. What it had \
    begun may have happened: look before you ask again.";

/// Why a task comes to nothing.
#[derive(Debug, thiserror::Error)]
enum WorkError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("No tools can be reached: {0}. Try again when the gateway is up.")]
    NoTools(String),
    #[error("The model asked for more than {MOST_ROUNDS} rounds of calls, and was stopped.")]
    TooMany,
}

/// A task at work.
pub(super) struct Work<'a> {
    pub(super) agent: &'a Agent,
    pub(super) user: &'a str,
    pub(super) task: Task,
    pub(super) turn: Turn,
    pub(super) live: Live,
}

impl Work<'_> {
    /// Works until the task waits, is over, or is cancelled.
    pub(super) async fn run(mut self, rejected: Vec<(Call, String)>) {
        let cancel = self.live.cancel.clone();
        let worked = cancel.run_until_cancelled(self.work(rejected)).await;
        let (state, text) = match worked {
            Some(Ok(())) => return,
            Some(Err(error)) => {
                tracing::warn!(task = %self.task.id, %error, "comes to nothing");
                (TaskState::Failed, error.to_string())
            }
            None if self.agent.stopping.is_cancelled() => {
                (TaskState::Failed, INTERRUPTED.to_owned())
            }
            None => (TaskState::Canceled, "Stopped by its user.".to_owned()),
        };
        let event = self.task.close(state, text);
        self.task.metadata.insert(KEY.to_owned(), self.turn.kept());
        if let Err(error) = self.agent.tasks.save(self.user, &self.task).await {
            tracing::error!(task = %self.task.id, %error, "its end is not kept");
        }
        self.tell(event);
    }

    async fn work(&mut self, rejected: Vec<(Call, String)>) -> Result<(), WorkError> {
        self.status(TaskState::Working, Vec::new()).await?;
        for (call, text) in rejected {
            self.status(TaskState::Working, vec![response_part(&call, &text, true)]).await?;
        }
        let mut tools = self.agent.servers.open(self.user).await;
        let mut next = self.turn.what_next();
        loop {
            next = match next {
                Next::Model => self.ask_model(&tools).await?,
                Next::Run(call) if tools.lacks(&call.name) && !tools.away.is_empty() => {
                    let why = format!("It cannot be reached: {}.", tools.away.join(", "));
                    self.turn.not_made(&call.id, &why, self.agent.asks_about(&call.name))
                }
                Next::Run(call) => self.make(&mut tools, &call).await?,
                Next::Ask(calls) => {
                    if let Some(why) = self.turn.asked_again() {
                        // Of its own: kagent's page shows no text beside a question.
                        self.status(TaskState::Working, vec![notice::aside(&why)]).await?;
                    }
                    let requests = calls.iter().map(request_part).collect();
                    return self.status(TaskState::InputRequired, requests).await;
                }
                Next::Finished(text) => return self.finish(text).await,
                Next::TooMany => return Err(WorkError::TooMany),
            };
        }
    }

    async fn ask_model(&mut self, tools: &Toolbox) -> Result<Next, WorkError> {
        let offered = tools.offered();
        if offered.is_empty() {
            return Err(WorkError::NoTools(tools.away.join(", ")));
        }
        let model = &self.agent.model;
        let heard = |piece: &str| {
            // An error means that nobody listens.
            let _ = self.live.pieces.send(piece.to_owned());
        };
        let said = model.next(self.turn.conversation(), &offered, heard).await?;
        let calls = said.iter().any(|said| matches!(said, Said::Call(_)));
        let parts = said.iter().map(|said| match said {
            Said::Text(text) => notice::aside(text),
            Said::Call(call) => call_part(call),
        });
        let parts: Vec<_> = parts.collect();
        let next = self.turn.said(said, |tool| self.agent.asks_about(tool));
        if calls {
            self.status(TaskState::Working, parts).await?;
        }
        Ok(next)
    }

    /// Makes a call, and notes what it came to.
    async fn make(&mut self, tools: &mut Toolbox, call: &Call) -> Result<Next, WorkError> {
        self.turn.running(&call.id);
        self.keep().await?;
        let since = Timestamp::now();
        let called = match self.call(tools, call, since).await? {
            Called::Lost if tools.is_reviewed(&call.name) => {
                self.repeat(tools, call, since).await?
            }
            called => called,
        };
        let wrong = |text: String| Answer { text, is_error: true };
        let answer = match called {
            Called::Answered(answer) => answer,
            Called::NotMade(why) => {
                let why = format!("It cannot be reached: {why}.");
                return Ok(self.turn.not_made(&call.id, &why, self.agent.asks_about(&call.name)));
            }
            Called::Lost => wrong(notice::unanswered(&call.name)),
        };
        tracing::info!(task = %self.task.id, tool = %call.name, error = answer.is_error, "called");
        self.turn.answered(&call.id, &answer.text, answer.is_error);
        let part = response_part(call, &answer.text, answer.is_error);
        self.status(TaskState::Working, vec![part]).await?;
        Ok(self.turn.what_next())
    }

    /// Calls a tool, and says since when a reviewer has the call.
    async fn call(
        &mut self,
        tools: &Toolbox,
        call: &Call,
        since: Timestamp,
    ) -> Result<Called, WorkError> {
        let calling = tools.call(call);
        tokio::pin!(calling);
        tokio::select! {
            called = &mut calling => Ok(called),
            () = tokio::time::sleep(HELD), if tools.is_reviewed(&call.name) => {
                self.status(TaskState::Working, vec![notice::held(&call.name, since)]).await?;
                Ok(calling.await)
            }
        }
    }

    /// Makes a reviewed call once more. The gate kept its request; an approval that was used on the
    /// first try is not there for the second.
    async fn repeat(
        &mut self,
        tools: &mut Toolbox,
        call: &Call,
        since: Timestamp,
    ) -> Result<Called, WorkError> {
        self.status(TaskState::Working, vec![notice::repeating(&call.name)]).await?;
        let wrong = |text: String| Called::Answered(Answer { text, is_error: true });
        if let Err(why) = tools.reconnect(&call.name).await {
            return Ok(wrong(notice::lost_and_away(&call.name, &why)));
        }
        Ok(match self.call(tools, call, since).await? {
            Called::Lost => wrong(notice::lost_twice(&call.name)),
            Called::NotMade(_) => wrong(notice::lost_and_away(&call.name, "it cannot be reached")),
            answered @ Called::Answered(_) => answered,
        })
    }

    /// Tells the answer as kagent's own runtime does: as a message, which is all that its page shows after
    /// a reload, as an artifact, which is what it shows live, and not once more with the end.
    async fn finish(&mut self, text: String) -> Result<(), WorkError> {
        let artifact = Artifact { artifact_id: new_id(), parts: vec![Part::text(text.clone())] };
        self.task.artifacts.push(artifact.clone());
        let message = self.task.say(vec![Part::text(text)]);
        let said = self.task.update(TaskState::Working, Some(message));
        let over = self.task.update(TaskState::Completed, None);
        // All of it is kept before any of it is told.
        self.keep().await?;
        self.tell(said);
        self.tell(Event::ArtifactUpdate {
            task_id: self.task.id.clone(),
            context_id: self.task.context_id.clone(),
            artifact,
            last_chunk: true,
            append: false,
        });
        self.tell(over);
        Ok(())
    }

    /// Changes the status, keeps it, and tells it, in that order.
    async fn status(&mut self, state: TaskState, parts: Vec<Part>) -> Result<(), WorkError> {
        let message = (!parts.is_empty()).then(|| self.task.say(parts));
        let event = self.task.update(state, message);
        self.keep().await?;
        self.tell(event);
        Ok(())
    }

    async fn keep(&mut self) -> Result<(), WorkError> {
        self.task.metadata.insert(KEY.to_owned(), self.turn.kept());
        Ok(self.agent.tasks.save(self.user, &self.task).await?)
    }

    fn tell(&self, event: Event) {
        // An error means that nobody listens.
        let _ = self.live.events.send(event);
    }
}
