//! One condition by itself, about a call's arguments.
//!
//! Owns what a reviewer may ask who approves calls beforehand: what an agent sends as arguments, and
//! nothing around it. Must never answer yes where it cannot be evaluated.

use std::{collections::BTreeSet, sync::Arc};

use cel::Env;
use jiff::tz::TimeZone;

use super::{
    Facts,
    condition::{self, Condition, ConditionError, Patterns},
    names::Names,
};

/// A condition about arguments.
pub struct Lone {
    condition: Condition,
    env: Arc<Env>,
    patterns: Arc<Patterns>,
}

impl Lone {
    /// Reads a condition.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let told = |error: ConditionError| error.to_string();
        if text.trim().is_empty() {
            return Err("it is empty; write `true` for calls with any arguments".to_owned());
        }
        let env = condition::language().map_err(told)?;
        let (conditions, patterns) =
            condition::compile(&env, vec![text.to_owned()], &BTreeSet::new());
        let condition = conditions.into_iter().next().ok_or("it is missing")?.map_err(told)?;
        let other = condition.asks().into_iter().find(|path| {
            path.split(['.', '[']).next().is_none_or(|variable| variable != "arguments")
        });
        if let Some(other) = other {
            return Err(format!("it asks about {other}, and may ask about `arguments` alone"));
        }
        Ok(Self { condition, env, patterns: Arc::new(patterns) })
    }

    /// Whether it holds for a call.
    ///
    /// # Errors
    /// Why it cannot be said.
    pub fn holds(&self, facts: &Facts<'_>) -> Result<bool, String> {
        let mut context = facts.context(&self.env, &TimeZone::UTC, &BTreeSet::new());
        condition::with_patterns(&mut context, &self.patterns)?;
        self.condition.holds(&context, facts.bulk(), &Names::of(facts.arguments))
    }
}

impl std::fmt::Debug for Lone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Lone").field(&self.condition.source()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_of_a_reviewer_is_about_arguments_alone() {
        for text in ["true", "arguments.version == \"v3\"", "arguments[\"a b\"] in [1, 2]"] {
            Lone::parse(text).unwrap();
        }
        for (text, why) in [
            ("", "it is empty"),
            ("tool == \"x\"", "it asks about tool"),
            ("requester.name == \"x\"", "it asks about requester"),
            ("time.hour > 3", "it asks about time"),
            ("arguments.count + 1", "neither"),
            ("arguments.version ==", "not CEL"),
            ("nothing == 1", "nothing"),
        ] {
            let error = Lone::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
