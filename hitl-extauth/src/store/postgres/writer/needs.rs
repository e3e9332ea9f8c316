//! What operations need to have read, and what a batch of them needs together.

use std::collections::BTreeSet;

use hitl_api::{PreapprovalId, RequestId, Requester};
use uuid::Uuid;

use super::super::rows::uuid;

/// Rows that an operation needs.
pub(in super::super) enum Needs {
    /// What a call meets.
    Call {
        /// Its digest.
        digest: String,
        /// Who asks.
        requester: Requester,
        /// Where they come from, when nobody has verified the name.
        crowd: Option<String>,
        /// Pre-approvals that are about it.
        preapproved: Vec<PreapprovalId>,
        /// How large it is.
        bytes: usize,
    },
    /// A request.
    Request(RequestId),
    /// A pre-approval.
    Preapproval(PreapprovalId),
    /// What has run out.
    Due,
    /// None: it is only to be seen that writing works.
    Nothing,
}

impl Needs {
    /// Bytes that a batch writes because of it, roughly.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Call { bytes, .. } => *bytes,
            Self::Request(_) | Self::Preapproval(_) | Self::Due | Self::Nothing => 0,
        }
    }
}

/// What a batch reads, each once.
pub(super) struct Wanted<'a> {
    /// Requests.
    pub(super) ids: Vec<Uuid>,
    /// Calls.
    pub(super) digests: Vec<&'a str>,
    /// Requesters whose requests are counted.
    pub(super) names: Vec<&'a str>,
    /// Addresses from which requests of unverified requesters are counted.
    pub(super) crowds: Vec<&'a str>,
    /// Pre-approvals.
    pub(super) given: Vec<Uuid>,
    /// Whether what has run out is wanted.
    pub(super) due: bool,
}

impl<'a> Wanted<'a> {
    pub(super) fn of(needs: &'a [Needs]) -> Self {
        let (mut ids, mut digests, mut names) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let (mut given, mut crowds, mut due) = (BTreeSet::new(), BTreeSet::new(), false);
        for needs in needs {
            match needs {
                Needs::Call { digest, requester, crowd, preapproved, .. } => {
                    crowds.extend(crowd.as_deref());
                    given.extend(preapproved.iter().map(|id| id.uuid()));
                    digests.insert(digest.as_str());
                    names.insert(requester.name.as_str());
                }
                Needs::Request(id) => {
                    ids.insert(uuid(*id));
                }
                Needs::Preapproval(id) => {
                    given.insert(id.uuid());
                }
                Needs::Due => due = true,
                Needs::Nothing => {}
            }
        }
        Self {
            ids: Vec::from_iter(ids),
            digests: Vec::from_iter(digests),
            names: Vec::from_iter(names),
            crowds: Vec::from_iter(crowds),
            given: Vec::from_iter(given),
            due,
        }
    }
}
