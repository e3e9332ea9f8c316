//! Whether a PostgreSQL's URL is written so that its parts are what they seem.
//!
//! A password with an unescaped `@` or `/` ends early: what follows is taken for the host or the name of
//! the database, and both are logged. Invariant: a text that this module lets pass has its password, if
//! any, before the one `@` of it.

/// What settings of libpq (`host=… password=…`) and of other clients are called.
const SETTINGS: [&str; 14] = [
    "database", "dbname", "host", "hostaddr", "passfile", "passwd", "password", "port", "pwd",
    "server", "service", "sslmode", "user", "username",
];

/// Whether each part of a URL ends where a reader of the URL finds its end: one `@` at most, before the
/// path and the query; no `#`, no white space, and no `%` but in an escape.
pub(super) fn parts_are_apart(text: &str) -> bool {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let (authority, after) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let never = |c: char| c == '#' || c.is_whitespace() || c.is_control();
    let mut escapes = rest.split('%').skip(1);
    let is_escape = |text: &str| {
        text.get(..2).is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
    };
    authority.matches('@').count() <= 1
        && !after.contains('@')
        && !rest.contains(never)
        && escapes.all(is_escape)
}

/// Whether a text without `://` is meant for a PostgreSQL, and no path: a URL whose begin is wrong, or
/// settings as libpq takes them. As a path it would be logged, with the password.
pub(super) fn is_for_postgres(text: &str) -> bool {
    let scheme = text.trim_start().split(':').next().unwrap_or_default().to_ascii_lowercase();
    let is_url =
        text.contains(':') && ["postgres", "postgresql", "jdbc"].contains(&scheme.as_str());
    let has_credentials = text.split_once(':').is_some_and(|(_, rest)| rest.contains('@'));
    is_url || has_credentials || has_settings(text)
}

fn has_settings(text: &str) -> bool {
    let mut before = text.split('=');
    before.next_back();
    before.any(|text| {
        let ends = |c: char| c.is_whitespace() || c == ';';
        let name = text.trim_end().rsplit(ends).next().unwrap_or_default();
        SETTINGS.iter().any(|setting| setting.eq_ignore_ascii_case(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_that_is_not_escaped_is_found_by_any_of_its_characters() {
        for sign in ["@", "/", "?", "#", "%", "%4", "%zz", " ", "\t", "\n", "@@", "/@", "é%"] {
            for at in ["gate@db:5432/hitl", "@db/hitl", "@db", "@db/hitl?sslmode=disable", "@/"] {
                let url = format!("postgres://gate:Zq7x{sign}W9kV{at}");
                assert!(!parts_are_apart(&url), "{url:?}");
            }
        }
        for good in [
            "postgres://gate:Zq7x%40W9kV%2F%25@db:5432,db2/hitl?sslmode=disable",
            "postgres://gate:a:b,c;d&e=f+g!$'()*~é@[::1]:5432/hitl",
            "postgres://gate@%2Frun%2Fpg/hitl",
            "postgres://",
            "postgres:///hitl?host=/run/pg",
        ] {
            assert!(parts_are_apart(good), "{good}");
        }
    }

    #[test]
    fn what_is_meant_for_postgres_is_no_path() {
        for meant in [
            "host=db user=gate password=Zq7xW9kV dbname=hitl",
            "password = Zq7xW9kV",
            "Host=db;Username=gate;Password=Zq7xW9kV",
            "gate:Zq7xW9kV@db/hitl",
            "postgres:gate:Zq7xW9kV@db/hitl",
            "postgres:/gate@db/hitl",
            "PostgreSQL:db",
            "jdbc:postgresql:hitl?password=Zq7xW9kV",
        ] {
            assert!(is_for_postgres(meant), "{meant}");
        }
        for path in ["hitl.db", "/var/lib/a=b.db", "./host=db", "C:\\hitl.db", "a@b.db", "postgres"]
        {
            assert!(!is_for_postgres(path), "{path}");
        }
    }
}
