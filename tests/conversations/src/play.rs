//! One conversation with one agent, checked step by step.

mod kagent;

use std::time::{Duration, Instant};

use hitl_api::State;
use lab::scenes::{
    self, SceneError, World,
    chat::{Answer, Chat, Turn},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    agents::Kind,
    page::Page,
    script::{
        Act, Address, Conversation, Difference, End, Expect, Gateway, Review, Step, difference,
    },
    stage::{Place, Stage},
    wire::Wire,
};

/// Longest that a step's result may take to be there.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often it is looked again.
const AGAIN: Duration = Duration::from_millis(50);

/// JSON-RPC's code for an error of the server's own.
const INTERNAL: i64 = -32603;

/// Who speaks, unless somebody else does.
const SOMEBODY: &str = "alice";

/// Why a conversation did not go as it should.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// Something of the stage does not work.
    #[error("the stage: {0:#}")]
    Stage(#[from] anyhow::Error),
    /// Something that is asked does not answer.
    #[error(transparent)]
    Scene(#[from] SceneError),
    /// A step went otherwise.
    #[error("step {number}: {what}")]
    Step {
        /// Which, from 1.
        number: usize,
        /// How.
        what: String,
    },
    /// It came to something else.
    #[error("at its end: {0}")]
    End(String),
}

/// What came of a step.
#[derive(Clone, Debug)]
enum Outcome {
    Turn(Turn),
    Refused(i64, String),
    /// An answer that was none.
    Broken(String),
    Nothing,
}

/// A conversation under way.
struct Play<'a> {
    place: &'a Place,
    stage: Option<&'a mut Stage>,
    http: reqwest::Client,
    /// What makes its users' names its own.
    run: String,
    context: Uuid,
    turn: Option<Turn>,
    /// What came of the others, of several at once.
    others: Vec<Outcome>,
    users: Vec<String>,
    /// What kagent's page shows, where the conversation is had there.
    page: Option<Page>,
    /// What the conversation is called there.
    title: String,
}

/// Has a conversation with an agent.
///
/// # Errors
/// When it did not go as it should.
pub async fn play(
    conversation: &Conversation,
    kind: Kind,
    place: &Place,
    stage: Option<&mut Stage>,
) -> Result<(), PlayError> {
    let http = hitl_client::plain_http().map_err(SceneError::from)?;
    let mut play = Play {
        http,
        run: Uuid::new_v4().simple().to_string().chars().take(8).collect(),
        context: Uuid::now_v7(),
        turn: None,
        others: Vec::new(),
        users: Vec::new(),
        title: String::new(),
        page: (conversation.page && place.controller.is_some()).then(Page::default),
        place,
        stage,
    };
    scenes::stage(&play.world("stage")?).await?;
    let before = play.world(SOMEBODY)?.account().await?.last_change();
    for (at, step) in conversation.steps.iter().enumerate() {
        let outcome = play.perform(step).await?;
        // kagent's controller turns an error that it cannot read into one of its own.
        let codes =
            if play.stage.is_none() && place.controller.is_some() { &[INTERNAL][..] } else { &[] };
        let ran = play.world(SOMEBODY)?.account().await?.changes_after(before);
        let others = std::mem::take(&mut play.others);
        let kept = play.kept(&outcome).await?;
        let matches = |expect: &Expect| {
            meets(&outcome, &others, &ran, expect, codes)?;
            // Behind a controller events come rewritten.
            let told = play.stage.is_some().then_some(expect.told.as_ref()).flatten();
            kagent::has_form(&outcome, kept.as_ref(), told, expect.kept.as_ref())
        };
        agrees(&step.expect, difference(&step.differs, kind), matches)
            .map_err(|what| PlayError::Step { number: at + 1, what })?;
        if let Outcome::Turn(turn) = outcome {
            if let Some(page) = &mut play.page {
                page.heard(&turn.events);
            }
            play.turn = Some(turn);
        }
    }
    if let Some(page) = &play.page {
        play.outlives_a_reload(page, kind).await?;
    }
    let (end, differs) = (&conversation.end, difference(&conversation.differs, kind));
    let came = play.came(before).await?;
    agrees(end, differs, |end| comes_to(&came, end)).map_err(PlayError::End)
}

