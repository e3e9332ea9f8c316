//! How much of a call's surroundings is kept, and how often the same one may come.
//!
//! Owns the limits on what a caller writes beside the body: headers, path, names. Must never shorten
//! anything to make it fit: two that differ beyond the cut would be one.

use std::time::{Duration, Instant};

use super::{Gate, Incoming, allowance::Allowance};
use crate::{classify::Refusal, identity::Identity, logged::LineLimit, store::NewCall};

/// Longest name of a tool or of a requester, in bytes. MCP's tools have at most 128 characters,
/// subjects of OIDC 255.
const LONGEST_NAME: usize = 512;

/// Largest head of a call, in bytes: its headers, path and authority. They are kept with the request,
/// and shown.
const LARGEST_HEAD: usize = 32 * 1024;

/// Calls that rules deny and that are written down at once, and how often one more may be. An agent that
/// asks for what it cannot have must not fill the disk with it.
const DENIALS: (u32, Duration) = (50, Duration::from_secs(1));

/// The same for all requesters of one address whose names nobody has verified: names can be made up.
const DENIALS_OF_CROWD: (u32, Duration) = (500, Duration::from_millis(100));

/// Requesters, or addresses, that are told apart where calls that rules deny are counted.
const TOLD_APART: usize = 10_000;

/// How often the same call may come while its request is not settled, or has just been denied. Each time
/// is written down, and so is what becomes of the call that waited before it.
const REPEATS: (u32, Duration) = (30, REPEAT);

/// The same for all calls from one address whose requesters nobody has verified, where a call has used half
/// of what it may itself: whoever makes up names makes up calls.
const REPEATS_OF_CROWD: (u32, Duration) = (1000, Duration::from_millis(50));

/// Calls that are told apart where repeats are counted: more than wait anywhere.
const CALLS: usize = 100_000;

/// How long whoever has repeated a call too often has to wait.
pub(super) const REPEAT: Duration = Duration::from_secs(5);

/// What may still be written down, and logged.
#[derive(Debug)]
pub(super) struct Allowances {
    denials: Allowance,
    denials_of_crowds: Allowance,
    repeats: Allowance,
    repeats_of_crowds: Allowance,
    lines: LineLimit,
}

impl Default for Allowances {
    fn default() -> Self {
        let of = |(at_once, one_more), most| Allowance::new(at_once, one_more, most);
        Self {
            denials: of(DENIALS, TOLD_APART),
            denials_of_crowds: of(DENIALS_OF_CROWD, TOLD_APART),
            repeats: of(REPEATS, CALLS),
            repeats_of_crowds: of(REPEATS_OF_CROWD, TOLD_APART),
            lines: LineLimit::default(),
        }
    }
}

impl Allowances {
    /// Whether one more call that rules deny is written down.
    pub(super) fn denial(&self, call: &NewCall, now: Instant) -> bool {
        let Some(address) = call.crowd() else { return self.denials.take(&call.identity, now) };
        // A name is remembered only while its crowd has something left, so that made-up ones do not crowd
        // out the rest.
        self.denials_of_crowds.left(address, now) > 0
            && self.denials.take(&call.identity, now)
            && self.denials_of_crowds.take(address, now)
    }

    /// Whether the same call may come once more. One that is not known to have come may.
    pub(super) fn may_repeat(&self, call: &NewCall, now: Instant) -> bool {
        let left = self.repeats.left(&call.digest, now);
        let crowd = || call.crowd().is_none_or(|at| self.repeats_of_crowds.left(at, now) > 0);
        left > 0 && (left > REPEATS.0 / 2 || crowd())
    }

    /// Counts a call that has met the request it had made before.
    pub(super) fn repeated(&self, digest: &str, crowd: Option<&str>, now: Instant) {
        self.repeats.take(digest, now);
        if let Some(crowd) = crowd {
            self.repeats_of_crowds.take(crowd, now);
        }
    }
}

impl Gate {
    /// Whether one more line about a request from this address that does not pass is logged.
    pub(crate) fn logs(&self, address: Option<&str>) -> bool {
        self.allowances.lines.take(address)
    }

    /// Whether what a call carries beside its body can be kept.
    pub(super) fn keepable(incoming: &Incoming, identity: &Identity) -> Result<(), Refusal> {
        let arrived = &incoming.arrived;
        let headers: usize =
            arrived.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let head = headers + arrived.path.len() + arrived.host.len() + arrived.method.len();
        if head > LARGEST_HEAD {
            return Err(Refusal::Head { bytes: head, most: LARGEST_HEAD });
        }
        named(&incoming.call.tool, incoming.call.tool.len(), "the tool's name")?;
        named(&identity.requester.name, identity.bytes, "the requester's name")
    }
}

/// A name that can be kept, looked for and shown: nobody's own is longer, or has a NUL in it.
fn named(name: &str, bytes: usize, whose: &'static str) -> Result<(), Refusal> {
    if bytes > LONGEST_NAME || name.contains('\0') {
        return Err(Refusal::Name(whose));
    }
    Ok(())
}
