//! What stands between an agent and its gateway, and can be cut as a network or a replaced proxy would.
//!
//! Invariant: passes every byte on as it is until it is cut.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// How much is passed on at once, in bytes.
const PIECE: usize = 16 * 1024;

/// What a request's body holds that calls a tool.
const CALL: &[u8] = b"\"tools/call\"";

/// What ends the head of an answer.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// A listener before a gateway; a cheap handle.
#[derive(Clone, Debug)]
pub struct Wire(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    gateway: SocketAddr,
    /// Raised with each cut.
    cuts: watch::Sender<u64>,
    /// Calls of tools that were passed on.
    calls: watch::Sender<u64>,
    /// Whether the next answer to a call is cut off.
    cuts_answer: AtomicBool,
}

/// A wire that is up, until it is dropped.
#[derive(Debug)]
pub struct Up(JoinHandle<()>);

impl Drop for Up {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Wire {
    /// A wire from `address` to a gateway, not up yet.
    pub fn new(address: SocketAddr, gateway: SocketAddr) -> Self {
        let (cuts, calls) = (watch::Sender::new(0), watch::Sender::new(0));
        let cuts_answer = AtomicBool::new(false);
        Self(Arc::new(Shared { address, gateway, cuts, calls, cuts_answer }))
    }

    /// Listens. When what this returns is dropped, connections are refused.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn up(&self) -> anyhow::Result<Up> {
        let listener = TcpListener::bind(self.0.address).await?;
        let shared = Arc::clone(&self.0);
        Ok(Up(tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&shared).connect(client));
            }
        })))
    }

    /// Ends every connection.
    pub fn cut(&self) {
        self.0.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Ends the connection of the next call in the middle of its answer.
    pub fn cut_next_answer(&self) {
        self.0.cuts_answer.store(true, Ordering::SeqCst);
    }

    /// How many calls were passed on.
    pub fn calls(&self) -> u64 {
        *self.0.calls.borrow()
    }

    /// Waits until more than so many calls were passed on.
    pub async fn call_after(&self, calls: u64) {
        let mut passed = self.0.calls.subscribe();
        // An error would mean that the sender is gone, which this handle holds.
        let _ = passed.wait_for(|passed| *passed > calls).await;
    }
}

impl Shared {
    /// Passes a connection on, until it is cut or one side ends it.
    async fn connect(self: Arc<Self>, client: TcpStream) {
        let mut cuts = self.cuts.subscribe();
        cuts.mark_unchanged();
        let passing = async {
            let Ok(gateway) = TcpStream::connect(self.gateway).await else { return };
            // An error means that it is gone already.
            let _ = (client.set_nodelay(true), gateway.set_nodelay(true));
            self.pass(client, gateway).await;
        };
        tokio::select! {
            () = passing => {}
            // An error would mean that the sender is gone, which this holds.
            _ = cuts.changed() => {}
        }
    }

    async fn pass(&self, client: TcpStream, gateway: TcpStream) {
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_gateway, mut to_gateway) = gateway.into_split();
        let calling = AtomicBool::new(false);
        let forth = async {
            let (mut piece, mut seen) = (vec![0; PIECE], Vec::new());
            while let Ok(read @ 1..) = from_client.read(&mut piece).await {
                let Some(piece) = piece.get(..read) else { return };
                seen.extend_from_slice(piece);
                if position(&seen, CALL).is_some() {
                    seen.clear();
                    calling.store(true, Ordering::SeqCst);
                    self.calls.send_modify(|calls| *calls += 1);
                }
                if to_gateway.write_all(piece).await.is_err() {
                    return;
                }
            }
        };
        let back = async {
            let (mut piece, mut answer) = (vec![0; PIECE], Vec::new());
            while let Ok(read @ 1..) = from_gateway.read(&mut piece).await {
                let Some(piece) = piece.get(..read) else { return };
                if calling.load(Ordering::SeqCst) && self.cuts_answer.load(Ordering::SeqCst) {
                    answer.extend_from_slice(piece);
                    let Some(head) = position(&answer, HEAD_END) else { continue };
                    self.cuts_answer.store(false, Ordering::SeqCst);
                    // The head is whole, and the body is not: that has been cut.
                    let begun = answer.get(..head + HEAD_END.len()).unwrap_or_default();
                    let _ = to_client.write_all(begun).await;
                    let _ = to_client.flush().await;
                    return;
                }
                if to_client.write_all(piece).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = forth => {}
            () = back => {}
        }
    }
}

/// Where some bytes begin in others.
fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