/// Whether something is as expected, or as this agent is known to do it; and not both.
fn agrees<T>(
    expected: &T,
    differs: Option<&Difference<T>>,
    matches: impl Fn(&T) -> Result<(), String>,
) -> Result<(), String> {
    let Some(differs) = differs else { return matches(expected) };
    match (matches(expected), matches(&differs.expect)) {
        (Ok(()), _) if differs.sometimes => Ok(()),
        (Ok(()), _) => Err("it does as the others do by now: remove the difference".to_owned()),
        (Err(_), Ok(())) => Ok(()),
        (Err(_), Err(what)) => Err(format!("other than it is known to differ: {what}")),
    }
}

fn meets(
    outcome: &Outcome,
    others: &[Outcome],
    ran: &[String],
    expect: &Expect,
    or_codes: &[i64],
) -> Result<(), String> {
    let refused = |other: &Outcome, wanted| matches!(other, Outcome::Refused(code, _) if *code == wanted || or_codes.contains(code));
    if let Some(wanted) = expect.others
        && let Some(other) = others.iter().find(|other| !refused(other, wanted))
    {
        return Err(format!("one of the others was not refused with {wanted}: {other:?}"));
    }
    if let Some(wanted) = expect.ran.as_ref().filter(|wanted| wanted.as_slice() != ran) {
        return Err(format!("the tools did {ran:?}, not {wanted:?}"));
    }
    let turn = match (outcome, expect.error) {
        (Outcome::Refused(code, text), Some(wanted))
            if *code != wanted && !or_codes.contains(code) =>
        {
            return Err(format!("refused with {code} ({text}) and not {wanted}"));
        }
        (Outcome::Refused(..), Some(_)) => return Ok(()),
        (Outcome::Refused(code, text), None) => return Err(format!("refused: {text} ({code})")),
        (Outcome::Broken(text), _) => return Err(text.clone()),
        (Outcome::Turn(turn), Some(wanted)) => {
            return Err(format!("not refused with {wanted}: {} {:?}", turn.state, turn.text));
        }
        (Outcome::Turn(turn), None) => turn,
        (Outcome::Nothing, ..) => {
            let nothing = *expect == Expect::default();
            return if nothing { Ok(()) } else { Err("nothing came of it".to_owned()) };
        }
    };
    if let Some(state) = expect.state.as_ref().filter(|state| **state != turn.state) {
        return Err(format!("the task is {}, not {state}: {:?}", turn.state, turn.text));
    }
    let asked: Vec<_> = turn.asked.iter().map(|(_, tool)| tool.clone()).collect();
    if let Some(wanted) = expect.asked.as_ref().filter(|wanted| **wanted != asked) {
        return Err(format!("asked about {asked:?}, not {wanted:?}"));
    }
    match expect.says.iter().find(|text| !turn.text.contains(*text)) {
        Some(text) => Err(format!("{text:?} is not in {:?}", turn.text)),
        None => Ok(()),
    }
}

fn comes_to(came: &End, wanted: &End) -> Result<(), String> {
    let sorted = |list: &[String]| {
        let mut list = list.to_vec();
        list.sort();
        list
    };
    let ran = came.ran.as_deref().map(sorted).unwrap_or_default();
    if let Some(only) = &wanted.ran_only
        && (ran.is_empty() || ran.iter().any(|one| one != only))
    {
        return Err(format!("the tools did {ran:?}, not {only:?} alone"));
    }
    if wanted.version.is_some() && came.version != wanted.version {
        return Err(format!("the schema is at {:?}, not {:?}", came.version, wanted.version));
    }
    for (what, came, wanted) in [
        ("the tools did", &came.ran, &wanted.ran),
        ("the gate's requests are", &came.requests, &wanted.requests),
        ("they were made for", &came.requesters, &wanted.requesters),
    ] {
        let came = came.as_deref().map(sorted).unwrap_or_default();
        if let Some(wanted) = wanted.as_deref().map(sorted).filter(|wanted| *wanted != came) {
            return Err(format!("{what} {came:?}, not {wanted:?}"));
        }
    }
    Ok(())
}

