//! A file that is read again when it changes.
//!
//! Must never forget what was read because a later version of the file cannot be used.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

/// A file, and what was in it when it last made sense.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    path: PathBuf,
    parse: fn(&str) -> Result<T, String>,
    read: RwLock<Read<T>>,
    reading: Mutex<()>,
}

#[derive(Debug)]
struct Read<T> {
    /// Which file was looked at last, and when it was changed.
    stamp: Option<Stamp>,
    value: Arc<T>,
    /// Why that is not what is used.
    broken: Option<String>,
}

impl<T> Watched<T> {
    /// Reads a file for the first time.
    ///
    /// # Errors
    /// Why it cannot be read, or what is wrong with it.
    pub(crate) fn open(path: &Path, parse: fn(&str) -> Result<T, String>) -> Result<Self, String> {
        let stamp = stamp(path);
        let value = Arc::new(read(path, parse)?);
        let read = RwLock::new(Read { stamp, value, broken: None });
        Ok(Self { path: path.to_owned(), parse, read, reading: Mutex::new(()) })
    }

    /// What the file says now; what it said before, where it has become unusable. The log says so.
    pub(crate) fn current(&self) -> Arc<T> {
        let now = stamp(&self.path);
        {
            let read = self.read.read().unwrap_or_else(PoisonError::into_inner);
            if read.stamp == now {
                return Arc::clone(&read.value);
            }
        }
        // One reads it, beside those who go on with what it said.
        let Ok(_reading) = self.reading.try_lock() else { return self.kept() };
        let text = fs::read_to_string(&self.path);
        if stamp(&self.path) != now {
            // Somebody is writing to it. Whoever asks next reads it anew.
            return self.kept();
        }
        let parsed = match &text {
            Ok(text) => (self.parse)(text),
            Err(error) => Err(format!("it cannot be read: {error}")),
        };
        let mut kept = self.read.write().unwrap_or_else(PoisonError::into_inner);
        match parsed {
            Ok(value) => {
                tracing::info!(file = %self.path.display(), "read again");
                kept.value = Arc::new(value);
                kept.stamp = now;
                kept.broken = None;
            }
            Err(error) => {
                if kept.broken.as_ref() != Some(&error) {
                    tracing::error!(file = %self.path.display(), %error, "stays as it was");
                }
                kept.broken = Some(error);
                // What could not be read may be the next time, without any change of it.
                if text.is_ok() {
                    kept.stamp = now;
                }
            }
        }
        Arc::clone(&kept.value)
    }

    fn kept(&self) -> Arc<T> {
        Arc::clone(&self.read.read().unwrap_or_else(PoisonError::into_inner).value)
    }

    /// Why the file as it is now is not used.
    pub(crate) fn broken(&self) -> Option<String> {
        self.read.read().unwrap_or_else(PoisonError::into_inner).broken.clone()
    }
}

/// Which file it is, when it was changed, and how long it is.
type Stamp = (u64, u64, i64, i64, i64, i64, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    let changed = (file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec());
    Some((file.dev(), file.ino(), changed.0, changed.1, changed.2, changed.3, file.len()))
}

fn read<T>(path: &Path, parse: fn(&str) -> Result<T, String>) -> Result<T, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("it cannot be read: {error}"))?;
    parse(&text)
}
