//! The shape of the database file, and how connections to it are set up.
//!
//! Owns opening: a new file is made whole in one transaction, a file of ours is taken as it is,
//! anything else is refused untouched. Must never open a file that a newer version of this
//! program has written, and never one that belongs to another program.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use hitl_service::private;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, config::DbConfig};

use super::migration::{self, Version};

/// Marks a file as ours (`PRAGMA application_id`): "HITL" in ASCII.
const APPLICATION_ID: i64 = 0x4849_544c;

/// Layout of the bookkeeping tables (`PRAGMA user_version`), apart from the lab's own schema.
const LAYOUT: i64 = 1;

/// Where these stand in the header of a SQLite file.
const LAYOUT_AT: usize = 60;
const APPLICATION_ID_AT: usize = 68;

/// How long a statement waits for another connection's lock. A read holds one for two seconds at
/// most.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Most memory SQLite may take for all connections together, in bytes. A query that needs more
/// fails with "out of memory"; the process does not.
const HEAP_LIMIT: i64 = 64 * 1024 * 1024;

/// Where the database lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In this process's memory; gone with it.
    Memory,
    /// In a file, in WAL mode.
    File(PathBuf),
}

/// Why a database could not be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no folder to put it in.
    #[error("{0} cannot be made: there is no folder {1}")]
    NoFolder(String, String),
    /// The file cannot be read.
    #[error("{0} cannot be read: {1}")]
    Unreadable(String, io::Error),
    /// There is none, and none can be made.
    #[error("{0} cannot be created: {1}")]
    Uncreatable(String, io::Error),
    /// Another program's file.
    #[error("{0} is a file of another program; choose another path for --database")]
    Foreign(String),
    /// Written by a newer version.
    #[error(
        "{path} has layout {found}, and this version knows layouts up to {LAYOUT}; \
         run the version that wrote it, or newer"
    )]
    Newer {
        /// The file.
        path: String,
        /// Its layout.
        found: i64,
    },
    /// WAL could not be switched on.
    #[error("{path} cannot use WAL mode (SQLite chose {mode:?}); put it on a local disk")]
    NoWal {
        /// The file.
        path: String,
        /// What SQLite chose instead.
        mode: String,
    },
    /// SQLite's own answer.
    #[error("the database {path} cannot be opened: {source}")]
    Sqlite {
        /// The file, or "in memory".
        path: String,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

/// A database that connections can be made to.
#[derive(Clone, Debug)]
pub(super) struct Source {
    uri: PathBuf,
    name: String,
    in_memory: bool,
}

impl Source {
    pub(super) fn new(location: &Location) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        match location {
            Location::Memory => {
                // The name is shared within the process only; a number keeps two apart.
                let number = NEXT.fetch_add(1, Ordering::Relaxed);
                Self {
                    uri: PathBuf::from(format!("file:/orders-{number}?vfs=memdb")),
                    name: "in memory".to_owned(),
                    in_memory: true,
                }
            }
            // Absolute, so that no name is read as a URI (`file:…`) or as `:memory:`.
            Location::File(path) => Self {
                uri: std::path::absolute(path).unwrap_or_else(|_| path.clone()),
                name: path.display().to_string(),
                in_memory: false,
            },
        }
    }

    /// The one connection that writes. Makes the database where there is none.
    pub(super) fn writer(&self) -> Result<Connection, OpenError> {
        if !self.in_memory {
            self.look()?;
            // SQLite would give a new file, and what it keeps beside it, the mode of the umask.
            private::create(&self.uri)
                .map_err(|error| OpenError::Uncreatable(self.name.clone(), error))?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let mut connection = self.connect(flags).map_err(|error| self.sqlite(error))?;
        self.claim(&mut connection)?;
        Ok(connection)
    }

    /// A connection that SQLite itself holds read-only.
    pub(super) fn reader(&self) -> Result<Connection, OpenError> {
        // A database in memory cannot be opened read-only; `query_only` holds for both.
        let flags = if self.in_memory {
            OpenFlags::SQLITE_OPEN_READ_WRITE
        } else {
            OpenFlags::SQLITE_OPEN_READ_ONLY
        };
        let connect = || {
            let connection = self.connect(flags)?;
            connection.pragma_update(None, "query_only", true)?;
            connection.pragma_update(None, "temp_store", "memory")?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
            Ok(connection)
        };
        connect().map_err(|error| self.sqlite(error))
    }

    /// Looks at the file without opening it as a database: that alone could change one that is
    /// somebody else's.
    fn look(&self) -> Result<(), OpenError> {
        let folder = self.uri.parent().unwrap_or(Path::new("/"));
        if !folder.is_dir() {
            return Err(OpenError::NoFolder(self.name.clone(), folder.display().to_string()));
        }
        let mut header = [0; 100];
        let read = File::open(&self.uri).and_then(|mut file| file.read_exact(&mut header));
        if let Err(error) = read {
            return match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                // Empty, or too short to be a database.
                io::ErrorKind::UnexpectedEof => match fs::metadata(&self.uri) {
                    Ok(metadata) if metadata.len() == 0 => Ok(()),
                    _ => Err(OpenError::Foreign(self.name.clone())),
                },
                _ => Err(OpenError::Unreadable(self.name.clone(), error)),
            };
        }
        let number = |at: usize| {
            let bytes = header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u32::from_be_bytes).map_or(0, i64::from)
        };
        if !header.starts_with(b"SQLite format 3\0") || number(APPLICATION_ID_AT) != APPLICATION_ID
        {
            return Err(OpenError::Foreign(self.name.clone()));
        }
        if number(LAYOUT_AT) > LAYOUT {
            return Err(OpenError::Newer { path: self.name.clone(), found: number(LAYOUT_AT) });
        }
        Ok(())
    }

    fn connect(&self, flags: OpenFlags) -> rusqlite::Result<Connection> {
        let mut flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if self.in_memory {
            // Only here: a file name is a name, never a URI with options.
            flags |= OpenFlags::SQLITE_OPEN_URI;
        }
        let connection = Connection::open_with_flags(&self.uri, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // Kept for the whole process by SQLite, whichever connection says it.
        connection.pragma_update_and_check(None, "hard_heap_limit", HEAP_LIMIT, |_| Ok(()))?;
        Ok(connection)
    }

    fn claim(&self, connection: &mut Connection) -> Result<(), OpenError> {
        let sqlite = |error| self.sqlite(error);
        let pragma = |connection: &Connection, name| {
            connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0))
        };
        let application = pragma(connection, "application_id").map_err(sqlite)?;
        let objects: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(sqlite)?;
        if application != APPLICATION_ID && (application != 0 || objects != 0) {
            return Err(OpenError::Foreign(self.name.clone()));
        }
        let layout = pragma(connection, "user_version").map_err(sqlite)?;
        if layout > LAYOUT {
            return Err(OpenError::Newer { path: self.name.clone(), found: layout });
        }
        if !self.in_memory {
            private::restrict(&self.uri);
            // Before WAL, so that it stands in the file itself from the first moment on.
            if application != APPLICATION_ID {
                let id = APPLICATION_ID;
                connection.pragma_update(None, "application_id", id).map_err(sqlite)?;
            }
            let mode: String = connection
                .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))
                .map_err(sqlite)?;
            if mode != "wal" {
                return Err(OpenError::NoWal { path: self.name.clone(), mode });
            }
            // A change that was answered survives the loss of power, not only of the process.
            connection.pragma_update(None, "synchronous", "full").map_err(sqlite)?;
        }
        create(connection).map_err(sqlite)
    }

    fn sqlite(&self, source: rusqlite::Error) -> OpenError {
        OpenError::Sqlite { path: self.name.clone(), source }
    }
}

/// Makes the tables and the lab's rows, or finds that another process just did.
fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let layout: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if layout == 0 {
        transaction.execute_batch(include_str!("../../migrations/bookkeeping.sql"))?;
        for step in migration::path(None, Version::START) {
            transaction.execute_batch(step.sql)?;
        }
        transaction.execute_batch(include_str!("../../migrations/seed.sql"))?;
        transaction.execute(
            "INSERT INTO schema_state (only_row, version) VALUES (1, ?1)",
            [Version::START.number()],
        )?;
        transaction.pragma_update(None, "user_version", LAYOUT)?;
    }
    transaction.commit()
}

impl From<Option<&Path>> for Location {
    fn from(path: Option<&Path>) -> Self {
        path.map_or(Self::Memory, |path| Self::File(path.to_owned()))
    }
}
