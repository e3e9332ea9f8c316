//! What fails around the gate: its disk, the gateway's connection, the collector of traces.

use std::{
    fs::File,
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use hitl_collector::{Collector, ENDPOINT, PARENT, attribute, is_child_of_parent};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::support::{Lab, PATIENCE, migrate};

#[tokio::test]
async fn a_full_disk_denies_what_cannot_be_kept_and_heals_without_a_restart() {
    let lab = Lab::new();
    let (gate, disk) = lab.start_on_small_disk(4);
    let call = gate.hold(migrate("alice", "v3", 1)).await;
    let id = gate.waiting_one().await;

    let filler = disk.join("filler");
    let mut file = File::create(&filler).unwrap();
    for size in [65_536, 4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
    // What the store had set aside is used up first; each of these is kept.
    let mut kept = 1;
    let denied = async {
        loop {
            let version = format!("v{}", kept + 3);
            let check = tokio::time::timeout(
                Duration::from_secs(2),
                gate.check(migrate("bob", &version, 2)),
            );
            match check.await {
                Ok(verdict) => return verdict.denial(),
                Err(_) => kept += 1,
            }
        }
    };
    let (text, particulars) = tokio::time::timeout(PATIENCE, denied).await.unwrap();
    assert!(text.contains("disk is full") && text.contains("try again"), "{text}");
    assert!(particulars["id"].is_null());
    gate.until_ready(false).await;
    let (status, body) = gate.decide("dana", &id, true, "").await;
    assert_eq!((status, body["error"].as_str()), (503, Some("the gate's disk is full")));

    std::fs::remove_file(&filler).unwrap();
    drop(file);
    gate.until_ready(true).await;
    assert_eq!(gate.pending().await.len(), kept);
    assert_eq!(gate.decide("dana", &id, true, "").await.0, 204);
    assert!(call.await.unwrap().is_allowed());
}

/// A connection to the gate that goes through us, until it freezes: then both ends stay open, and
/// nothing moves any more, as when the gateway's process is stopped.
async fn freezable(gate: String, frozen: Arc<AtomicBool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (near, _) = listener.accept().await.unwrap();
        let far = TcpStream::connect(gate.trim_start_matches("http://")).await.unwrap();
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        for (mut from, mut to) in [(near_in, far_out), (far_in, near_out)] {
            let frozen = Arc::clone(&frozen);
            tokio::spawn(async move {
                let mut buffer = vec![0; 65_536];
                loop {
                    let read = from.read(&mut buffer).await.unwrap_or(0);
                    if frozen.load(Ordering::Relaxed) {
                        std::future::pending::<()>().await;
                    }
                    if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_frozen_gateway_is_noticed_and_what_is_approved_then_is_kept_for_the_retry() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let frozen = Arc::new(AtomicBool::new(false));
    let address = freezable(gate.doors().0, Arc::clone(&frozen)).await;
    let mut gateway = AuthorizationClient::connect(address).await.unwrap();
    let call = tokio::spawn(async move { gateway.check(migrate("alice", "v3", 1)).await });
    let id = gate.waiting_one().await;
    frozen.store(true, Ordering::Relaxed);
    // A ping after ten seconds, and five for its answer.
    gate.waiting(0).await;
    assert_eq!(gate.decide("dana", &id, true, "").await.0, 204);
    gate.until_state(&id, "approved").await;
    assert!(gate.check(migrate("alice", "v3", 2)).await.is_allowed());
    call.abort();
}

#[tokio::test]
async fn a_check_is_a_span_of_its_callers_trace_and_says_what_came_of_it() {
    let lab = Lab::new();
    let mut collector = Collector::start().unwrap();
    let gate = lab.start_with(ENDPOINT, &collector.endpoint);
    let mut check = migrate("alice", "v3", 1);
    let http = check.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap();
    http.headers.insert("traceparent".into(), PARENT.into());
    let call = gate.hold(check).await;
    let id = gate.waiting_one().await;
    gate.decide("dana", &id, true, "").await;
    assert!(call.await.unwrap().is_allowed());
    gate.terminate();
    assert!(gate.exited().await.success());
    let span = tokio::time::timeout(PATIENCE, collector.next()).await.unwrap().unwrap();
    assert_eq!(span.name, "check");
    assert!(is_child_of_parent(&span), "{span:?}");
    let said = ["mcp.tool", "hitl.outcome", "hitl.request"].map(|name| attribute(&span, name));
    assert_eq!(said, [Some("run_migration"), Some("released"), Some(id.as_str())]);
}
