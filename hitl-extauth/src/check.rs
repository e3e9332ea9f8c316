//! The ext_authz service. Thin: reads the check, asks the gate, lets [`crate::verdict`] answer.

use std::{
    future::{Future, ready},
    pin::Pin,
    sync::Arc,
};

use envoy_types::pb::envoy::service::auth::v3::{
    CheckRequest, CheckResponse, authorization_server::Authorization,
};
use hitl_api::Request as ApprovalRequest;
use hitl_service::telemetry;
use jiff::Timestamp;
use tonic::{Request, Response, Status};
use tracing::{Instrument as _, Span, field};

use crate::{
    classify::{Class, HarmlessMethods, Refusal, classify},
    gate::{Gate, Incoming, Outcome},
    logged::excerpt,
    metrics::Metrics,
    receipt::{ReceiptError, Receipts},
    request::Arrived,
    verdict::{self, Caller, Denial, DenialForm, Disposition},
};

/// The service.
#[derive(Clone)]
pub struct CheckService {
    gate: Gate,
    harmless: Arc<HarmlessMethods>,
    receipts: Arc<Receipts>,
    metrics: Arc<Metrics>,
    form: DenialForm,
}

impl CheckService {
    /// Answers checks with what the gate says.
    pub fn new(
        gate: Gate,
        harmless: HarmlessMethods,
        receipts: Arc<Receipts>,
        metrics: Arc<Metrics>,
        form: DenialForm,
    ) -> Self {
        Self { gate, harmless: Arc::new(harmless), receipts, metrics, form }
    }

    /// What can be said at once; a call has to go through the gate.
    fn begin(&self, check: CheckRequest) -> Begun {
        let arrived = match Arrived::read(check) {
            Ok(arrived) => arrived,
            Err(unreadable) => {
                self.refused("unreadable");
                return verdict::refuse_check(&unreadable.to_string()).into();
            }
        };
        match classify(&arrived.subject(), &self.harmless) {
            Class::Pass(_) => {
                self.answered("passed");
                verdict::pass(&Caller::of(&arrived.headers)).into()
            }
            Class::Refuse(refusal) => {
                self.refused(refusal.label());
                self.log_refused(&arrived, &refusal);
                verdict::refuse(&refusal).into()
            }
            Class::Gate(call) => {
                Span::current().record("mcp.tool", &call.tool);
                Begun::Gated(Box::new(Incoming { arrived, call }))
            }
        }
    }

    /// Counts what came of a check, and says so in its span.
    fn answered(&self, outcome: &'static str) {
        self.metrics.answered(outcome);
        Span::current().record("hitl.outcome", outcome);
    }

    fn refused(&self, reason: &'static str) {
        self.metrics.refused(reason);
        Span::current().record("hitl.outcome", "refused");
    }

    fn log_refused(&self, arrived: &Arrived, refusal: &Refusal) {
        if self.gate.logs(arrived.address.as_deref()) {
            let (said, route) = (refusal.to_string(), arrived.route());
            tracing::warn!(reason = refusal.label(), refusal = ?excerpt(&said), route = ?excerpt(&route), "refused");
        }
    }

    async fn gated(&self, incoming: Box<Incoming>) -> CheckResponse {
        // All that the answer needs; the rest is not kept while the call waits.
        let caller = &Caller::of(&incoming.arrived.headers);
        let call = &Answered::of(&incoming);
        let held = self.metrics.hold();
        let outcome = self.gate.call(incoming).await;
        drop(held);
        match outcome {
            Outcome::Released(delivery) => {
                match delivery.sign(&self.receipts, self.gate.store().now()) {
                    // Accepted only with the receipt in hand: until then it goes back by itself.
                    Ok((delivery, receipt)) => match delivery.accept() {
                        Some(request) => self.release(caller, &request, &receipt),
                        None => self.deny(caller, call, &unsigned("it was taken already")),
                    },
                    Err(error) => self.deny(caller, call, &unsigned(&error.to_string())),
                }
            }
            Outcome::Denied(denial) => self.deny(caller, call, &denial),
            Outcome::Refused(refusal) => {
                self.refused(refusal.label());
                verdict::refuse(&refusal)
            }
        }
    }

