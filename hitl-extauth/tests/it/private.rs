//! Files that the gate creates are its user's alone, under every umask.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    process::Output,
};

use hitl_process::{command_with_umask, open_to_others};

use crate::support::{Lab, migrate};

/// Runs a subcommand under a umask.
fn run(umask: &str, args: &[&str]) -> Output {
    let mut command = command_with_umask(umask, env!("CARGO_BIN_EXE_hitl-extauth"));
    let output = command.args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// A lab whose reviewers' file, which the test writes, is as private as the rest.
fn lab() -> Lab {
    let lab = Lab::new();
    fs::set_permissions(lab.path("reviewers.yaml"), Permissions::from_mode(0o600)).unwrap();
    lab
}

#[tokio::test(flavor = "multi_thread")]
async fn database_key_backups_and_restored_files_are_private_under_every_umask() {
    for umask in ["0", "022", "077", "0277"] {
        let lab = lab();
        let (file, folder) = (|name: &str| lab.path(name).display().to_string(), lab.path(""));
        let gate = lab.start_with_umask(umask, &["--hold", "0"]);
        gate.check(migrate("alice", "v3", 1)).await;
        for name in ["gate.db", "gate.db-wal", "gate.db-shm", "key.pem"] {
            let mode = fs::metadata(lab.path(name)).unwrap().mode() & 0o777;
            assert_eq!(mode, 0o600, "{name} under umask {umask}: {mode:o}");
        }
        assert_eq!(open_to_others(&folder), [], "while it runs under umask {umask}");

        let database = file("gate.db");
        run(umask, &["backup", "--database", &database, &file("backup.db")]);
        gate.kill();
        // What an older version has left there, and what may be in it.
        fs::set_permissions(&database, Permissions::from_mode(0o644)).unwrap();
        let restore = ["restore", "--database", &database, "--replace", &file("backup.db")];
        let restored = run(umask, &restore);
        let text = String::from_utf8_lossy(&restored.stdout).into_owned();
        assert!(text.contains("gate.db.replaced-"), "{text}");
        run(umask, &["restore", "--database", &file("other.db"), &file("backup.db")]);
        assert_eq!(open_to_others(&folder), [], "restored under umask {umask}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_database_that_others_may_read_is_restricted_when_the_gate_opens_it() {
    let lab = lab();
    lab.start(&["--hold", "0"]).kill();
    for name in ["gate.db", "gate.db-wal", "gate.db-shm"] {
        fs::set_permissions(lab.path(name), Permissions::from_mode(0o664)).unwrap();
    }
    let gate = lab.start(&["--hold", "0"]);
    gate.check(migrate("alice", "v3", 1)).await;
    assert_eq!(open_to_others(&lab.path("")), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_user_is_served_and_the_log_says_who_may_read_it() {
    if !rustix::process::geteuid().is_root() {
        // Only root can give a file to another user.
        return;
    }
    let lab = Lab::new();
    lab.start(&["--hold", "0"]).kill();
    for name in ["", "gate.db", "gate.db-wal", "gate.db-shm", "key.pem", "reviewers.yaml"] {
        let mode = if name.is_empty() { 0o777 } else { 0o666 };
        fs::set_permissions(lab.path(name), Permissions::from_mode(mode)).unwrap();
    }
    // As in a pod whose volume belongs to a group: the files are root's, and the gate is not.
    let program = fs::canonicalize(env!("CARGO_BIN_EXE_hitl-extauth")).unwrap();
    let copy = lab.path("hitl-extauth");
    fs::copy(program, &copy).unwrap();
    let gate = lab.start_as(crate::postgres::NOBODY, &copy);
    gate.check(migrate("alice", "v3", 1)).await;
    let warned = gate.lines().into_iter().filter(|line| line.contains("mode cannot be set"));
    assert_eq!(warned.count(), 1, "{:?}", gate.lines());
}
