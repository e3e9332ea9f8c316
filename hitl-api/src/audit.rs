//! The audit's chain: each row carries the hash of the one before.
//!
//! Pure: owns the canonical form and the verifying. A row that was changed, removed from the middle
//! or put in breaks the chain at a row that can be named; a removed tail shows against a head noted
//! earlier. Must never skip a row it cannot read.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::{Event, Head, RequestId, hex};

/// The hash that stands before the first row.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What is wrong with a chain, at its first broken row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A row is missing, or one too many is there.
    #[error("row {expected} is missing: row {found} follows row {}", .expected - 1)]
    Gap {
        /// The row that should be here.
        expected: u64,
        /// The row that is.
        found: u64,
    },
    /// A row does not follow from the one before.
    #[error("row {0} does not follow from the row before it")]
    Link(u64),
    /// A row was changed.
    #[error("row {0} does not say what its hash says")]
    Content(u64),
    /// Rows at the end are missing, or the end was rewritten.
    #[error(
        "the head noted earlier is row {noted}, and the audit does not hold that row with that hash"
    )]
    Head {
        /// The row that was the last one.
        noted: u64,
    },
    /// The canonical form cannot be written.
    #[error("row {0} has no canonical form")]
    NotCanonical(u64),
    /// The data of some rows cannot be read, so it is not known whether it was changed. Every other
    /// row fits.
    #[error("{}; every other row is as it was written", unreadable(.0))]
    Unreadable(Vec<(u64, String)>),
}

/// The rows that cannot be read, in a sentence.
fn unreadable(rows: &[(u64, String)]) -> String {
    let row = |(number, why): &(u64, String)| format!("row {number} cannot be read ({why})");
    rows.iter().map(row).collect::<Vec<_>>().join(", ")
}

/// Makes the row that follows `head`.
///
/// # Errors
/// [`Broken::NotCanonical`] when its data has no RFC 8785 form, which JSON from a strict parser
/// always has.
pub fn follow(
    head: &Head,
    at: Timestamp,
    request: RequestId,
    kind: &str,
    data: Map<String, Value>,
) -> Result<Event, Broken> {
    let mut event = Event {
        seq: head.seq + 1,
        at,
        request,
        kind: kind.to_owned(),
        data,
        previous: head.hash.clone(),
        hash: String::new(),
        unreadable: None,
    };
    event.hash = hash(&event)?;
    Ok(event)
}

/// SHA-256, in hex, over the RFC 8785 form of a row without its own hash.
fn hash(event: &Event) -> Result<String, Broken> {
    let form = json!({
        "seq": event.seq,
        "at": event.at.to_string(),
        "request": event.request,
        "kind": event.kind,
        "data": event.data,
        "previous": event.previous,
    });
    let canonical =
        serde_json_canonicalizer::to_vec(&form).map_err(|_| Broken::NotCanonical(event.seq))?;
    Ok(hex(&Sha256::digest(canonical)))
}

/// Verifies rows one by one, in order.
#[derive(Clone, Debug)]
pub struct Verifier {
    head: Head,
    noted: Option<Head>,
    noted_seen: bool,
    unreadable: Vec<(u64, String)>,
}

impl Verifier {
    /// Starts before the first row. With `noted`, a head from earlier must be among the rows.
    pub fn new(noted: Option<Head>) -> Self {
        let noted_seen = noted.as_ref().is_none_or(|head| head.seq == 0);
        Self {
            head: Head { seq: 0, hash: GENESIS.to_owned() },
            noted,
            noted_seen,
            unreadable: Vec::new(),
        }
    }

