//! Who waits on what.
//!
//! Owns the calls that are held: one for each request, the newest; how many there are, in all and
//! for each requester; and what becomes of a release that nobody took. Must never be the record: a
//! held call is a courtesy, the request is in the store. Must never keep a call out for want of a
//! seat before it is known whether it needs one: an approval may be there for it.

mod arriving;
mod seats;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use hitl_api::{Request, RequestId};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use self::seats::{Seats, Who};
use crate::store::Note;

pub use self::{
    arriving::{Arriving, Known},
    seats::{Full, Limits},
};

/// How a held call is answered.
#[derive(Debug)]
pub enum Release {
    /// It may pass. Take it with [`Delivery::accept`] at the last moment.
    Approved(Delivery),
    /// It is settled otherwise; the request says how.
    Settled(Box<Request>),
    /// A newer identical call has taken its place.
    Superseded,
    /// The gate is stopping.
    Stopping,
}

/// What happens to held calls without anybody asking; for whoever writes it down.
#[derive(Debug)]
pub enum Notice {
    /// Something that changes no state: who left, what was superseded.
    Happened(RequestId, Note),
    /// An approval was spent for a caller who had gone: it must become a grant.
    Undelivered(RequestId),
    /// A call that was to be told something waits on: what was told elsewhere meanwhile, it has
    /// missed.
    PutBack(RequestId),
    /// Everything before this has been written down; somebody waits for that.
    Flush(oneshot::Sender<()>),
}

/// An approval on its way to a caller. Dropped without being accepted, it goes back.
#[derive(Debug)]
pub struct Delivery {
    request: Option<Box<Request>>,
    notices: mpsc::UnboundedSender<Notice>,
}

impl Delivery {
    /// What is delivered.
    pub fn request(&self) -> Option<&Request> {
        self.request.as_deref()
    }

    /// Takes the approval: from here on it is used.
    pub fn accept(mut self) -> Option<Box<Request>> {
        self.request.take()
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(request) = &self.request {
            // Nobody listens only when the gate has stopped, after waiting for what was sent before.
            let _ = self.notices.send(Notice::Undelivered(request.id));
        }
    }
}

/// The held calls; a cheap handle.
#[derive(Clone, Debug)]
pub struct Parking(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: Limits,
    state: Mutex<State>,
    tickets: AtomicU64,
    notices: mpsc::UnboundedSender<Notice>,
}

#[derive(Debug, Default)]
struct State {
    waiters: HashMap<RequestId, Waiter>,
    /// Calls inside, with a seat or without one yet.
    inside: u32,
    /// Bytes of their bodies, until these are written down.
    load: usize,
    seats: Seats,
    stopping: bool,
}

/// Calls inside beyond the seats: they are being looked up, or have their answer already.
const ARRIVING: u32 = 2000;

/// Bytes of bodies that wait to be written down, at most.
const LARGEST_LOAD: usize = 256 * 1024 * 1024;

/// Bytes of a body, counted until it is dropped.
#[derive(Debug)]
pub struct Load {
    parking: Parking,
    bytes: usize,
}

impl Drop for Load {
    fn drop(&mut self) {
        let mut state = self.parking.lock();
        state.load = state.load.saturating_sub(self.bytes);
    }
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    since: Timestamp,
    who: Who,
    seated: bool,
    tell: oneshot::Sender<Release>,
}

impl State {
    /// Takes a waiter out, and gives its seat back.
    fn take_out(&mut self, id: RequestId) -> Option<Waiter> {
        let waiter = self.waiters.remove(&id)?;
        if waiter.seated {
            self.seats.give_back(&waiter.who);
        }
        Some(waiter)
    }

    /// Lets a waiter wait on a request, the newer of two; the older is given back with what it is
    /// to be told. The newer has the older one's seat.
    fn put(&mut self, id: RequestId, mut waiter: Waiter) -> Option<(Waiter, Release)> {
        if self.stopping {
            return Some((waiter, Release::Stopping));
        }
        let newest = |there: &Waiter| there.ticket > waiter.ticket && !there.tell.is_closed();
        if self.waiters.get(&id).is_some_and(newest) {
            return Some((waiter, Release::Superseded));
        }
        let older = self.take_out(id);
        waiter.seated |= older.as_ref().is_some_and(|older| older.seated);
        if waiter.seated {
            self.seats.take(&waiter.who);
        }
        self.waiters.insert(id, waiter);
        older.map(|older| (older, Release::Superseded))
    }
}

