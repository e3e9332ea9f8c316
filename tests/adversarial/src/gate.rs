//! Asks the real gate, as gateways do.

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
        AttributeContext, CheckRequest,
        attribute_context::{HttpRequest, Peer, Request},
        authorization_client::AuthorizationClient,
    },
};
use hitl_adversarial::case::Case;
use tokio::task::JoinSet;

/// Checks in flight.
const AT_ONCE: usize = 32;

/// Whether each case may pass.
pub(crate) async fn ask(gate: String, cases: Arc<Vec<Case>>) -> anyhow::Result<Vec<bool>> {
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
                // As gateways decide: a missing status would be "allow".
                answers.push((number, answer.status.is_none_or(|status| status.code == 0)));
            }
        });
    }
    let mut passed = vec![false; cases.len()];
    while let Some(answers) = asking.join_next().await {
        for (number, pass) in answers?? {
            if let Some(place) = passed.get_mut(number) {
                *place = pass;
            }
        }
    }
    Ok(passed)
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
        method: "POST".into(),
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
