//! Pre-approvals on the command line.

use std::io::{self, Write};

use hitl_api::{Preapproval, PreapprovalId, Preapprove, RequestId, reveal::reveal, very_arguments};
use hitl_client::Client;
use jiff::Timestamp;

use super::{DeskError, json_line, rough};

/// Makes one; for these very arguments where no condition is given.
pub(super) async fn make(
    client: &Client,
    id: RequestId,
    mut wanted: Preapprove,
    out: &mut impl Write,
) -> Result<(), DeskError> {
    if wanted.condition.is_empty() {
        wanted.condition = very_arguments(&client.request(id).await?.request);
        if wanted.condition.is_empty() {
            return Err(DeskError::NoCondition);
        }
    }
    let made = client.preapprove(id, &wanted).await?;
    Ok(shown(out, &made, Timestamp::now())?)
}

/// Lists those that may be used.
pub(super) async fn list(
    client: &Client,
    json: bool,
    out: &mut impl Write,
) -> Result<(), DeskError> {
    let all = client.preapprovals().await?.preapprovals;
    for preapproval in &all {
        if json {
            json_line(out, preapproval)?;
        } else {
            shown(out, preapproval, Timestamp::now())?;
        }
    }
    if all.is_empty() && !json {
        writeln!(out, "Nothing is approved beforehand.")?;
    }
    Ok(())
}

/// Ends one.
pub(super) async fn end(
    client: &Client,
    id: PreapprovalId,
    out: &mut impl Write,
) -> Result<(), DeskError> {
    let ended = client.end_preapproval(id).await?;
    let by = ended.ended_by.map(|by| format!(" by {}", reveal(&by))).unwrap_or_default();
    writeln!(out, "{id} has ended{by}; used {} of {} times", ended.used, ended.uses)?;
    Ok(())
}

fn shown(out: &mut impl Write, preapproval: &Preapproval, now: Timestamp) -> io::Result<()> {
    let Preapproval { requester, vote, .. } = preapproval;
    writeln!(
        out,
        "{}  {}\n    for {}, at {}, on {}\n    when {}\n    by {}: {}\n    \
         used {} of {} times, ends in {}",
        preapproval.id,
        reveal(&preapproval.tool),
        reveal(&requester.name),
        reveal(&preapproval.route),
        reveal(&preapproval.server),
        reveal(&preapproval.condition),
        reveal(&vote.reviewer),
        reveal(&vote.reason),
        preapproval.used,
        preapproval.uses,
        rough(preapproval.expires_at.duration_since(now)),
    )
}
