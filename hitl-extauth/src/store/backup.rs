//! A copy of a gate's file, and the way back from one.
//!
//! Owns that a copy has its name only when it is whole, that nothing is written over unasked, and that no
//! approval is used twice because an older file has come back. Must never leave two files that a gate would
//! open where there was one.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use hitl_api::Head;
use hitl_service::private;
use jiff::Timestamp;
use tempfile::NamedTempFile;

use super::{
    recall::Recalled,
    sqlite::{
        self,
        copies::{self, CopyError, Replaced},
    },
};

/// What stands for standard output, and for standard input.
const STANDARD: &str = "-";

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    /// The end of the backup's audit.
    pub backup: Head,
    /// The end of the audit as it is now.
    pub head: Head,
    /// What of it is used no more.
    pub recalled: Recalled,
    /// Where that is which was there before.
    pub replaced: Option<PathBuf>,
}

/// Why there is no copy, or nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Not a file.
    #[error(
        "this is for a SQLite file; a PostgreSQL is backed up and restored with its own tools, and `hitl-extauth recall` comes before its gates start again. See docs/operations.md"
    )]
    Postgres,
    /// There is something under that name.
    #[error("{0} is there already, and stays as it is; choose another name")]
    Exists(String),
    /// There is a database in that place.
    #[error(
        "nothing was restored, for {0} is there already: stop its gate, and say --replace to put it aside"
    )]
    InPlace(String),
    /// A log without its database.
    #[error(
        "nothing was restored, for {0} was left there by another database, and SQLite would read it into this one: put it away"
    )]
    Beside(String),
    /// From a file to itself.
    #[error("nothing was restored: {0} is the backup and the gate's database at once")]
    Itself(String),
    /// It is not whole.
    #[error("nothing was kept: {0}")]
    Copy(CopyError),
    /// The file that is there cannot be put aside.
    #[error("nothing was restored: {0}")]
    Held(sqlite::OpenError),
    /// The database there cannot be read at all.
    #[error(
        "nothing was restored, for {0} cannot be read ({1}), and so it cannot be seen whether a gate has it open: stop the gate, put the file and what lies beside it (-wal, -shm) away, and restore without --replace"
    )]
    Unreadable(String, rusqlite::Error),
    /// A file or folder.
    #[error("nothing was kept, for {0} cannot be used: {1}")]
    File(String, io::Error),
    /// All but the last step.
    #[error(
        "the old database is {0} now, and the restored one could not take its place: {1}. Start no gate; give the same command again"
    )]
    Unfinished(String, io::Error),
    /// It may not outlive a loss of power.
    #[error("it is done, but the folder {0} could not be written to the disk: {1}")]
    Volatile(String, io::Error),
    /// The output cannot be written.
    #[error("it is done; the output cannot be written: {0}")]
    Output(io::Error),
}

// Its text says the other's, so that it is not given as the cause once more.
impl From<CopyError> for BackupError {
    fn from(error: CopyError) -> Self {
        Self::Copy(error)
    }
}

/// Copies a gate's file, whether or not the gate runs, and gives the end of the audit in the copy. To `-` it is
/// written to standard output, once it is whole.
///
/// # Errors
/// See [`BackupError`]. Then there is nothing under the name that was not there before.
pub fn backup(from: &Path, to: &Path) -> Result<Head, BackupError> {
    let out = to == Path::new(STANDARD);
    if !out && fs::symlink_metadata(to).is_ok() {
        return Err(BackupError::Exists(to.display().to_string()));
    }
    // What goes elsewhere is made beside the database: where else there is room, nobody knows.
    let place = if out { from } else { to };
    let folder = folder(place)?;
    let copy = aside(&folder, place)?;
    let name = from.display().to_string();
    copies::copy(from, &name, copy.path())?;
    let head = copies::check(copy.path(), &name, None)?;
    let file = |error| BackupError::File(to.display().to_string(), error);
    if out {
        let mut out = io::stdout().lock();
        let copied = File::open(copy.path()).and_then(|mut copy| io::copy(&mut copy, &mut out));
        copied.and_then(|_| out.flush()).map_err(file)?;
        return Ok(head);
    }
    copy.as_file().sync_all().map_err(file)?;
    named(copy, to)?;
    durable(&folder)?;
    Ok(head)
}

