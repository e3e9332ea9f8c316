//! `cargo xtask up --local`: builds, starts, waits, shows, follows, and ends what it started.

use std::{
    env, fs,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{
    Lab, Up, ports,
    process::Running,
    services::{Service, Tokens, local, private_folder, queue, services},
};
use crate::workspace::{self, Workspace};

/// Longest that a service may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked.
const AGAIN: Duration = Duration::from_millis(20);

/// What to start, and where
#[derive(Args)]
pub(crate) struct UpArgs {
    /// On this machine, without Docker and without a cluster; `up` by itself is for kind
    #[arg(long, required = true)]
    local: bool,

    /// Leave it running; `cargo xtask teardown` ends it
    #[arg(long)]
    detach: bool,

    /// Begin with new databases
    #[arg(long)]
    fresh: bool,

    /// How long the gate holds a call, in seconds
    #[arg(long, default_value_t = 240, value_name = "SECONDS")]
    pub(super) hold: u64,

    /// A real agentgateway in the place of the lab's own stand-in
    #[arg(long, value_name = "PATH")]
    pub(super) gateway_bin: Option<PathBuf>,

    #[command(flatten)]
    pub(super) ports: Ports,
}

/// Ports on loopback
#[derive(Args)]
pub(crate) struct Ports {
    /// The chat, and the agent's A2A endpoint
    #[arg(long = "chat-port", default_value_t = 8080, value_name = "PORT")]
    pub(super) chat: u16,

    /// The reviewer's queue
    #[arg(long = "queue-port", default_value_t = 8090, value_name = "PORT")]
    pub(super) queue: u16,

    /// The tool server, with /state
    #[arg(long = "tools-port", default_value_t = 8081, value_name = "PORT")]
    pub(super) tools: u16,

    /// The gateway
    #[arg(long = "gateway-port", default_value_t = 8088, value_name = "PORT")]
    pub(super) gateway: u16,

    /// The gate's admin API
    #[arg(long = "gate-port", default_value_t = 9081, value_name = "PORT")]
    pub(super) gate: u16,

    /// The gate's gRPC service
    #[arg(long = "checks-port", default_value_t = 9001, value_name = "PORT")]
    pub(super) checks: u16,

    /// The scripted model
    #[arg(long = "model-port", default_value_t = 8082, value_name = "PORT")]
    pub(super) model: u16,
}

impl Ports {
    fn all(&self) -> [(u16, &'static str, &'static str); 7] {
        [
            (self.chat, "the chat", "--chat-port"),
            (self.queue, "the queue", "--queue-port"),
            (self.tools, "the tool server", "--tools-port"),
            (self.gateway, "the gateway", "--gateway-port"),
            (self.gate, "the gate's admin API", "--gate-port"),
            (self.checks, "the gate's gRPC service", "--checks-port"),
            (self.model, "the scripted model", "--model-port"),
        ]
    }
}

/// What the lab runs.
const PROGRAMS: [&str; 6] =
    ["dba-assistant", "hitl-extauth", "hitl-ui", "lab", "mcp-ops-tools", "scripted-model"];

/// Starts the lab.
pub(crate) fn up(workspace: &Workspace, args: &UpArgs) -> anyhow::Result<ExitCode> {
    let lab = Lab::of(workspace);
    if let Some(up) = lab.read() {
        if up.running.iter().any(Running::is_alive) {
            bail!(
                "the lab is up already: `cargo xtask status` shows it, `cargo xtask teardown` ends it"
            );
        }
        lab.forget();
    }
    ports::distinct(&args.ports.all())?;
    all_free(&args.ports)?;
    // With the features of the whole workspace, so that nothing is compiled again for the tests.
    let mut build = workspace.cargo();
    build.args(["build", "--workspace", "--locked"]);
    build.args(PROGRAMS.iter().flat_map(|program| ["--bin", program]));
    workspace::run(&mut build)?;
    // Once more: the build may have taken minutes.
    all_free(&args.ports)?;

    if args.fresh {
        // One that is not there needs no removing.
        let _ = fs::remove_dir_all(lab.path("data"));
    }
    for folder in ["data", "logs"] {
        private_folder(&lab.path(folder)).context("a folder for the lab")?;
    }
    let tokens = Tokens::keep(&lab)?;
    let scripted =
        env::var("ANTHROPIC_API_KEY").is_ok_and(|key| !key.is_empty()).then_some(()).is_none();
    let services = services(workspace, &lab, args, scripted)?;

    // From here on Ctrl-C ends what was started.
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))
        .context("no handler of Ctrl-C")?;

    let begun = Instant::now();
    let mut up = Up { running: Vec::new(), facts: json!({}) };
    if let Err(error) = start(&lab, services, &mut up, &interrupted) {
        up.stop();
        lab.forget();
        return Err(error);
    }
    let took = begun.elapsed();
    up.facts = facts(&lab, args, &tokens, scripted);
    if let Err(error) = lab.write_down(&up) {
        up.stop();
        return Err(error);
    }
    println!("{}", up.fact("screen"));
    println!("Up in {:.1} s.", took.as_secs_f64());
    if args.detach {
        println!("It goes on by itself: `cargo xtask status`, `cargo xtask teardown`.");
        return Ok(ExitCode::SUCCESS);
    }
    println!("Ctrl-C ends it.");
    let code = follow(&up, &interrupted);
    println!("\nStopping …");
    up.stop();
    lab.forget();
    println!("Stopped. Data and logs are kept in {}.", lab.folder.display());
    Ok(code)
}

