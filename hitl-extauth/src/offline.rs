//! A database without a gate: verifying its audit or an export, exporting, copying it and going back to a
//! copy, and moving to another.
//!
//! Owns what is said of it. Must never change a row of what it only looks at, and never call a chain whole that
//! it could not read to its end.

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
    config::{AuditCommand, NotedHead},
    gate,
    receipt::{self, ReceiptError},
    store::{
        StoreError,
        backup::{self, BackupError},
        database::{Database, PostgresArgs, PostgresUrl},
        moving::{self, MoveError},
        postgres::{self, AuditReader},
        recall::{self, RecallError, Recalled},
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
    Line(usize, hitl_core::json::JsonError),
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

/// Why a public key is not printed.
#[derive(Debug, thiserror::Error)]
pub enum PublicKeyError {
    /// There is none.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The output cannot be written.
    #[error("the output cannot be written: {0}")]
    Output(io::Error),
}

/// Prints the public half of a key of receipts.
///
/// # Errors
/// When it cannot be read, or is none.
pub fn public_key(file: &Path) -> Result<(), PublicKeyError> {
    let jwks = receipt::public_key(file)?;
    writeln!(io::stdout(), "{jwks:#}").map_err(PublicKeyError::Output)
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
                // The members in the order in which the gate serves them.
                serde_json::to_writer(&mut out, &event)
                    .map_err(|e| AuditError::Output(e.into()))?;
                writeln!(out).map_err(AuditError::Output)
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

/// Copies a gate's file, and says what its audit ends with; beside a copy that is standard output, on standard
/// error.
///
/// # Errors
/// See [`BackupError`].
pub fn backup(database: &Database, to: &Path) -> Result<(), BackupError> {
    let Database::Sqlite(from) = database else { return Err(BackupError::Postgres) };
    let Head { seq, hash } = backup::backup(from, to)?;
    let out = to == Path::new("-");
    let name = if out { "the copy".into() } else { to.display().to_string() };
    let said = format!(
        "{name} holds {seq} rows of the audit, every one follows from the one before; head {seq}:{hash}"
    );
    let told =
        if out { writeln!(io::stderr(), "{said}") } else { writeln!(io::stdout(), "{said}") };
    told.map_err(BackupError::Output)
}

/// Puts a backup in the place of a gate's file, and says what that means.
///
/// # Errors
/// See [`BackupError`].
pub fn restore(
    from: &Path,
    database: &Database,
    replace: bool,
    head: Option<&NotedHead>,
) -> Result<(), BackupError> {
    let Database::Sqlite(to) = database else { return Err(BackupError::Postgres) };
    let noted = head.map(|head| head.0.clone());
    let restored = backup::restore(from, to, replace, noted, gate::now())?;
    let (was, is) = (&restored.backup, &restored.head);
    let mut said = format!(
        "{} is restored from a backup whose head is {}:{}.\n{}Requests that waited wait again.\n",
        to.display(),
        was.seq,
        was.hash,
        used_no_more(restored.recalled),
    );
    if let Some(replaced) = &restored.replaced {
        said.push_str("What was there before is ");
        said.push_str(&replaced.display().to_string());
        said.push_str(", which no gate opens any more.\n");
    }
    writeln!(io::stdout(), "{said}{} rows of the audit; head {}:{}", is.seq, is.seq, is.hash)
        .map_err(BackupError::Output)
}

/// Lets nothing be used that a database which has come back from a backup holds of approvals.
///
/// # Errors
/// See [`RecallError`].
pub async fn recall(database: &Database, args: &PostgresArgs) -> Result<(), RecallError> {
    let recalled = Box::pin(recall::run(database, args, gate::now())).await?;
    write!(io::stdout(), "{}", used_no_more(recalled)).map_err(RecallError::Output)
}

fn used_no_more(recalled: Recalled) -> String {
    let Recalled { approvals, pending, preapprovals } = recalled;
    let why = if approvals + pending + preapprovals > 0 {
        " Since the backup they may have been used."
    } else {
        ""
    };
    format!(
        "Approvals that lapsed: {approvals}; pre-approvals that were ended: {preapprovals}; requests that \
         expired since they had some of their approvals: {pending}.{why}\n"
    )
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
            let event: Event = hitl_core::json::read(line.map_err(file)?)
                .map_err(|error| AuditError::Line(number + 1, error))?;
            verifier.next(&event)?;
        }
    }
    Ok(verifier.finish()?)
}
