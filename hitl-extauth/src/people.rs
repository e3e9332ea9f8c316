//! Who may see, who may decide, and how they prove it.
//!
//! Owns which proof counts: a token of the list, or one that an identity provider has signed. A person is
//! who their token says, never who a request's body says. Must never let anybody decide because a
//! provider does not answer, and never keep a token.

mod keys;
pub mod list;
pub mod oidc;

use hitl_api::{Requester, Vote};
use jiff::Timestamp;

use self::{
    list::List,
    oidc::{Provider, Unproven},
};

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Read, and decide.
    Decide,
    /// Read, and take back what is their own.
    See,
    /// Read: a program, never a person.
    Machine,
}

/// Somebody who has proven who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reviewer {
    /// Their name, as it stands in the audit and in receipts.
    pub name: String,
    /// Groups they belong to.
    pub groups: Vec<String>,
    /// Other names of the same person: their e-mail, their subject, their other accounts.
    pub also: Vec<String>,
    /// Those of their names that they cannot give themselves: by these they take back what is theirs.
    pub proven: Vec<String>,
    /// What they may do.
    pub role: Role,
    /// Whether they came by a token of the list although there is an identity provider.
    pub break_glass: bool,
    proof: Proof,
}

/// How they have proven it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Proof {
    /// Nobody was asked.
    None,
    /// A token of the list: its digest.
    Listed(String),
    /// A token that a provider has signed, and that ends then.
    Signed(Timestamp),
}

impl Reviewer {
    /// Whether this is the person who asks: by any name of either, however it is capitalised.
    pub fn is(&self, requester: &Requester) -> bool {
        let own = std::iter::once(&self.name).chain(&self.also);
        own.into_iter().any(|name| requester.is(name))
    }

    /// What they say of a call.
    pub fn says(&self, approved: bool, reason: String, at: Timestamp) -> Vote {
        Vote {
            reviewer: self.name.clone(),
            groups: self.groups.clone(),
            also: self.also.clone(),
            break_glass: self.break_glass,
            approved,
            reason,
            preapproval: None,
            at,
        }
    }

    /// Whether a name is one of theirs, however it is capitalised.
    pub fn is_called(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        std::iter::once(&self.name).chain(&self.also).any(|own| own.to_lowercase() == name)
    }
}

/// Knows who a token belongs to.
#[derive(Debug, Default)]
pub struct People {
    /// Tokens that were handed out.
    pub list: Option<List>,
    /// Whoever signs people in.
    pub provider: Option<Provider>,
    /// Whoever signs programs' tokens, which may read.
    pub machines: Option<Provider>,
    /// Nobody is asked who they are. For a lab on one machine.
    pub anybody: bool,
}

impl People {
    /// Whose token this is.
    ///
    /// # Errors
    /// [`Unproven`]: why it is nobody's.
    pub async fn identify(&self, token: Option<&str>) -> Result<Reviewer, Unproven> {
        if self.anybody {
            return Ok(Reviewer {
                name: "anybody".to_owned(),
                groups: Vec::new(),
                also: Vec::new(),
                proven: vec!["anybody".to_owned()],
                role: Role::Decide,
                break_glass: false,
                proof: Proof::None,
            });
        }
        let token = token.filter(|token| !token.is_empty()).ok_or(Unproven::NoToken)?;
        if let Some(listed) = self.list.as_ref().and_then(|list| list.identify(token)) {
            let proven = std::iter::once(&listed.name).chain(&listed.also).cloned().collect();
            return Ok(Reviewer {
                name: listed.name,
                groups: listed.groups,
                also: listed.also,
                proven,
                role: Role::Decide,
                break_glass: self.provider.is_some(),
                proof: Proof::Listed(listed.token_sha256),
            });
        }
        // Whose it says it is says only whom to ask.
        let issuer = oidc::issuer(token);
        for (provider, machine) in [(&self.provider, false), (&self.machines, true)] {
            if let Some(provider) = provider
                && issuer.as_deref() == Some(provider.issuer())
            {
                let person = provider.verify(token).await?;
                return Ok(Reviewer {
                    name: person.name,
                    groups: person.groups,
                    also: person.also,
                    proven: person.proven,
                    role: if machine { Role::Machine } else { person.role },
                    break_glass: false,
                    proof: Proof::Signed(person.until),
                });
            }
        }
        Err(Unproven::Unknown)
    }

    /// Whether what somebody has said before still counts, as far as is known here: who came by a token of
    /// the list must be on it. Whom a provider knows, it says only when they come again.
    pub fn counts(&self, vote: &Vote) -> bool {
        let listed = !self.anybody && (vote.break_glass || self.provider.is_none());
        !listed || self.list.as_ref().is_some_and(|list| list.names(&vote.reviewer))
    }

    /// Whether this is a reviewer still, by the same proof.
    pub fn has(&self, reviewer: &Reviewer) -> bool {
        match &reviewer.proof {
            Proof::None => self.anybody,
            Proof::Listed(digest) => {
                self.list.as_ref().is_some_and(|list| list.has(&reviewer.name, digest))
            }
            Proof::Signed(until) => Timestamp::now() < *until,
        }
    }
}