/// Puts a backup, `-` from standard input, in the place of a gate's database. Every approval that nobody had
/// used lapses and every pre-approval ends, each with its row of the audit: since the backup they may have been
/// used.
///
/// # Errors
/// See [`BackupError`]. But for [`BackupError::Unfinished`] and what follows it, everything is as it was.
pub fn restore(
    from: &Path,
    to: &Path,
    replace: bool,
    noted: Option<Head>,
    now: Timestamp,
) -> Result<Restored, BackupError> {
    // The file itself, where a link leads to it: SQLite keeps its log there.
    let there = fs::canonicalize(to).ok();
    let to = there.as_deref().unwrap_or(to);
    let name = to.display().to_string();
    if there.is_some() && fs::canonicalize(from).ok() == there {
        return Err(BackupError::Itself(name));
    }
    if there.is_some() && !replace {
        return Err(BackupError::InPlace(name));
    }
    let folder = folder(to)?;
    let (said, received) = received(from, &folder, to)?;
    let from = received.as_ref().map_or(from, NamedTempFile::path);
    let copy = aside(&folder, to)?;
    copies::copy(from, &said, copy.path())?;
    drop(received);
    let backup = copies::check(copy.path(), &said, noted)?;
    let recalled = copies::recall(copy.path(), &said, now)?;
    let head = copies::check(copy.path(), &said, None)?;
    // Only now that it is known to be good: what is there is not touched for one that is not.
    let old = there.as_deref().map(Replaced::hold).transpose().map_err(held)?;
    if let Some(left) = copies::beside(to) {
        return Err(BackupError::Beside(left.display().to_string()));
    }
    let file = |error| BackupError::File(name.clone(), error);
    if there.is_some() {
        like(&copy, to).map_err(file)?;
    }
    copy.as_file().sync_all().map_err(file)?;
    let replaced = if let Some(old) = old {
        Some(put_aside(old, copy, to)?)
    } else {
        named(copy, to)?;
        None
    };
    durable(&folder)?;
    Ok(Restored { backup, head, recalled, replaced })
}

/// What a backup is called, and where it is if it came from standard input.
fn received(
    from: &Path,
    folder: &Path,
    to: &Path,
) -> Result<(String, Option<NamedTempFile>), BackupError> {
    if from != Path::new(STANDARD) {
        return Ok((from.display().to_string(), None));
    }
    let received = aside(folder, to)?;
    io::copy(&mut io::stdin().lock(), &mut received.as_file())
        .map_err(|error| BackupError::File(folder.display().to_string(), error))?;
    Ok(("standard input".to_owned(), Some(received)))
}

/// Keeps what is there under a second name, marks it, and only then lets the new one take its place: at no
/// moment is the place empty, where a gate that starts would begin with nothing.
fn put_aside(old: Replaced, copy: NamedTempFile, to: &Path) -> Result<PathBuf, BackupError> {
    private::restrict(to);
    let mut aside = to.as_os_str().to_owned();
    aside.push(Timestamp::now().strftime(".replaced-%Y%m%dT%H%M%S%.3fZ").to_string());
    let aside = PathBuf::from(aside);
    let name = aside.display().to_string();
    fs::hard_link(to, &aside).map_err(|error| BackupError::File(name.clone(), error))?;
    if let Err(error) = old.mark() {
        // A second name that stays is all that there would be to see of it.
        let _ = fs::remove_file(&aside);
        return Err(BackupError::Held(error));
    }
    copy.persist(to).map_err(|error| BackupError::Unfinished(name, error.error))?;
    Ok(aside)
}

fn held(error: sqlite::OpenError) -> BackupError {
    match error {
        sqlite::OpenError::Sqlite(path, error) => BackupError::Unreadable(path, error),
        other => BackupError::Held(other),
    }
}

/// The folder that a file is in, or will be.
fn folder(path: &Path) -> Result<PathBuf, BackupError> {
    let path = std::path::absolute(path)
        .map_err(|error| BackupError::File(path.display().to_string(), error))?;
    Ok(path.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned))
}

/// An empty file in that folder, for its owner alone. It goes with whoever fails; what an interrupted command
/// leaves behind has a name that says so.
fn aside(folder: &Path, to: &Path) -> Result<NamedTempFile, BackupError> {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".");
    tempfile::Builder::new()
        .prefix(&name)
        .suffix(".partial")
        .tempfile_in(folder)
        .map_err(|error| BackupError::File(folder.display().to_string(), error))
}

/// Gives a file its name, unless that has been taken meanwhile.
fn named(copy: NamedTempFile, to: &Path) -> Result<(), BackupError> {
    let name = to.display().to_string();
    match copy.persist_noclobber(to) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            Err(BackupError::Exists(name))
        }
        Err(error) => Err(BackupError::File(name, error.error)),
    }
}

/// The same owner: whichever gate had the old one must be able to open the new one. What others were
/// allowed is not passed on.
fn like(copy: &NamedTempFile, old: &Path) -> io::Result<()> {
    let (old, new) = (fs::metadata(old)?, copy.as_file().metadata()?);
    if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
        chown(copy.path(), Some(old.uid()), Some(old.gid()))?;
    }
    let mode = old.permissions().mode() & 0o600;
    fs::set_permissions(copy.path(), fs::Permissions::from_mode(mode))
}

/// A name outlives a loss of power only when its folder is on the disk.
fn durable(folder: &Path) -> Result<(), BackupError> {
    File::open(folder)
        .and_then(|open| open.sync_all())
        .map_err(|error| BackupError::Volatile(folder.display().to_string(), error))
}
