//! Asked to stop, the server stops accepting, finishes what is in flight, and leaves.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::support::{Server, until};

#[tokio::test]
async fn calls_in_flight_are_answered_and_new_connections_are_not() {
    let server = Server::start(&[]).await;
    // Takes its whole two seconds: it is in flight when the signal comes.
    let slow =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    let address = server.address;
    let calls = server.call("cluster_db_query", json!({"sql": slow}));
    let stop = async {
        #[cfg(not(target_os = "linux"))]
        let burning = || Some(());
        #[cfg(target_os = "linux")]
        let burning = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
            let utime: u64 =
                stat.rsplit_once(") ").unwrap().1.split(' ').nth(11).unwrap().parse().unwrap();
            (utime > 10).then_some(())
        };
        until("the query to run", burning).await;
        server.terminate();
        until("new connections to be refused", || {
            std::net::TcpStream::connect(address).is_err().then_some(())
        })
        .await;
    };
    let (answer, ()) = tokio::join!(calls, stop);
    assert!(answer.refusal().contains("longer than 2 s"), "{answer:?}");
    server.said("has stopped").await;
    assert!(server.exited().await.success());
}

#[tokio::test]
async fn idle_connections_do_not_hold_the_process() {
    let server = Server::start(&[]).await;
    // One kept alive by the client's pool, one that never said anything.
    server.rows("SELECT 1").await;
    let _silent = TcpStream::connect(server.address).await.unwrap();
    let begun = Instant::now();
    server.terminate();
    assert!(server.exited().await.success());
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_at_the_deadline() {
    let server = Server::start(&[]).await;
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(b"POST /public/mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nContent-Length: 100\r\n\r\n{").await.unwrap();
    // The request is in the server's hands once another one, sent later, is answered.
    server.rows("SELECT 1").await;
    let begun = Instant::now();
    server.terminate();
    server.said("requests still in flight were cut").await;
    assert!(server.exited().await.success());
    let took = begun.elapsed();
    assert!((Duration::from_secs(9)..Duration::from_secs(20)).contains(&took), "{took:?}");
}
