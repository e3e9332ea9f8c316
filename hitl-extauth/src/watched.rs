//! A file that is read again when it changes.
//!
//! Must never forget what was read because a later version of the file cannot be used.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

/// A file, and what was in it when it last made sense.
#[derive(Debug)]
pub struct Watched<T> {
    path: PathBuf,
    parse: fn(&str) -> Result<T, String>,
    read: RwLock<Read<T>>,
}

#[derive(Debug)]
struct Read<T> {
    /// When the file was changed that was looked at last, and how long it was.
    stamp: Option<(SystemTime, u64)>,
    value: Arc<T>,
    /// Why that is not what is used.
    broken: Option<String>,
}

impl<T> Watched<T> {
    /// Reads a file for the first time.
    ///
    /// # Errors
    /// Why it cannot be read, or what is wrong with it.
    pub fn open(path: &Path, parse: fn(&str) -> Result<T, String>) -> Result<Self, String> {
        let stamp = stamp(path);
        let value = Arc::new(read(path, parse)?);
        let read = RwLock::new(Read { stamp, value, broken: None });
        Ok(Self { path: path.to_owned(), parse, read })
    }

    /// What the file says now; what it said before, where it has become unusable. The log says so.
    pub fn current(&self) -> Arc<T> {
        let now = stamp(&self.path);
        {
            let read = self.read.read().unwrap_or_else(PoisonError::into_inner);
            if read.stamp == now {
                return Arc::clone(&read.value);
            }
        }
        let mut kept = self.read.write().unwrap_or_else(PoisonError::into_inner);
        if kept.stamp != now {
            kept.stamp = now;
            match read(&self.path, self.parse) {
                Ok(value) => {
                    tracing::info!(file = %self.path.display(), "read again");
                    kept.value = Arc::new(value);
                    kept.broken = None;
                }
                Err(error) => {
                    tracing::error!(file = %self.path.display(), %error, "stays as it was");
                    kept.broken = Some(error);
                }
            }
        }
        Arc::clone(&kept.value)
    }

    /// Why the file as it is now is not used.
    pub fn broken(&self) -> Option<String> {
        self.read.read().unwrap_or_else(PoisonError::into_inner).broken.clone()
    }
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read<T>(path: &Path, parse: fn(&str) -> Result<T, String>) -> Result<T, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("it cannot be read: {error}"))?;
    parse(&text)
}
