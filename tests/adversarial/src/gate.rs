//! Asks the real gate, as gateways do.
//!
//! Invariant: an answer without a status passes, as gateways take it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Context as _;
use envoy_types::pb::envoy::{
    config::core::v3::{Address, SocketAddress, address},
    service::auth::v3::{
        AttributeContext, CheckRequest, CheckResponse,
        attribute_context::{HttpRequest, Peer, Request},
        authorization_client::AuthorizationClient,
        check_response::HttpResponse,
    },
};
use hitl_adversarial::case::Case;
use tokio::task::JoinSet;

/// Checks in flight.
const AT_ONCE: usize = 32;

/// What the gate says of a case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    /// Whether it may pass.
    pub(crate) passes: bool,
    /// Headers that the gateway must take off.
    removed: Vec<String>,
}

impl Answer {
    fn of(answer: CheckResponse) -> Self {
        // As gateways decide: a missing status would be "allow".
        let passes = answer.status.is_none_or(|status| status.code == 0);
        let removed = match answer.http_response {
            Some(HttpResponse::OkResponse(ok)) => ok.headers_to_remove,
            _ => Vec::new(),
        };
        Self { passes, removed }
    }

    /// A header that only the gate may set and that stays on, if the case passes with one.
    pub(crate) fn left_on<'a>(&self, case: &'a Case) -> Option<&'a str> {
        let forged = case
            .headers
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| name.to_ascii_lowercase().replace('_', "-").starts_with("x-hitl-"));
        let mut left = forged.filter(|name| !self.removed.contains(&name.to_ascii_lowercase()));
        left.next().filter(|_| self.passes)
    }
}

/// The gate's answer to each case.
pub(crate) async fn ask(gate: String, cases: Arc<Vec<Case>>) -> anyhow::Result<Vec<Answer>> {
    let client = AuthorizationClient::connect(gate).await.context("the gate does not answer")?;
    let next = Arc::new(AtomicUsize::new(0));
    let mut asking = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (mut client, cases, next) = (client.clone(), Arc::clone(&cases), Arc::clone(&next));
        asking.spawn(async move {
            let mut answers = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(case) = cases.get(number) else { return anyhow::Ok(answers) };
                let answer = client.check(check(number, case)).await?.into_inner();
                answers.push((number, Answer::of(answer)));
            }
        });
    }
    let mut all = vec![Answer::default(); cases.len()];
    while let Some(answers) = asking.join_next().await {
        for (number, answer) in answers?? {
            if let Some(place) = all.get_mut(number) {
                *place = answer;
            }
        }
    }
    Ok(all)
}

/// The check of a case: bytes and a joined map, as Envoy gives them, or text for which lost bytes
/// are replaced, as agentgateway does.
fn check(number: usize, case: &Case) -> CheckRequest {
    let mut headers = HashMap::<String, String>::new();
    for (name, value) in case.forwarded().iter() {
        headers
            .entry(name.to_owned())
            .and_modify(|joined| {
                joined.push(',');
                joined.push_str(value);
            })
            .or_insert_with(|| value.to_owned());
    }
    let mut http = HttpRequest {
        method: case.method().into(),
        path: "/privileged/mcp".into(),
        host: "gateway.example".into(),
        headers,
        size: i64::try_from(case.body.len()).unwrap_or(i64::MAX),
        ..HttpRequest::default()
    };
    if number.is_multiple_of(2) {
        http.raw_body.clone_from(&case.body);
    } else {
        http.body = String::from_utf8_lossy(&case.body).into_owned();
    }
    let address = Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: "10.1.2.3".into(),
            ..SocketAddress::default()
        })),
    };
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(Peer { address: Some(address), ..Peer::default() }),
            request: Some(Request { http: Some(http), ..Request::default() }),
            ..AttributeContext::default()
        }),
    }
}
