//! A database without a gate: verifying its audit or an export, exporting, and moving to another.
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
    store::{
        StoreError,
        database::{Database, PostgresArgs, PostgresUrl},
        moving::{self, MoveError},
        postgres::{self, AuditReader},
        sqlite::{OpenError, events_of},
    },
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
    /// The PostgreSQL cannot be read.
    #[error(transparent)]
    Postgres(#[from] postgres::OpenError),
    /// It could be, and then not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The output cannot be written.
    #[error("the output cannot be written: {0}")]
    Output(io::Error),
}

/// Does what was asked, and prints it.
///
/// # Errors
/// See [`AuditError`].
pub async fn run(command: &AuditCommand) -> Result<(), AuditError> {
    match command {
        AuditCommand::Verify { source, postgres, head } => {
            let noted = head.as_ref().map(|head| head.0.clone());
            let Head { seq, hash } = match source {
                Database::Sqlite(path) => verify(path, noted)?,
                Database::Postgres(url) => {
                    let mut verifier = Verifier::new(noted);
                    read(url, postgres, |event| Ok(verifier.next(&event)?)).await?;
                    verifier.finish()?
                }
            };
            let said =
                format!("{seq} rows, every one follows from the one before; head {seq}:{hash}");
            writeln!(io::stdout(), "{said}").map_err(AuditError::Output)
        }
        AuditCommand::Export { source, postgres } => {
            let mut out = io::BufWriter::new(io::stdout());
            let print = |event: Event| {
                let line =
                    serde_json::to_string(&event).map_err(|error| AuditError::Line(0, error))?;
                writeln!(out, "{line}").map_err(AuditError::Output)
            };
            match source {
                Database::Sqlite(path) => events_of(path, print)?,
                Database::Postgres(url) => read(url, postgres, print).await?,
            }
            out.flush().map_err(AuditError::Output)
        }
    }
}

/// Gives every row of a PostgreSQL's audit, in order.
async fn read(
    url: &PostgresUrl,
    args: &PostgresArgs,
    mut each: impl FnMut(Event) -> Result<(), AuditError>,
) -> Result<(), AuditError> {
    let mut reader = AuditReader::open(url, args).await?;
    loop {
        let events = reader.next().await?;
        if events.is_empty() {
            return Ok(());
        }
        events.into_iter().try_for_each(&mut each)?;
    }
}

/// Moves everything from a file to a PostgreSQL, and says so.
///
/// # Errors
/// See [`MoveError`].
pub async fn migrate(from: &Database, to: &Database, args: &PostgresArgs) -> Result<(), MoveError> {
    let (Database::Sqlite(from), Database::Postgres(to)) = (from, to) else {
        return Err(MoveError::Direction);
    };
    let moved = moving::run(from, to, args).await?;
    let Head { seq, hash } = &moved.head;
    writeln!(
        io::stdout(),
        "{} requests, {} votes, {} pre-approvals and {seq} rows of the audit are in {to}; \
         head {seq}:{hash}\n\
         {} is marked as moved: no gate opens it any more.",
        moved.requests,
        moved.votes,
        moved.preapprovals,
        from.display(),
    )
    .map_err(MoveError::Output)
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
