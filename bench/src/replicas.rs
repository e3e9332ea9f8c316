//! The gate over PostgreSQL, with one replica and with three, beside the one over a file.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tokio::task::JoinSet;

use crate::{
    gate::{Gateway, call, connect, decision, get, held, passes, start, start_on, waiting},
    load::{Client, Latencies},
    process::Process,
    report::{Figure, Report, count, rate},
};

/// Calls held at once, and the connections they come by, over all replicas.
const HELD: usize = 6000;
const CONNECTIONS: usize = 18;

/// Decisions measured, one after the other.
const DECISIONS: usize = 600;

/// Whom PostgreSQL runs as where the bench is root's.
const NOBODY: u32 = 65534;

/// How long PostgreSQL may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// Gates over one database.
struct Setting {
    name: &'static str,
    gates: Vec<Process>,
}

/// Measures.
pub(crate) async fn run(
    report: &mut Report,
    bin: &Path,
    folder: &Path,
    programs: &Path,
) -> anyhow::Result<()> {
    let postgres = Postgres::start(programs, &folder.join("postgres"))?;
    let over = |name: &str, count: usize| -> anyhow::Result<Vec<Process>> {
        let url = postgres.database(name)?;
        (0..count).map(|_| start_on(bin, &url, &[])).collect()
    };
    report.part(&format!(
        "hitl-extauth over PostgreSQL, beside a file: {DECISIONS} decisions, one after the other, at another \
         replica than the one that holds; {} calls at once",
        count(HELD as u64)
    ));
    let settings = [
        Setting { name: "a file, one process", gates: vec![start(bin, &folder.join("one"), &[])?] },
        Setting { name: "PostgreSQL, one replica", gates: over("one", 1)? },
        Setting { name: "PostgreSQL, three replicas", gates: over("three", 3)? },
    ];
    let mut file: Option<(String, String)> = None;
    for Setting { name, gates } in &settings {
        let release = releases(gates).await?.quantiles();
        let holds = rate(holds(gates).await?);
        let (file_release, file_holds) = file.clone().unzip();
        let what = format!("decision to release, p50, p99: {name}");
        report.add(Figure::new(what, release.clone()).beside_any(file_release));
        let what = format!("calls held a second, each durable first: {name}");
        report.add(Figure::new(what, holds.clone()).beside_any(file_holds));
        file.get_or_insert((release, holds));
    }
    Ok(())
}

/// From a decision to the release of its call.
async fn releases(gates: &[Process]) -> anyhow::Result<Latencies> {
    let (mut gateways, mut admins): (Vec<Gateway>, Vec<_>) = (Vec::new(), Vec::new());
    for gate in gates {
        gateways.push(connect(gate).await?);
        admins.push(Client::connect(gate.address("admin")?).await?);
    }
    let mut taken = Latencies::default();
    for (number, gateway) in gateways.iter().cycle().take(DECISIONS).enumerate() {
        let mut gateway = gateway.clone();
        let admin = admins.get_mut((number + 1) % gates.len()).context("no replica")?;
        let held = tokio::spawn(async move { (gateway.check(call(number)).await, Instant::now()) });
        let id = waiting(admin).await?;
        let begun = Instant::now();
        admin.exchange(&decision(&id)).await?;
        let (answer, released) = held.await?;
        taken.push(released.saturating_duration_since(begun));
        ensure!(passes(&answer?.into_inner()), "an approved call was denied");
    }
    Ok(taken)
}

/// Calls held at once: how many a second, each durable before it is held.
async fn holds(gates: &[Process]) -> anyhow::Result<f64> {
    let (mut gateways, mut admins) = (Vec::new(), Vec::new());
    for gate in gates.iter().cycle().take(CONNECTIONS) {
        gateways.push(connect(gate).await?);
    }
    for gate in gates {
        admins.push(Client::connect(gate.address("admin")?).await?);
        admins.last_mut().context("an admin")?.exchange(&get("/healthz")).await?;
    }
    let begun = Instant::now();
    let mut calls = JoinSet::new();
    for (number, gateway) in gateways.iter().cycle().take(HELD).enumerate() {
        let mut gateway = gateway.clone();
        // Others than those that were decided about.
        calls.spawn(async move { gateway.check(call(DECISIONS + number)).await });
    }
    loop {
        let mut all = 0;
        for admin in &mut admins {
            all += held(admin).await?;
        }
        if all >= HELD {
            break;
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
    Ok(HELD as f64 / begun.elapsed().as_secs_f64())
}

/// A PostgreSQL of the bench's own, with the settings it comes with; stopped when dropped.
struct Postgres {
    programs: PathBuf,
    address: SocketAddr,
    process: Child,
}

impl Postgres {
    fn start(programs: &Path, folder: &Path) -> anyhow::Result<Self> {
        let _ = std::fs::remove_dir_all(folder);
        std::fs::create_dir_all(folder)?;
        // Where PostgreSQL's user may not pass, a folder of its own elsewhere.
        let folder = &if rustix::process::geteuid().is_root() {
            let own = std::env::temp_dir().join(format!("hitl-bench-{}", std::process::id()));
            std::fs::create_dir_all(&own)?;
            chown(&own, Some(NOBODY), Some(NOBODY))?;
            own
        } else {
            folder.to_owned()
        };
        let data = folder.join("data");
        let made = program(programs, "initdb")
            .args(["--username=gate", "--auth=trust", "--encoding=UTF8", "--locale=C", "--pgdata"])
            .arg(&data)
            .output()?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let process = program(programs, "postgres")
            .args(["-c", "listen_addresses=127.0.0.1", "-p", &address.port().to_string(), "-k"])
            .arg(folder)
            .arg("-D")
            .arg(&data)
            .stderr(Stdio::null())
            .spawn()?;
        let server = Self { programs: programs.to_owned(), address, process };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() || server.database("ready").is_err() {
            ensure!(begun.elapsed() < PATIENCE, "PostgreSQL does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// A new database; gives its URL.
    fn database(&self, name: &str) -> anyhow::Result<String> {
        let made = program(&self.programs, "createdb")
            .args(["--host=127.0.0.1", "--username=gate"])
            .arg(format!("--port={}", self.address.port()))
            .arg(name)
            .output()?;
        ensure!(made.status.success(), "createdb: {}", String::from_utf8_lossy(&made.stderr));
        Ok(format!("postgres://gate@{}/{name}", self.address))
    }
}

/// A program of PostgreSQL's, as somebody who is not root.
fn program(programs: &Path, name: &str) -> Command {
    let path = programs.join(name);
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={NOBODY}")).arg(format!("--regid={NOBODY}"));
        command.arg("--clear-groups").arg(path);
        command
    } else {
        Command::new(path)
    };
    command.stdin(Stdio::null());
    command
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let id = rustix::process::Pid::from_child(&self.process);
        let _ = rustix::process::kill_process(id, rustix::process::Signal::INT);
        let _ = self.process.wait();
        if rustix::process::geteuid().is_root() {
            let own = std::env::temp_dir().join(format!("hitl-bench-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(own);
        }
    }
}
