//! How approval is asked for and given in a chat: kagent's data parts, as of 0.8 to 0.10.
//!
//! Pure. Owns the wire format of the pause and of the decision, in this one place, so that the newer
//! contract can stand beside it. Must never read as approval what does not say so: a missing or
//! unknown id is a rejection.

use serde_json::{Map, Value, json};

use crate::a2a::{Message, Metadata, Part};

/// The key under which readers look first, and the one that older Python runtimes write.
const PREFIXES: [&str; 2] = ["adk_", "kagent_"];

/// What the name of an approval request is.
const CONFIRMATION: &str = "adk_request_confirmation";

/// A call that a model wants made.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Call {
    /// The id that the model gave it.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments.
    pub args: Map<String, Value>,
}

/// What became of one call at the user's hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may run.
    Approve,
    /// It may not; with the user's reason, if one was given.
    Reject(Option<String>),
}

impl Verdict {
    /// What the model is told of a rejected call.
    pub fn told(reason: Option<&str>) -> String {
        match reason {
            Some(reason) => format!("Tool call was rejected by user. Reason: {reason}"),
            None => "Tool call was rejected by user.".to_owned(),
        }
    }
}

fn marked(kind: &str, long_running: bool) -> Metadata {
    let mut metadata = Map::new();
    metadata.insert("adk_type".to_owned(), json!(kind));
    if long_running {
        metadata.insert("adk_is_long_running".to_owned(), json!(true));
    }
    metadata
}

/// The part that shows a call.
pub fn call_part(call: &Call) -> Part {
    let data = json!({"id": call.id, "name": call.name, "args": call.args});
    Part::Data { data, metadata: marked("function_call", false) }
}

/// The part that shows what a call came to.
pub fn response_part(call: &Call, text: &str, is_error: bool) -> Part {
    let field = if is_error { "error" } else { "output" };
    let data = json!({"id": call.id, "name": call.name, "response": {field: text}});
    Part::Data { data, metadata: marked("function_response", false) }
}

/// The part that asks for approval of a call.
pub fn request_part(call: &Call) -> Part {
    let hint = format!("Tool '{}' requires approval before execution.", call.name);
    let data = json!({
        "name": CONFIRMATION,
        "id": format!("adk-{}", crate::a2a::new_id()),
        "args": {
            "originalFunctionCall": {"id": call.id, "name": call.name, "args": call.args},
            "toolConfirmation": {"hint": hint, "confirmed": false, "payload": null},
        },
    });
    Part::Data { data, metadata: marked("function_call", true) }
}

/// The calls that a message asks approval for.
pub fn requested(message: &Message) -> Vec<Call> {
    let asks = |part: &Part| {
        let Part::Data { data, metadata } = part else { return None };
        let is = |key: &str, value: &Value| {
            PREFIXES.iter().any(|prefix| metadata.get(&format!("{prefix}{key}")) == Some(value))
        };
        let asks = data.get("name").and_then(Value::as_str) == Some(CONFIRMATION)
            && is("type", &json!("function_call"))
            && is("is_long_running", &json!(true));
        if !asks {
            return None;
        }
        hitl_core::json::typed(data.get("args")?.get("originalFunctionCall")?.clone()).ok()
    };
    message.parts.iter().filter_map(asks).collect()
}

/// A decision as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    kind: Kind,
    reasons: Map<String, Value>,
    uniform: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Approve,
    Reject,
    Batch(Map<String, Value>),
}

/// A decision that says neither yes nor no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("decision_type {0:?} is none of approve, reject and batch; nothing was decided")]
pub struct UnknownDecision(String);

impl Decision {
    /// The decision in a message; none where it is only text.
    ///
    /// # Errors
    /// [`UnknownDecision`].
    pub fn of(message: &Message) -> Result<Option<Self>, UnknownDecision> {
        let data = message.parts.iter().find_map(|part| match part {
            Part::Data { data, .. } => {
                data.as_object().filter(|data| data.contains_key("decision_type"))
            }
            _ => None,
        });
        let Some(data) = data else { return Ok(None) };
        let object =
            |name: &str| data.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
        let kind = match data.get("decision_type").and_then(Value::as_str).unwrap_or_default() {
            "approve" => Kind::Approve,
            "reject" => Kind::Reject,
            "batch" => Kind::Batch(object("decisions")),
            other => return Err(UnknownDecision(other.to_owned())),
        };
        let uniform = data.get("rejection_reason").and_then(Value::as_str).map(str::to_owned);
        Ok(Some(Self { kind, reasons: object("rejection_reasons"), uniform }))
    }

