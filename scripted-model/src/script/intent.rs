//! What a sentence asks for, word by word. Knows the lab's verbs and tables, and nothing else.

/// The tables of the lab's database.
const TABLES: [&str; 2] = ["orders", "customers"];

/// One thing that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    /// Run a query.
    Query(String),
    /// Empty a table.
    Truncate(String),
    /// Take the schema to a version.
    Migrate(String),
}

impl Intent {
    /// The tool for it.
    pub(super) fn tool(&self) -> &'static str {
        match self {
            Self::Query(_) => "cluster_db_query",
            Self::Truncate(_) => "truncate_table",
            Self::Migrate(_) => "run_migration",
        }
    }

    /// Its one argument.
    pub(super) fn argument(&self) -> (&'static str, &str) {
        match self {
            Self::Query(sql) => ("sql", sql),
            Self::Truncate(table) => ("table", table),
            Self::Migrate(version) => ("version", version),
        }
    }

    /// The plan, after "I'll". Without markup: kagent's page shows a preview of it as it is written.
    pub(super) fn plan(&self) -> String {
        match self {
            Self::Query(_) => "run a query".to_owned(),
            Self::Truncate(table) => format!("empty the {table} table"),
            Self::Migrate(version) => format!("migrate the schema to {version}"),
        }
    }
}

/// What the last verb was.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Read,
    Count,
    Truncate,
    Migrate,
}

fn verb(word: &str) -> Option<Verb> {
    Some(match word {
        "show" | "list" | "what" | "what's" | "whats" | "see" | "read" | "display" => Verb::Read,
        "many" | "count" => Verb::Count,
        "truncate" | "empty" | "wipe" | "clear" | "purge" => Verb::Truncate,
        "apply" | "migrate" | "migration" | "upgrade" | "downgrade" | "roll" | "rollback"
        | "schema" => Verb::Migrate,
        _ => return None,
    })
}

/// Everything that a text asks for, in order.
pub(super) fn intents(text: &str) -> Vec<Intent> {
    if let Some(sql) = sql(text) {
        return vec![Intent::Query(sql)];
    }
    let (mut found, mut last) = (Vec::new(), None);
    for word in text.split(|letter: char| !(letter.is_alphanumeric() || "_'’".contains(letter))) {
        let word = word.to_lowercase().replace('’', "'");
        if let Some(verb) = verb(&word) {
            last = Some(verb);
        } else if TABLES.contains(&&*word) {
            match last {
                Some(Verb::Read) => found.push(Intent::Query(format!("SELECT * FROM {word}"))),
                Some(Verb::Count) => {
                    found.push(Intent::Query(format!("SELECT count(*) AS n FROM {word}")));
                }
                Some(Verb::Truncate) => found.push(Intent::Truncate(word)),
                Some(Verb::Migrate) | None => {}
            }
        } else if is_version(&word) && last == Some(Verb::Migrate) {
            found.push(Intent::Migrate(word));
        }
    }
    found.dedup();
    found
}

fn is_version(word: &str) -> bool {
    word.strip_prefix('v').is_some_and(|digits| {
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// SQL that is written out: between backticks, or from `SELECT` or `WITH` to the end.
fn sql(text: &str) -> Option<String> {
    let quoted = text.split('`').nth(1).filter(|code| begins_as_query(code));
    if let Some(code) = quoted {
        return Some(tidied(code));
    }
    let lower = text.to_ascii_lowercase();
    let select = lower.match_indices("select ").map(|(at, _)| at);
    let with = lower.match_indices("with ").map(|(at, _)| at);
    // `with` is an everyday word: it counts at the very beginning only.
    let with = with.filter(|at| *at == 0 && lower.contains("select "));
    let starts_word =
        |at: &usize| text.get(..*at).is_some_and(|before| !before.ends_with(char::is_alphanumeric));
    let at = with.chain(select).find(starts_word)?;
    let rest = text.get(at..)?;
    // "select a table" is English.
    lower.get(at..)?.contains(" from ").then(|| tidied(rest)).or_else(|| {
        let literal = rest.get("select ".len()..)?.trim_start();
        literal
            .starts_with(|first: char| first.is_ascii_digit() || "'*(".contains(first))
            .then(|| tidied(rest))
    })
}

fn begins_as_query(code: &str) -> bool {
    let first = code.split_whitespace().next().unwrap_or_default();
    first.eq_ignore_ascii_case("select") || first.eq_ignore_ascii_case("with")
}

fn tidied(sql: &str) -> String {
    sql.trim().trim_end_matches([';', '.', '`', '"', '?', ' ']).trim().to_owned()
}