impl Play<'_> {
    /// A user's name in this conversation alone.
    fn user(&self, name: &str) -> String {
        format!("{name}-{}", self.run)
    }

    /// The world, as a user of this conversation.
    fn world(&self, name: &str) -> Result<World, PlayError> {
        let Place { agent, gate, tools, token, .. } = self.place;
        let mut world = World::new(agent.clone(), gate.clone(), tools.clone(), token)?;
        world.user = self.user(name);
        Ok(world)
    }

    fn chat(&self, name: &str) -> Chat {
        Chat::new(self.http.clone(), self.place.agent.clone(), &self.user(name))
    }

    async fn perform(&mut self, step: &Step) -> Result<Outcome, PlayError> {
        let name = step.user.clone().unwrap_or_else(|| SOMEBODY.to_owned());
        if !self.users.contains(&name) {
            self.users.push(name.clone());
        }
        if step.address == Address::New {
            (self.context, self.turn) = (Uuid::now_v7(), None);
        }
        match step.act().ok_or_else(|| anyhow::anyhow!("it says nothing to do"))? {
            Act::Say(text) => {
                self.open_page(text, &name).await?;
                let parts = json!([{"kind": "text", "text": text}]);
                self.send(step, &name, parts).await
            }
            Act::Decide(decision) => {
                let asked = self.turn.as_ref().map(|turn| turn.asked.clone()).unwrap_or_default();
                let data = decision.data(&asked);
                if let Some(page) = &mut self.page {
                    page.decided(&data);
                }
                let parts = json!([
                    {"kind": "data", "data": data, "metadata": {}},
                    {"kind": "text", "text": "Decided"},
                ]);
                self.send(step, &name, parts).await
            }
            Act::Cancel => {
                let params = json!({"id": self.task()?});
                Ok(outcome(self.chat(&name).ask("tasks/cancel", &params).await))
            }
            Act::Follow => self.follow(&name).await,
            Act::Review(review) => {
                self.review(&name, review, false).await?;
                Ok(Outcome::Nothing)
            }
            Act::Kill => {
                self.stage()?.kill_agent().await?;
                Ok(Outcome::Nothing)
            }
            Act::Gateway(Gateway::Down) => {
                self.stage()?.gateway_down().await;
                Ok(Outcome::Nothing)
            }
            Act::Gateway(Gateway::Up) => {
                self.stage()?.gateway_up().await?;
                Ok(Outcome::Nothing)
            }
        }
    }

    fn stage(&mut self) -> Result<&mut Stage, PlayError> {
        let missing = || anyhow::anyhow!("nothing here can be stopped and started");
        Ok(self.stage.as_deref_mut().ok_or_else(missing)?)
    }

    fn task(&self) -> Result<String, PlayError> {
        let turn = self.turn.as_ref().ok_or_else(|| anyhow::anyhow!("there is no task yet"))?;
        Ok(turn.task.clone())
    }

    fn message(&self, step: &Step, parts: &Value) -> Result<Value, PlayError> {
        let mut message = json!({
            "kind": "message", "messageId": Uuid::now_v7(), "role": "user",
            "contextId": self.context, "parts": parts,
        });
        let decides = matches!(step.act(), Some(Act::Decide(_)));
        let names_task = match step.address {
            Address::Fitting => decides,
            Address::Task | Address::OtherConversation => true,
            Address::Conversation | Address::New | Address::NoTask => false,
        };
        if let (true, Some(object)) = (names_task, message.as_object_mut()) {
            object.insert("taskId".to_owned(), json!(self.task()?));
            if step.address == Address::OtherConversation {
                object.insert("contextId".to_owned(), json!(Uuid::now_v7()));
            }
        }
        Ok(message)
    }

    /// Sends a message as often as wanted, while a reviewer does what they do meanwhile.
    async fn send(&mut self, step: &Step, name: &str, parts: Value) -> Result<Outcome, PlayError> {
        let mut sent = tokio::task::JoinSet::new();
        for _ in 0..step.times.unwrap_or(1) {
            let (chat, message) = (self.chat(name), self.message(step, &parts)?);
            sent.spawn(async move {
                let params = json!({"message": message, "metadata": {}});
                outcome(chat.ask("message/stream", &params).await)
            });
        }
        if step.hang_up {
            self.world(name)?.held().await?;
            sent.shutdown().await;
            return Ok(Outcome::Nothing);
        }
        let mut outcomes = Vec::new();
        if let Some(review) = &step.meanwhile {
            tokio::select! {
                lost = self.lose(name, review) => lost?,
                done = sent.join_next() => outcomes.extend(done),
            }
            if review.away {
                self.world(name)?.held().await?;
                self.stage()?.unreachable();
            }
        }
        if let Some(review) = step.meanwhile.as_ref().filter(|_| outcomes.is_empty()) {
            tokio::select! {
                reviewed = self.review(name, review, true) => reviewed?,
                done = sent.join_next() => outcomes.extend(done),
            }
        }
        while let Some(done) = sent.join_next().await {
            outcomes.push(done);
        }
        let outcomes = outcomes.into_iter().collect::<Result<Vec<_>, _>>();
        let mut outcomes = outcomes.map_err(|error| anyhow::anyhow!(error))?;
        // Of several at once, the one that was let through; what is expected of the others is said.
        let through = outcomes.iter().position(|one| matches!(one, Outcome::Turn(_)));
        if outcomes.is_empty() {
            return Ok(Outcome::Nothing);
        }
        let outcome = outcomes.swap_remove(through.unwrap_or_default());
        self.others = outcomes;
        Ok(outcome)
    }

    fn wire(&self) -> Result<&Wire, PlayError> {
        let missing = || anyhow::anyhow!("nothing here can be cut");
        Ok(self.place.wire.as_ref().ok_or_else(missing)?)
    }

    /// Cuts the connection of a user's held call, as often as wanted, each time it is held again.
    async fn lose(&self, name: &str, review: &Review) -> Result<(), PlayError> {
        for cut in 1..=review.cut {
            let wire = self.wire()?;
            self.world(name)?.held().await?;
            let calls = wire.calls();
            wire.cut();
            if cut < review.cut || review.decision().is_some() {
                wire.call_after(calls).await;
            }
        }
        Ok(())
    }

    /// Decides as a reviewer about what a user's agent asks for. `held` wants a caller to wait for it.
    async fn review(&self, name: &str, review: &Review, held: bool) -> Result<(), PlayError> {
        let world = self.world(name)?;
        let Some(decision) = review.decision() else { return Ok(()) };
        if review.cut_answer {
            self.wire()?.cut_next_answer();
        }
        let request = if held {
            match world.held().await {
                // Nothing was held, and nothing had to be; whoever asked is answered by now.
                Err(SceneError::Otherwise(_)) if review.optional => {
                    return std::future::pending().await;
                }
                found => found?,
            }
        } else {
            let waiting = world.requests().await?.into_iter().find(|r| r.state == State::Pending);
            waiting.ok_or_else(|| anyhow::anyhow!("nothing waits for a reviewer"))?
        };
        Ok(world.decide(&request, decision.approved, &decision.reason).await?)
    }

    /// Waits for what becomes of the task that somebody left.
    async fn follow(&self, name: &str) -> Result<Outcome, PlayError> {
        let missing =
            || anyhow::anyhow!("without kagent's controller a task cannot be found again");
        let mut url = self.place.controller.clone().ok_or_else(missing)?;
        url.set_path(&format!("/api/sessions/{}/tasks", self.context));
        let begun = Instant::now();
        loop {
            let request = self.http.get(url.clone()).header("x-user-id", self.user(name));
            let answer = request.send().await.map_err(|error| anyhow::anyhow!(error))?;
            let body = answer.bytes().await.map_err(|error| anyhow::anyhow!(error))?;
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let id = body.pointer("/data/0/id").and_then(Value::as_str);
            if let Some(id) = id {
                let found = self.chat(name).ask("tasks/get", &json!({"id": id})).await;
                let found = outcome(found);
                let works = matches!(&found, Outcome::Turn(turn) if ["submitted", "working"].contains(&turn.state.as_str()));
                if !works {
                    return Ok(found);
                }
            }
            if begun.elapsed() > PATIENCE {
                return Ok(Outcome::Broken(format!("still nothing came of it: {body}")));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// What came of it all.
    async fn came(&self, before: u64) -> Result<End, PlayError> {
        let account = self.world(SOMEBODY)?.account().await?;
        let (mut requests, mut requesters) = (Vec::new(), Vec::new());
        let mut all = Vec::new();
        if self.stage.is_some() {
            // Everything that was ever asked at this gate, whoever it was asked for.
            all = self.world(SOMEBODY)?.recent().await?;
        } else {
            for name in &self.users {
                all.extend(self.world(name)?.requests().await?);
            }
        }
        let own = format!("-{}", self.run);
        for request in all {
            requests.push(request.state.name().to_owned());
            requesters.push(request.requester.name.trim_end_matches(&own).to_owned());
        }
        Ok(End {
            ran: Some(account.changes_after(before)),
            ran_only: None,
            version: Some(account.version().to_owned()),
            requests: Some(requests),
            requesters: Some(requesters),
        })
    }
}

fn outcome(answer: Result<Answer, SceneError>) -> Outcome {
    match answer {
        Ok(Answer::Turn(turn)) => Outcome::Turn(turn),
        Ok(Answer::Refused(code, text)) => Outcome::Refused(code, text),
        Err(error) => Outcome::Broken(error.to_string()),
    }
}
