//! The four scenes, by themselves.

use super::{Played, SceneError, World, chat::Turn};

/// What a reviewer and a user say no with: comes back word for word.
const FREEZE: &str = "schema freeze until Monday, see CHG-1234";
const MONTH_END: &str = "month end – ask me again on the 1st";

fn otherwise(text: impl Into<String>) -> SceneError {
    SceneError::Otherwise(text.into())
}

fn expect(is: bool, otherwise_text: impl Into<String>) -> Result<(), SceneError> {
    if is { Ok(()) } else { Err(otherwise(otherwise_text)) }
}

fn completed(turn: &Turn) -> Result<(), SceneError> {
    expect(turn.state == "completed", format!("the turn is {}: {}", turn.state, turn.text))
}

/// Plays all four. A scene that went otherwise ends the play: the next one builds on it.
///
/// # Errors
/// When the stage cannot be set.
pub async fn play(world: &World) -> Result<Vec<Played>, SceneError> {
    stage(world).await?;
    let mut played = Vec::new();
    for number in 1..=4 {
        let (title, seen) = match number {
            1 => ("a read: nobody is asked", read(world).await),
            2 => ("a truncate: the user decides in the chat", truncate(world).await),
            3 => ("migration v3: a reviewer approves in the queue", migrate(world).await),
            _ => ("migration v4: a reviewer rejects it", reject(world).await),
        };
        let ended = seen.is_err();
        played.push(Played { number, title, seen });
        if ended {
            break;
        }
    }
    Ok(played)
}

/// Takes the schema to v2, where the scenes begin, whatever was played before.
///
/// # Errors
/// When it cannot be taken there.
pub async fn stage(world: &World) -> Result<(), SceneError> {
    let version = world.account().await?.version().to_owned();
    if version == "v2" {
        return Ok(());
    }
    let turn = reviewed(world, "migrate to v2", true, "setting the stage").await?;
    completed(&turn)?;
    let now = world.account().await?;
    expect(
        now.version() == "v2",
        format!("the schema is at {} and cannot be taken to v2", now.version()),
    )
}

/// Says something that a reviewer has to decide, and decides it.
async fn reviewed(
    world: &World,
    text: &str,
    approved: bool,
    reason: &str,
) -> Result<Turn, SceneError> {
    let (chat, text) = (world.chat(), text.to_owned());
    let turn = tokio::spawn(async move { chat.say(&text).await });
    let request = world.held().await;
    let decided = match &request {
        Ok(request) => world.decide(request, approved, reason).await,
        Err(_) => Ok(()),
    };
    if let (Err(_), true) = (&request, turn.is_finished()) {
        let turn = turn.await.map_err(|error| otherwise(error.to_string()))??;
        return Err(otherwise(format!(
            "the call was not held; the turn is {}: {}",
            turn.state, turn.text
        )));
    }
    request?;
    decided?;
    turn.await.map_err(|error| otherwise(error.to_string()))?
}

async fn read(world: &World) -> Result<String, SceneError> {
    let waiting = world.waiting().await?;
    let turn = world.chat().say("what's in the orders table?").await?;
    expect(turn.asked.is_empty(), "the user was asked about a read")?;
    completed(&turn)?;
    expect(turn.text.contains("rows"), format!("no rows in: {}", turn.text))?;
    expect(world.waiting().await? == waiting, "a read reached the reviewer's queue")?;
    expect(
        world.requests().await?.iter().all(|r| r.tool_name != "cluster_db_query"),
        "a read was held",
    )?;
    Ok("the rows came back; both queues stayed as they were".to_owned())
}

async fn truncate(world: &World) -> Result<String, SceneError> {
    let before = world.account().await?;
    let asked = world.chat().say("truncate customers").await?;
    expect(asked.asked.len() == 1, format!("the user was not asked: {}", asked.text))?;
    expect(world.account().await?.rows("customers") == before.rows("customers"), "it ran unasked")?;
    let turn = world.chat().decide(&asked, true, "").await?;
    completed(&turn)?;
    let after = world.account().await?;
    expect(
        after.rows("customers") == Some(0),
        format!("customers has {:?} rows", after.rows("customers")),
    )?;
    let asked = world.chat().say("truncate orders").await?;
    let turn = world.chat().decide(&asked, false, MONTH_END).await?;
    completed(&turn)?;
    expect(turn.text.contains(MONTH_END), format!("the reason is not in: {}", turn.text))?;
    expect(
        world.account().await?.rows("orders") == before.rows("orders"),
        "a rejected truncate ran",
    )?;
    Ok("approved: customers is empty; rejected: orders is as it was, the reason came back"
        .to_owned())
}

async fn migrate(world: &World) -> Result<String, SceneError> {
    let turn = reviewed(world, "apply migration v3", true, "go ahead").await?;
    completed(&turn)?;
    let account = world.account().await?;
    expect(account.version() == "v3", format!("the schema is at {}", account.version()))?;
    let reviewer = world.reviewer().await?;
    let approved_by = account.approved_by();
    expect(
        approved_by.contains(&reviewer),
        format!("{reviewer} is not in the audit: {approved_by}"),
    )?;
    Ok(format!("held, approved by {reviewer}, the schema is v3, and /state says so"))
}

async fn reject(world: &World) -> Result<String, SceneError> {
    let before = world.requests().await?.len();
    let turn = reviewed(world, "apply migration v4", false, FREEZE).await?;
    completed(&turn)?;
    expect(turn.text.contains(FREEZE), format!("the reason is not in: {}", turn.text))?;
    let account = world.account().await?;
    expect(account.version() == "v3", format!("the schema is at {}", account.version()))?;
    let asked = world.requests().await?.len() - before;
    expect(asked == 1, format!("{asked} requests were made of one"))?;
    Ok("rejected; the reason came back word for word, the schema is still v3".to_owned())
}
