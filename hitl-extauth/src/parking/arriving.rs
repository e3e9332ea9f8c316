//! A call while its request is written down: it may go before it has heard that it is.
//!
//! Owns who notices that. Must never say that a caller has left where a newer call waits on the same
//! request.

use hitl_api::RequestId;

use super::{Parking, Place};
use crate::store::Note;

/// Goes with the writing down of a call's request.
#[derive(Debug)]
pub struct Arriving {
    parking: Parking,
    ticket: u64,
}

/// A request of which the store knows by now that somebody waits. Dropped before the call's place has
/// taken it, the caller has gone, or was answered without it.
#[derive(Debug)]
pub struct Known {
    arriving: Arriving,
    /// Until it is taken.
    id: Option<RequestId>,
}

impl Arriving {
    /// The store knows that its call waits on this request.
    pub fn at(self, id: RequestId) -> Known {
        Known { arriving: self, id: Some(id) }
    }
}

impl Place {
    /// For whoever writes down what this call asks for.
    pub fn arriving(&self) -> Arriving {
        Arriving { parking: self.parking.clone(), ticket: self.ticket }
    }

    /// The store knows the request: should the caller go now, that is worth writing down.
    pub fn known(&mut self, mut known: Known) {
        known.id = None;
        self.known = true;
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let Arriving { parking, ticket } = &self.arriving;
        let state = parking.lock();
        let another = state.waiters.get(&id).is_some_and(|waiter| waiter.ticket != *ticket);
        if !another {
            parking.note(id, Note::CallerLeft);
        }
    }
}
