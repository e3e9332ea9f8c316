//! Lists of requests, as a filter lets them through.

use hitl_api::State;
use rusqlite::{Connection, ToSql, params_from_iter};

use super::rows::{corrupt, is_corrupt, millis, read_request, with_votes};
use crate::store::{Filter, Listed, Order, PAGE_BYTES, Page};

/// A page of requests.
pub(super) fn list(
    connection: &Connection,
    filter: &Filter,
    page: Page,
) -> rusqlite::Result<Listed> {
    let mut conditions = vec!["1".to_owned()];
    let mut values: Vec<Box<dyn ToSql>> = Vec::new();
    if filter.states == [State::Pending] {
        // In these words, so that the index of the queue is found.
        conditions.push("state = 'pending'".to_owned());
    }
    let mut add = |condition: &str, value: Box<dyn ToSql>| {
        values.push(value);
        conditions.push(condition.replace('?', &format!("?{}", values.len())));
    };
    if let Some(after) = page.after {
        // Ids sort by time.
        let condition = match page.order {
            Order::Oldest => "id > ?",
            Order::Newest => "id < ?",
        };
        add(condition, Box::new(after.to_string()));
    }
    if !filter.states.is_empty() && filter.states != [State::Pending] {
        let names: Vec<_> = filter.states.iter().map(|state| state.name()).collect();
        let names = serde_json::to_string(&names).map_err(|error| corrupt(error.to_string()))?;
        add("state IN (SELECT value FROM json_each(?))", Box::new(names));
    }
    if let Some(tool) = &filter.tool {
        add("tool = ?", Box::new(tool.clone()));
    }
    if let Some(requester) = &filter.requester {
        add("requester = ?", Box::new(requester.clone()));
    }
    if let Some(digest) = &filter.digest {
        add("digest = ?", Box::new(digest.clone()));
    }
    if let Some(reviewer) = &filter.reviewer {
        add(
            "EXISTS (SELECT 1 FROM votes WHERE votes.request = requests.id AND reviewer = ?)",
            Box::new(reviewer.clone()),
        );
    }
    if let Some(since) = filter.since {
        add("received_at >= ?", Box::new(millis(since)));
    }
    if let Some(until) = filter.until {
        add("received_at < ?", Box::new(millis(until)));
    }
    if let Some(text) = &filter.text {
        // `instr` takes the text as it is; `lower` makes ASCII letters alike.
        // Arguments are JSON there: what is escaped in it is looked for as it is escaped.
        add(
            "(instr(lower(tool || ' ' || arguments || ' ' || requester), lower(?)) > 0
              OR instr(lower(arguments), lower(substr(json_quote(?), 2, length(json_quote(?)) - 2))) > 0
              OR EXISTS (SELECT 1 FROM votes WHERE votes.request = requests.id
                         AND instr(lower(reviewer || ' ' || reason), lower(?)) > 0))",
            Box::new(text.clone()),
        );
    }
    let order = match page.order {
        Order::Oldest => "ASC",
        Order::Newest => "DESC",
    };
    let sql = format!(
        "SELECT * FROM requests WHERE {} ORDER BY id {order} LIMIT {}",
        conditions.join(" AND "),
        // One more than asked for shows whether there are more.
        u64::from(page.limit) + 1
    );
    let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let (mut requests, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        if requests.len() == limit || bytes >= PAGE_BYTES {
            return Ok(Listed { requests, more: true });
        }
        for column in ["body", "arguments", "headers", "path"] {
            bytes += row.get_ref(column)?.as_bytes()?.len();
        }
        let request = read_request(row);
        if !is_corrupt(&request) {
            requests.push(with_votes(connection, request?)?);
        }
    }
    Ok(Listed { requests, more: false })
}
