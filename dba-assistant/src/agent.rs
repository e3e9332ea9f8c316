//! The agent: takes what a user says, lets the model and the tools work, asks before it destroys.
//!
//! Owns the order of things: a task is kept before anybody hears of it, a call is noted before it is
//! made, and a decision counts once. Must never let one user see, decide or cancel another's task.

mod work;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError},
};

use tokio::sync::{Mutex, OwnedMutexGuard, broadcast};
use tokio_util::sync::CancellationToken;

use crate::{
    a2a::{Event, Message, RpcError, Task, TaskState, new_id},
    approval::Decision,
    model::Model,
    store::{SharedTasks, StoreError},
    tools::Servers,
    turn::{KEY, Turn},
};

/// Events kept for whoever listens slowly; one that falls further behind is told the state instead.
const KEPT: usize = 256;

/// What a task under way is known by in this process.
#[derive(Clone, Debug)]
struct Live {
    events: broadcast::Sender<Event>,
    /// What the model says, piece by piece.
    pieces: broadcast::Sender<String>,
    /// Cancelled to stop it.
    cancel: CancellationToken,
    /// Cancelled when it has stopped, and what it came to is kept.
    done: CancellationToken,
}

impl Live {
    fn new() -> Self {
        let ((events, _), (pieces, _)) = (broadcast::channel(KEPT), broadcast::channel(KEPT));
        Self { events, pieces, cancel: CancellationToken::new(), done: CancellationToken::new() }
    }
}

/// The agent; a cheap handle.
#[derive(Clone)]
pub struct Agent {
    model: Model,
    servers: Servers,
    tasks: SharedTasks,
    needs_approval: Arc<Vec<String>>,
    live: Arc<StdMutex<HashMap<String, Live>>>,
    /// Of one user, one thing is begun, decided or cancelled at a time.
    turns: Arc<StdMutex<HashMap<String, Arc<Mutex<()>>>>>,
    /// This process, among those that may share a store.
    instance: Arc<str>,
    stopping: CancellationToken,
}

/// What follows from a request: the task as it is, and what is told from then on.
#[derive(Debug)]
pub struct Following {
    /// The task.
    pub task: Task,
    /// What happens next; nothing when it waits or is over.
    pub events: Option<broadcast::Receiver<Event>>,
}

impl From<StoreError> for RpcError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "tasks");
        Self::Internal(error.to_string())
    }
}

impl Agent {
    /// An agent with this model and these tools; those named in `needs_approval` are asked about.
    pub fn new(
        model: Model,
        servers: Servers,
        tasks: SharedTasks,
        needs_approval: Vec<String>,
    ) -> Self {
        Self {
            model,
            servers,
            tasks,
            needs_approval: Arc::new(needs_approval),
            live: Arc::default(),
            turns: Arc::default(),
            instance: new_id().into(),
            stopping: CancellationToken::new(),
        }
    }

    /// Its model's name.
    pub fn model(&self) -> &str {
        self.model.name()
    }

    /// Whether its user is asked before it calls a tool.
    fn asks_about(&self, tool: &str) -> bool {
        self.needs_approval.iter().any(|name| name == tool)
    }

    /// Where its tasks are kept.
    pub fn tasks(&self) -> &SharedTasks {
        &self.tasks
    }

