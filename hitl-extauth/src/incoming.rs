//! Connections of gateways, as the server of checks takes them.
//!
//! Owns what one may take before it has said that it speaks HTTP/2: from there on the server's own
//! pings notice who has gone. Must never end a connection on which checks are held.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, stream};
use hitl_service::connections::{Limits, Listener, Place};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::Sleep,
};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Length of what every client of HTTP/2 sends first.
const PREFACE: usize = 24;

/// How long that may take: a gateway sends it at once.
const PROMPT: Duration = Duration::from_secs(10);

/// What comes to `listener`, as many at a time as services have.
pub fn incoming(listener: TcpListener) -> impl Stream<Item = io::Result<Connection>> {
    within(listener, Limits::default(), PROMPT)
}

fn within(
    listener: TcpListener,
    limits: Limits,
    prompt: Duration,
) -> impl Stream<Item = io::Result<Connection>> {
    stream::unfold(Listener::new(listener, limits), move |listener| async move {
        let (stream, remote, place) = listener.accept().await;
        let opening = Some((0, Box::pin(tokio::time::sleep(prompt))));
        Some((Ok(Connection { stream, remote, _place: place, opening }), listener))
    })
}

/// A connection that opens promptly or ends.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    remote: SocketAddr,
    _place: Place,
    /// Until all of the preface has come: how much has, and when it must have.
    opening: Option<(usize, Pin<Box<Sleep>>)>,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo { local_addr: self.stream.local_addr().ok(), remote_addr: Some(self.remote) }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        if let Some((received, deadline)) = &mut this.opening {
            *received += buffer.filled().len() - before;
            if *received >= PREFACE {
                this.opening = None;
            } else if polled.is_pending() && deadline.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        time::{sleep, timeout},
    };
    use tonic::transport::{Endpoint, Server};

    use super::*;

    const SHORT: Duration = Duration::from_millis(200);
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A server that takes connections within these limits.
    async fn server(limits: Limits, prompt: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_, health) = tonic_health::server::health_reporter();
        let connections = within(listener, limits, prompt);
        tokio::spawn(Server::builder().add_service(health).serve_with_incoming(connections));
        address
    }

    async fn ends(mut stream: TcpStream) -> bool {
        let mut rest = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut rest)).await.is_ok()
    }

    #[tokio::test]
    async fn who_does_not_open_in_time_is_closed_and_a_gateway_stays() {
        let address = server(Limits::default(), SHORT).await;
        let url = format!("http://{address}");
        let gateway = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
        let silent = TcpStream::connect(address).await.unwrap();
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
        assert!(ends(silent).await && ends(half).await);
        sleep(SHORT).await;
        let mut health = tonic_health::pb::health_client::HealthClient::new(gateway);
        let asked = tonic_health::pb::HealthCheckRequest::default();
        health.check(asked).await.unwrap();
    }

    #[tokio::test]
    async fn one_address_has_so_many_connections_and_no_more() {
        let address =
            server(Limits { of_one_address: 1, in_all: 2 }, Duration::from_hours(1)).await;
        let url = format!("http://{address}");
        let _gateway = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
        // Turned away at once, not for being slow.
        let mut beyond = TcpStream::connect(address).await.unwrap();
        assert!(matches!(timeout(PATIENCE, beyond.read(&mut [0])).await.unwrap(), Ok(0) | Err(_)));
    }
}