fn all_free(ports: &Ports) -> anyhow::Result<()> {
    ports.all().into_iter().try_for_each(|(port, what, flag)| ports::free(port, what, flag))
}

/// Starts every service and waits until it answers. Those that do not wait for each other begin
/// together.
fn start(
    lab: &Lab,
    services: Vec<Service>,
    up: &mut Up,
    interrupted: &AtomicBool,
) -> anyhow::Result<()> {
    let style =
        ProgressStyle::with_template("{spinner} {msg}").unwrap_or(ProgressStyle::default_spinner());
    // Shown on a terminal only.
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(Duration::from_millis(100));
    for Service { name, address, ready, mut command } in services {
        let log = lab.path("logs").join(format!("{name}.log"));
        up.running.push(Running::start(&mut command, name, address, ready, &log)?);
        lab.write_down(up)?;
    }
    for running in &up.running {
        bar.set_message(format!("waiting for {}", running.name));
        let begun = Instant::now();
        while !running.answers() {
            if interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            if !running.is_alive() {
                bail!("{} ended before it answered:\n{}", running.name, running.last_lines());
            }
            if begun.elapsed() > PATIENCE {
                bail!(
                    "{} does not answer at {}:\n{}",
                    running.name,
                    running.address,
                    running.last_lines()
                );
            }
            std::thread::sleep(AGAIN);
        }
    }
    bar.finish_and_clear();
    all_well(&up.running)
}

/// Whether all of them are there together. One may have ended since it answered, or another program
/// has answered in its place.
///
/// # Errors
/// Names one that is not, with the end of its log.
fn all_well(running: &[Running]) -> anyhow::Result<()> {
    for one in running {
        if !one.is_alive() {
            bail!("{} ended while the others came up:\n{}", one.name, one.last_lines());
        }
        if !one.answers() {
            bail!("{} answers no more at {}:\n{}", one.name, one.address, one.last_lines());
        }
    }
    Ok(())
}

/// What there is to know: for the screen, and for those who come later.
fn facts(lab: &Lab, args: &UpArgs, tokens: &Tokens, scripted: bool) -> serde_json::Value {
    let ports = &args.ports;
    let (reviewer, token) = tokens.first();
    let url = |port: u16| format!("http://localhost:{port}");
    let link = format!("{}/login#token={token}", queue(ports.queue));
    let model = if scripted {
        "scripted, by rule: set ANTHROPIC_API_KEY for a real one".to_owned()
    } else {
        "claude-haiku-4-5, with the key in ANTHROPIC_API_KEY".to_owned()
    };
    let gateway = match &args.gateway_bin {
        Some(program) => program.display().to_string(),
        None => "a stand-in for one machine".to_owned(),
    };
    let screen = format!(
        "
  Chat       {}
  Queue      {link}
             (fills in {reviewer}'s token, and you press Sign in; in another browser, or in a private window.
             Where queue.localhost does not resolve, as in Safari: 127.0.0.1 in its place)
  Database   curl {}/state
  Model      {model}
  Gateway    {} ({gateway})
  Held for   {} s
  Data, logs {}

  The scenes: cargo xtask scenes            by themselves
              cargo xtask scenes --guide    by you, step by step
",
        url(ports.chat),
        url(ports.tools),
        url(ports.gateway),
        args.hold,
        lab.folder.display(),
    );
    json!({
        "agent": format!("http://{}", local(ports.chat)),
        "chat": url(ports.chat),
        "gate": format!("http://{}", local(ports.gate)),
        "tools": format!("http://{}", local(ports.tools)),
        "queue": link,
        "token": token,
        "screen": screen,
    })
}

/// Waits until Ctrl-C, or until a service dies; says which, and with which last words.
fn follow(up: &Up, interrupted: &AtomicBool) -> ExitCode {
    loop {
        if interrupted.load(Ordering::Relaxed) {
            return ExitCode::SUCCESS;
        }
        if let Some(gone) = up.running.iter().find(|running| !running.is_alive()) {
            println!("\n{} has ended. Its last words:\n{}", gone.name, gone.last_lines());
            return ExitCode::FAILURE;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, process::Command};

    use super::*;

    #[test]
    fn a_lab_is_not_up_while_one_of_its_processes_is_gone_though_its_port_answers() {
        // Somebody else, who answers in the place of the one that could not.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 512]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            }
        });
        let log = env::temp_dir().join(format!("lab-up-{}.log", std::process::id()));
        let start = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            Running::start(&mut command, "dba-assistant", address, "/health", &log).unwrap()
        };
        let well = start("exec sleep 60");
        all_well(std::slice::from_ref(&well)).unwrap();
        well.stop();
        let gone = start("echo the port is taken; exit 1");
        let begun = Instant::now();
        while gone.is_alive() {
            assert!(begun.elapsed() < PATIENCE);
            std::thread::sleep(AGAIN);
        }
        assert!(gone.answers());
        let error = all_well(&[gone]).unwrap_err().to_string();
        assert!(error.contains("dba-assistant ended") && error.contains("is taken"), "{error}");
        fs::remove_file(log).unwrap();
    }
}
