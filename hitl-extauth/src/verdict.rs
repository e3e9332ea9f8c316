//! The only place that builds a `CheckResponse`.
//!
//! Gateways read a missing status as "allow", even beside a denial. So every response made here
//! carries a status, and only [`pass`] and [`release`] carry the one that allows. Must never put
//! into a header what a caller or a reviewer wrote: some gateways pass line breaks on.

use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction,
        },
        service::auth::v3::{
            CheckResponse, DeniedHttpResponse, OkHttpResponse, check_response::HttpResponse,
        },
        r#type::v3::HttpStatus,
    },
    google::rpc::Status,
};
use hitl_api::RequestId;
use serde_json::{Value, json};

use crate::classify::{Headers, PARTIAL_BODY, Refusal, begins_as};

/// `google.rpc.Code`: allowed.
const OK: i32 = 0;

/// `google.rpc.Code`: denied.
const PERMISSION_DENIED: i32 = 7;

/// Names that are the gate's own; what a caller sends under them, in any spelling, is taken off.
const OWN_HEADERS: &str = "x-hitl-";

/// Names by which Envoy is told to retry, to hedge, when to give up and where to go: `x-envoy-retry-on` runs
/// one approved call several times. What a caller sends under them is taken off, too.
const ENVOYS_HEADERS: &str = "x-envoy-";

/// Those of them that Envoy and Istio set themselves and that only describe a request.
const DESCRIPTIONS: [&str; 6] = [
    PARTIAL_BODY,
    "x-envoy-decorator-operation",
    "x-envoy-external-address",
    "x-envoy-internal",
    "x-envoy-peer-metadata",
    "x-envoy-peer-metadata-id",
];

/// Whether a caller may not send a header of this name on.
fn is_taken_off(name: &str) -> bool {
    begins_as(name, OWN_HEADERS)
        || (begins_as(name, ENVOYS_HEADERS) && !DESCRIPTIONS.contains(&name))
}

/// Says which version of MCP the caller speaks.
const PROTOCOL_VERSION: &str = "mcp-protocol-version";

/// The protocol version that requires `resultType`.
const RESULT_TYPE_SINCE: &str = "2026-07-28";

/// In which form a denial reaches the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DenialForm {
    /// 200 with a JSON-RPC result that is an error, which reaches the model word for word
    #[default]
    McpResult,
    /// 403 with a JSON body, for callers that are not MCP clients
    #[value(name = "http-403", alias = "http403")]
    Http403,
}

/// Why a call does not pass, as the caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// A reviewer said no.
    Denied,
    /// Nobody decided in time, or it was taken back.
    Expired,
    /// Not decided yet: the same call may be repeated.
    Pending,
}

impl Disposition {
    fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Pending => "pending",
        }
    }
}

/// What a caller is told who does not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Why, by kind.
    pub disposition: Disposition,
    /// Why, in the reviewer's own words where there are any.
    pub reason: String,
    /// What the model reads: a sentence with the reason in it, word for word.
    pub text: String,
    /// The request, where there is one.
    pub request: Option<RequestId>,
}

/// What an answer depends on of the headers it answers. All that is kept of them while a call waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Headers that do not go on.
    taken_off: Vec<String>,
    /// Whether it speaks a version that requires `resultType`.
    wants_result_type: bool,
}

impl Caller {
    /// Reads the headers of a request.
    pub fn of(headers: &Headers) -> Self {
        let names = headers.iter().map(|(name, _)| name);
        let mut taken_off: Vec<_> =
            names.filter(|name| is_taken_off(name)).map(str::to_owned).collect();
        taken_off.sort();
        taken_off.dedup();
        let version = headers.all(PROTOCOL_VERSION).next().unwrap_or_default();
        Self { taken_off, wants_result_type: version >= RESULT_TYPE_SINCE }
    }
}

/// A harmless request passes as it came, without headers that only the gate may set.
pub fn pass(caller: &Caller) -> CheckResponse {
    allow(caller, Vec::new())
}

