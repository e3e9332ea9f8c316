//! What became of requests lately: numbers, and bars drawn here.

use std::cmp::Reverse;

use askama::Template;
use axum::{
    extract::{Query as UriQuery, State},
    response::Html,
};
use hitl_api::{Insights, Me, Step, ToolOutcomes};
use hitl_client::Query;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::{
    problem::Problem,
    routes::App,
    session::Signed,
    view::{Revealed, rough},
};

/// A span that can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lately {
    /// Its name in addresses.
    name: &'static str,
    /// Its name on the page.
    words: &'static str,
    hours: i64,
    /// Bars.
    steps: u32,
    /// How long one bar is.
    step: &'static str,
}

const SPANS: [Lately; 3] = [
    Lately { name: "24h", words: "24 hours", hours: 24, steps: 24, step: "an hour" },
    Lately { name: "7d", words: "7 days", hours: 7 * 24, steps: 28, step: "six hours" },
    Lately { name: "30d", words: "30 days", hours: 30 * 24, steps: 30, step: "a day" },
];

/// Tools that have a row of their own.
const MOST_TOOLS: usize = 50;

/// Width of one bar with its gap, and height of the drawing, in its own units.
const WIDTH: u64 = 24;
const HEIGHT: u64 = 120;

/// Which span.
#[derive(Debug, Deserialize)]
pub(crate) struct Asked {
    #[serde(default)]
    span: String,
}

/// A part of a bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    class: &'static str,
    x: u64,
    y: u64,
    height: u64,
}

/// A bar: its parts, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bar {
    x: u64,
    parts: Vec<Part>,
    says: String,
}

#[derive(Template)]
#[template(path = "insights.html")]
struct Page<'a> {
    me: &'a Me,
    form_token: &'a str,
    here: &'static str,
    spans: [Lately; 3],
    span: Lately,
    insights: &'a Insights,
    /// Those that were asked for most; the others are counted.
    tools: Vec<&'a ToolOutcomes>,
    others: usize,
    bars: Vec<Bar>,
    most: u64,
}

impl Page<'_> {
    fn width(&self) -> u64 {
        WIDTH * u64::from(self.span.steps)
    }

    // Called by the template.
    #[allow(clippy::unused_self, clippy::trivially_copy_pass_by_ref, clippy::ref_option)]
    fn median(&self, seconds: &Option<f64>) -> String {
        match seconds.and_then(|seconds| SignedDuration::try_from_secs_f64(seconds).ok()) {
            Some(span) => rough(span),
            None => "–".to_owned(),
        }
    }
}

pub(crate) async fn page(
    State(_): State<App>,
    Signed(session): Signed,
    UriQuery(asked): UriQuery<Asked>,
) -> Result<Html<String>, Problem> {
    let [first, ..] = SPANS;
    let span = SPANS.into_iter().find(|span| span.name == asked.span).unwrap_or(first);
    let now = Timestamp::now();
    let since = now.checked_sub(SignedDuration::from_hours(span.hours)).unwrap_or(Timestamp::MIN);
    let query = Query::default()
        .with("since", Some(since.to_string()))
        .with("until", Some(now.to_string()))
        .with("steps", Some(span.steps.to_string()));
    let insights = session.gate.insights(&query).await?;
    let (bars, most) = bars(&insights.steps);
    let asked = |tool: &&ToolOutcomes| {
        let outcomes = &tool.outcomes;
        outcomes.waiting + outcomes.approved + outcomes.rejected + outcomes.expired
    };
    let mut tools: Vec<_> = insights.tools.iter().collect();
    // Names are whatever callers write: a page has room for those that count.
    tools.sort_by_key(|tool| Reverse(asked(tool)));
    let others = tools.len().saturating_sub(MOST_TOOLS);
    tools.truncate(MOST_TOOLS);
    let page = Page {
        me: &session.me,
        form_token: &session.form_token,
        here: "insights",
        spans: SPANS,
        span,
        insights: &insights,
        tools,
        others,
        bars,
        most,
    };
    Ok(Html(page.render()?))
}

/// Bars as high as what they stand for, the highest as high as the drawing; and how much that is.
fn bars(steps: &[Step]) -> (Vec<Bar>, u64) {
    let sum = |step: &Step| step.approved + step.rejected + step.expired;
    let most = steps.iter().map(sum).max().unwrap_or(0);
    let bar = |(number, step): (u64, &Step)| {
        let x = number * WIDTH;
        let (mut parts, mut below) = (Vec::new(), 0);
        let counts =
            [("approved", step.approved), ("rejected", step.rejected), ("expired", step.expired)];
        for (class, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            let top = height(below + count, most);
            parts.push(Part { class, x, y: HEIGHT - top, height: top - height(below, most) });
            below += count;
        }
        let from = step.from.strftime("%Y-%m-%d %H:%M UTC");
        let [(_, approved), (_, rejected), (_, expired)] = counts;
        let says = format!("{from}: {approved} approved, {rejected} rejected, {expired} expired");
        Bar { x, parts, says }
    };
    ((0..).zip(steps).map(bar).collect(), most)
}

fn height(count: u64, most: u64) -> u64 {
    (count * HEIGHT).checked_div(most).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stand_on_each_other_and_the_highest_fills_the_drawing() {
        let step = |approved, rejected, expired| Step {
            from: Timestamp::UNIX_EPOCH,
            approved,
            rejected,
            expired,
        };
        let (bars, most) = bars(&[step(0, 0, 0), step(2, 1, 1), step(1, 0, 1)]);
        assert_eq!(most, 4);
        assert!(bars[0].parts.is_empty());
        let parts = bars[1].parts.iter().map(|part| (part.class, part.x, part.y, part.height));
        let all = [("approved", 24, 60, 60), ("rejected", 24, 30, 30), ("expired", 24, 0, 30)];
        assert_eq!(parts.collect::<Vec<_>>(), all);
        let parts = bars[2].parts.iter().map(|part| (part.class, part.y, part.height));
        assert_eq!(parts.collect::<Vec<_>>(), [("approved", 90, 30), ("expired", 60, 30)]);
        assert_eq!(bars[2].says, "1970-01-01 00:00 UTC: 1 approved, 0 rejected, 1 expired");
        assert!(super::bars(&[step(0, 0, 0)]).0[0].parts.is_empty());
    }
}