    fn live(&self) -> MutexGuard<'_, HashMap<String, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A user's turn: held while something of theirs is begun, decided or cancelled.
    async fn turn_of(&self, user: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever waits or works holds one more.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(user.to_owned()).or_default())
        };
        turn.lock_owned().await
    }

    /// A user says something: a new task, a decision about a paused one. Once begun it runs to its
    /// end, whether or not whoever asked waits for it.
    ///
    /// # Errors
    /// [`RpcError`]; nothing has happened then.
    pub async fn send(&self, user: &str, message: Message) -> Result<Following, RpcError> {
        let (agent, user) = (self.clone(), user.to_owned());
        let sent = tokio::spawn(async move { agent.send_whole(&user, message).await });
        sent.await.unwrap_or_else(|error| Err(RpcError::Internal(error.to_string())))
    }

    async fn send_whole(&self, user: &str, message: Message) -> Result<Following, RpcError> {
        let decision =
            Decision::of(&message).map_err(|error| RpcError::Params(error.to_string()))?;
        let named = message.task_id.clone().filter(|id| !id.is_empty());
        let _turn = self.turn_of(user).await;
        match (named, decision) {
            (Some(id), decision) => {
                let task = self.settled(user, &id).await?;
                self.go_on(user, task, &message, decision).await
            }
            (None, Some(_)) => Err(RpcError::Params(
                "a decision needs the taskId of what it decides; nothing was decided".to_owned(),
            )),
            (None, None) => self.begin(user, &message).await,
        }
    }

    /// A task of this user. One that was under way when the agent ended is over.
    ///
    /// # Errors
    /// [`RpcError::TaskNotFound`], also for another user's.
    pub async fn find(&self, user: &str, id: &str) -> Result<Task, RpcError> {
        let task = self.read(user, id).await?;
        if !self.is_left(&task) {
            return Ok(task);
        }
        let _turn = self.turn_of(user).await;
        self.settled(user, id).await
    }

    async fn read(&self, user: &str, id: &str) -> Result<Task, RpcError> {
        let unknown = || RpcError::TaskNotFound(id.to_owned());
        let task = match self.tasks.task(user, id).await {
            Ok(task) => task.ok_or_else(unknown)?,
            Err(StoreError::NotYours) => return Err(unknown()),
            Err(error) => return Err(error.into()),
        };
        // The controller knows users; the task says once more whose it is.
        if Turn::of(&task.metadata).is_some_and(|turn| turn.user != user) {
            return Err(unknown());
        }
        Ok(task)
    }

    /// Whether a task was under way in a process that is no more.
    fn is_left(&self, task: &Task) -> bool {
        let under_way = matches!(task.status.state, TaskState::Submitted | TaskState::Working);
        if !under_way || self.live().contains_key(&task.id) {
            return false;
        }
        let ours = Turn::of(&task.metadata).is_some_and(|turn| *turn.instance == *self.instance);
        // Another process may still be at it, for as long as a call may take.
        ours || !self.tasks.is_shared() || task.age() > self.servers.limit()
    }

    /// A task, settled if it was left. The user's turn is held.
    async fn settled(&self, user: &str, id: &str) -> Result<Task, RpcError> {
        let task = self.read(user, id).await?;
        self.settle(user, task).await
    }

    async fn settle(&self, user: &str, mut task: Task) -> Result<Task, RpcError> {
        if self.is_left(&task) {
            // It may have come to its end between being read and being looked for. Nothing begins
            // while the turn is held, so that now it is as it stays.
            task = self.read(user, &task.id).await?;
        }
        if self.is_left(&task) {
            task.close(TaskState::Failed, work::INTERRUPTED.to_owned());
            self.tasks.save(user, &task).await?;
        }
        Ok(task)
    }

    /// Something said to a task that there is.
    async fn go_on(
        &self,
        user: &str,
        mut task: Task,
        message: &Message,
        decision: Option<Decision>,
    ) -> Result<Following, RpcError> {
        if message.context_id.as_ref().is_some_and(|context| *context != task.context_id) {
            let text = format!("task {} is not of this contextId; nothing was decided", task.id);
            return Err(RpcError::Params(text));
        }
        match (task.status.state, decision) {
            (TaskState::InputRequired, Some(decision)) => {
                let mut turn = Turn::of(&task.metadata).ok_or_else(|| {
                    RpcError::Internal(format!("task {} has lost what it was about", task.id))
                })?;
                // Behind the question: kagent's page looks for the decision there.
                let heard = task.heard(message);
                task.update(TaskState::Working, Some(heard));
                let rejected = turn.decide(&decision);
                self.take_up(user, task, turn, rejected).await
            }
            // Text decides nothing, and the request is not lost: it is asked again.
            (TaskState::InputRequired, None) => Ok(Following { task, events: None }),
            (state, _) if state.is_terminal() => Err(RpcError::Params(format!(
                "Task {} is in terminal state: {}",
                task.id,
                state.name()
            ))),
            (state, _) => Err(RpcError::Params(format!(
                "Task {} is {} and waits for nothing",
                task.id,
                state.name()
            ))),
        }
    }

    async fn begin(&self, user: &str, message: &Message) -> Result<Following, RpcError> {
        let text = message.text();
        if text.trim().is_empty() {
            return Err(RpcError::Params("the message has no text".to_owned()));
        }
        let context = message.context_id.clone().filter(|context| !context.is_empty());
        let context = context.unwrap_or_else(new_id);
        let mut before = None;
        match self.tasks.of_context(user, &context).await? {
            None => self.tasks.begin_context(user, &context, &text).await?,
            Some(tasks) => {
                for task in tasks {
                    let task = self.settle(user, task).await?;
                    match task.status.state {
                        // What waits in this conversation waits; nothing new begins beside it.
                        TaskState::InputRequired => return Ok(Following { task, events: None }),
                        state if state.is_terminal() => {
                            let turn = Turn::of(&task.metadata).filter(|turn| turn.user == user);
                            before = turn.or(before);
                        }
                        _ => {
                            let text =
                                format!("Task {} of this conversation is not done yet", task.id);
                            return Err(RpcError::Params(text));
                        }
                    }
                }
            }
        }
        let task = Task::new(message, context);
        let turn = Turn::begin(user, before, &text);
        self.take_up(user, task, turn, Vec::new()).await
    }

    /// Keeps a task as being under way, and lets it work. The user's turn is held.
    async fn take_up(
        &self,
        user: &str,
        mut task: Task,
        mut turn: Turn,
        rejected: Vec<(crate::approval::Call, String)>,
    ) -> Result<Following, RpcError> {
        turn.instance = self.instance.to_string();
        task.metadata.insert(KEY.to_owned(), turn.kept());
        // Known as being under way before anybody can read that it is.
        let live = Live::new();
        let receiver = live.events.subscribe();
        self.live().insert(task.id.clone(), live.clone());
        if let Err(error) = self.tasks.save(user, &task).await {
            self.ended(&task.id, &live);
            return Err(error.into());
        }
        let following = Following { task: task.clone(), events: Some(receiver) };
        let (agent, user) = (self.clone(), user.to_owned());
        tokio::spawn(async move {
            let id = task.id.clone();
            let work = work::Work { agent: &agent, user: &user, task, turn, live: live.clone() };
            Box::pin(work.run(rejected)).await;
            agent.ended(&id, &live);
        });
        Ok(following)
    }

    /// Notes that a task is not under way any more, unless it has been taken up again already.
    fn ended(&self, id: &str, ended: &Live) {
        let mut live = self.live();
        if live.get(id).is_some_and(|live| live.events.same_channel(&ended.events)) {
            live.remove(id);
        }
        drop(live);
        ended.done.cancel();
    }

    /// What is told of a task from now on.
    ///
    /// # Errors
    /// [`RpcError::TaskNotFound`].
    pub async fn follow(&self, user: &str, id: &str) -> Result<Following, RpcError> {
        // Listening first: nothing is missed between.
        let events = self.live().get(id).map(|live| live.events.subscribe());
        let task = self.find(user, id).await?;
        let over = task.told().is_final();
        Ok(Following { task, events: events.filter(|_| !over) })
    }

    /// What the model says in a task that is under way, piece by piece, from now on.
    pub fn pieces(&self, id: &str) -> Option<broadcast::Receiver<String>> {
        self.live().get(id).map(|live| live.pieces.subscribe())
    }

    /// A user's tasks of one conversation, oldest first, none of them left behind.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn conversation(&self, user: &str, context: &str) -> Result<Vec<Task>, RpcError> {
        let mut tasks = self.tasks.of_context(user, context).await?.unwrap_or_default();
        for task in &mut tasks {
            if self.is_left(task) {
                *task = self.find(user, &task.id).await?;
            }
        }
        Ok(tasks)
    }

    /// Stops a task, as its user wants. Once begun it runs to its end.
    ///
    /// # Errors
    /// [`RpcError::NotCancelable`] when it is over.
    pub async fn cancel(&self, user: &str, id: &str) -> Result<Task, RpcError> {
        let (agent, user, id) = (self.clone(), user.to_owned(), id.to_owned());
        let cancelled = tokio::spawn(async move { agent.cancel_whole(&user, &id).await });
        cancelled.await.unwrap_or_else(|error| Err(RpcError::Internal(error.to_string())))
    }

    async fn cancel_whole(&self, user: &str, id: &str) -> Result<Task, RpcError> {
        loop {
            let turn = self.turn_of(user).await;
            let mut task = self.settled(user, id).await?;
            let live = self.live().get(id).cloned();
            if let Some(live) = live {
                live.cancel.cancel();
                drop(turn);
                // What it came to is kept then: stopped, or done a moment before.
                live.done.cancelled().await;
                continue;
            }
            return match task.status.state {
                TaskState::Canceled => Ok(task),
                state if state.is_terminal() => Err(RpcError::NotCancelable(format!(
                    "Task {id} is in terminal state: {}",
                    state.name()
                ))),
                _ => {
                    task.update(TaskState::Canceled, None);
                    self.tasks.save(user, &task).await?;
                    Ok(task)
                }
            };
        }
    }

    /// Ends everything that is under way, and keeps that it was interrupted.
    pub async fn stop(&self) {
        self.stopping.cancel();
        let all: Vec<_> = self.live().values().cloned().collect();
        for live in all {
            live.cancel.cancel();
            live.done.cancelled().await;
        }
    }
}