/// An approved call passes with its receipt.
pub fn release(caller: &Caller, request: RequestId, receipt: &str) -> CheckResponse {
    let set = vec![
        header(hitl_receipt::HEADER, receipt),
        header("x-hitl-approval-id", &request.to_string()),
    ];
    allow(caller, set)
}

/// A call that is denied gets an answer of its own kind.
pub fn deny(caller: &Caller, call: &Value, denial: &Denial, form: DenialForm) -> CheckResponse {
    let particulars = json!({
        "approved": false,
        "reason": denial.reason,
        "id": denial.request,
        "disposition": denial.disposition.name(),
    });
    match form {
        DenialForm::Http403 => refuse_with(403, &denial.text, &particulars),
        DenialForm::McpResult => {
            let mut result = json!({
                "content": [{"type": "text", "text": denial.text}],
                "structuredContent": particulars,
                "isError": true,
            });
            if caller.wants_result_type
                && let Some(result) = result.as_object_mut()
            {
                result.insert("resultType".to_owned(), "complete".into());
            }
            let body = json!({"jsonrpc": "2.0", "id": call, "result": result});
            refuse_with(200, &denial.text, &body)
        }
    }
}

/// A request that cannot be understood is refused with what is wrong with it.
pub fn refuse(refusal: &Refusal) -> CheckResponse {
    let text = refusal.to_string();
    refuse_with(i32::from(refusal.status()), &text, &json!({"error": text}))
}

/// The check itself cannot be read: the gateway is configured wrongly.
pub fn refuse_check(text: &str) -> CheckResponse {
    refuse_with(403, text, &json!({"error": text}))
}

fn allow(caller: &Caller, set: Vec<HeaderValueOption>) -> CheckResponse {
    // Some gateways remove before they set and some after: what is set is not removed.
    let is_set = |name: &str| {
        set.iter().any(|option| option.header.as_ref().is_some_and(|header| header.key == name))
    };
    let taken_off = caller.taken_off.iter().filter(|name| !is_set(name));
    let headers_to_remove = taken_off.cloned().collect();
    let response = OkHttpResponse { headers: set, headers_to_remove, ..OkHttpResponse::default() };
    CheckResponse {
        status: Some(Status { code: OK, ..Status::default() }),
        dynamic_metadata: None,
        http_response: Some(HttpResponse::OkResponse(response)),
    }
}

fn refuse_with(http_status: i32, message: &str, body: &Value) -> CheckResponse {
    let denied = DeniedHttpResponse {
        status: Some(HttpStatus { code: http_status }),
        headers: vec![header("content-type", "application/json")],
        body: body.to_string(),
    };
    CheckResponse {
        status: Some(Status {
            code: PERMISSION_DENIED,
            message: message.to_owned(),
            ..Status::default()
        }),
        dynamic_metadata: None,
        http_response: Some(HttpResponse::DeniedResponse(denied)),
    }
}

