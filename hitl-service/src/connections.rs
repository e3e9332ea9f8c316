//! Accepting connections, and how many there may be.
//!
//! Owns the accept loop's limits: for each address at the other end, and for a listener in all. Must
//! never let one address take every place, and never keep anything of a connection it turned away.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};

/// Connections of one address. A gateway or a queue has one for each call in flight or page that is
/// open, and all of them come from one address; so do people behind one node's address.
const OF_ONE_ADDRESS: usize = 1024;

/// Connections of all addresses at one listener: several addresses with all that they may have.
const IN_ALL: usize = 8192;

/// How often it is said that connections are turned away.
const TELL: Duration = Duration::from_mins(1);

/// How long to wait when the system gives no more connections: it needs some of them closed.
const RECOVER: Duration = Duration::from_secs(1);

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From one address. Loopback is one like any other: what comes through a proxy in the same pod
    /// comes from it, and a proxy must not take every place either.
    pub of_one_address: usize,
    /// At one listener.
    pub in_all: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { of_one_address: OF_ONE_ADDRESS, in_all: IN_ALL }
    }
}

/// Lets this process have as many files as it may, a connection being one of them: where it starts
/// with a thousand, a single address within its limit would leave none for a database or for others.
pub(crate) fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Some systems refuse the number that they gave; then it stays as it was.
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// A listener that turns away what is beyond its limits.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    places: Arc<Places>,
}

impl Listener {
    /// Accepts what comes to `listener`, within `limits`.
    pub fn new(listener: TcpListener, limits: Limits) -> Self {
        Self { listener, places: Arc::new(Places { limits, taken: Mutex::default() }) }
    }

    /// The next connection that there is a place for, and who is at the other end. Small writes go
    /// out at once. Nothing is lost when the future is dropped.
    pub async fn accept(&self) -> (TcpStream, SocketAddr, Place) {
        loop {
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    // To turn one away is to drop it.
                    let Some(place) = Places::take(&self.places, from.ip()) else { continue };
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "TCP_NODELAY could not be set");
                    }
                    return (stream, from, place);
                }
                // That connection has gone again; the next one may be well.
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "no connection can be accepted; trying again");
                    tokio::time::sleep(RECOVER).await;
                }
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// A connection's place among those there may be; it is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.free(self.address);
    }
}

#[derive(Debug)]
struct Places {
    limits: Limits,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// Only addresses that have some, so that this cannot grow beyond the connections.
    by: HashMap<IpAddr, usize>,
    in_all: usize,
    /// Turned away since that was last said.
    away: u64,
    told: Option<Instant>,
}

impl Places {
    fn take(places: &Arc<Self>, address: IpAddr) -> Option<Place> {
        // One client is one, whichever of the two ways its address is written.
        let address = address.to_canonical();
        let mut taken = places.taken();
        let of_address = taken.by.get(&address).copied().unwrap_or(0);
        let limits = places.limits;
        if of_address >= limits.of_one_address || taken.in_all >= limits.in_all {
            taken.turn_away(address, of_address);
            return None;
        }
        taken.by.insert(address, of_address + 1);
        taken.in_all += 1;
        drop(taken);
        Some(Place { places: Arc::clone(places), address })
    }

    fn free(&self, address: IpAddr) {
        let mut taken = self.taken();
        taken.in_all = taken.in_all.saturating_sub(1);
        match taken.by.get_mut(&address) {
            Some(left) if *left > 1 => *left -= 1,
            _ => {
                taken.by.remove(&address);
            }
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Nothing panics while it is locked; the counts are whole in any case.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn turn_away(&mut self, address: IpAddr, of_address: usize) {
        self.away = self.away.saturating_add(1);
        // A flood of connections must not become a flood of lines.
        if self.told.is_some_and(|told| told.elapsed() < TELL) {
            return;
        }
        self.told = Some(Instant::now());
        let (in_all, away) = (self.in_all, std::mem::take(&mut self.away));
        tracing::warn!(%address, of_address, in_all, away, "too many connections: turned away");
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpSocket,
    };

    use super::*;

    const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
    const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
    const THIRD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

    async fn listener(of_one_address: usize, in_all: usize) -> (Listener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Listener::new(listener, Limits { of_one_address, in_all }), address)
    }

    async fn connect(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.connect(to).await.unwrap()
    }

    /// Whether the other end has closed.
    async fn is_closed(mut stream: TcpStream) -> bool {
        // A reset is an end as well.
        matches!(stream.read(&mut [0]).await, Ok(0) | Err(_))
    }

    #[tokio::test]
    async fn one_address_is_turned_away_at_its_limit_and_another_let_in() {
        let (listener, to) = listener(2, 10).await;
        let _clients = (connect(HERE, to).await, connect(HERE, to).await);
        let first = listener.accept().await;
        let _second = listener.accept().await;
        let third = connect(HERE, to).await;
        let mut other = connect(ELSEWHERE, to).await;
        let (mut accepted, from, _place) = listener.accept().await;
        assert_eq!(from.ip(), ELSEWHERE);
        assert!(accepted.nodelay().unwrap());
        assert!(is_closed(third).await);
        accepted.write_all(b"x").await.unwrap();
        assert_eq!(other.read(&mut [0]).await.unwrap(), 1);

        // Whoever leaves makes room.
        drop(first);
        let _again = connect(HERE, to).await;
        assert_eq!(listener.accept().await.1.ip(), HERE);
    }

    #[tokio::test]
    async fn a_listener_has_an_end_too() {
        let (listener, to) = listener(2, 3).await;
        let _clients = (connect(HERE, to).await, connect(HERE, to).await);
        let _held = (listener.accept().await, listener.accept().await);
        let _client = connect(ELSEWHERE, to).await;
        let last = listener.accept().await;
        let beyond = connect(THIRD, to).await;
        // The one that makes room is accepted after the one that is turned away.
        let closed = tokio::spawn(is_closed(beyond));
        tokio::select! {
            closed = closed => assert!(closed.unwrap()),
            _ = listener.accept() => panic!("there is no place for it"),
        }
        drop(last);
        let _client = connect(THIRD, to).await;
        assert_eq!(listener.accept().await.1.ip(), THIRD);
    }

    #[test]
    fn all_the_files_that_may_be_open_can_be() {
        allow_files();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }

    #[test]
    fn nothing_is_kept_of_addresses_that_have_left_or_were_turned_away() {
        let limits = Limits { of_one_address: 1, in_all: 2 };
        let places = Arc::new(Places { limits, taken: Mutex::default() });
        let mapped = HERE.to_ipv6_mapped().into();
        let here = Places::take(&places, HERE.into()).unwrap();
        // The same address, written otherwise.
        assert!(Places::take(&places, mapped).is_none());
        let there = Places::take(&places, ELSEWHERE.into()).unwrap();
        assert!(Places::take(&places, THIRD.into()).is_none());
        drop((here, there));
        assert!(places.taken().by.is_empty() && places.taken().in_all == 0);
        drop(Places::take(&places, mapped).unwrap());
        assert!(places.taken().by.is_empty() && places.taken().in_all == 0);
    }
}
