//! A turn: what the model has heard and said, and how far each of its calls has come.
//!
//! Pure, and all of it outlives the process: it is kept with the task. Must never let a call run
//! twice, nor one that needs approval run without.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::approval::{Call, Decision, Verdict};

/// Where in a task's metadata a turn is kept.
pub const KEY: &str = "dba_assistant";

/// Most rounds of calls in one turn; a model that wants more is going in circles.
pub const MOST_ROUNDS: u32 = 20;

/// What the model said.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// Text.
    Text(String),
    /// A call.
    Call(Call),
}

/// How far a call has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "at", rename_all = "lowercase")]
enum Progress {
    /// The user is asked.
    Asked,
    /// It may run.
    Allowed,
    /// It is running, or was when the agent ended.
    Running,
    /// It is answered.
    Answered { text: String, is_error: bool },
}

/// A call of this round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Step {
    call: Call,
    progress: Progress,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// The model is asked.
    Model,
    /// The user is asked about these calls.
    Ask(Vec<Call>),
    /// This call is run.
    Run(Call),
    /// Nothing: this is the answer.
    Finished(String),
    /// Nothing: the model goes in circles.
    TooMany,
}

/// A turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// Whose it is.
    pub user: String,
    /// The process that works on it.
    #[serde(default)]
    pub instance: String,
    /// Messages as the model's API has them.
    conversation: Vec<Value>,
    steps: Vec<Step>,
    rounds: u32,
    /// Calls that came back with an error, as they were made: none is repeated in the same turn.
    failed: Vec<Value>,
    /// Why the user is asked again, if so.
    #[serde(default)]
    again: Option<String>,
}

impl Turn {
    /// A turn in which a user says something, after what was said before.
    pub fn begin(user: &str, before: Option<Self>, text: &str) -> Self {
        let mut conversation = before.map(Self::closed).unwrap_or_default();
        conversation.push(json!({"role": "user", "content": text}));
        Self {
            user: user.to_owned(),
            instance: String::new(),
            again: None,
            conversation,
            steps: Vec::new(),
            rounds: 0,
            failed: Vec::new(),
        }
    }

    /// The conversation of a turn that has ended anyhow: every call in it has an answer.
    fn closed(mut self) -> Vec<Value> {
        for step in &mut self.steps {
            let text = match step.progress {
                Progress::Answered { .. } => continue,
                Progress::Running => {
                    "This call was begun, and what became of it is not known. It may have happened, \
                     or may still happen: look before you repeat it."
                }
                Progress::Asked | Progress::Allowed => {
                    "This call was not made: the conversation went on without it."
                }
            };
            step.progress = Progress::Answered { text: text.to_owned(), is_error: true };
        }
        self.hand_on();
        // Two messages of the user in a row are one: the API wants them to alternate.
        if self.conversation.last().is_some_and(|last| last.get("role") == Some(&json!("user"))) {
            let text = "(No answer was given.)";
            self.conversation.push(json!({"role": "assistant", "content": text}));
        }
        self.conversation
    }

    /// What the model is asked with.
    pub fn conversation(&self) -> &[Value] {
        &self.conversation
    }

    /// Takes what the model said; calls of these tools need approval.
    pub fn said(&mut self, said: Vec<Said>, needs_approval: impl Fn(&str) -> bool) -> Next {
        let content: Vec<_> = said
            .iter()
            .map(|said| match said {
                Said::Text(text) => json!({"type": "text", "text": text}),
                Said::Call(Call { id, name, args }) => {
                    json!({"type": "tool_use", "id": id, "name": name, "input": args})
                }
            })
            .collect();
        if !content.is_empty() {
            self.conversation.push(json!({"role": "assistant", "content": content}));
        }
        let (mut texts, mut steps) = (Vec::new(), Vec::new());
        for said in said {
            match said {
                Said::Text(text) => texts.push(text),
                Said::Call(call) => {
                    let asked = needs_approval(&call.name);
                    let progress = if asked { Progress::Asked } else { Progress::Allowed };
                    steps.push(Step { call, progress });
                }
            }
        }
        if steps.is_empty() {
            return Next::Finished(texts.join("\n\n"));
        }
        self.steps = steps;
        self.rounds += 1;
        for step in &mut self.steps {
            // What came back with an error is for the user to repeat, not for the model.
            if self.failed.contains(&same(&step.call)) {
                let text = "This very call has been answered in this turn already, and was not made \
                            again. Tell the user what the answer was; they decide what happens next.";
                step.progress = Progress::Answered { text: text.to_owned(), is_error: true };
            }
        }
        self.what_next()
    }