/// A call inside, until it is dropped.
#[derive(Debug)]
pub struct Place {
    parking: Parking,
    who: Who,
    ticket: u64,
    at: Option<RequestId>,
    /// Whether the store knows the request it waits on.
    known: bool,
    told: oneshot::Receiver<Release>,
    tell: Option<oneshot::Sender<Release>>,
}

/// A waiter that has been taken out to be told something. Nobody else can tell it now.
#[derive(Debug)]
pub struct Claim {
    parking: Parking,
    id: RequestId,
    waiter: Option<Waiter>,
}

impl Parking {
    /// An empty parking, and what is to be written down of what happens in it.
    pub fn new(limits: Limits) -> (Self, mpsc::UnboundedReceiver<Notice>) {
        let (notices, written_down) = mpsc::unbounded_channel();
        let inner = Inner { limits, state: Mutex::default(), tickets: AtomicU64::new(0), notices };
        (Self(Arc::new(inner)), written_down)
    }

    /// Lets a call of this requester in; `crowd` is where it comes from when nobody has verified the name.
    /// It has no seat yet.
    ///
    /// # Errors
    /// [`Full`] when there are so many inside that memory is in danger.
    pub fn enter(&self, requester: &str, crowd: Option<&str>) -> Result<Place, Full> {
        let mut state = self.lock();
        let limits = self.0.limits;
        if state.inside >= limits.held.saturating_add(ARRIVING) {
            return Err(Full::Gate(limits.held));
        }
        state.inside += 1;
        let (tell, told) = oneshot::channel();
        Ok(Place {
            parking: self.clone(),
            who: Who { requester: requester.into(), crowd: crowd.map(Into::into) },
            ticket: self.0.tickets.fetch_add(1, Ordering::Relaxed),
            at: None,
            known: false,
            told,
            tell: Some(tell),
        })
    }

    /// Counts a body that waits to be written down.
    ///
    /// # Errors
    /// [`Full::Memory`] when there is no room for it.
    pub fn load(&self, bytes: usize) -> Result<Load, Full> {
        let mut state = self.lock();
        if state.load.saturating_add(bytes) > LARGEST_LOAD {
            return Err(Full::Memory);
        }
        state.load += bytes;
        Ok(Load { parking: self.clone(), bytes })
    }

    /// Takes out whoever waits on a request.
    pub fn claim(&self, id: RequestId) -> Option<Claim> {
        let waiter = self.lock().take_out(id)?;
        Some(Claim { parking: self.clone(), id, waiter: Some(waiter) })
    }

    /// Since when somebody waits on a request, if anybody does.
    pub fn waiting_since(&self, id: RequestId) -> Option<Timestamp> {
        let state = self.lock();
        let waiter = state.waiters.get(&id).filter(|waiter| !waiter.tell.is_closed())?;
        Some(waiter.since)
    }

    /// Whether a call waits on a request.
    pub fn waits_on(&self, id: RequestId) -> bool {
        self.lock().waiters.contains_key(&id)
    }

    /// The requests that calls wait on.
    pub fn waiting(&self) -> Vec<RequestId> {
        self.lock().waiters.keys().copied().collect()
    }

    /// An approval that has been spent for a call that did not wait. Should that call have gone, the
    /// approval goes back.
    pub fn deliver(&self, request: Request) -> Delivery {
        Delivery { request: Some(Box::new(request)), notices: self.0.notices.clone() }
    }

    /// Something has happened to a call that changes no state; it is written down soon.
    pub fn note(&self, id: RequestId, note: Note) {
        // Nobody listens only when the gate has stopped.
        let _ = self.0.notices.send(Notice::Happened(id, note));
    }

