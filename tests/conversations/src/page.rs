//! What kagent's own page shows of a conversation: while it happens, and after a reload.
//!
//! Pure; written from what the page of kagent 0.10 was seen to do. Live it shows texts of final statuses
//! and of artifacts that are whole; after a reload it reads the histories of the stored tasks, and
//! nothing else but a question that waits. Invariant: it never knows more than the page does.

use std::collections::HashSet;

use serde_json::Value;

/// One thing on the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// What the user said.
    User(String),
    /// What the agent said.
    Agent(String),
    /// What an agent said of a turn that failed.
    Failed(String),
    /// A call, and what the page says became of it.
    Call(String, &'static str),
}

/// What the page keeps of a conversation.
#[derive(Clone, Debug, Default)]
pub struct Page {
    items: Vec<Item>,
    /// What a task says until its answer, strung together.
    preview: String,
    /// Two sentences that were strung together with nothing between them.
    glued: Option<String>,
    /// All sentences that were only in the preview.
    passing: Vec<String>,
}

#[derive(Clone, Debug)]
enum Item {
    Text(Shown),
    Call { id: String, tool: String },
    Question { id: String, tool: String, decision: Option<Value> },
    Result { id: String },
}

/// What a part is to the page.
enum Part<'a> {
    Text(&'a str),
    Call(&'a Value),
    Question(&'a Value),
    Result(&'a Value),
    Decision(&'a Value),
    Other,
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn owned(value: &Value, pointer: &str) -> String {
    text(value, pointer).to_owned()
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Metadata under either of the two prefixes that the page reads.
fn marked<'a>(part: &'a Value, key: &str) -> Option<&'a Value> {
    let metadata = part.get("metadata")?;
    ["adk_", "kagent_"].iter().find_map(|prefix| metadata.get(format!("{prefix}{key}")))
}

fn read(part: &Value) -> Part<'_> {
    if text(part, "/kind") == "text" {
        return Part::Text(text(part, "/text"));
    }
    let Some(data) = part.get("data") else { return Part::Other };
    if data.get("decision_type").is_some_and(|kind| !kind.is_null()) {
        return Part::Decision(data);
    }
    let asks = text(data, "/name") == "adk_request_confirmation";
    let long_running = marked(part, "is_long_running") == Some(&Value::Bool(true));
    match marked(part, "type").and_then(Value::as_str) {
        Some("function_call") if asks && long_running => Part::Question(data),
        Some("function_call") if !asks => Part::Call(data),
        // A runtime's own marks are no answers.
        Some("function_response")
            if !["confirmation_requested", "pending"].contains(&text(data, "/response/status")) =>
        {
            Part::Result(data)
        }
        _ => Part::Other,
    }
}

fn call(data: &Value) -> Item {
    Item::Call { id: owned(data, "/id"), tool: owned(data, "/name") }
}

fn question(data: &Value, decision: Option<&Value>) -> Item {
    let of = |field: &str| owned(data, &format!("/args/originalFunctionCall/{field}"));
    Item::Question { id: of("id"), tool: of("name"), decision: decision.cloned() }
}

/// A decision about one call, as the page finds it.
fn decided<'a>(decision: &'a Value, id: &str) -> Option<&'a str> {
    match text(decision, "/decision_type") {
        "batch" => decision.get("decisions")?.get(id)?.as_str(),
        uniform => Some(uniform),
    }
}

impl Page {
    /// The user says something.
    pub fn said(&mut self, words: &str) {
        self.items.push(Item::Text(Shown::User(words.to_owned())));
    }

    /// The user decides about all that waits.
    pub fn decided(&mut self, data: &Value) {
        for item in &mut self.items {
            if let Item::Question { decision: decision @ None, .. } = item {
                *decision = Some(data.clone());
            }
        }
        self.preview.clear();
    }

    /// Events of a task arrive.
    pub fn heard(&mut self, events: &[Value]) {
        for event in events {
            match text(event, "/kind") {
                "status-update" => self.status(event),
                "artifact-update" if event.get("lastChunk") == Some(&Value::Bool(true)) => {
                    self.artifact(event);
                }
                _ => {}
            }
        }
    }

    fn status(&mut self, event: &Value) {
        let is_final = event.get("final") == Some(&Value::Bool(true));
        let parts = list(event, "/status/message/parts");
        let state = text(event, "/status/state");
        let questions: Vec<_> = parts.iter().map(read).collect();
        if state == "input-required"
            && questions.iter().any(|part| matches!(part, Part::Question(_)))
        {
            let asked = questions.iter().filter_map(|part| match part {
                Part::Question(data) => Some(question(data, None)),
                _ => None,
            });
            self.items.extend(asked);
            return;
        }
        if text(event, "/status/message/role") != "user" {
            for part in questions {
                match part {
                    Part::Text(words) if is_final => {
                        let shown = if state == "failed" { Shown::Failed } else { Shown::Agent };
                        self.items.push(Item::Text(shown(words.to_owned())));
                    }
                    Part::Text(words) => self.preview(words),
                    Part::Call(data) => self.items.push(call(data)),
                    Part::Result(data) => self.items.push(Item::Result { id: owned(data, "/id") }),
                    _ => {}
                }
            }
        }
        if is_final {
            self.preview.clear();
        }
    }

    fn preview(&mut self, words: &str) {
        if !self.preview.is_empty() && !self.preview.ends_with(char::is_whitespace) {
            self.glued.get_or_insert_with(|| format!("{}|{words}", self.preview));
        }
        self.preview.push_str(words);
        self.passing.push(words.to_owned());
    }

    fn artifact(&mut self, event: &Value) {
        self.preview.clear();
        let parts = list(event, "/artifact/parts").iter().map(read);
        let words: String = parts
            .filter_map(|part| if let Part::Text(words) = part { Some(words) } else { None })
            .collect();
        if !words.is_empty() {
            self.items.push(Item::Text(Shown::Agent(words)));
        }
    }

    /// The page after a reload.
    pub fn reloaded(tasks: &[Value]) -> Self {
        let mut page = Self::default();
        let mut seen = HashSet::new();
        for task in tasks {
            let history = list(task, "/history");
            for (at, message) in history.iter().enumerate() {
                if seen.insert(owned(message, "/messageId")) {
                    let later = history.get(at + 1..).unwrap_or_default();
                    page.stored(message, later);
                }
            }
        }
        for task in tasks.iter().filter(|task| text(task, "/status/state") == "input-required") {
            for part in list(task, "/status/message/parts") {
                if let Part::Question(data) = read(part) {
                    page.items.push(question(data, None));
                }
            }
        }
        page
    }

    /// A message of a history, before these others.
    fn stored(&mut self, message: &Value, later: &[Value]) {
        let parts: Vec<_> = list(message, "/parts").iter().map(read).collect();
        let is_user = text(message, "/role") == "user";
        if parts.iter().any(|part| matches!(part, Part::Question(_))) {
            let decision =
                later.iter().filter(|m| text(m, "/role") == "user").find_map(|message| {
                    list(message, "/parts").iter().find_map(|part| match read(part) {
                        Part::Decision(data) => Some(data),
                        _ => None,
                    })
                });
            // Without a decision it is left to what waits.
            for part in parts.iter().filter(|_| decision.is_some()) {
                if let Part::Question(data) = part {
                    self.items.push(question(data, decision));
                }
            }
            return;
        }
        if is_user && parts.iter().any(|part| matches!(part, Part::Decision(_))) {
            return;
        }
        let before = self.items.len();
        let mut words = String::new();
        let mut marks = false;
        for part in parts {
            match part {
                Part::Call(data) if !is_user => self.items.push(call(data)),
                Part::Result(data) if !is_user => {
                    self.items.push(Item::Result { id: owned(data, "/id") });
                }
                Part::Text(text) => words.push_str(text),
                _ => marks = true,
            }
        }
        // Words beside a call are not shown.
        if self.items.len() == before && !(marks && words.is_empty()) {
            let shown = if is_user { Shown::User } else { Shown::Agent };
            self.items.push(Item::Text(shown(words)));
        }
    }

    /// What is to be seen.
    pub fn shown(&self) -> Vec<Shown> {
        let mut introduced = HashSet::new();
        let shown = self.items.iter().filter_map(|item| match item {
            Item::Text(shown) => Some(shown.clone()),
            Item::Call { id, tool } | Item::Question { id, tool, .. } => {
                introduced.insert(id.clone()).then(|| Shown::Call(tool.clone(), self.became(id)))
            }
            Item::Result { .. } => None,
        });
        shown.collect()
    }

    /// What the page says of a call: by the last that was said of it, and by an answer.
    fn became(&self, id: &str) -> &'static str {
        let last = self.items.iter().rev().find_map(|item| match item {
            Item::Call { id: this, .. } if this == id => Some("Requested"),
            Item::Question { id: this, decision, .. } if this == id => {
                Some(match decision.as_ref().and_then(|decision| decided(decision, id)) {
                    Some("approve") => "Approved",
                    Some("reject") => "Rejected",
                    _ => "Awaiting approval",
                })
            }
            _ => None,
        });
        let last = last.unwrap_or("Requested");
        let answered =
            self.items.iter().any(|item| matches!(item, Item::Result { id: this } if this == id));
        if answered && !["Approved", "Rejected"].contains(&last) { "Completed" } else { last }
    }

    /// Two sentences of the preview with nothing between them, if there were any.
    pub fn glued(&self) -> Option<&str> {
        self.glued.as_deref()
    }

    /// Whether a sentence was shown in passing, before the answer.
    pub fn passed(&self, words: &str) -> bool {
        self.passing.iter().any(|passing| passing == words)
    }
}

