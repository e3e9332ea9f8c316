//! Secrets on a command line that was not understood.
//!
//! Owns which part of a wrong command line is repeated. Invariant: an error repeats no user name and
//! no password of a URL, whichever setting it was given to.

use std::path::PathBuf;

use clap::{
    Error, Parser,
    builder::{PathBufValueParser, TypedValueParser},
};

/// What stands before a password where it is in no URL, in small letters.
const PASSWORD: &str = "password=";

/// Reads the command line and the environment. Ends the process with what is wrong, or with the help.
pub fn parse<C: Parser>() -> C {
    C::try_parse().unwrap_or_else(|error| exit(&error))
}

/// Ends the process as clap does, but repeats no password: clap repeats every word that it does not
/// know, and every value that a setting cannot have.
pub fn exit(error: &Error) -> ! {
    // Help and version name no value that was given; what has no context was written here, not by clap.
    if !error.use_stderr() || error.context().next().is_none() {
        error.exit();
    }
    let text = error.render().to_string();
    let shown = hidden(text.trim_end());
    if shown == text.trim_end() {
        error.exit();
    }
    // Its text begins as clap begins every one.
    Error::raw(error.kind(), format!("{}\n", shown.trim_start_matches("error: "))).exit();
}

/// Reads a setting that names a file. A URL, or settings of a database, would be shown as the file's name.
pub fn file() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| {
        if is_no_path(&path.to_string_lossy()) {
            return Err("it is a file's path, and this looks like a URL or a database's settings");
        }
        Ok(path)
    })
}

/// Whether a text is a URL, or settings of a database, rather than a file's path.
pub fn is_no_path(text: &str) -> bool {
    let credentials = text.split_once(':').is_some_and(|(_, rest)| rest.contains('@'));
    text.contains("://") || credentials || text.to_ascii_lowercase().contains(PASSWORD)
}

/// A text without what may be a user name or a password.
pub(super) fn hidden(text: &str) -> String {
    let text = match text.rfind('@') {
        Some(end) => {
            let (before, after) = text.split_at(end);
            let quoted = |c: char| c == '\'' || c == '"';
            let quote = before.find(quoted).map(|at| at + 1);
            // A scheme is a word of its own; `me:secret://` begins with none.
            let scheme = before.find("://").filter(|at| {
                let begin = before.split_at(*at).0;
                begin
                    .trim_end_matches(|c: char| c.is_ascii_alphanumeric())
                    .ends_with([' ', '=', '\'', '"'])
            });
            let begin = scheme.map(|at| at + 3).or(quote).unwrap_or_default();
            format!("{}…{after}", before.split_at(begin).0)
        }
        None => text.to_owned(),
    };
    match text.to_ascii_lowercase().find(PASSWORD) {
        Some(at) => format!("{}…", text.split_at(at + PASSWORD.len()).0),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_repeated_without_its_password() {
        for said in [
            "error: unrecognized subcommand 'postgres://gate:s3cret@db/hitl'",
            "error: unrecognized subcommand 'gate:s3cret@db/hitl'",
            "error: unrecognized subcommand 'gate:s3cret://x@db/hitl'",
            "error: invalid value 'http://gate:s3'cr@s3cret\ns3cret@h' for '--listen <ADDRESS>'",
            "error: unexpected argument '--gaet=http://gate:s3cret@h' found",
            "error: unexpected argument 'host=db Password=s3cret' found",
        ] {
            let shown = hidden(said);
            assert!(shown.starts_with("error: ") && !shown.contains("s3cret"), "{shown}");
        }
        let plain = "error: unexpected argument '--databse' found\n\n  tip: '--database'";
        assert_eq!(hidden(plain), plain);
    }
}
