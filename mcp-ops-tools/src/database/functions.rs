//! String functions that take time in proportion to what they are given.
//!
//! SQLite looks at the clock between instructions, and a function is one instruction. Its own
//! `trim`, `replace` and `instr` take the product of their arguments' lengths, which is enough to
//! make one instruction last for minutes. These answer the same and do not. Must never differ from
//! SQLite in what they answer.

use std::{borrow::Cow, collections::HashSet};

use rusqlite::{
    Connection, Error, ffi,
    functions::{Context, FunctionFlags},
    types::{Value, ValueRef},
};

/// Puts the functions in place of SQLite's. None gives a value longer than `longest` bytes.
pub(super) fn install(connection: &Connection, longest: usize) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS;
    for (name, start, end) in [("trim", true, true), ("ltrim", true, false), ("rtrim", false, true)]
    {
        for arguments in [1, 2] {
            connection.create_scalar_function(name, arguments, flags, move |context| {
                trim(context, start, end)
            })?;
        }
    }
    connection.create_scalar_function("instr", 2, flags, instr)?;
    connection.create_scalar_function("replace", 3, flags, move |context| replace(context, longest))
}

#[allow(clippy::unnecessary_wraps, reason = "what a scalar function returns")]
fn trim(context: &Context<'_>, start: bool, end: bool) -> rusqlite::Result<Value> {
    let Some(text) = text(context.get_raw(0)) else { return Ok(Value::Null) };
    let characters = if context.len() == 2 {
        let Some(characters) = self::text(context.get_raw(1)) else { return Ok(Value::Null) };
        characters.chars().collect::<HashSet<_>>()
    } else {
        HashSet::from([' '])
    };
    let mut kept = &*text;
    if start {
        kept = kept.trim_start_matches(|character| characters.contains(&character));
    }
    if end {
        kept = kept.trim_end_matches(|character| characters.contains(&character));
    }
    Ok(Value::Text(kept.to_owned()))
}

#[allow(clippy::unnecessary_wraps, reason = "what a scalar function returns")]
fn instr(context: &Context<'_>) -> rusqlite::Result<Value> {
    let (hay, needle) = (context.get_raw(0), context.get_raw(1));
    if let (ValueRef::Blob(hay), ValueRef::Blob(needle)) = (hay, needle) {
        // Latin-1 makes every byte a character: positions of characters are positions of bytes.
        let latin = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
        return Ok(position(&latin(hay), &latin(needle)));
    }
    match (text(hay), text(needle)) {
        (Some(hay), Some(needle)) => Ok(position(&hay, &needle)),
        _ => Ok(Value::Null),
    }
}

/// Position of a text in another, in characters from 1; 0 when it is not there.
fn position(hay: &str, needle: &str) -> Value {
    let before = hay.find(needle).and_then(|at| hay.get(..at));
    let position = before.map_or(0, |before| before.chars().count() + 1);
    Value::Integer(i64::try_from(position).unwrap_or(i64::MAX))
}

fn replace(context: &Context<'_>, longest: usize) -> rusqlite::Result<Value> {
    let [first, from, to] = [0, 1, 2].map(|index| context.get_raw(index));
    let (Some(text), Some(from)) = (self::text(first), self::text(from)) else {
        return Ok(Value::Null);
    };
    if from.is_empty() {
        return Ok(Value::Text(text.into_owned()));
    }
    let Some(to) = self::text(to) else { return Ok(Value::Null) };
    let count = text.matches(&*from).count();
    let length = text.len() - count * from.len() + count.saturating_mul(to.len());
    if length > longest {
        return Err(Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_TOOBIG), None));
    }
    Ok(Value::Text(text.replace(&*from, &to)))
}

/// A value as SQLite's string functions see it; `None` for NULL.
fn text(value: ValueRef<'_>) -> Option<Cow<'_, str>> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(integer) => Some(integer.to_string().into()),
        ValueRef::Real(real) => Some(real_text(real).into()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes)),
    }
}

/// A real as SQLite writes it: 15 significant digits, always with a point.
fn real_text(real: f64) -> String {
    if real.is_infinite() {
        return if real > 0.0 { "Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{real:.14e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let pointed = |text: &str| {
        let text = text.trim_end_matches('0');
        if text.ends_with('.') { format!("{text}0") } else { text.to_owned() }
    };
    if (-4..15).contains(&exponent) {
        let decimals = usize::try_from(14 - exponent).unwrap_or(0).max(1);
        pointed(&format!("{real:.decimals$}"))
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{}e{sign}{:02}", pointed(mantissa), exponent.abs())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same expression with SQLite's functions and with ours.
    fn both(sql: &str, values: &[Value]) -> [rusqlite::Result<Value>; 2] {
        [false, true].map(|ours| {
            let connection = Connection::open_in_memory().unwrap();
            if ours {
                install(&connection, 1_000_000).unwrap();
            }
            let sql = format!("SELECT {sql}");
            connection.query_row(&sql, rusqlite::params_from_iter(values), |row| row.get(0))
        })
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            6 => "[ab é\u{1F600}]{0,8}".prop_map(Value::Text),
            1 => Just(Value::Null),
            1 => any::<i64>().prop_map(Value::Integer),
            1 => (-1_000_000_i64..1_000_000).prop_map(|n| {
                #[allow(clippy::cast_precision_loss)]
                Value::Real(n as f64 / 64.0)
            }),
            1 => "[ab]{0,4}".prop_map(|text| Value::Blob(text.into_bytes())),
        ]
    }

    proptest! {
        #[test]
        fn they_answer_what_sqlites_own_answer(a in value(), b in value(), c in value()) {
            for sql in ["trim(?1)", "ltrim(?1)", "rtrim(?1)"] {
                let [theirs, ours] = both(sql, std::slice::from_ref(&a));
                prop_assert_eq!(theirs, ours, "{} of {:?}", sql, a);
            }
            let two = [a.clone(), b.clone()];
            for sql in ["trim(?1, ?2)", "ltrim(?1, ?2)", "rtrim(?1, ?2)", "instr(?1, ?2)"] {
                let [theirs, ours] = both(sql, &two);
                prop_assert_eq!(theirs, ours, "{} of {:?}", sql, two);
            }
            let three = [a, b, c];
            let [theirs, ours] = both("replace(?1, ?2, ?3)", &three);
            prop_assert_eq!(theirs, ours, "replace of {:?}", three);
        }
    }

    #[test]
    fn a_replacement_that_would_be_too_long_is_refused_before_it_is_made() {
        let connection = Connection::open_in_memory().unwrap();
        install(&connection, 1000).unwrap();
        let sql = "SELECT replace(hex(zeroblob(400)), '0', hex(zeroblob(400)))";
        let error = connection.query_row(sql, [], |row| row.get::<_, Value>(0)).unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::TooBig));
    }
}