    /// What it says of one call.
    pub fn verdict(&self, call: &str) -> Verdict {
        let approves = match &self.kind {
            Kind::Approve => true,
            Kind::Reject => false,
            // Nothing but the very word: a call that is not named is not approved.
            Kind::Batch(decisions) => {
                decisions.get(call).and_then(Value::as_str) == Some("approve")
            }
        };
        if approves {
            return Verdict::Approve;
        }
        let given = [call, "*"].map(|name| self.reasons.get(name).and_then(Value::as_str));
        let mut given = given.into_iter().flatten().chain(self.uniform.as_deref());
        // A blank one hides no other.
        Verdict::Reject(given.find(|reason| !reason.trim().is_empty()).map(str::to_owned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(data: &Value) -> Message {
        let parts = json!([{"kind": "data", "data": data, "metadata": {}}, {"kind": "text", "text": "Approved"}]);
        serde_json::from_value(json!({"messageId": "m", "role": "user", "parts": parts})).unwrap()
    }

    fn verdicts(data: &Value) -> [Verdict; 2] {
        let decision = Decision::of(&message(data)).unwrap().unwrap();
        [decision.verdict("x"), decision.verdict("y")]
    }

    fn rejected(reason: &str) -> Verdict {
        Verdict::Reject(Some(reason.to_owned()))
    }

    #[test]
    fn every_form_of_a_decision_that_the_dashboard_sends_is_understood() {
        use Verdict::{Approve, Reject};
        assert_eq!(verdicts(&json!({"decision_type": "approve"})), [Approve, Approve]);
        assert_eq!(verdicts(&json!({"decision_type": "reject"})), [Reject(None), Reject(None)]);
        let uniform = json!({"decision_type": "reject", "rejection_reason": "no way"});
        assert_eq!(verdicts(&uniform), [rejected("no way"), rejected("no way")]);
        let reasons = json!({"decision_type": "batch", "decisions": {"x": "approve", "y": "reject"}, "rejection_reasons": {"y": "month end freeze"}});
        assert_eq!(verdicts(&reasons), [Approve, rejected("month end freeze")]);
        let blank = json!({"decision_type": "reject", "rejection_reasons": {"x": " "}, "rejection_reason": "no"});
        assert_eq!(verdicts(&blank), [rejected("no"), rejected("no")]);
        let star = json!({"decision_type": "reject", "rejection_reasons": {"*": "later"}});
        assert_eq!(verdicts(&star), [rejected("later"), rejected("later")]);
    }

    #[test]
    fn what_does_not_say_approve_is_no_approval() {
        for decisions in [
            json!({}),
            json!({"z": "approve"}),
            json!({"x": true, "y": "APPROVE"}),
            json!({"x": "approved", "y": ["approve"]}),
            json!("approve"),
            json!(null),
        ] {
            let [x, y] = verdicts(&json!({"decision_type": "batch", "decisions": decisions}));
            assert!(
                matches!((x, y), (Verdict::Reject(None), Verdict::Reject(None))),
                "{decisions}"
            );
        }
        for kind in [json!("Approve"), json!("yes"), json!(true), json!(null), json!(["approve"])] {
            assert!(Decision::of(&message(&json!({"decision_type": kind}))).is_err(), "{kind}");
        }
        assert_eq!(Decision::of(&message(&json!({"type": "approve"}))), Ok(None));
    }

    #[test]
    fn a_request_has_the_shape_that_the_dashboard_looks_for_and_is_read_back() {
        let args = Map::from_iter([("table".to_owned(), json!("orders"))]);
        let call = Call { id: "toolu_1".into(), name: "truncate_table".into(), args };
        let part = serde_json::to_value(request_part(&call)).unwrap();
        assert_eq!((&part["kind"], &part["data"]["name"]), (&json!("data"), &json!(CONFIRMATION)));
        let metadata = json!({"adk_type": "function_call", "adk_is_long_running": true});
        assert_eq!(part["metadata"], metadata);
        let original = &part["data"]["args"]["originalFunctionCall"];
        assert_eq!(
            *original,
            json!({"id": "toolu_1", "name": "truncate_table", "args": {"table": "orders"}})
        );
        let confirmation = &part["data"]["args"]["toolConfirmation"];
        assert_eq!(
            confirmation["hint"],
            "Tool 'truncate_table' requires approval before execution."
        );
        let message: Message = serde_json::from_value(json!({
            "messageId": "m", "role": "agent", "parts": [part, call_part(&call), {"kind": "text", "text": "x"}],
        }))
        .unwrap();
        assert_eq!(requested(&message), [call]);
    }
}
