//! What became of a commit that was not answered.
//!
//! Must never say that it was undone before the database has said so.

use hitl_api::Head;

use super::{AGAIN, LOCK, Value, bare, first, fly, step, timed};
use crate::store::{
    StoreError,
    postgres::{Shared, connect::discard, rows::SEEN},
};

/// What became of a commit that was not answered: asked until the database says. Under the lock,
/// which the transaction in doubt holds until its end; and with a write, whose commit waits for the
/// standbys as the other should have.
pub(super) async fn resolve(
    shared: &Shared,
    head: Option<&Head>,
    why: StoreError,
) -> Result<(), StoreError> {
    let Some(Head { seq, hash }) = head else { return Err(why) };
    let seq = i64::try_from(*seq).unwrap_or(i64::MAX);
    loop {
        match look(shared, seq).await {
            Ok(kept) if kept.as_ref() == Some(hash) => return Ok(()),
            Ok(_) => return Err(why),
            Err(error) => tracing::debug!(%error, "what became of a commit is asked again"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// The hash of a row of the audit.
async fn look(shared: &Shared, seq: i64) -> Result<Option<String>, StoreError> {
    let client = shared.writing.get().await?;
    let values: [Value<'_>; 1] = [&seq];
    let seen: [Value<'_>; 1] = [&shared.replica];
    let asked = async {
        let steps = vec![
            bare(&client, "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE"),
            step(&client, LOCK, &[]).await?,
            step(&client, "SELECT hash FROM events WHERE seq = $1", &values).await?,
            step(&client, SEEN, &seen).await?,
            bare(&client, "COMMIT"),
        ];
        fly(steps).await
    };
    match timed(asked).await {
        Ok(answers) => Ok(first(answers.get(2).map_or(&[], Vec::as_slice))?),
        Err(flown) => {
            discard(client);
            Err(flown.into())
        }
    }
}
