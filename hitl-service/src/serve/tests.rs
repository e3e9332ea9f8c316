//! What a peer may take of a connection, and what must not be taken from it.
//!
//! Time is virtual where nothing but the connection is looked at; what a listener does goes through
//! real sockets.

use axum::{
    body::{Body, Bytes},
    http::Request,
    response::IntoResponse,
    routing::{get, post},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::*;

const HEAD: &[u8] = b"GET /who HTTP/1.1\r\nhost: x\r\n\r\n";
const SECOND: Duration = Duration::from_secs(1);

/// Ten pieces, a minute between two.
async fn slow() -> Response {
    let pieces = futures_util::stream::unfold(0, |number| async move {
        sleep(Duration::from_mins(1)).await;
        (number < 10).then(|| (Ok::<_, io::Error>(Bytes::from("piece")), number + 1))
    });
    Body::from_stream(pieces).into_response()
}

type Response = axum::response::Response;

fn app() -> Router {
    Router::new()
        .route(
            "/who",
            get(|ConnectInfo(from): ConnectInfo<SocketAddr>| async move { from.to_string() }),
        )
        .route("/length", post(|body: Bytes| async move { body.len().to_string() }))
        .route(
            "/held",
            get(|| async {
                sleep(Duration::from_mins(30)).await;
                "held"
            }),
        )
        .route("/slow", get(slow))
        .route("/early", post(|_: Request<Body>| async { "early" }))
}

/// A client at a connection that is served.
struct Client {
    stream: DuplexStream,
    served: JoinHandle<()>,
}

impl Client {
    fn new() -> Self {
        let (stream, other) = duplex(1024 * 1024);
        let served = connection(other, ([192, 0, 2, 1], 7).into(), app(), PATIENCE);
        let served = tokio::spawn(async move { drop(served.await) });
        Self { stream, served }
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads until this has come.
    async fn sees(&mut self, text: &str) {
        let mut seen = String::new();
        while !seen.contains(text) {
            let mut byte = [0];
            assert_eq!(self.stream.read(&mut byte).await.unwrap(), 1, "closed after {seen}");
            seen.push(char::from(byte[0]));
        }
    }

    /// A request that is answered.
    async fn asks(&mut self) {
        self.send(HEAD).await;
        self.sees("192.0.2.1:7").await;
    }

    /// How long it takes until the other end closes, if it does within a day.
    async fn closed(mut self) -> Duration {
        let (begun, mut rest) = (Instant::now(), Vec::new());
        let _ = timeout(Duration::from_hours(24), self.stream.read_to_end(&mut rest)).await;
        begun.elapsed()
    }

    fn is_open(&self) -> bool {
        !self.served.is_finished()
    }
}

fn about(took: Duration, expected: Duration) -> bool {
    took >= expected && took < expected + SECOND
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_not_whole_in_time_is_closed_however_slowly_it_comes() {
    let mut client = Client::new();
    client.send(b"GET / HTTP/1.1\r\n").await;
    assert!(about(client.closed().await, PATIENCE.head));

    let mut client = Client::new();
    let mut sent = 0;
    while client.is_open() {
        client.send(b"x").await;
        sleep(SECOND).await;
        sent += 1;
    }
    assert!((9..=11).contains(&sent), "{sent}");
}

#[tokio::test(start_paused = true)]
async fn a_second_head_has_the_same_time() {
    let mut client = Client::new();
    client.asks().await;
    sleep(PATIENCE.head * 3).await;
    client.send(&HEAD[..10]).await;
    assert!(about(client.closed().await, PATIENCE.head));
}

#[tokio::test(start_paused = true)]
async fn a_head_begun_together_with_the_request_before_it_has_the_same_time() {
    for before in [
        "GET /who HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc",
        "POST /length HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ] {
        let mut client = Client::new();
        client.send(format!("{before}GET /who HT")).await;
        assert!(about(client.closed().await, PATIENCE.head), "{before}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_stays_open_longer_than_gateways_keep_one() {
    let mut client = Client::new();
    for request in [
        "GET /who HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc",
        "POST /length HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ] {
        client.send(request).await;
        client.sees("\r\n\r\n").await;
        sleep(Duration::from_mins(110)).await;
    }
    client.asks().await;
    assert!(about(client.closed().await, PATIENCE.idle));
    // One that was opened for later as well.
    assert!(about(Client::new().closed().await, PATIENCE.idle));
}

#[tokio::test(start_paused = true)]
async fn a_body_may_take_long() {
    for (header, piece, end) in
        [("content-length: 60", "x", ""), ("transfer-encoding: chunked", "1\r\nx\r\n", "0\r\n\r\n")]
    {
        for expect in ["", "expect: 100-continue\r\n"] {
            let mut client = Client::new();
            client
                .send(format!("POST /length HTTP/1.1\r\nhost: x\r\n{expect}{header}\r\n\r\n"))
                .await;
            if !expect.is_empty() {
                client.sees("100 Continue\r\n\r\n").await;
            }
            for _ in 0..60 {
                sleep(PATIENCE.head).await;
                client.send(piece).await;
            }
            client.send(end).await;
            client.sees("\r\n\r\n60").await;
            sleep(PATIENCE.head * 2).await;
            client.asks().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_and_a_held_one_are_not_cut() {
    let mut client = Client::new();
    client.send("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    for _ in 0..10 {
        client.sees("piece").await;
    }
    client.sees("0\r\n\r\n").await;
    client.send("GET /held HTTP/1.1\r\nhost: x\r\n\r\n").await;
    client.sees("\r\n\r\nheld").await;
    client.asks().await;
}

#[tokio::test(start_paused = true)]
async fn requests_sent_ahead_are_all_answered() {
    let mut client = Client::new();
    let held = "GET /held HTTP/1.1\r\nhost: x\r\n\r\n";
    client.send([held.as_bytes(), HEAD, HEAD].concat()).await;
    client.sees("\r\n\r\nheld").await;
    client.sees("192.0.2.1:7").await;
    client.sees("192.0.2.1:7").await;
    sleep(PATIENCE.head * 3).await;
    client.asks().await;
}

#[tokio::test(start_paused = true)]
async fn a_head_may_be_split_at_every_byte() {
    let mut client = Client::new();
    for at in 0..HEAD.len() {
        client.send(&HEAD[..at]).await;
        sleep(PATIENCE.head / 2).await;
        client.send(&HEAD[at..]).await;
        client.sees("192.0.2.1:7").await;
    }
    for byte in HEAD {
        client.send([*byte]).await;
        sleep(Duration::from_millis(10)).await;
    }
    client.sees("192.0.2.1:7").await;
}

#[tokio::test(start_paused = true)]
async fn a_head_may_have_64_kilobytes_and_no_more() {
    let large = |length: usize| {
        let mut text = "GET /who HTTP/1.1\r\nhost: x\r\nx: ".to_owned();
        text += &"y".repeat(length - text.len() - 4);
        text + "\r\n\r\n"
    };
    let mut client = Client::new();
    client.send(large(LARGEST_HEAD - 1024)).await;
    client.sees("192.0.2.1:7").await;
    client.send(large(LARGEST_HEAD + 1024)).await;
    client.sees("HTTP/1.1 431 ").await;
    assert!(client.closed().await < SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_answer_before_the_body_has_come_does_not_cut_what_follows() {
    let mut client = Client::new();
    client.send("POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc").await;
    client.sees("early").await;
    sleep(PATIENCE.head * 3).await;
    client.asks().await;
}

/// A service at a real listener, and what asks it to stop.
async fn listening(deadline: Duration) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<Drained>) {
    let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let stopped = async move {
        let _ = stopped.await;
        "a test"
    };
    let waits = get(|| async {
        sleep(Duration::from_millis(300)).await;
        "late"
    });
    let app = app().route("/late", waits);
    let served = async move { serve(listener, app, stopped, deadline).await.unwrap() };
    (address, stop, tokio::spawn(served))
}

async fn answer(stream: &mut TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn who_asks_is_known_beside_others_who_send_half_a_head() {
    let (address, _stop, _served) = listening(SECOND).await;
    let mut halves = Vec::new();
    for _ in 0..500 {
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET /who HTTP/1.1\r\n").await.unwrap();
        halves.push(half);
    }
    let mut client = TcpStream::connect(address).await.unwrap();
    let from = client.local_addr().unwrap();
    assert!(answer(&mut client, "/who").await.ends_with(&from.to_string()));
}

#[tokio::test]
async fn a_request_in_flight_is_answered_before_a_service_leaves() {
    let (address, stop, served) = listening(10 * SECOND).await;
    let _idle = TcpStream::connect(address).await.unwrap();
    let mut client = TcpStream::connect(address).await.unwrap();
    let late = tokio::spawn(async move { answer(&mut client, "/late").await });
    sleep(Duration::from_millis(100)).await;
    stop.send(()).unwrap();
    assert!(late.await.unwrap().ends_with("late"));
    assert_eq!(served.await.unwrap(), Drained::Completely);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn what_takes_longer_than_the_deadline_does_not_keep_a_service() {
    let (address, stop, served) = listening(Duration::from_millis(100)).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET /held HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    sleep(Duration::from_millis(100)).await;
    stop.send(()).unwrap();
    assert_eq!(served.await.unwrap(), Drained::DeadlinePassed);
}
