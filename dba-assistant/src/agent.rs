//! The agent: takes what a user says, lets the model and the tools work, asks before it destroys.
//!
//! Owns the order of things: a task is kept before anybody hears of it, a call is noted before it is
//! made, and a decision counts once. Must never let one user see, decide or cancel another's task.

mod work;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError},
};

use tokio::sync::{Mutex, broadcast};
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
    cancel: CancellationToken,
}

/// The agent; a cheap handle.
#[derive(Clone)]
pub struct Agent {
    model: Model,
    servers: Servers,
    tasks: SharedTasks,
    needs_approval: Arc<Vec<String>>,
    live: Arc<StdMutex<HashMap<String, Live>>>,
    /// One decides, begins or cancels at a time, so that a task is taken up once.
    taking_up: Arc<Mutex<()>>,
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
        let needs_approval = Arc::new(needs_approval);
        let (live, taking_up) = (Arc::default(), Arc::default());
        Self { model, servers, tasks, needs_approval, live, taking_up }
    }

    /// Its model's name.
    pub fn model(&self) -> &str {
        self.model.name()
    }

    /// Where its tasks are kept.
    pub fn tasks(&self) -> &SharedTasks {
        &self.tasks
    }

    fn live(&self) -> MutexGuard<'_, HashMap<String, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A user says something: a new task, a decision about a paused one.
    ///
    /// # Errors
    /// [`RpcError`]; nothing has happened then.
    pub async fn send(&self, user: &str, message: Message) -> Result<Following, RpcError> {
        let decision =
            Decision::of(&message).map_err(|error| RpcError::Params(error.to_string()))?;
        let named = message.task_id.clone().filter(|id| !id.is_empty());
        let _taking_up = self.taking_up.lock().await;
        match (named, decision) {
            (Some(id), decision) => {
                let task = self.find(user, &id).await?;
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
        self.settled_if_left(user, task).await
    }

    async fn settled_if_left(&self, user: &str, mut task: Task) -> Result<Task, RpcError> {
        let under_way = matches!(task.status.state, TaskState::Submitted | TaskState::Working);
        if under_way && !self.live().contains_key(&task.id) {
            let text = "The agent was stopped while it was at this. What it had begun may have \
                        happened: look before you ask again.";
            let said = task.say(vec![crate::a2a::Part::text(text)]);
            task.update(TaskState::Failed, Some(said));
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
                task.hear(message);
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
        let mut before = None;
        if let Some(context) = &context {
            for task in self.tasks.of_context(user, context).await? {
                let task = self.settled_if_left(user, task).await?;
                match task.status.state {
                    // What waits in this conversation waits; nothing new begins beside it.
                    TaskState::InputRequired => return Ok(Following { task, events: None }),
                    state if state.is_terminal() => {
                        before =
                            Turn::of(&task.metadata).filter(|turn| turn.user == user).or(before);
                    }
                    _ => {
                        let text = format!("Task {} of this conversation is not done yet", task.id);
                        return Err(RpcError::Params(text));
                    }
                }
            }
        }
        let task = Task::new(message, context.unwrap_or_else(new_id));
        let turn = Turn::begin(user, before, &text);
        self.take_up(user, task, turn, Vec::new()).await
    }

    /// Keeps a task as being under way, and lets it work.
    async fn take_up(
        &self,
        user: &str,
        mut task: Task,
        turn: Turn,
        rejected: Vec<(crate::approval::Call, String)>,
    ) -> Result<Following, RpcError> {
        task.metadata.insert(KEY.to_owned(), turn.kept());
        if task.status.state != TaskState::Submitted {
            task.update(TaskState::Working, None);
        }
        self.tasks.save(user, &task).await?;
        let (events, receiver) = broadcast::channel(KEPT);
        let (pieces, _) = broadcast::channel(KEPT);
        let live = Live { events, pieces, cancel: CancellationToken::new() };
        self.live().insert(task.id.clone(), live.clone());
        let following = Following { task: task.clone(), events: Some(receiver) };
        let (agent, user) = (self.clone(), user.to_owned());
        // Whoever asked may go: it goes on.
        tokio::spawn(async move {
            let id = task.id.clone();
            let work = work::Work {
                agent: &agent,
                user: &user,
                task,
                turn,
                events: live.events,
                pieces: live.pieces,
            };
            work.run(rejected, live.cancel).await;
            agent.live().remove(&id);
        });
        Ok(following)
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
        let mut tasks = Vec::new();
        for task in self.tasks.of_context(user, context).await? {
            tasks.push(self.settled_if_left(user, task).await?);
        }
        Ok(tasks)
    }

    /// Stops a task, as its user wants.
    ///
    /// # Errors
    /// [`RpcError::NotCancelable`] when it is over.
    pub async fn cancel(&self, user: &str, id: &str) -> Result<Task, RpcError> {
        let following = self.follow(user, id).await?;
        let live = self.live().get(id).cloned();
        if let (Some(live), Some(mut events)) = (live, following.events) {
            live.cancel.cancel();
            // Until it has stopped.
            while events.recv().await.is_ok_and(|event| !event.is_final()) {}
        }
        let _taking_up = self.taking_up.lock().await;
        let mut task = self.find(user, id).await?;
        match task.status.state {
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
        }
    }
}
