//! Many requests, and many who look at them.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Lab, PATIENCE, check};

#[tokio::test]
async fn with_a_thousand_waiting_the_first_page_takes_less_than_a_fifth_of_a_second() {
    let lab = Lab::start();
    let dana = lab.signed_in("dana").await;
    let gate = lab.checks().await;
    let mut calls = JoinSet::new();
    for number in 0..1000 {
        let (mut gate, user) = (gate.clone(), format!("user-{number}"));
        calls.spawn(async move {
            // Held until the test ends.
            let _ = gate.check(check(&user, "run_migration", &json!({"version": "v3"}))).await;
        });
    }
    let all = async {
        while !dana.page("/queue/list").await.contains("data-total=\"1000\"") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap();
    let mut took = Vec::new();
    for _ in 0..9 {
        let begun = Instant::now();
        let page = dana.page("/queue").await;
        took.push(begun.elapsed());
        assert_eq!(page.matches("<li data-id=").count(), 100);
        assert!(page.contains("(1000) Queue") && page.contains("More wait behind these"));
    }
    took.sort();
    assert!(took[4] < Duration::from_millis(200), "{took:?}");

    // One more is told of, and can be shown, within a second.
    let mut live = dana.get("/live").await;
    let mut text = String::new();
    while !text.contains("event: hello") {
        text += std::str::from_utf8(&live.chunk().await.unwrap().unwrap()).unwrap();
    }
    let begun = Instant::now();
    let last = lab.call("the-last", json!({"version": "v3"})).await;
    let id = loop {
        text += std::str::from_utf8(&live.chunk().await.unwrap().unwrap()).unwrap();
        let changed =
            text.split("event: change").nth(1).and_then(|event| event.split("data: ").nth(1));
        if let Some((id, _)) = changed.and_then(|data| data.split_once('\n')) {
            break id.trim().to_owned();
        }
    };
    let card = dana.page(&format!("/queue/cards?ids={id}")).await;
    assert!(card.contains("the-last") && card.contains("data-total=\"1001\""), "{card}");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    last.abort();
}

/// Passes everything on to the gate, and counts what is asked for.
fn counting(gate: &str) -> (String, Arc<Mutex<BTreeMap<String, usize>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let counts = Arc::new(Mutex::new(BTreeMap::new()));
    let (gate, seen) = (gate.trim_start_matches("http://").to_owned(), Arc::clone(&counts));
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(&gate).unwrap();
            let (mut back, mut forth) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut back, &mut forth));
            let (mut from, mut to, seen) = (client, server, Arc::clone(&seen));
            std::thread::spawn(move || {
                let mut buffer = [0; 16 * 1024];
                while let Ok(length @ 1..) = from.read(&mut buffer) {
                    // Requests are small and come whole.
                    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    let mut words = text.split_whitespace().skip(1);
                    if text.starts_with("GET ") || text.starts_with("POST ") {
                        let path = words.next().unwrap().split('?').next().unwrap().to_owned();
                        *seen.lock().unwrap().entry(path).or_default() += 1;
                    }
                    if to.write_all(&buffer[..length]).is_err() {
                        return;
                    }
                }
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    });
    (format!("http://{address}"), counts)
}

#[tokio::test]
async fn a_hundred_open_pages_cost_the_gate_a_stream_each_and_nothing_while_nothing_happens() {
    let lab = Lab::start();
    let (between, counts) = counting(&lab.gate_url());
    let (_queue, url) = Lab::service("hitl-ui", &["--listen=127.0.0.1:0", "--gate", &between]);
    let mut dana = lab.browser_at(&url);
    dana.sign_in("dana").await;
    let mut open = Vec::new();
    for _ in 0..100 {
        let mut live = dana.get("/live").await;
        assert!(live.chunk().await.unwrap().is_some());
        open.push(live);
    }
    let call = lab.call("alice", json!({"version": "v3"})).await;
    for live in &mut open {
        let mut text = String::new();
        let told = async {
            while !text.contains("event: change") {
                text += std::str::from_utf8(&live.chunk().await.unwrap().unwrap()).unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, told).await.unwrap();
    }
    // All have been told, by a stream each, and the gate was asked for nothing else.
    let expected = BTreeMap::from([("/events".to_owned(), 100), ("/me".to_owned(), 1)]);
    assert_eq!(*counts.lock().unwrap(), expected);
    call.abort();
}
