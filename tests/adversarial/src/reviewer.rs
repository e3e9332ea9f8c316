//! A reviewer at the gate's admin API: records what is shown, and approves all of it.
//!
//! Invariant: a request is recorded as `/pending` shows it before it is approved.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use hitl_api::{Decision, Pending, Request as Shown, RequestId};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Bytes, client::conn::http1::SendRequest};

use crate::server::connect;

/// Between two looks at the queue.
const PAUSE: Duration = Duration::from_millis(2);

/// What was shown, by the number of the case: its requester's name.
pub(crate) type ByCase = HashMap<usize, Vec<Shown>>;

/// Approves what is pending until it is told to stop; gives what it was shown.
pub(crate) async fn approve_all(
    admin: SocketAddr,
    stopping: Arc<AtomicBool>,
) -> anyhow::Result<ByCase> {
    let mut connection = connect(admin).await?;
    let mut shown = HashMap::<RequestId, Shown>::new();
    while !stopping.load(Ordering::Relaxed) {
        let pending = get(&mut connection, admin, "/pending?limit=1000").await?;
        let pending: Pending = serde_json::from_slice(&pending).context("/pending")?;
        for request in pending.pending {
            if let std::collections::hash_map::Entry::Vacant(place) = shown.entry(request.id) {
                let id = place.insert(request).id;
                decide(&mut connection, admin, id).await?;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    let mut by_case = ByCase::new();
    for request in shown.into_values() {
        // A requester without a number has no `x-case`: nothing that was sent here.
        let number = request.requester.name.parse().context("a requester that is no case")?;
        by_case.entry(number).or_default().push(request);
    }
    Ok(by_case)
}

/// A page of the admin API.
pub(crate) async fn get(
    connection: &mut SendRequest<Full<Bytes>>,
    admin: SocketAddr,
    path: &str,
) -> anyhow::Result<Bytes> {
    connection.ready().await?;
    let request = Request::get(path).header("host", admin.to_string()).body(Full::default())?;
    let answer = connection.send_request(request).await?;
    if !answer.status().is_success() {
        bail!("{path}: {}", answer.status());
    }
    Ok(answer.into_body().collect().await?.to_bytes())
}

async fn decide(
    connection: &mut SendRequest<Full<Bytes>>,
    admin: SocketAddr,
    id: RequestId,
) -> anyhow::Result<()> {
    let decision = Decision { approved: true, reason: "a case".to_owned() };
    connection.ready().await?;
    let request = Request::post(format!("/decide/{id}"))
        .header("host", admin.to_string())
        .header("content-type", "application/json")
        .body(Full::from(serde_json::to_vec(&decision)?))?;
    let answer = connection.send_request(request).await?;
    let status = answer.status();
    let said = answer.into_body().collect().await?.to_bytes();
    // A caller may have gone before the decision; then there is nothing to run.
    if !status.is_success() && status != 409 {
        bail!("{id} cannot be approved: {status} {}", said.escape_ascii());
    }
    Ok(())
}
