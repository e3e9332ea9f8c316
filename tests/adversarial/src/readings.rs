//! Three readings of a call, through a real Envoy and the real gate: what the server behind ran, what
//! `/pending` showed to the reviewer, and what the receipt signed.
//!
//! Invariant: a call that a server runs on the privileged route was shown once, is signed once, and is
//! run once, as it was shown; every other outcome is a failure.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Args;
use hitl_adversarial::{case::Case, generate::Generator, path::lenient};
use hitl_api::Request as Shown;
use hitl_extauth::classify::Class;
use hitl_receipt::{ArgsDigest, Claims, DEFAULT_ISSUER, KeySet, Verifier};
use tokio::task::JoinSet;

use crate::{
    compare::report,
    reviewer,
    server::{Executed, connect, executed_by},
    wire,
};

/// Requests in flight through each door.
const AT_ONCE: usize = 6;

/// Numbers of cases at one door begin this far from those at another.
const APART: usize = 10_000_000;

/// The name of the server behind in receipts, as the gateway's configuration has it.
const AUDIENCE: &str = "mcp-ops-tools";

/// What to send where
#[derive(Args)]
pub(crate) struct ReadingsArgs {
    /// The gate, where reviewers decide; it takes requesters from the header x-case
    #[arg(long, value_name = "ADDRESS")]
    admin: SocketAddr,

    /// A server, and an Envoy in front of it
    #[arg(long = "door", value_name = "KIND=ENVOY/SERVER/PATH", required = true)]
    doors: Vec<Door>,

    /// Folder of requests that are all sent
    #[arg(long, value_name = "FOLDER")]
    corpus: PathBuf,

    /// Requests to generate beside them
    #[arg(long, default_value_t = 300, value_name = "COUNT")]
    cases: usize,

    /// The same seed gives the same requests; random unless given
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    /// Folder that requests which show a difference are written to, in the form of the corpus
    #[arg(long, value_name = "FOLDER")]
    keep: PathBuf,
}

/// A server, and an Envoy in front of it.
#[derive(Clone, Debug)]
struct Door {
    kind: String,
    envoy: SocketAddr,
    server: SocketAddr,
    path: String,
}

impl FromStr for Door {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').and_then(|(kind, rest)| {
            let (envoy, rest) = rest.split_once('/')?;
            let (server, path) = rest.split_once('/')?;
            Some((kind, envoy.parse().ok()?, server.parse().ok()?, path))
        });
        let (kind, envoy, server, path) = parts.ok_or("write it as KIND=ENVOY/SERVER/PATH")?;
        Ok(Self { kind: kind.to_owned(), envoy, server, path: format!("/privileged/{path}") })
    }
}

pub(crate) async fn run(args: ReadingsArgs) -> anyhow::Result<()> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    let mut generator = Generator::new(seed);
    let mut cases = corpus(&args.corpus)?;
    println!("{} requests of the corpus, {} of --seed {seed}", cases.len(), args.cases);
    cases.extend((0..args.cases).map(|_| likely(&mut generator)));
    let cases = Arc::new(cases);

    let stopping = Arc::new(AtomicBool::new(false));
    let reviewer = tokio::spawn(reviewer::approve_all(args.admin, Arc::clone(&stopping)));
    let mut sending = JoinSet::new();
    for (number, door) in args.doors.iter().enumerate() {
        let next = Arc::new(AtomicUsize::new(0));
        for _ in 0..AT_ONCE {
            let first = number * APART;
            sending.spawn(send_all(door.clone(), first, Arc::clone(&next), Arc::clone(&cases)));
        }
    }
    while let Some(sent) = sending.join_next().await {
        sent??;
    }
    stopping.store(true, Ordering::Relaxed);
    let shown = reviewer.await??;

    let mut connection = connect(args.admin).await?;
    let keys = reviewer::get(&mut connection, args.admin, "/.well-known/jwks.json").await?;
    let keys = KeySet::parse(std::str::from_utf8(&keys)?)?;
    let readings = Readings { shown: &shown, keys };
    let mut wrong = readings.unlike_classes(&cases);
    let executed = all_executed(&args.doors).await?;
    let mut same = 0;
    for (number, door) in args.doors.iter().enumerate() {
        let through = executed.iter().filter(|call| call.case / APART == number);
        let through: Vec<_> = through.collect();
        println!("{}{}: ran {} calls behind Envoy", door.kind, door.path, through.len());
        // Otherwise nothing was compared.
        if through.len() * 20 < cases.len() {
            bail!("{} ran next to nothing; the comparison says nothing", door.kind);
        }
        let found = readings.compare(&cases, door, &through);
        same += through.len().saturating_sub(found.len());
        wrong.extend(found);
    }
    wrong.sort();
    report(&args.keep, &cases, &wrong)?;
    println!("{same} calls ran as they were shown and signed; no difference");
    Ok(())
}

/// What all servers have run. Doors may share a server.
async fn all_executed(doors: &[Door]) -> anyhow::Result<Vec<Executed>> {
    let mut servers: Vec<_> = doors.iter().map(|door| door.server).collect();
    servers.sort();
    servers.dedup();
    let mut executed = Vec::new();
    for server in servers {
        executed.extend(executed_by(server).await?);
    }
    Ok(executed)
}