    /// The last row taken.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Takes the next row.
    ///
    /// # Errors
    /// [`Broken`] for the first row that does not fit.
    pub fn next(&mut self, event: &Event) -> Result<(), Broken> {
        let expected = self.head.seq + 1;
        if event.seq != expected {
            return Err(Broken::Gap { expected, found: event.seq });
        }
        if event.previous != self.head.hash {
            return Err(Broken::Link(event.seq));
        }
        match &event.unreadable {
            Some(why) => self.unreadable.push((event.seq, why.clone())),
            None if hash(event)? != event.hash => return Err(Broken::Content(event.seq)),
            None => {}
        }
        self.head = Head { seq: event.seq, hash: event.hash.clone() };
        self.noted_seen |= self.noted.as_ref() == Some(&self.head);
        Ok(())
    }

    /// The end, when every row has been taken.
    ///
    /// # Errors
    /// [`Broken::Head`] when the head noted earlier was not among the rows,
    /// [`Broken::Unreadable`] when rows could not be read.
    pub fn finish(self) -> Result<Head, Broken> {
        match self.noted {
            Some(noted) if !self.noted_seen => Err(Broken::Head { noted: noted.seq }),
            _ if !self.unreadable.is_empty() => Err(Broken::Unreadable(self.unreadable)),
            _ => Ok(self.head),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(length: u64) -> Vec<Event> {
        let mut head = Head { seq: 0, hash: GENESIS.to_owned() };
        let id = RequestId::generate();
        let mut events = Vec::new();
        for number in 0..length {
            let data = Map::from_iter([("n".to_owned(), json!(number))]);
            let event = follow(&head, Timestamp::UNIX_EPOCH, id, "received", data).unwrap();
            head = Head { seq: event.seq, hash: event.hash.clone() };
            events.push(event);
        }
        events
    }

    fn verify(events: &[Event], noted: Option<Head>) -> Result<Head, Broken> {
        let mut verifier = Verifier::new(noted);
        events.iter().try_for_each(|event| verifier.next(event))?;
        verifier.finish()
    }

    #[test]
    fn a_whole_chain_verifies_up_to_its_head() {
        let events = chain(5);
        let head = verify(&events, None).unwrap();
        assert_eq!((head.seq, &head.hash), (5, &events[4].hash));
        assert_eq!(verify(&[], None).unwrap().hash, GENESIS);
    }

    #[test]
    fn the_first_broken_row_is_named() {
        let mut changed = chain(5);
        changed[2].data.insert("n".into(), json!(9));
        assert_eq!(verify(&changed, None), Err(Broken::Content(3)));
        // Changed, and its own hash made to fit: the next row shows it.
        changed[2].hash = hash(&changed[2]).unwrap();
        assert_eq!(verify(&changed, None), Err(Broken::Link(4)));
        let mut removed = chain(5);
        removed.remove(2);
        assert_eq!(verify(&removed, None), Err(Broken::Gap { expected: 3, found: 4 }));
        let mut swapped = chain(5);
        swapped.swap(1, 2);
        assert_eq!(verify(&swapped, None), Err(Broken::Gap { expected: 2, found: 3 }));
    }

    #[test]
    fn rows_that_cannot_be_read_are_named_and_the_others_verified() {
        let mut events = chain(5);
        events[2].unreadable = Some("data: torn".to_owned());
        events[2].data.clear();
        let Err(broken) = verify(&events, None) else { panic!() };
        assert!(broken.to_string().starts_with("row 3 cannot be read (data: torn); every other"));
        events[4].data.clear();
        assert_eq!(verify(&events, None), Err(Broken::Content(5)));
    }

    #[test]
    fn a_removed_tail_shows_against_a_head_noted_earlier() {
        let events = chain(5);
        let noted = Head { seq: 5, hash: events[4].hash.clone() };
        assert_eq!(verify(&events[..4], None).unwrap().seq, 4);
        assert_eq!(verify(&events[..4], Some(noted.clone())), Err(Broken::Head { noted: 5 }));
        // Rows after the noted one are no harm.
        assert!(verify(&chain(5), Some(Head { seq: 0, hash: GENESIS.into() })).is_ok());
        assert!(verify(&events, Some(noted)).is_ok());
    }
}
