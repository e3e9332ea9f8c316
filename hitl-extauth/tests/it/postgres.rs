//! A real PostgreSQL in a folder of its own, on a free port; gone when dropped.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser as _;
use hitl_extauth::{
    config::Config,
    metrics::Metrics,
    store::{SharedStore, database::Database, postgres::PostgresStore},
};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use crate::support::PATIENCE;

/// Whom the server runs as where the tests are root's, which PostgreSQL is not.
pub(crate) const NOBODY: u32 = 65534;

/// A server.
pub(crate) struct Server {
    folder: TempDir,
    port: u16,
    process: Option<Child>,
}

/// Where its programs are: as `HITL_TEST_POSTGRES` says, or the newest that Debian has installed.
fn programs() -> PathBuf {
    if let Some(folder) = std::env::var_os("HITL_TEST_POSTGRES") {
        return folder.into();
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.map(|entry| entry.path().join("bin")).max();
    newest.expect("PostgreSQL: apt install postgresql, or HITL_TEST_POSTGRES=FOLDER")
}

/// A program of PostgreSQL's, as somebody who is not root.
fn program(name: &str) -> Command {
    let path = programs().join(name);
    if !rustix::process::geteuid().is_root() {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={NOBODY}")).arg(format!("--regid={NOBODY}"));
    command.arg("--clear-groups").arg(path);
    command
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn own(path: &Path) {
    if rustix::process::geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

impl Server {
    /// A new one, with nothing in it.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        own(folder.path());
        let mut server = Self { folder, port: free_port(), process: None };
        run(program("initdb")
            .args(["--no-sync", "--username=gate", "--auth=trust", "--encoding=UTF8"])
            .args(["--locale=C", "--pgdata"])
            .arg(server.data()));
        server.configure("max_connections = 100");
        server.revive();
        server
    }

    /// A standby that has everything this one acknowledges: it waits for it from now on.
    pub(crate) async fn standby(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        own(folder.path());
        let mut standby = Self { folder, port: free_port(), process: None };
        run(program("pg_basebackup")
            .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--pgdata"])
            .arg(standby.data())
            .arg("--dbname")
            .arg(format!("{} application_name=standby", self.keywords())));
        standby.revive();
        let sql = "ALTER SYSTEM SET synchronous_standby_names TO 'standby'";
        let client = self.client().await;
        client.batch_execute(sql).await.unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        let synchronous = async {
            while client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) != 1 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, synchronous).await.expect("the standby to follow");
        standby
    }

    /// A standby becomes the primary.
    pub(crate) async fn promote(&self) {
        let client = self.client().await;
        client.batch_execute("ALTER SYSTEM RESET synchronous_standby_names").await.ok();
        client.batch_execute("SELECT pg_promote()").await.unwrap();
    }

    /// A line of its settings.
    pub(crate) fn configure(&self, line: &str) {
        let path = self.data().join("postgresql.conf");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}\n{line}\n")).unwrap();
    }

    /// Starts it, whatever state it was left in.
    pub(crate) fn revive(&mut self) {
        let begun = Instant::now();
        loop {
            let mut command = program("postgres");
            command.arg("-D").arg(self.data()).arg("-k").arg(self.folder.path());
            command.args(["-c", "listen_addresses=127.0.0.1", "-c", "shared_buffers=32MB"]);
            command.args(["-c", "max_wal_senders=4", "-p", &self.port.to_string()]);
            let log = std::fs::File::options()
                .create(true)
                .append(true)
                .open(self.folder.path().join("log"))
                .unwrap();
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
            let mut process = command.spawn().unwrap();
            // The processes of one that was killed may still be going: then this one ends.
            while process.try_wait().unwrap().is_none() {
                if self.answers() {
                    self.process = Some(process);
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap();
            assert!(begun.elapsed() < PATIENCE, "PostgreSQL does not start: {log}");
        }
    }

    /// Whether it takes in whoever comes.
    fn answers(&self) -> bool {
        let mut hello = b"\0\0\0\0\0\x03\0\0user\0gate\0database\0postgres\0\0".to_vec();
        hello[3] = u8::try_from(hello.len()).unwrap();
        let mut said = [0];
        let asked = TcpStream::connect(("127.0.0.1", self.port)).and_then(|mut stream| {
            stream.write_all(&hello)?;
            stream.read_exact(&mut said)
        });
        // A question about who that is, or welcome; and no error.
        asked.is_ok() && said == *b"R"
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Reads its settings again.
    pub(crate) fn reload(&self) {
        let process = self.process.as_ref().unwrap();
        let id = rustix::process::Pid::from_child(process);
        rustix::process::kill_process(id, rustix::process::Signal::HUP).unwrap();
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    fn keywords(&self) -> String {
        format!("host=127.0.0.1 port={} user=gate dbname=postgres", self.port)
    }

    /// How the gate is told of it.
    pub(crate) fn url(&self) -> String {
        format!("postgres://gate@127.0.0.1:{}/postgres", self.port)
    }

    /// Backs the gate's schema up, as its owner does.
    pub(crate) fn dumps(&self) -> PathBuf {
        let file = self.folder.path().join("hitl.dump");
        let mut dump = program("pg_dump");
        dump.args(["--format=custom", "--schema=hitl", "--dbname", &self.keywords(), "--file"]);
        run(dump.arg(&file));
        file
    }

    /// Puts back what was backed up.
    pub(crate) fn restores(&self, dump: &Path) {
        let mut restore = program("pg_restore");
        restore.args(["--exit-on-error", "--single-transaction", "--dbname", &self.keywords()]);
        run(restore.arg(dump));
    }

    /// A connection past the gate.
    pub(crate) async fn client(&self) -> Client {
        let (client, work) = tokio_postgres::connect(&self.keywords(), NoTls).await.unwrap();
        tokio::spawn(work);
        client
    }

    /// A store in it, as a replica has it.
    pub(crate) async fn store(&self) -> SharedStore {
        let args = ["hitl-extauth", "--insecure-no-reviewer-auth", "--database", &self.url()];
        let config = Config::parse_from(args);
        let Database::Postgres(url) = &config.database else { panic!("no PostgreSQL's URL") };
        let latency = Metrics::default().store();
        Arc::new(Box::pin(PostgresStore::open(url, &config.postgres, latency)).await.unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // At once; its data goes with it.
            let id = rustix::process::Pid::from_child(&process);
            let _ = rustix::process::kill_process(id, rustix::process::Signal::QUIT);
            let _ = process.wait();
        }
    }
}
