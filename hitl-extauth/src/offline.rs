//! The audit without a gate: verifying a database or an export, and exporting.
//!
//! Must never change a row of what it looks at, and never call a chain whole that it could not read to its
//! end.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
};

use hitl_api::{
    Event, Head,
    audit::{Broken, Verifier},
};

use crate::{
    config::AuditCommand,
    store::sqlite::{OpenError, events_of},
};

/// What every SQLite file begins with.
const SQLITE: &[u8] = b"SQLite format 3\0";

/// Why an audit is not whole, or cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// It is broken.
    #[error("the audit is broken: {0}")]
    Broken(#[from] Broken),
    /// A line of an export is no row.
    #[error("line {0} of the export is not a row of the audit: {1}")]
    Line(usize, serde_json::Error),
    /// The file cannot be read.
    #[error("{0} cannot be read: {1}")]
    File(String, io::Error),
    /// The database cannot be read.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The output cannot be written.
    #[error("the output cannot be written: {0}")]
    Output(io::Error),
}

/// Does what was asked, and prints it.
///
/// # Errors
/// See [`AuditError`].
pub fn run(command: &AuditCommand) -> Result<(), AuditError> {
    let mut out = io::stdout().lock();
    match command {
        AuditCommand::Verify { path, head } => {
            let Head { seq, hash } = verify(path, head.as_ref().map(|head| head.0.clone()))?;
            writeln!(out, "{seq} rows, every one follows from the one before; head {seq}:{hash}")
                .map_err(AuditError::Output)
        }
        AuditCommand::Export { path } => events_of(path, |event| {
            let line = serde_json::to_string(&event).map_err(|error| AuditError::Line(0, error))?;
            writeln!(out, "{line}").map_err(AuditError::Output)
        }),
    }
}

/// Verifies a database or an export, and gives its head.
///
/// # Errors
/// [`AuditError::Broken`] for the first row that does not fit.
pub fn verify(path: &Path, noted: Option<Head>) -> Result<Head, AuditError> {
    let file = |error| AuditError::File(path.display().to_string(), error);
    let mut beginning = Vec::new();
    let opened = File::open(path).map_err(file)?;
    opened.take(SQLITE.len() as u64).read_to_end(&mut beginning).map_err(file)?;
    let mut verifier = Verifier::new(noted);
    if beginning == SQLITE {
        events_of(path, |event| Ok::<_, AuditError>(verifier.next(&event)?))?;
    } else {
        let lines = BufReader::new(File::open(path).map_err(file)?).lines();
        for (number, line) in lines.enumerate() {
            let event: Event = serde_json::from_str(&line.map_err(file)?)
                .map_err(|error| AuditError::Line(number + 1, error))?;
            verifier.next(&event)?;
        }
    }
    Ok(verifier.finish()?)
}