    fn release(&self, caller: &Caller, request: &ApprovalRequest, receipt: &str) -> CheckResponse {
        self.answered("released");
        Span::current().record("hitl.request", field::display(request.id));
        tracing::info!(request = %request.id, tool = ?excerpt(&request.tool_name), "released");
        verdict::release(caller, request.id, receipt)
    }

    fn deny(&self, caller: &Caller, call: &Answered, denial: &Denial) -> CheckResponse {
        self.answered(match denial.disposition {
            Disposition::Denied => "denied",
            Disposition::Expired => "expired",
            Disposition::Pending => "pending",
        });
        let request = denial.request.map(|id| id.to_string());
        if let Some(request) = &request {
            Span::current().record("hitl.request", request);
        }
        if self.gate.logs(call.address.as_deref()) {
            tracing::info!(request, tool = ?excerpt(&call.tool), reason = ?excerpt(&denial.reason), "not released");
        }
        verdict::deny(caller, &call.id, denial, self.form)
    }
}

/// How far a check has come at once.
enum Begun {
    Answered(Box<CheckResponse>),
    Gated(Box<Incoming>),
}

impl From<CheckResponse> for Begun {
    fn from(response: CheckResponse) -> Self {
        Self::Answered(Box::new(response))
    }
}

/// What an answer says of the call it answers.
struct Answered {
    id: serde_json::Value,
    tool: String,
    /// Where the call came from.
    address: Option<String>,
}

impl Answered {
    fn of(Incoming { arrived, call }: &Incoming) -> Self {
        Self { id: call.id.clone(), tool: call.tool.clone(), address: arrived.address.clone() }
    }
}

/// An approval that could not be turned into a receipt.
fn unsigned(reason: &str) -> Denial {
    Denial {
        disposition: Disposition::Pending,
        reason: reason.to_owned(),
        text: format!("The approval could not be handed on, and nothing has run: {reason}."),
        request: None,
    }
}

impl crate::parking::Delivery {
    /// The receipt for what is delivered; the delivery goes back when there is none.
    fn sign(self, receipts: &Receipts, now: Timestamp) -> Result<(Self, String), ReceiptError> {
        let receipt = match self.request() {
            Some(request) => receipts.sign(request, now)?,
            None => String::new(),
        };
        Ok((self, receipt))
    }
}

/// An answer, or the way to it.
type Checking<'a> =
    Pin<Box<dyn Future<Output = Result<Response<CheckResponse>, Status>> + Send + 'a>>;

impl Authorization for CheckService {
    // Not an `async fn`: that would keep the whole check in memory for as long as its call is held.
    fn check<'service, 'check>(&'service self, request: Request<CheckRequest>) -> Checking<'check>
    where
        'service: 'check,
        Self: 'check,
    {
        let check = request.into_inner();
        let span = span(&check);
        match span.in_scope(|| self.begin(check)) {
            Begun::Answered(response) => Box::pin(ready(Ok(Response::new(*response)))),
            Begun::Gated(incoming) => {
                let answer = async move { Ok(Response::new(self.gated(incoming).await)) };
                Box::pin(answer.instrument(span))
            }
        }
    }
}

/// A span in the trace of the checked request; none where traces go nowhere.
fn span(check: &CheckRequest) -> Span {
    if !telemetry::traces_are_exported() {
        return Span::none();
    }
    let span = tracing::info_span!(
        "check",
        otel.kind = "server",
        hitl.outcome = field::Empty,
        hitl.request = field::Empty,
        mcp.tool = field::Empty,
    );
    let http = check.attributes.as_ref().and_then(|attributes| attributes.request.as_ref());
    let parent = http.and_then(|request| request.http.as_ref()?.headers.get("traceparent"));
    if let Some(value) = parent.and_then(|parent| parent.parse().ok()) {
        let headers =
            http::HeaderMap::from_iter([(http::HeaderName::from_static("traceparent"), value)]);
        telemetry::continue_trace(&span, &headers);
    }
    span
}
