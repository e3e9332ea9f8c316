//! What became of requests, counted: for whoever wants to see whether the queue is looked after.
//!
//! Pure: stores hand over what was settled, this counts. Decides nothing.

use std::collections::BTreeMap;

use hitl_api::{Insights, Outcomes, State, Step, ToolOutcomes};
use jiff::{SignedDuration, Timestamp};

use crate::store::Count;

/// Most steps that a span is cut into.
pub const MOST_STEPS: u32 = 366;

/// A span of time in equal steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    since: Timestamp,
    until: Timestamp,
    steps: u32,
}

/// A span that cannot be counted over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSpan {
    /// It ends before it begins, or at once.
    #[error("`since` must be before `until`")]
    Empty,
    /// No steps, or too many.
    #[error("`steps` must be 1 to {MOST_STEPS}")]
    Steps,
}

impl Span {
    /// From `since` until before `until`.
    ///
    /// # Errors
    /// See [`NoSpan`].
    pub fn new(since: Timestamp, until: Timestamp, steps: u32) -> Result<Self, NoSpan> {
        if !(1..=MOST_STEPS).contains(&steps) {
            return Err(NoSpan::Steps);
        }
        // A step has at least a millisecond.
        if until.duration_since(since) < SignedDuration::from_millis(steps.into()) {
            return Err(NoSpan::Empty);
        }
        Ok(Self { since, until, steps })
    }

    /// Its begin.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// Its end, which is not part of it.
    pub fn until(&self) -> Timestamp {
        self.until
    }

    /// Milliseconds after its begin at which a step begins.
    fn offset(&self, step: u32) -> i64 {
        let length = i128::from(self.until.as_millisecond() - self.since.as_millisecond());
        let offset = length * i128::from(step) / i128::from(self.steps);
        // Less than the length.
        i64::try_from(offset).unwrap_or(i64::MAX)
    }

    fn begins(&self) -> impl Iterator<Item = Timestamp> {
        let since = self.since;
        (0..self.steps).map(move |step| since + SignedDuration::from_millis(self.offset(step)))
    }
}

/// A request that was settled.
#[derive(Clone, Copy, Debug)]
pub struct Settled<'a> {
    /// Its tool.
    pub tool: &'a str,
    /// How.
    pub state: State,
    /// When it came.
    pub received_at: Timestamp,
    /// When it was settled.
    pub settled_at: Timestamp,
}

/// Outcomes, and the milliseconds that decisions took.
#[derive(Debug, Default)]
struct Counted {
    outcomes: Outcomes,
    took: Vec<i64>,
}

impl Counted {
    fn finish(mut self) -> Outcomes {
        self.outcomes.median_seconds = median(&mut self.took);
        self.outcomes
    }
}

/// Counts as requests are handed over.
#[derive(Debug)]
pub struct Tally {
    span: Span,
    all: Counted,
    tools: BTreeMap<String, Counted>,
    steps: Vec<Step>,
}

impl Tally {
    /// Nothing counted yet.
    pub fn new(span: Span) -> Self {
        let steps = span.begins().map(|from| Step { from, approved: 0, rejected: 0, expired: 0 });
        Self { span, all: Counted::default(), tools: BTreeMap::new(), steps: steps.collect() }
    }

    /// Counts a request of the span; others change nothing.
    pub fn settled(&mut self, settled: &Settled<'_>) {
        if settled.settled_at < self.span.since || settled.settled_at >= self.span.until {
            return;
        }
        if !self.tools.contains_key(settled.tool) {
            self.tools.insert(settled.tool.to_owned(), Counted::default());
        }
        let step = self.steps.partition_point(|step| step.from <= settled.settled_at);
        let step = step.checked_sub(1).and_then(|step| self.steps.get_mut(step));
        let tool = self.tools.get_mut(settled.tool);
        let waited = settled.settled_at.as_millisecond() - settled.received_at.as_millisecond();
        for counted in [Some(&mut self.all), tool].into_iter().flatten() {
            let outcomes = &mut counted.outcomes;
            match settled.state {
                State::Approved | State::Spent | State::Lapsed => outcomes.approved += 1,
                State::Denied => outcomes.rejected += 1,
                State::Expired => outcomes.expired += 1,
                State::Withdrawn => outcomes.withdrawn += 1,
                State::Pending => {}
            }
            // By a person: how long time itself takes is a setting, and what was settled as it came was so
            // by the rules, or before.
            if waited > 0
                && !matches!(settled.state, State::Expired | State::Withdrawn | State::Pending)
            {
                counted.took.push(waited);
            }
        }
        if let Some(step) = step {
            match settled.state {
                State::Approved | State::Spent | State::Lapsed => step.approved += 1,
                State::Denied => step.rejected += 1,
                State::Expired => step.expired += 1,
                State::Withdrawn | State::Pending => {}
            }
        }
    }