fn header(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name.to_owned(),
            // Only `value` is read by some gateways.
            value: value.to_owned(),
            ..HeaderValue::default()
        }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn denial(reason: &str) -> Denial {
        let text = format!("A reviewer said no: {reason}");
        Denial { disposition: Disposition::Denied, reason: reason.into(), text, request: None }
    }

    fn denied(response: &CheckResponse) -> (i32, Value, &[HeaderValueOption]) {
        let Some(HttpResponse::DeniedResponse(denied)) = &response.http_response else {
            panic!("{response:?}")
        };
        let body = serde_json::from_str(&denied.body).unwrap();
        (denied.status.as_ref().unwrap().code, body, &denied.headers)
    }

    #[test]
    fn a_denial_is_a_result_for_the_calls_own_id_with_the_reason_word_for_word() {
        let reason = "no: \"line\nbreak\" \u{202e}";
        let response =
            deny(&Caller::default(), &json!("a"), &denial(reason), DenialForm::McpResult);
        let (status, body, _) = denied(&response);
        assert_eq!((status, &body["id"]), (200, &json!("a")));
        assert_eq!(body["result"]["isError"], true);
        let text = body["result"]["content"][0]["text"].as_str().unwrap();
        assert!(text.ends_with(reason), "{text}");
        assert_eq!(body["result"]["structuredContent"]["reason"], reason);
        assert_eq!(body["result"]["structuredContent"]["disposition"], "denied");
        assert_eq!(body["result"].get("resultType"), None);

        let newer = Headers::from_iter([("mcp-protocol-version", "2026-07-28")]);
        let newer = Caller::of(&newer);
        let response = deny(&newer, &json!(1), &denial(reason), DenialForm::McpResult);
        assert_eq!(denied(&response).1["result"]["resultType"], "complete");
        let response = deny(&newer, &json!(1), &denial(reason), DenialForm::Http403);
        assert_eq!((denied(&response).0, &denied(&response).1["reason"]), (403, &json!(reason)));
    }

    #[test]
    fn what_a_caller_sends_under_the_gates_names_is_taken_off_and_what_is_set_is_not() {
        let headers = Headers::from_iter([
            ("X-Hitl-Receipt", "forged"),
            ("x-hitl-reviewer", "me"),
            ("x-hitl-reviewer", "and me"),
            ("x-user-id", "alice"),
        ]);
        let caller = Caller::of(&headers);
        let Some(HttpResponse::OkResponse(ok)) = pass(&caller).http_response else { panic!() };
        assert_eq!(ok.headers_to_remove, ["x-hitl-receipt", "x-hitl-reviewer"]);
        let id = RequestId::generate();
        let Some(HttpResponse::OkResponse(ok)) = release(&caller, id, "j.w.s").http_response else {
            panic!()
        };
        assert_eq!(ok.headers_to_remove, ["x-hitl-reviewer"]);
        assert_eq!(ok.headers[0].header.as_ref().unwrap().value, "j.w.s");
        assert_eq!(ok.headers[0].append_action, 2);
    }

    #[test]
    fn other_spellings_of_the_gates_names_and_orders_to_envoy_are_taken_off() {
        let taken = [
            "x-hitl_receipt",
            "x_hitl_receipt",
            "X_HITL_approval-id",
            "x.hitl.receipt",
            "x-hitl-",
            "x-envoy-retry-on",
            "x-envoy-retry-grpc-on",
            "x-envoy-max-retries",
            "x-envoy-retriable-status-codes",
            "x-envoy-retriable-header-names",
            "x-envoy-hedge-on-per-try-timeout",
            "x-envoy-upstream-rq-timeout-ms",
            "x-envoy-upstream-rq-per-try-timeout-ms",
            "x-envoy-upstream-alt-stat-name",
            "x-envoy-upstream-stream-duration-ms",
            "x-envoy-expected-rq-timeout-ms",
            "x-envoy-original-dst-host",
            "x-envoy-something-of-next-year",
            "X_Envoy_Retry_On",
            // As Envoy itself would write it, but for one sign.
            "x_envoy_internal",
        ];
        for name in taken {
            assert!(is_taken_off(&name.to_ascii_lowercase()), "{name}");
        }
        let kept = ["x-user-id", "x-hit-l-receipt", "hitl-receipt", "x-envoyer", "mcp-session-id"];
        for name in DESCRIPTIONS.into_iter().chain(kept) {
            assert!(!is_taken_off(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn every_denial_has_a_status_that_denies_and_no_header_from_outside(reason: String, id: i64) {
            let responses = [
                deny(&Caller::default(), &json!(id), &denial(&reason), DenialForm::McpResult),
                deny(&Caller::default(), &json!(id), &denial(&reason), DenialForm::Http403),
                refuse(&Refusal::Method(reason.clone())),
                refuse_check(&reason),
            ];
            for response in &responses {
                prop_assert_ne!(response.status.as_ref().unwrap().code, OK);
                let (_, _, headers) = denied(response);
                for option in headers {
                    prop_assert_eq!(&option.header.as_ref().unwrap().value, "application/json");
                }
            }
        }
    }
}
