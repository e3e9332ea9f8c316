//! Files that only their owner may read or write, under every umask.
//!
//! Owns the mode of every file that a service creates: 0600. Invariant: permissions are only ever
//! taken away, never given.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// The mode of a file that its owner alone reads and writes.
const OWNER: u32 = 0o600;

/// What group and others may do with a file.
const OTHERS: u32 = 0o077;

/// What SQLite puts beside a database; the data is in it as well.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Creates a file with mode 0600, open for writing.
///
/// # Errors
/// When there is a file or a symbolic link under that name, or none can be created.
pub fn create_new(path: &Path) -> io::Result<File> {
    made(OpenOptions::new().write(true).create_new(true), path)
}

/// Creates an empty file with mode 0600 where there is none, for a program that gives a new file
/// the mode of the umask. An existing file stays as it is.
///
/// # Errors
/// When the file cannot be created.
pub fn create(path: &Path) -> io::Result<()> {
    // Never opened when it exists: closing it would end SQLite's locks of this process.
    if path.metadata().is_ok() {
        return Ok(());
    }
    // A symbolic link to a file that does not exist leads to the new file, as in SQLite.
    match made(OpenOptions::new().write(true).create(true), path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created.map(drop),
    }
}

fn made(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.mode(OWNER).open(path)?;
    // A umask such as 0277 takes permissions from the owner too. A file system without modes refuses.
    let _ = file.set_permissions(Permissions::from_mode(OWNER));
    Ok(file)
}

/// Takes the permissions of group and others from a database, and from what SQLite keeps beside it.
/// Logs a warning where that is not possible: the file is another user's, or the file system
/// read-only.
pub fn restrict(database: &Path) {
    // SQLite keeps its files beside the database itself, not beside a link to it.
    let database = fs::canonicalize(database).unwrap_or_else(|_| database.to_owned());
    let beside = BESIDE.map(|end| {
        let mut name = database.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    });
    let failed = std::iter::once(&database).chain(&beside).find_map(|path| {
        let error = restrict_one(path).err()?;
        (error.kind() != io::ErrorKind::NotFound).then_some((path, error))
    });
    if let Some((path, error)) = failed {
        tracing::warn!(
            file = %path.display(),
            %error,
            "other users of this machine may read the database: its mode cannot be set to 0600"
        );
    }
}

fn restrict_one(path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let mode = metadata.permissions().mode();
    if !metadata.is_file() || mode & OTHERS == 0 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode & OWNER))
}

#[cfg(test)]
mod tests {
    use std::{env, os::unix::fs::symlink, process};

    use super::*;

    /// A folder of a test's own; gone when dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = env::temp_dir().join(format!("hitl-private-{name}-{}", process::id()));
            fs::create_dir(&folder).unwrap();
            Self(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn open_to_all(path: &Path) {
        fs::write(path, "x").unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o664)).unwrap();
    }

    #[test]
    fn a_new_file_is_its_owners_and_an_existing_one_keeps_its_content() {
        let folder = Folder::new("new");
        let (file, link) = (folder.0.join("a.db"), folder.0.join("link.db"));
        symlink("target.db", &link).unwrap();
        for new in [&file, &link] {
            create(new).unwrap();
            assert_eq!(mode(new), OWNER, "{}", new.display());
        }
        assert!(folder.0.join("target.db").is_file());
        fs::write(&file, "kept").unwrap();
        create(&file).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
        assert!(create_new(&file).is_err() && create_new(&link).is_err());
        assert!(create(&folder.0.join("missing/a.db")).is_err());
    }

    #[test]
    fn a_database_and_what_is_beside_it_lose_what_others_may() {
        let folder = Folder::new("restrict");
        let (database, link) = (folder.0.join("a.db"), folder.0.join("link.db"));
        let (log, other) = (folder.0.join("a.db-wal"), folder.0.join("other"));
        for path in [&database, &log, &other] {
            open_to_all(path);
        }
        symlink(&other, folder.0.join("a.db-shm")).unwrap();
        symlink(&database, &link).unwrap();
        restrict(&link);
        assert_eq!([mode(&database), mode(&log)], [OWNER; 2]);
        // A planted link beside it leads nowhere.
        assert_eq!(mode(&other), 0o664);
        restrict(&folder.0.join("none.db"));
    }
}