    /// What comes next.
    pub fn what_next(&mut self) -> Next {
        let asked = self.steps.iter().filter(|step| step.progress == Progress::Asked);
        let asked: Vec<_> = asked.map(|step| step.call.clone()).collect();
        if !asked.is_empty() {
            // Before anything of this round runs: what the model wants is one plan.
            return Next::Ask(asked);
        }
        if let Some(step) = self.steps.iter().find(|step| step.progress == Progress::Allowed) {
            return Next::Run(step.call.clone());
        }
        self.hand_on();
        if self.rounds >= MOST_ROUNDS { Next::TooMany } else { Next::Model }
    }

    /// Takes the user's decision about everything that was asked. Gives what was rejected, with what
    /// the model is told.
    pub fn decide(&mut self, decision: &Decision) -> Vec<(Call, String)> {
        let mut rejected = Vec::new();
        for step in self.steps.iter_mut().filter(|step| step.progress == Progress::Asked) {
            match decision.verdict(&step.call.id) {
                Verdict::Approve => step.progress = Progress::Allowed,
                Verdict::Reject(reason) => {
                    let text = Verdict::told(reason.as_deref());
                    rejected.push((step.call.clone(), text.clone()));
                    step.progress = Progress::Answered { text, is_error: true };
                }
            }
        }
        rejected
    }

    /// Notes that a call could not be made, and why; gives what comes next. What the user was asked
    /// about they are asked about again: their approval was for a call, and there was none.
    pub fn not_made(&mut self, id: &str, why: &str, ask: bool) -> Next {
        if ask {
            self.set(id, Progress::Asked);
            self.again = Some(format!("{why} Nothing has run; decide again once it is back."));
        } else {
            let text = format!("{why} The call was not made.");
            self.set(id, Progress::Answered { text, is_error: true });
        }
        self.what_next()
    }

    /// Why the user is asked again, once.
    pub fn asked_again(&mut self) -> Option<String> {
        self.again.take()
    }

    /// Notes that a call is being made, before it is.
    pub fn running(&mut self, id: &str) {
        self.set(id, Progress::Running);
    }

    /// Notes what a call came to.
    pub fn answered(&mut self, id: &str, text: &str, is_error: bool) {
        if is_error && let Some(step) = self.steps.iter().find(|step| step.call.id == id) {
            self.failed.push(same(&step.call));
        }
        self.set(id, Progress::Answered { text: text.to_owned(), is_error });
    }

    fn set(&mut self, id: &str, progress: Progress) {
        if let Some(step) = self.steps.iter_mut().find(|step| step.call.id == id) {
            step.progress = progress;
        }
    }

    /// The answers of a round, for the model; once every call of it has one.
    fn hand_on(&mut self) {
        let steps = std::mem::take(&mut self.steps);
        let results: Vec<_> = steps
            .iter()
            .filter_map(|step| {
                let Progress::Answered { text, is_error } = &step.progress else { return None };
                Some(json!({"type": "tool_result", "tool_use_id": step.call.id, "content": text, "is_error": is_error}))
            })
            .collect();
        if !results.is_empty() {
            self.conversation.push(json!({"role": "user", "content": results}));
        }
    }

    /// As it is kept.
    pub fn kept(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// As it was kept.
    pub fn of(metadata: &Map<String, Value>) -> Option<Self> {
        hitl_core::json::typed(metadata.get(KEY)?.clone()).ok()
    }
}

/// What makes two calls the same.
fn same(call: &Call) -> Value {
    json!([call.name, call.args])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str, name: &str) -> Said {
        let args = Map::from_iter([("of".to_owned(), json!(id))]);
        Said::Call(Call { id: id.into(), name: name.into(), args })
    }

    fn decision(data: &Value) -> Decision {
        let parts = json!([{"kind": "data", "data": data}]);
        let message = json!({"messageId": "m", "role": "user", "parts": parts});
        Decision::of(&serde_json::from_value(message).unwrap()).unwrap().unwrap()
    }

    fn needs(name: &str) -> bool {
        name == "truncate_table"
    }

    fn begun(said: Vec<Said>) -> (Turn, Next) {
        let mut turn = Turn::begin("alice", None, "do it");
        let next = turn.said(said, needs);
        (turn, next)
    }

    fn ids(calls: &[Call]) -> Vec<&str> {
        calls.iter().map(|call| call.id.as_str()).collect()
    }

