//! Whether the reader may decide about a request, and what is still missing.
//!
//! Pure. The gate decides; this only says beforehand what it would say.

use hitl_api::{Me, Quorum, Request, State};

/// How a reader stands to a request that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// They may decide.
    Open,
    /// It is their own.
    Own,
    /// They have spoken already.
    Voted,
    /// Others must decide: these approvals are missing.
    Others(String),
    /// They may only read.
    Reader,
    /// Nobody can: the rules deny it by now.
    Denied,
}

impl Standing {
    /// How a reader stands to a request.
    pub fn of(request: &Request, me: &Me) -> Self {
        let own = || std::iter::once(&me.name).chain(&me.also);
        let same = |name: &str| own().any(|own| own.to_lowercase() == name.to_lowercase());
        if own().any(|name| request.requester.is(name)) {
            Self::Own
        } else if !me.may_decide {
            Self::Reader
        } else if request.ruling.denied.is_some() {
            Self::Denied
        } else if request
            .votes
            .iter()
            .any(|vote| same(&vote.reviewer) || vote.also.iter().any(|name| same(name)))
        {
            Self::Voted
        } else if !request.ruling.may_decide(&me.groups) {
            Self::Others(joined(&request.missing))
        } else {
            Self::Open
        }
    }
}

/// What is missing, as people say it.
pub fn joined(missing: &[Quorum]) -> String {
    missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

/// What is missing, where that is more than one approval by anybody.
pub fn missing(request: &Request) -> Option<String> {
    let usual = request.missing == [Quorum::default()] && request.votes.is_empty();
    let waits = request.state == State::Pending && !request.missing.is_empty();
    (waits && !usual).then(|| joined(&request.missing))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(ruling: &serde_json::Value, votes: &serde_json::Value) -> Request {
        let mut request: Request = serde_json::from_value(json!({
            "id": "0199aaaa-0000-7000-8000-000000000000", "state": "pending",
            "receivedAt": "2026-01-01T00:00:00Z", "expiresAt": "2026-01-02T00:00:00Z",
            "requester": {"name": "alice", "assurance": "verified"},
            "route": "", "server": "", "method": "", "path": "", "headers": {}, "body": "",
            "rpcMethod": "", "toolName": "", "toolArgs": {}, "digest": "", "waiting": false,
            "votes": votes, "needed": 1, "ruling": ruling,
        }))
        .unwrap();
        request.missing = request.ruling.missing(&request.votes);
        request
    }

    fn me(name: &str, groups: &[&str]) -> Me {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Me {
            name: name.to_owned(),
            groups,
            hold_seconds: 1,
            grant_seconds: 1,
            also: Vec::new(),
            may_decide: true,
            break_glass: false,
            anybody: false,
            preapproval_uses: 0,
            preapproval_seconds: 0,
        }
    }

    #[test]
    fn who_may_decide_is_said_before_they_try() {
        let two = json!({"quorums": [{"approvals": 2, "groups": ["dba"]}]});
        let vote = json!([{"reviewer": "dana", "groups": ["dba"], "approved": true, "reason": "",
                           "at": "2026-01-01T00:00:00Z"}]);
        let waits = request(&two, &vote);
        assert_eq!(Standing::of(&waits, &me("Alice", &["dba"])), Standing::Own);
        assert_eq!(Standing::of(&waits, &me("Dana", &["dba"])), Standing::Voted);
        assert_eq!(Standing::of(&waits, &me("lee", &["dba"])), Standing::Open);
        let others = Standing::Others("1 approval from dba".to_owned());
        assert_eq!(Standing::of(&waits, &me("kim", &["web"])), others);
        assert_eq!(missing(&waits).as_deref(), Some("1 approval from dba"));
        assert_eq!(missing(&request(&json!({"quorums": [{"approvals": 1}]}), &json!([]))), None);
        let denied = request(&json!({"quorums": [{"approvals": 1}], "denied": "no"}), &json!([]));
        assert_eq!(Standing::of(&denied, &me("lee", &[])), Standing::Denied);
    }
}