fn corpus(folder: &PathBuf) -> anyhow::Result<Vec<Case>> {
    let mut paths = std::fs::read_dir(folder)
        .with_context(|| folder.display().to_string())?
        .map(|entry| Ok(entry?.path()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    paths.sort();
    paths.iter().map(|path| Ok(Case::parse(&std::fs::read(path)?))).collect()
}

/// A generated case. Most are refused and reach no server: of those few are enough.
fn likely(generator: &mut Generator) -> Case {
    let mut case = generator.case();
    for _ in 0..8 {
        if !matches!(case.classify(), Class::Refuse(_)) {
            break;
        }
        case = generator.case();
    }
    case
}

async fn send_all(
    door: Door,
    first: usize,
    next: Arc<AtomicUsize>,
    cases: Arc<Vec<Case>>,
) -> anyhow::Result<()> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(case) = cases.get(number) else { return Ok(()) };
        let request = wire::request(case, &door.path, first + number, door.envoy);
        wire::send(door.envoy, &request)
            .await
            .with_context(|| format!("{}: {}", door.kind, request.escape_ascii()))?;
    }
}

/// What was shown, and the keys that receipts are verified with.
struct Readings<'a> {
    shown: &'a reviewer::ByCase,
    keys: KeySet,
}

impl Readings<'_> {
    /// Requests that were shown and that are another call, or none, in this process.
    fn unlike_classes(&self, cases: &[Case]) -> Vec<(usize, String)> {
        let shown = self
            .shown
            .iter()
            .flat_map(|(number, all)| all.iter().map(move |shown| (number % APART, shown)));
        shown
            .filter_map(|(number, shown)| {
                let class = behind_envoy(cases.get(number)?).classify();
                let same = matches!(&class, Class::Gate(call)
                    if call.tool == shown.tool_name && call.arguments == shown.tool_args);
                (!same).then(|| (number, format!("/pending shows {shown:?}, and it is {class:?}")))
            })
            .collect()
    }

    /// Calls that a server ran and that differ from what was shown or signed.
    fn compare(&self, cases: &[Case], door: &Door, executed: &[&Executed]) -> Vec<(usize, String)> {
        let mut times = HashMap::<usize, usize>::new();
        let mut wrong = Vec::new();
        for call in executed {
            let number = call.case % APART;
            let ran = times.entry(number).or_default();
            *ran += 1;
            let why = match cases.get(number) {
                Some(case) => self.differs(case, door, call, *ran).err(),
                None => Some("no case has its number".to_owned()),
            };
            if let Some(why) = why {
                wrong.push((number, format!("{} runs {call:?}: {why}", door.kind)));
            }
        }
        wrong
    }

    /// Compares the three readings of one call that was run.
    fn differs(&self, case: &Case, door: &Door, call: &Executed, ran: usize) -> Result<(), String> {
        if ran > 1 {
            return Err(format!("it ran {ran} times"));
        }
        let sent = case.path.as_deref().unwrap_or(&door.path);
        let privileged = |path: &str| lenient(path).starts_with("/privileged");
        if !privileged(sent) && !privileged(&call.path) {
            // The public route: nothing is shown, and no header of the gate comes with it.
            return Ok(());
        }
        let shown = match self.shown.get(&call.case).map(Vec::as_slice) {
            Some([shown]) => shown,
            None | Some([]) => return Err("it was not shown to a reviewer".to_owned()),
            Some(several) => return Err(format!("it was shown {} times", several.len())),
        };
        if let Some(why) = call.differs_from(&shown.tool_name, &shown.tool_args) {
            return Err(format!(
                "{why}; /pending showed {} {:?}",
                shown.tool_name, shown.tool_args
            ));
        }
        self.signed(call, shown)
    }

    /// Whether the receipt is one of this request, for the tool and the arguments that ran.
    fn signed(&self, call: &Executed, shown: &Shown) -> Result<(), String> {
        let of_the_gate = |(name, _): &&(String, String)| {
            let known = [hitl_receipt::HEADER, "x-hitl-approval-id"];
            known.iter().any(|known| name.eq_ignore_ascii_case(known))
        };
        if let Some(forged) = call.hitl.iter().find(|header| !of_the_gate(header)) {
            return Err(format!(
                "the server gets the header {forged:?}, which the gate did not set"
            ));
        }
        let values = |wanted: &str| {
            let named = call.hitl.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
            named.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
        };
        if values("x-hitl-approval-id") != [shown.id.to_string()] {
            return Err("its approval id is not the one of the request".to_owned());
        }
        let receipts = values(hitl_receipt::HEADER);
        let [receipt] = receipts.as_slice() else {
            return Err(format!("it has {} receipts", receipts.len()));
        };
        let arguments = call.arguments().ok_or("its arguments are not an object")?;
        let digest = ArgsDigest::of(Some(&arguments)).map_err(|error| error.to_string())?;
        // Verified as of when it was issued: the comparison is made after all have run.
        let issued = claims(receipt).ok_or("its receipt cannot be read")?.iat;
        let verifier = Verifier::new(DEFAULT_ISSUER, AUDIENCE);
        let claims = verifier
            .verify(&self.keys, receipt, issued, &call.tool, &digest)
            .map_err(|refusal| format!("its receipt does not cover what ran: {refusal}"))?;
        if claims.sub.as_deref() != Some(&shown.requester.name) {
            return Err(format!("its receipt is of the requester {:?}", claims.sub));
        }
        Ok(())
    }
}

/// A case without the headers that are for the next hop alone, which Envoy does not hand on.
fn behind_envoy(case: &Case) -> Case {
    let mut case = case.clone();
    case.headers.retain(|(name, _)| {
        let name = name.to_ascii_lowercase();
        !["connection", "upgrade", "http2-settings"].contains(&name.as_str())
    });
    case
}

/// The claims of a receipt, not verified.
fn claims(receipt: &str) -> Option<Claims> {
    let payload = URL_SAFE_NO_PAD.decode(receipt.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&payload).ok()
}
