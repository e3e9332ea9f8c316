//! Listening, and leaving in order.
//!
//! Owns how connections are served, what a peer may take of one, and the drain. Must never cut a
//! request that is being answered before the deadline, and never leave Nagle's algorithm on: an
//! answer of several small writes would wait 40 ms for a delayed acknowledgement.

use std::{
    fmt,
    future::Future,
    io::{self, Write as _},
    net::SocketAddr,
    pin::pin,
    process::ExitCode,
    time::Duration,
};

use axum::{Router, body::HttpBody as _, extract::ConnectInfo};
use hyper::{
    body::Incoming,
    server::conn::http1::{Builder, Connection},
    service::{HttpService, Service as _, service_fn},
};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown, service::TowerToHyperService};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::io::InspectReader;

use crate::{
    connections::{Limits, Listener, allow_files},
    head::{HeadTimer, Patience, Progress},
};

/// Largest head of a request, in bytes; a larger one is answered with 431.
const LARGEST_HEAD: usize = 64 * 1024;

/// Whoever begins a request can send its head in that time. Between requests a connection may be idle
/// for longer than any gateway keeps one (Envoy an hour), so that none closes as it is used; those
/// whose peer went without a word end at last, and give their places back.
const PATIENCE: Patience =
    Patience { head: Duration::from_secs(10), idle: Duration::from_hours(2) };

/// How long a request in flight may take after the service was asked to stop.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// Why a service cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What to do about it.
        reason: String,
    },
    /// The listener failed for good.
    #[error("the listener failed: {0}")]
    Listener(#[from] io::Error),
}

/// Listens on `address`.
///
/// # Errors
/// [`ServeError::Bind`], with what to do about it.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    allow_files();
    TcpListener::bind(address).await.map_err(|error| ServeError::Bind {
        address,
        reason: match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!(
                    "another process has port {}; stop it or choose another port",
                    address.port()
                )
            }
            io::ErrorKind::PermissionDenied => {
                "not permitted; ports below 1024 need a privilege, choose a higher one".to_owned()
            }
            io::ErrorKind::AddrNotAvailable => {
                "this machine has no such address; use 127.0.0.1 or 0.0.0.0".to_owned()
            }
            _ => error.to_string(),
        },
    })
}

/// Completes when the process is asked to stop: SIGTERM, or Ctrl-C.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn stop_signal() -> io::Result<impl Future<Output = &'static str> + Send> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
        }
    })
}

/// How a process ends: with what went wrong on standard error, in words and without a backtrace.
pub fn exit_code(service: &str, result: Result<(), impl fmt::Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be gone; then there is nobody to tell.
            let _ = writeln!(io::stderr(), "{service}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Serves `app` at another address beside the service's own, until what is given back is dropped:
/// health and metrics answer while the service itself drains.
///
/// # Errors
/// [`ServeError::Bind`], with what to do about it.
pub async fn beside(address: SocketAddr, app: Router) -> Result<Beside, ServeError> {
    let listener = bind(address).await?;
    tracing::info!(status = %listener.local_addr()?, "status is served");
    let never = std::future::pending();
    Ok(Beside(tokio::spawn(async move {
        if let Err(error) = serve(listener, app, never, DRAIN_DEADLINE).await {
            tracing::error!(%error, "status is served no more");
        }
    })))
}

/// A listener beside the service's own; it ends when this is dropped.
#[derive(Debug)]
pub struct Beside(tokio::task::JoinHandle<()>);

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How a service left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every request in flight was answered.
    Completely,
    /// The deadline passed first; what was left has been cut.
    DeadlinePassed,
}

/// Serves `app` until `stop` completes, then stops accepting and lets the requests in flight
/// finish, for `deadline` at most.
///
/// # Errors
/// [`ServeError::Listener`] when the listener fails for good; what may pass is waited for.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    stop: impl Future<Output = &'static str> + Send + 'static,
    deadline: Duration,
) -> Result<Drained, ServeError> {
    let listener = Listener::new(listener, Limits::default());
    let graceful = GracefulShutdown::new();
    let mut stop = pin!(stop);
    let signal = loop {
        tokio::select! {
            signal = &mut stop => break signal,
            (stream, from, place) = listener.accept() => {
                let served = graceful.watch(connection(stream, from, app.clone(), PATIENCE));
                tokio::spawn(async move {
                    if let Err(error) = served.await {
                        tracing::trace!(%error, %from, "a connection failed");
                    }
                    drop(place);
                });
            }
        }
    };
    tracing::info!(signal, "stopping: no new connections, requests in flight may finish");
    drop(listener);
    if tokio::time::timeout(deadline, graceful.shutdown()).await.is_ok() {
        return Ok(Drained::Completely);
    }
    tracing::warn!(seconds = deadline.as_secs(), "requests still in flight were cut");
    Ok(Drained::DeadlinePassed)
}

/// One connection, served while it is polled.
fn connection<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    from: SocketAddr,
    app: Router,
    patience: Patience,
) -> Connection<
    TokioIo<impl AsyncRead + AsyncWrite + Unpin>,
    impl HttpService<
        Incoming,
        ResBody = axum::body::Body,
        Error = std::convert::Infallible,
        Future: Send,
    > + Send,
> {
    let progress = Progress::default();
    let timer = HeadTimer { progress: progress.clone(), patience };
    let read = progress.clone();
    let stream = TokioIo::new(InspectReader::new(stream, move |bytes: &[u8]| read.read(bytes)));
    let app = TowerToHyperService::new(app);
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        progress.complete(request.body().size_hint().exact());
        // Handlers may ask who is at the other end.
        request.extensions_mut().insert(ConnectInfo(from));
        app.call(request)
    });
    let mut http = Builder::new();
    http.max_buf_size(LARGEST_HEAD).timer(timer).header_read_timeout(patience.head);
    http.serve_connection(stream, service)
}

#[cfg(test)]
mod tests;
