//! What the lab is made of, in the order it is started.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::{Lab, up::UpArgs};
use crate::workspace::Workspace;

/// Reviewers of the lab.
const REVIEWERS: [&str; 2] = ["dana", "lee"];

/// One service: how it is started, and how it is seen that it is up.
pub(super) struct Service {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    pub(super) ready: &'static str,
    pub(super) command: Command,
}

/// Tokens of the reviewers, by name.
pub(super) struct Tokens(Vec<(String, String)>);

impl Tokens {
    /// Those of earlier, or new ones; and the file that the gate knows them by.
    pub(super) fn keep(lab: &Lab) -> anyhow::Result<Self> {
        let file = lab.path("tokens");
        let kept = fs::read_to_string(&file).unwrap_or_default();
        let mut tokens: Vec<(String, String)> = Vec::new();
        for name in REVIEWERS {
            let known = kept.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            let token = match known {
                Some(token) => token.to_owned(),
                None => random()?,
            };
            tokens.push((name.to_owned(), token));
        }
        let lines: Vec<_> = tokens.iter().map(|(name, token)| format!("{name} {token}")).collect();
        write_private(&file, &(lines.join("\n") + "\n"))?;
        let reviewers = tokens.iter().map(|(name, token)| {
            format!("- name: {name}\n  groups: [dba]\n  token_sha256: {}\n", sha256(token))
        });
        let reviewers = format!("reviewers:\n{}", reviewers.collect::<String>());
        write_private(&lab.path("reviewers.yaml"), &reviewers)?;
        Ok(Self(tokens))
    }

    /// The first reviewer's name and token.
    pub(super) fn first(&self) -> (&str, &str) {
        self.0.first().map_or(("", ""), |(name, token)| (name, token))
    }
}

fn random() -> anyhow::Result<String> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(hex(&bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

fn sha256(text: &str) -> String {
    use sha2::{Digest as _, Sha256};
    hex(&Sha256::digest(text))
}

/// Writes a file that nobody else can read.
pub(super) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    Ok(create_private(path)?.write_all(text.as_bytes())?)
}

/// Empties a file, or makes it: only its owner reads it, whatever the umask and whoever did before.
pub(super) fn create_private(path: &Path) -> anyhow::Result<fs::File> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let mut options = fs::OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(0o600);
    let file = options.open(path).with_context(|| path.display().to_string())?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Makes a folder, and those around it, that only its owner opens.
pub(super) fn private_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// An address on loopback.
pub(super) fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// The queue's address for people. Cookies know no ports, so on `localhost` the reviewer's session would reach the
/// chat, too: the queue has a name of its own, which browsers resolve to loopback.
pub(super) fn queue(port: u16) -> String {
    format!("http://queue.localhost:{port}")
}

/// What every service is made from.
struct Maker<'a> {
    workspace: &'a Workspace,
    lab: &'a Lab,
    args: &'a UpArgs,
}

/// The services, in the order they are started.
pub(super) fn services(
    workspace: &Workspace,
    lab: &Lab,
    args: &UpArgs,
    scripted: bool,
) -> anyhow::Result<Vec<Service>> {
    let maker = Maker { workspace, lab, args };
    let mut services = Vec::new();
    if scripted {
        let listen = format!("--listen={}", local(args.ports.model));
        services.push(maker.ours("scripted-model", args.ports.model, "/healthz", vec![listen]));
    }
    services.extend([maker.gate(), maker.tools(), maker.gateway()?, maker.queue()]);
    services.push(maker.agent(scripted));
    Ok(services)
}