    /// Completes when everything that has happened here until now is written down.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.0.notices.send(Notice::Flush(done)).is_ok() {
            // An error means that nobody writes any more.
            let _ = flushed.await;
        }
    }

    /// How many calls are held.
    pub fn held(&self) -> u32 {
        self.lock().seats.held()
    }

    /// Tells everybody that the gate is stopping, now and from now on.
    pub fn stop(&self) {
        let waiters = {
            let mut state = self.lock();
            state.stopping = true;
            state.seats = Seats::default();
            std::mem::take(&mut state.waiters)
        };
        for (_, waiter) in waiters {
            // Whoever has gone need not know.
            let _ = waiter.tell.send(Release::Stopping);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits on a request from now on. Of two calls that wait on it the older is told that it was
    /// superseded; that may be this one.
    pub fn wait_on(&mut self, id: RequestId) {
        let Some(tell) = self.tell.take() else { return };
        self.at = Some(id);
        let who = self.who.clone();
        // In the precision that everything is kept in.
        let now = Timestamp::now();
        let since = Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now);
        let waiter = Waiter { ticket: self.ticket, since, who, seated: false, tell };
        let told = self.parking.lock().put(id, waiter);
        if let Some((waiter, release)) = told {
            // Whoever has gone need not know.
            let _ = waiter.tell.send(release);
        }
    }

    /// Takes a seat, to be held on. One that has been claimed needs none: it is told in a moment.
    ///
    /// # Errors
    /// [`Full`] when all are taken. It still waits, and has to leave.
    pub fn sit(&self) -> Result<(), Full> {
        let Some(id) = self.at else { return Ok(()) };
        let mut state = self.parking.lock();
        let stands = |waiter: &Waiter| waiter.ticket == self.ticket && !waiter.seated;
        if !state.waiters.get(&id).is_some_and(stands) {
            return Ok(());
        }
        state.seats.room(&self.who, self.parking.0.limits)?;
        if let Some(waiter) = state.waiters.get_mut(&id) {
            waiter.seated = true;
        }
        state.seats.take(&self.who);
        Ok(())
    }

    /// Waits on another request instead: the one its call turned out to belong to.
    pub fn move_to(&mut self, id: RequestId) {
        let Some(before) = self.at.take() else { return };
        let waiter = self.parking.lock().take_out(before);
        if let Some(waiter) = waiter {
            self.tell = Some(waiter.tell);
            self.wait_on(id);
        }
    }

    /// What it is told. `None` never comes while it waits.
    pub async fn told(&mut self) -> Option<Release> {
        (&mut self.told).await.ok()
    }

    /// Stops waiting. `false` when somebody has just taken it out to tell it something: then
    /// [`Self::told`] has it in a moment.
    pub fn leave(&mut self) -> bool {
        let Some(id) = self.at else { return true };
        let mut state = self.parking.lock();
        if state.waiters.get(&id).is_some_and(|waiter| waiter.ticket == self.ticket) {
            state.take_out(id);
            self.at = None;
            return true;
        }
        false
    }

    /// The call has its answer: its end is no departure.
    pub fn answered(&mut self) {
        self.leave();
        self.at = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let at = self.at.filter(|_| self.known);
        // Closed first: whoever puts a waiter back must see that nobody is left.
        self.told.close();
        if self.leave()
            && let Some(id) = at
        {
            self.parking.note(id, Note::CallerLeft);
        }
        let mut state = self.parking.lock();
        state.inside = state.inside.saturating_sub(1);
    }
}

impl Claim {
    /// Releases the call with an approval. Should it have gone, the approval goes back.
    pub fn approve(mut self, request: Request) {
        let delivery =
            Delivery { request: Some(Box::new(request)), notices: self.parking.0.notices.clone() };
        self.tell(Release::Approved(delivery));
    }

    /// Tells the call how its request was settled.
    pub fn settle(mut self, request: Request) {
        self.tell(Release::Settled(Box::new(request)));
    }

    /// Tells the call that a newer one has taken its place.
    pub fn supersede(mut self) {
        self.tell(Release::Superseded);
    }

    fn tell(&mut self, release: Release) {
        if let Some(waiter) = self.waiter.take() {
            // A delivery that is not taken goes back by itself.
            let _ = waiter.tell.send(release);
        }
    }
}

impl Drop for Claim {
    /// Nothing came of it: the call waits on, unless a newer one does by now.
    fn drop(&mut self) {
        let Some(mut waiter) = self.waiter.take() else { return };
        // It may have asked for its seat while it was out.
        waiter.seated = true;
        let superseded = {
            let mut state = self.parking.lock();
            if waiter.tell.is_closed() {
                // It left while it was claimed, and could not say so then.
                self.parking.note(self.id, Note::CallerLeft);
                None
            } else {
                let superseded = state.put(self.id, waiter);
                if superseded.is_none() {
                    // Nobody listens only when the gate has stopped.
                    let _ = self.parking.0.notices.send(Notice::PutBack(self.id));
                }
                superseded
            }
        };
        if let Some((waiter, release)) = superseded {
            // Whoever has gone need not know.
            let _ = waiter.tell.send(release);
        }
    }
}
