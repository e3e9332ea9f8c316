//! What a caller is told, as one denial each.
//!
//! Owns the sentences. Decides nothing: what is told here has already happened.

use std::fmt;

use hitl_api::{Request, RequestId, State};

use crate::{
    approval::Refused,
    store::{ChangeError, StoreError},
    verdict::{Denial, Disposition},
};

/// How a settled request is told to its caller.
pub(super) fn settled(request: &Request) -> Denial {
    let id = Some(request.id);
    match request.state {
        State::Denied if request.votes.iter().all(|vote| vote.approved) => {
            denied_by_rule(id, request.ruling.denied.as_deref().unwrap_or_default())
        }
        State::Denied => {
            let reason = request.votes.iter().rev().find(|vote| !vote.approved);
            let reason = reason.map(|vote| vote.reason.clone()).unwrap_or_default();
            let text = if reason.is_empty() {
                "A platform reviewer denied this call and gave no reason. Nothing has run."
                    .to_owned()
            } else {
                format!("A platform reviewer denied this call. Nothing has run. Reason: {reason}")
            };
            Denial { disposition: Disposition::Denied, reason, text, request: id }
        }
        State::Expired | State::Withdrawn | State::Lapsed => {
            let reason = match request.state {
                State::Withdrawn => "the request was withdrawn",
                State::Lapsed if !request.ruling.is_met(&request.votes) => {
                    "the rules ask for more than was approved; repeat the call to ask again"
                }
                State::Lapsed => "the approval was not used in time",
                _ => "no reviewer decided in time",
            };
            let text = format!("This call was not approved: {reason}. Nothing has run.");
            let reason = reason.to_owned();
            Denial { disposition: Disposition::Expired, reason, text, request: id }
        }
        State::Pending | State::Approved | State::Spent => {
            pending(id, "the approval went to another call")
        }
    }
}

/// Denied by the gate's rules, which nobody can override.
pub(super) fn denied_by_rule(request: Option<RequestId>, reason: &str) -> Denial {
    Denial {
        disposition: Disposition::Denied,
        reason: reason.to_owned(),
        text: format!(
            "The rules of the gate deny this call, and nobody can approve it. Nothing has run. \
             Reason: {reason}"
        ),
        request,
    }
}

/// Not approved yet, and why.
pub(super) fn pending(request: Option<RequestId>, reason: &str) -> Denial {
    Denial {
        disposition: Disposition::Pending,
        reason: reason.to_owned(),
        text: format!("This call is not approved yet, and nothing has run: {reason}."),
        request,
    }
}

/// A newer identical call waits in its place.
pub(super) fn superseded(id: RequestId) -> Denial {
    pending(Some(id), "superseded by a newer identical call")
}

/// The hold is over, nothing is decided.
pub(super) fn held_long_enough(id: RequestId) -> Denial {
    pending(
        Some(id),
        "it still waits for a platform reviewer; repeat the same call later, it joins the same \
         request and passes once that is approved",
    )
}

/// No room, and for what.
pub(super) fn full_house(request: Option<RequestId>, full: &impl fmt::Display) -> Denial {
    pending(request, &format!("{full}; try again in a minute"))
}

/// The same call came again and again. Where it stands is not looked up any more.
pub(super) fn repeated_too_often() -> Denial {
    let seconds = super::bounds::REPEAT.as_secs();
    pending(
        None,
        &format!(
            "the same call is repeated too often; wait {seconds} seconds before you repeat it, and \
             keep the one that waits"
        ),
    )
}

/// Nothing can be looked up.
pub(super) fn store_away(error: &StoreError) -> Denial {
    pending(None, &format!("{error}; try again in a minute"))
}

/// An approval that could not be spent.
pub(super) fn not_spent(id: RequestId, error: &ChangeError) -> Denial {
    match error {
        ChangeError::Refused { refused: Refused::Superseded, .. } => superseded(id),
        ChangeError::Refused { request, .. } => settled(request),
        ChangeError::Unknown | ChangeError::Own | ChangeError::NotOwn => {
            pending(Some(id), "the request is gone")
        }
        ChangeError::Store(error) => store_away(error),
    }
}