impl Maker<'_> {
    fn service(
        &self,
        name: &'static str,
        port: u16,
        ready: &'static str,
        program: PathBuf,
        words: Vec<String>,
    ) -> Service {
        let mut command = self.workspace.command(program);
        for (variable, _) in std::env::vars_os() {
            // Only what is said here counts, and what the model needs.
            let foreign = [
                "HITL_",
                "OPS_TOOLS_",
                "DBA_",
                "KAGENT_",
                "SCRIPTED_",
                "PORT",
                "GRPC_PORT",
                "HTTP_PORT",
                "PARK_",
            ];
            if foreign.iter().any(|prefix| variable.to_string_lossy().starts_with(prefix)) {
                command.env_remove(variable);
            }
        }
        // All of it is here.
        command.args(words).env("NO_PROXY", "127.0.0.1,localhost");
        Service { name, address: local(port), ready, command }
    }

    fn ours(
        &self,
        name: &'static str,
        port: u16,
        ready: &'static str,
        words: Vec<String>,
    ) -> Service {
        self.service(name, port, ready, self.workspace.binary(name), words)
    }

    fn data(&self, name: &str) -> String {
        self.lab.path("data").join(name).display().to_string()
    }

    fn url(port: u16) -> String {
        format!("http://{}", local(port))
    }

    fn gate(&self) -> Service {
        let ports = &self.args.ports;
        let words = vec![
            format!("--admin-listen={}", local(ports.gate)),
            format!("--grpc-listen={}", local(ports.checks)),
            format!("--database={}", self.data("gate.db")),
            format!("--receipt-key={}", self.data("receipts.pem")),
            format!("--reviewers={}", self.lab.path("reviewers.yaml").display()),
            format!("--hold={}", self.args.hold),
        ];
        self.ours("hitl-extauth", ports.gate, "/readyz", words)
    }

    fn tools(&self) -> Service {
        let ports = &self.args.ports;
        let words = vec![
            format!("--listen={}", local(ports.tools)),
            format!("--database={}", self.data("orders.db")),
            format!("--receipt-keys={}/.well-known/jwks.json", Self::url(ports.gate)),
        ];
        self.ours("mcp-ops-tools", ports.tools, "/healthz", words)
    }

    /// The lab's own stand-in, or the real one that is named.
    fn gateway(&self) -> anyhow::Result<Service> {
        let ports = &self.args.ports;
        let Some(program) = &self.args.gateway_bin else {
            let words = vec![
                "gateway".to_owned(),
                format!("--listen={}", local(ports.gateway)),
                format!("--tools={}", Self::url(ports.tools)),
                format!("--gate={}", Self::url(ports.checks)),
            ];
            let program = self.workspace.binary("lab");
            return Ok(self.service("gateway", ports.gateway, "/", program, words));
        };
        let template = self.workspace.path("tests/gateway/agentgateway.yaml");
        let text = fs::read_to_string(&template).with_context(|| template.display().to_string())?;
        let text = text
            .replace("{{LISTEN}}", &ports.gateway.to_string())
            .replace("{{TOOLS}}", &ports.tools.to_string())
            .replace("{{GATE}}", &ports.checks.to_string());
        let config = self.lab.path("agentgateway.yaml");
        fs::write(&config, text)?;
        let words = vec!["-f".to_owned(), config.display().to_string()];
        Ok(self.service("agentgateway", ports.gateway, "/", program.clone(), words))
    }

    fn queue(&self) -> Service {
        let ports = &self.args.ports;
        let tools = Self::url(ports.tools);
        let words = vec![
            format!("--listen={}", local(ports.queue)),
            format!("--url={}", queue(ports.queue)),
            format!("--gate={}", Self::url(ports.gate)),
            format!("--ops-tools={tools}"),
            format!("--mcp=mcp-ops-tools={tools}/privileged/mcp"),
        ];
        self.ours("hitl-ui", ports.queue, "/healthz", words)
    }

    fn agent(&self, scripted: bool) -> Service {
        let ports = &self.args.ports;
        let gateway = Self::url(ports.gateway);
        let mut words = vec![
            format!("--listen={}", local(ports.chat)),
            format!("--public-tools={gateway}/public/mcp"),
            format!("--privileged-tools={gateway}/privileged/mcp"),
            format!("--database={}", self.data("tasks.db")),
            // More than the gate holds a call.
            format!("--call-limit={}", self.args.hold.saturating_add(60)),
        ];
        if scripted {
            words.push(format!("--model-url={}", Self::url(ports.model)));
            words.push("--api-key=none-needed".to_owned());
            words.push("--model=scripted".to_owned());
        }
        self.ours("dba-assistant", ports.chat, "/health", words)
    }
}
