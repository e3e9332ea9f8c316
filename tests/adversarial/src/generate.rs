//! Requests that are nearly right.
//!
//! A message of MCP, then some of: members repeated, renamed, added, moved or taken away; other
//! spacing, another encoding, other headers, another path, a few bytes changed. Owns the choice of
//! tricks; each of them has once made two programs read one request differently.
//! Invariant: the same seed gives the same cases.

mod body;
mod headers;
mod keys;
mod target;
mod values;

use fastrand::Rng;

use self::keys::{KEYS, PRIVATE, disguised, folding};
use crate::{
    case::Case,
    json::{Node, object, raw, text, write},
};

/// Makes cases, without end.
#[derive(Debug)]
pub struct Generator {
    rng: Rng,
}

/// A message before it is written, with what its headers may say of it.
struct Draft {
    message: Node,
    method: &'static str,
    name: Option<&'static str>,
    /// Whether it is one of 2026-07-28, which repeats its method in headers.
    mirrored: bool,
}

const METHODS: [&str; 32] = [
    "tools/call",
    "tools/list",
    "ping",
    "initialize",
    "notifications/initialized",
    "notifications/cancelled",
    "resources/read",
    "prompts/get",
    "server/discover",
    "tasks/get",
    "Tools/Call",
    "TOOLS/CALL",
    "tools/call ",
    " tools/call",
    "tools//call",
    "tools/call/",
    "tools/call\0",
    "tools\u{2215}call",
    "notifications/../tools/call",
    "notifications/x/../../tools/call",
    "notifications/..\\tools/call",
    "notifications/%2e%2e/tools/call",
    "notifications/..%2ftools/call",
    "notifications//tools/call",
    "notifications/./tools/call",
    "notifications/",
    "notifications/..",
    "./tools/call",
    "tools/./call",
    "tools/list/../call",
    "/tools/call",
    "notifications/..;/tools/call",
];

impl Generator {
    /// A generator of the cases of a seed.
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed) }
    }

    /// The next case.
    pub fn case(&mut self) -> Case {
        let mut draft = self.draft();
        // Most cases have one or two things wrong with them: with more, no server reads them at all.
        for _ in 0..self.few() {
            self.mutate(&mut draft.message);
        }
        let mut headers = self.headers(&draft);
        let written = write(&draft.message, self.hand(), &mut self.rng);
        let mut body = self.encoded(written, &mut headers);
        if self.one_in(8) {
            self.scratch(&mut body);
        }
        let (method, path) = self.target();
        Case { method, path, headers, body }
    }

    fn one_in(&mut self, many: u32) -> bool {
        self.rng.u32(..many) == 0
    }

    fn few(&mut self) -> u8 {
        match self.rng.u8(..10) {
            0..=4 => 0,
            5..=7 => 1,
            8 => 2,
            _ => self.rng.u8(3..6),
        }
    }

    fn any<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        self.rng.choice(choices).copied().unwrap_or_default()
    }

    fn draft(&mut self) -> Draft {
        let mirrored = self.one_in(4);
        let (method, name, params) = match self.rng.u8(..12) {
            0..=5 => ("tools/call", Some("run_migration"), self.call_params(mirrored)),
            6 => ("tools/list", None, object([])),
            7 => ("ping", None, object([])),
            8 => ("notifications/initialized", None, object([])),
            9 => ("server/discover", None, object([])),
            10 => return self.response(),
            _ => {
                let info = object([("name", text("a")), ("version", text("0"))]);
                let params = object([
                    ("protocolVersion", text("2025-11-25")),
                    ("capabilities", object([])),
                    ("clientInfo", info),
                ]);
                ("initialize", None, params)
            }
        };
        let params = match (mirrored, params) {
            (true, Node::Object(mut members)) => {
                members.push(("_meta".to_owned(), meta()));
                Node::Object(members)
            }
            (_, params) => params,
        };
        let mut message = vec![("jsonrpc".to_owned(), text("2.0"))];
        if !method.starts_with("notifications/") {
            message.push(("id".to_owned(), self.id()));
        }
        message.push(("method".to_owned(), text(method)));
        message.push(("params".to_owned(), params));
        Draft { message: Node::Object(message), method, name, mirrored }
    }

    fn response(&mut self) -> Draft {
        let message = object([
            ("jsonrpc", text("2.0")),
            ("id", self.id()),
            ("result", object([("roots", Node::List(Vec::new()))])),
        ]);
        Draft { message, method: "", name: None, mirrored: false }
    }

    fn mutate(&mut self, message: &mut Node) {
        let value = self.value();
        let key = self.any(&KEYS).to_owned();
        let rng = &mut self.rng;
        let choice = rng.u8(..15);
        if choice == 0 {
            return self.wrap(message);
        }
        if choice == 1 {
            *message.pick(rng) = value;
            return;
        }
        let Some(members) = message.pick_object(rng) else { return };
        let at = rng.usize(..=members.len());
        let old = members.get(at).cloned();
        match (choice, old) {
            // The same key again, before or behind, with another value.
            (2..=4, Some((key, old))) => {
                let again = if rng.bool() { value } else { old };
                let place = rng.usize(..=members.len());
                members.insert(place, (key, again));
            }
            (5, Some((key, _))) => {
                if let Some(member) = members.get_mut(at) {
                    member.0 = disguised(&key, rng);
                }
            }
            (6, Some(_)) => {
                members.remove(at);
            }
            (7, Some(_)) => {
                if let Some(member) = members.get_mut(at) {
                    member.1 = value;
                }
            }
            (8, _) => rng.shuffle(members),
            // A key that folds to one that is there.
            (9 | 10, Some((key, old))) => {
                let place = rng.usize(..=members.len());
                let again = if rng.bool() { value } else { old };
                members.insert(place, (folding(&key, rng), again));
            }
            // A private key of a JSON library: first, last or alone.
            (11, _) => {
                let key = rng.choice(&PRIVATE).copied().unwrap_or_default().to_owned();
                let place = if rng.bool() { 0 } else { members.len() };
                members.insert(place, (key, value));
            }
            // One more member, under a key that means something to some server.
            _ => members.insert(at, (key, value)),
        }
    }

    fn wrap(&mut self, message: &mut Node) {
        let inner = std::mem::replace(message, raw("null"));
        let other = object([
            ("jsonrpc", text("2.0")),
            ("id", raw("8")),
            ("method", text(self.any(&METHODS))),
            ("params", self.call_params(false)),
        ]);
        *message = match self.rng.u8(..6) {
            0 => Node::List(vec![inner]),
            1 => Node::List(vec![inner, other]),
            2 => Node::List(vec![other, inner]),
            3 => object([("0", inner), ("length", raw("1"))]),
            4 => object([("jsonrpc", text("2.0")), ("id", raw("7")), ("result", inner)]),
            _ => Node::List(vec![Node::List(vec![inner])]),
        };
    }
}

fn meta() -> Node {
    let client = object([("name", text("a")), ("version", text("0"))]);
    object([
        ("io.modelcontextprotocol/protocolVersion", text("2026-07-28")),
        ("io.modelcontextprotocol/clientInfo", client),
        ("io.modelcontextprotocol/clientCapabilities", object([])),
    ])
}