/// Compares a page with itself after a reload: the same, but for sentences that were shown in passing.
///
/// # Errors
/// What differs.
pub fn outlives_a_reload(live: &Page, reloaded: &Page, tells_failures: bool) -> Result<(), String> {
    let mut expected = live.shown();
    for shown in &mut expected {
        if let Shown::Failed(words) = shown {
            *shown = Shown::Agent(std::mem::take(words));
        }
    }
    if !tells_failures {
        let failed = live.shown();
        let kept = expected.iter().zip(&failed).filter(|(_, was)| !matches!(was, Shown::Failed(_)));
        expected = kept.map(|(shown, _)| shown.clone()).collect();
    }
    let mut next = expected.iter().peekable();
    for shown in reloaded.shown() {
        if next.peek().is_some_and(|expected| **expected == shown) {
            next.next();
        } else if !matches!(&shown, Shown::Agent(words) if live.passed(words)) {
            return Err(format!(
                "after a reload kagent's page shows {shown:?}, live it shows {expected:?}"
            ));
        }
    }
    match next.next() {
        None => Ok(()),
        Some(gone) => Err(format!("after a reload kagent's page does not show {gone:?}")),
    }
}

#[cfg(test)]
// Its helpers take what `json!` has just made.
#[allow(clippy::needless_pass_by_value)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(id: &str, role: &str, parts: Value) -> Value {
        json!({"kind": "message", "messageId": id, "role": role, "parts": parts})
    }

    fn words(words: &str) -> Value {
        json!({"kind": "text", "text": words})
    }

    fn data(kind: &str, data: Value, long_running: bool) -> Value {
        json!({"kind": "data", "data": data, "metadata": {"adk_type": kind, "adk_is_long_running": long_running}})
    }

    fn status(state: &str, is_final: bool, said: Value) -> Value {
        json!({"kind": "status-update", "final": is_final, "status": {"state": state, "message": said}})
    }

    fn artifact(text: &str) -> Value {
        json!({"kind": "artifact-update", "lastChunk": true, "artifact": {"parts": [words(text)]}})
    }

    /// A truncate that is rejected, as kagent's Go runtime tells and keeps it.
    struct Rejected {
        asking: Vec<Value>,
        decision: Value,
        answering: Vec<Value>,
        history: Vec<Value>,
    }

    fn rejected() -> Rejected {
        let call = json!({"id": "x", "name": "truncate_table", "args": {}});
        let asks = json!({"name": "adk_request_confirmation", "id": "adk-1", "args": {"originalFunctionCall": call}});
        let mark = json!({"id": "x", "name": "truncate_table", "response": {"status": "confirmation_requested"}});
        let answer =
            json!({"id": "x", "name": "truncate_table", "response": {"error": "rejected"}});
        let decision = json!({"decision_type": "batch", "decisions": {"x": "reject"}});
        let said = message("1", "user", json!([words("truncate orders")]));
        let plan =
            message("2", "agent", json!([words("I'll."), data("function_call", call, false)]));
        let mark = message("3", "agent", json!([data("function_response", mark, false)]));
        let question = message("4", "agent", json!([data("function_call", asks, true)]));
        let decided =
            message("5", "user", json!([{"kind": "data", "data": decision}, words("No")]));
        let answer = message("6", "agent", json!([data("function_response", answer, false)]));
        let last = message("7", "agent", json!([words("Rejected.")]));
        Rejected {
            asking: vec![
                status("submitted", false, said.clone()),
                status("working", false, plan.clone()),
                status("working", false, mark.clone()),
                status("input-required", true, question.clone()),
            ],
            answering: vec![
                status("working", false, decided.clone()),
                status("working", false, answer.clone()),
                status("working", false, last.clone()),
                artifact("Rejected."),
                status("completed", true, Value::Null),
            ],
            history: vec![said.clone(), said, plan, mark, question, decided, answer, last],
            decision,
        }
    }

    fn live(play: &Rejected) -> Page {
        let mut page = Page::default();
        page.said("truncate orders");
        page.heard(&play.asking);
        let waits = Shown::Call("truncate_table".to_owned(), "Awaiting approval");
        assert_eq!(page.shown().last(), Some(&waits));
        page.decided(&play.decision);
        page.heard(&play.answering);
        page
    }

    fn stored(history: &[Value]) -> Page {
        Page::reloaded(&[json!({"status": {"state": "completed"}, "history": history})])
    }

    #[test]
    fn a_rejected_call_of_the_go_runtime_stays_rejected_after_a_reload() {
        let play = rejected();
        let expected = [
            Shown::User("truncate orders".to_owned()),
            Shown::Call("truncate_table".to_owned(), "Rejected"),
            Shown::Agent("Rejected.".to_owned()),
        ];
        let (live, reloaded) = (live(&play), stored(&play.history));
        assert_eq!(live.shown(), expected);
        assert_eq!(reloaded.shown(), expected);
        assert_eq!(outlives_a_reload(&live, &reloaded, true), Ok(()));
    }

    #[test]
    fn a_question_that_waits_is_there_after_a_reload() {
        let play = rejected();
        let question = play.asking[3]["status"]["message"].clone();
        let status = json!({"state": "input-required", "message": question});
        let task = json!({"status": status, "history": &play.history[..4]});
        let shown = Page::reloaded(&[task]).shown();
        assert_eq!(shown[1], Shown::Call("truncate_table".to_owned(), "Awaiting approval"));
    }

    #[test]
    fn what_goes_wrong_in_that_page_is_noticed() {
        let play = rejected();
        // A decision that is kept before the question: the call counts as completed.
        let mut swapped = play.history.clone();
        swapped.swap(4, 5);
        let reloaded = stored(&swapped);
        assert_eq!(reloaded.shown()[1], Shown::Call("truncate_table".to_owned(), "Completed"));
        assert!(outlives_a_reload(&live(&play), &reloaded, true).is_err());
        // An answer that is not in the history is gone.
        let gone = outlives_a_reload(&live(&play), &stored(&play.history[..7]), true).unwrap_err();
        assert!(gone.contains("does not show Agent(\"Rejected.\")"), "{gone}");
        // One that is in an artifact and in the last status shows twice.
        let mut twice = rejected();
        let said = message("8", "agent", json!([words("Rejected.")]));
        *twice.answering.last_mut().unwrap() = status("completed", true, said);
        assert_eq!(live(&twice).shown().iter().filter(|s| matches!(s, Shown::Agent(_))).count(), 2);
        assert!(outlives_a_reload(&live(&twice), &stored(&play.history), true).is_err());
        // Two sentences with nothing between them.
        let mut page = Page::default();
        for text in ["I'll migrate.", "It waits."] {
            page.heard(&[status("working", false, message(text, "agent", json!([words(text)])))]);
        }
        assert_eq!(page.glued(), Some("I'll migrate.|It waits."));
    }
}