    #[test]
    fn all_calls_that_need_approval_are_asked_about_at_once_and_before_any_runs() {
        let said =
            vec![call("q", "query"), call("x", "truncate_table"), call("y", "truncate_table")];
        let (mut turn, next) = begun(said);
        let Next::Ask(asked) = next else { panic!("{next:?}") };
        assert_eq!(ids(&asked), ["x", "y"]);
        let rejected = turn
            .decide(&decision(&json!({"decision_type": "batch", "decisions": {"x": "approve"}})));
        assert_eq!(rejected.len(), 1);
        assert_eq!(rejected[0].1, "Tool call was rejected by user.");
        for id in ["q", "x"] {
            let Next::Run(call) = turn.what_next() else { panic!() };
            assert_eq!(call.id, id);
            turn.running(id);
            turn.answered(id, "ok", false);
        }
        assert_eq!(turn.what_next(), Next::Model);
        let results = turn.conversation().last().unwrap()["content"].as_array().unwrap().clone();
        let answers: Vec<_> = results.iter().map(|r| (&r["tool_use_id"], &r["is_error"])).collect();
        assert_eq!(
            answers,
            [
                (&json!("q"), &json!(false)),
                (&json!("x"), &json!(false)),
                (&json!("y"), &json!(true))
            ]
        );
    }

    #[test]
    fn a_call_that_has_begun_never_begins_again_however_often_it_is_taken_up() {
        let (mut turn, _) = begun(vec![call("x", "truncate_table")]);
        turn.decide(&decision(&json!({"decision_type": "approve"})));
        let Next::Run(_) = turn.what_next() else { panic!() };
        turn.running("x");
        let kept = Map::from_iter([(KEY.to_owned(), turn.kept())]);
        let mut again = Turn::of(&kept).unwrap();
        assert_eq!(again, turn);
        again.decide(&decision(&json!({"decision_type": "approve"})));
        assert!(!matches!(again.what_next(), Next::Run(_)));
        turn.answered("x", "done", false);
        assert_eq!(turn.what_next(), Next::Model);
        turn.decide(&decision(&json!({"decision_type": "approve"})));
        assert_eq!(turn.what_next(), Next::Model);
    }

    #[test]
    fn what_was_answered_with_an_error_is_not_called_again_in_the_same_turn() {
        let (mut turn, next) = begun(vec![call("x", "run_migration")]);
        assert!(matches!(next, Next::Run(_)));
        turn.answered("x", "denied", true);
        assert_eq!(turn.what_next(), Next::Model);
        let Said::Call(mut again) = call("x", "run_migration") else { panic!() };
        again.id = "x2".into();
        assert_eq!(turn.said(vec![Said::Call(again)], needs), Next::Model);
        let last = turn.conversation().last().unwrap()["content"][0]["content"].to_string();
        assert!(last.contains("was not made again"), "{last}");
    }

    #[test]
    fn a_conversation_goes_on_after_a_turn_that_came_to_nothing() {
        let (turn, _) = begun(vec![Said::Text("I will".into()), call("x", "truncate_table")]);
        let next = Turn::begin("alice", Some(turn), "never mind");
        let roles: Vec<_> =
            next.conversation().iter().map(|m| m["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["user", "assistant", "user", "assistant", "user"]);
        assert_eq!(next.conversation()[2]["content"][0]["tool_use_id"], "x");
    }

    #[test]
    fn a_call_that_was_under_way_is_not_said_to_have_not_happened() {
        let (mut turn, _) = begun(vec![call("x", "run_migration")]);
        turn.running("x");
        let next = Turn::begin("alice", Some(turn), "and now?");
        let told = next.conversation()[2]["content"][0]["content"].to_string();
        assert!(told.contains("not known"), "{told}");
    }

    #[test]
    fn an_approval_that_could_not_be_used_is_asked_for_again() {
        let (mut turn, _) = begun(vec![call("x", "truncate_table"), call("q", "query")]);
        turn.decide(&decision(&json!({"decision_type": "approve"})));
        let Next::Run(run) = turn.what_next() else { panic!() };
        let next = turn.not_made(&run.id, "It cannot be reached.", true);
        assert!(matches!(&next, Next::Ask(asked) if ids(asked) == ["x"]), "{next:?}");
        assert!(turn.asked_again().unwrap().contains("Nothing has run"));
        assert_eq!(turn.asked_again(), None);
        turn.decide(&decision(&json!({"decision_type": "approve"})));
        assert!(matches!(turn.what_next(), Next::Run(call) if call.id == "x"));
    }

    #[test]
    fn a_model_that_goes_in_circles_is_stopped() {
        let mut turn = Turn::begin("alice", None, "loop");
        for round in 1.. {
            let id = format!("c{round}");
            assert!(matches!(turn.said(vec![call(&id, "query")], needs), Next::Run(_)));
            turn.answered(&id, "ok", false);
            match turn.what_next() {
                Next::Model => assert!(round < MOST_ROUNDS),
                Next::TooMany => return assert_eq!(round, MOST_ROUNDS),
                other => panic!("{other:?}"),
            }
        }
    }
}