    /// The result, with what waits now.
    pub fn finish(mut self, now: &[Count]) -> Insights {
        for count in now.iter().filter(|count| count.state == State::Pending) {
            self.all.outcomes.waiting += count.requests;
            let tool = self.tools.entry(count.tool.clone()).or_default();
            tool.outcomes.waiting += count.requests;
        }
        let tools = self.tools.into_iter();
        Insights {
            since: self.span.since,
            until: self.span.until,
            all: self.all.finish(),
            tools: tools
                .map(|(tool, counted)| ToolOutcomes { tool, outcomes: counted.finish() })
                .collect(),
            steps: self.steps,
        }
    }
}

/// The median of milliseconds, in seconds; of an even number the lower one of the middle two.
fn median(took: &mut [i64]) -> Option<f64> {
    let middle = took.len().checked_sub(1)? / 2;
    let (_, median, _) = took.select_nth_unstable(middle);
    Some(SignedDuration::from_millis(*median).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn what_was_settled_in_a_span_is_counted_by_outcome_tool_and_step() {
        let mut tally = Tally::new(Span::new(at(100), at(200), 4).unwrap());
        for (tool, state, received, settled) in [
            ("a", State::Spent, 90, 100),
            ("a", State::Denied, 100, 124),
            ("b", State::Lapsed, 0, 125),
            ("a", State::Expired, 0, 199),
            ("b", State::Withdrawn, 0, 150),
            // Not of this span.
            ("b", State::Spent, 0, 200),
            ("c", State::Spent, 0, 99),
        ] {
            let (received_at, settled_at) = (at(received), at(settled));
            tally.settled(&Settled { tool, state, received_at, settled_at });
        }
        let waiting = [
            Count { state: State::Pending, tool: "d".into(), requests: 3 },
            Count { state: State::Spent, tool: "d".into(), requests: 9 },
        ];
        let insights = tally.finish(&waiting);
        let steps = insights.steps.iter().map(|s| (s.from, s.approved, s.rejected, s.expired));
        let all = [(at(100), 1, 1, 0), (at(125), 1, 0, 0), (at(150), 0, 0, 0), (at(175), 0, 0, 1)];
        assert_eq!(steps.collect::<Vec<_>>(), all);
        let expected = Outcomes {
            waiting: 3,
            approved: 2,
            rejected: 1,
            expired: 1,
            withdrawn: 1,
            median_seconds: Some(24.0),
        };
        assert_eq!(insights.all, expected);
        let names: Vec<_> = insights.tools.iter().map(|tool| tool.tool.as_str()).collect();
        assert_eq!(names, ["a", "b", "d"]);
        assert_eq!(insights.tools[0].outcomes.median_seconds, Some(10.0));
        assert_eq!(insights.tools[2].outcomes, Outcomes { waiting: 3, ..Outcomes::default() });
    }

    #[test]
    fn a_span_that_is_empty_or_cut_too_finely_is_refused() {
        assert_eq!(Span::new(at(1), at(1), 1), Err(NoSpan::Empty));
        assert_eq!(Span::new(at(2), at(1), 1), Err(NoSpan::Empty));
        assert_eq!(Span::new(at(1), at(2), 0), Err(NoSpan::Steps));
        assert_eq!(Span::new(at(1), at(2), MOST_STEPS + 1), Err(NoSpan::Steps));
        assert!(Span::new(Timestamp::MIN, Timestamp::MAX, MOST_STEPS).is_ok());
    }
}
