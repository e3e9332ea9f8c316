//! How sure the gate is of a requester, as databases keep it.

use hitl_api::Assurance;

/// Its name in a row.
pub(super) fn name(assurance: Assurance) -> &'static str {
    match assurance {
        Assurance::Verified => "verified",
        Assurance::Claimed => "claimed",
        Assurance::Address => "address",
    }
}

/// The one with this name.
pub(super) fn named(text: &str) -> Option<Assurance> {
    [Assurance::Verified, Assurance::Claimed, Assurance::Address]
        .into_iter()
        .find(|assurance| name(*assurance) == text)
}
