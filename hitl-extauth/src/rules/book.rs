//! The rules that are in force, and those that are tried beside them.
//!
//! Owns the files. A file that breaks while the gate runs changes nothing and is reported; one that is
//! broken at the start is refused.

use std::{path::Path, sync::Arc};

use hitl_api::{Requester, Ruling};
use serde_json::{Map, Value};

use super::{Facts, Rules};
use crate::{metrics::RuleCounts, watched::Watched};

/// The rules of a gate.
#[derive(Default)]
pub struct RuleBook {
    enforced: Option<Watched<Rules>>,
    shadow: Option<Watched<Rules>>,
    counts: RuleCounts,
}

/// Why there are no rules.
#[derive(Debug, thiserror::Error)]
#[error("{flag} {file}: {what}")]
pub struct BookError {
    flag: &'static str,
    file: String,
    what: String,
}

/// How a file of rules is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The rules that are used.
    pub digest: String,
    /// How many they are.
    pub rules: usize,
    /// Why the file as it is now is not used.
    pub broken: Option<String>,
}

impl RuleBook {
    /// Reads the files.
    ///
    /// # Errors
    /// [`BookError`].
    pub fn open(
        enforced: Option<&Path>,
        shadow: Option<&Path>,
        counts: RuleCounts,
    ) -> Result<Self, BookError> {
        let open = |path: Option<&Path>, flag| {
            let open = |path: &Path| {
                let file = path.display().to_string();
                Watched::open(path, read).map_err(|what| BookError { flag, file, what })
            };
            path.map(open).transpose()
        };
        let (enforced, shadow) = (open(enforced, "--rules")?, open(shadow, "--shadow-rules")?);
        Ok(Self { enforced, shadow, counts })
    }

    /// Whether every call is ruled alike, so that there is nothing to look up.
    pub fn is_constant(&self) -> bool {
        self.enforced.is_none()
    }

    /// What approval a call needs.
    pub fn rule(&self, facts: &Facts<'_>) -> Ruling {
        self.enforced.as_ref().map(|rules| rules.current().rule(facts)).unwrap_or_default()
    }

    /// What of a call the enforced rules look at beside what an approval is bound to anyway.
    pub fn context(
        &self,
        requester: &Requester,
        address: Option<&str>,
        headers: &Map<String, Value>,
    ) -> Option<Value> {
        self.enforced.as_ref()?.current().context(requester, address, headers)
    }

    /// Whether rules are tried beside those that are enforced.
    pub fn is_trying(&self) -> bool {
        self.shadow.is_some()
    }

    /// What approval a call needs that arrives. It is counted, and where rules are tried that would have
    /// said something else, that is reported.
    pub fn arriving(&self, facts: &Facts<'_>) -> Ruling {
        let ruling = self.rule(facts);
        self.counts.ruled(&ruling);
        if let Some(shadow) = &self.shadow {
            let tried = shadow.current().rule(facts);
            self.counts.tried(&ruling, &tried);
            if said(&ruling) != said(&tried) {
                tracing::info!(
                    tool = facts.tool,
                    enforced = %said(&ruling),
                    tried = %said(&tried),
                    "the rules that are tried would have said something else"
                );
            }
        }
        ruling
    }

    /// How the enforced file is doing; none without one.
    pub fn standing(&self) -> Option<Standing> {
        self.enforced.as_ref().map(standing)
    }

    /// How the file is doing that is tried; none without one.
    pub fn shadow_standing(&self) -> Option<Standing> {
        self.shadow.as_ref().map(standing)
    }
}

/// What a ruling comes to, in a word.
pub(crate) fn word(ruling: &Ruling) -> &'static str {
    match (&ruling.denied, ruling.allows()) {
        (Some(_), _) => "deny",
        (None, true) => "allow",
        (None, false) => "require",
    }
}

/// What a ruling comes to, for people.
pub fn said(ruling: &Ruling) -> String {
    match &ruling.denied {
        Some(reason) => format!("deny: {reason}"),
        None if ruling.allows() => "allow".to_owned(),
        None => {
            let quorums: Vec<_> = ruling.quorums.iter().map(ToString::to_string).collect();
            let each = if ruling.every_time { ", each time" } else { "" };
            format!("require {}{each}", quorums.join(" and "))
        }
    }
}

fn standing(file: &Watched<Rules>) -> Standing {
    let rules: Arc<Rules> = file.current();
    Standing { digest: rules.digest().to_owned(), rules: rules.len(), broken: file.broken() }
}

fn read(text: &str) -> Result<Rules, String> {
    Rules::parse(text).map_err(|error| error.to_string())
}
