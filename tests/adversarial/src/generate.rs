//! Requests that are nearly right.
//!
//! A message of MCP, then some of: members repeated, renamed, added, moved or taken away; another
//! hand, another encoding, other headers, a few bytes changed. Owns the choice of tricks; every one
//! of them has once made two programs read one body differently. The same seed gives the same cases.

use fastrand::Rng;

use crate::{
    case::Case,
    encode,
    json::{Hand, Node, object, raw, text, write},
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

const METHODS: [&str; 18] = [
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
];

const KEYS: [&str; 34] = [
    "method",
    "Method",
    "METHOD",
    "methoD",
    "method ",
    " method",
    "method\0",
    "\u{feff}method",
    "params",
    "Params",
    "PARAMS",
    "param\u{17f}",
    "params\0",
    "id",
    "ID",
    "Id",
    "\u{131}d",
    "jsonrpc",
    "JSONRPC",
    "json\u{200b}rpc",
    "result",
    "Result",
    "error",
    "Error",
    "name",
    "Name",
    "arguments",
    "Arguments",
    "argument\u{17f}",
    "_meta",
    "__proto__",
    "constructor",
    "task",
    "",
];

const CONTENT_TYPES: [&str; 34] = [
    "application/json; charset=utf-8",
    "application/json;charset=UTF-8",
    "application/json; charset=\"utf-8\"",
    "application/json; charset=utf-7",
    "application/json; charset=\"utf-7\"",
    "application/json; charset=utf-7; charset=utf-8",
    "application/json; charset=utf-8; charset=utf-7",
    "application/json; x; charset=utf-7",
    "application/json; charset=utf-7-imap",
    "application/json; charset=utf-16",
    "application/json; charset=utf-16le",
    "application/json; charset=utf-16be",
    "application/json; charset=utf-32",
    "application/json; charset=latin1",
    "application/json; charset=",
    "application/json; charset=utf8",
    "application/json;",
    "application/json ;x=y",
    "application/json, text/plain",
    "application/json, application/json",
    "text/plain, application/json",
    "APPLICATION/JSON",
    "Application/Json; Charset=UTF-7",
    "application/jsonrpc",
    "application/json-rpc",
    "application/vnd.api+json",
    "application/json5",
    "text/json",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/ json",
    "*/*",
    "",
];

impl Generator {
    /// A generator of the cases of a seed.
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed) }
    }

    /// The next case.
    pub fn case(&mut self) -> Case {
        let mut draft = self.draft();
        // Most cases have one or two things wrong with them: with more, nobody reads them at all.
        for _ in 0..self.few() {
            self.mutate(&mut draft.message);
        }
        let mut headers = self.headers(&draft);
        let written = write(&draft.message, self.hand(), &mut self.rng);
        let mut body = self.encoded(written, &mut headers);
        if self.one_in(8) {
            self.scratch(&mut body);
        }
        Case { headers, body }
    }

    fn one_in(&mut self, many: u32) -> bool {
        self.rng.u32(..many) == 0
    }

    fn few(&mut self) -> u8 {
        match self.rng.u8(..10) {
            0..=3 => 0,
            4..=6 => 1,
            7..=8 => 2,
            _ => self.rng.u8(3..6),
        }
    }

    fn any<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        self.rng.choice(choices).copied().unwrap_or_default()
    }

    fn id(&mut self) -> Node {
        let id = self.any(&[
            "1",
            "0",
            "-1",
            "\"a\"",
            "\"\"",
            "null",
            "1.0",
            "1e2",
            "9007199254740993",
            "true",
            "[1]",
            "{}",
            "18446744073709551616",
        ]);
        // Mostly an id that everybody takes.
        if self.one_in(6) { raw(id) } else { raw("7") }
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

    fn call_params(&mut self, mirrored: bool) -> Node {
        let arguments = match self.rng.u8(..10) {
            0 => return object([("name", text("run_migration"))]),
            1 => object([]),
            2 => {
                let number = self.number();
                object([("version", text("v3")), ("number", number)])
            }
            3 => self.deep(),
            4 => object([("version", text("v\u{e9}\u{1f600}\u{fffd}"))]),
            5 => object([("version", text("v3")), ("Version", text("v1"))]),
            6 => {
                object([("version", text("v3")), ("__proto__", object([("version", text("v1"))]))])
            }
            _ => object([("version", text("v3"))]),
        };
        let mut members =
            vec![("name".to_owned(), text("run_migration")), ("arguments".to_owned(), arguments)];
        if !mirrored && self.one_in(8) {
            let token = self.number();
            members.push(("_meta".to_owned(), object([("progressToken", token)])));
        }
        Node::Object(members)
    }

    fn number(&mut self) -> Node {
        raw(self.any(&[
            "1",
            "1.0",
            "-0",
            "0.1",
            "1e2",
            "1E+2",
            "1e400",
            "-1e400",
            "9007199254740992",
            "9007199254740993",
            "1e-400",
            "123456789012345678901234567890",
            "NaN",
            "Infinity",
            "0x10",
            "01",
            "1.",
            ".5",
            "+1",
            "0.30000000000000004",
            "2.5e-324",
            "4503599627370E96",
            "true",
            "null",
        ]))
    }

    fn deep(&mut self) -> Node {
        let depth = *self.rng.choice(&[3, 60, 63, 64, 65, 130, 190, 300]).unwrap_or(&3);
        let (open, close) = if self.rng.bool() { ("[", "]") } else { ("{\"a\":", "}") };
        let nested = format!("{}1{}", open.repeat(depth), close.repeat(depth));
        object([("deep", raw(&nested))])
    }

    fn value(&mut self) -> Node {
        match self.rng.u8(..9) {
            0..=2 => {
                let method = self.any(&METHODS);
                text(method)
            }
            3 => self.call_params(false),
            4 => self.number(),
            5 => object([]),
            6 => Node::List(Vec::new()),
            7 => text("2.0"),
            _ => object([("method", text("tools/call")), ("params", self.call_params(false))]),
        }
    }

    fn mutate(&mut self, message: &mut Node) {
        let value = self.value();
        let key = self.any(&KEYS).to_owned();
        let rng = &mut self.rng;
        let choice = rng.u8(..12);
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
            // A member more, under a key that means something to somebody.
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

    fn hand(&mut self) -> Hand {
        let mut hand = Hand::default();
        if self.one_in(3) {
            hand.escapes = *self.rng.choice(&[5, 30, 100]).unwrap_or(&5);
        }
        if self.one_in(3) {
            hand.spaces = *self.rng.choice(&[10, 60]).unwrap_or(&10);
            hand.odd_spaces = if self.one_in(8) { 10 } else { 0 };
        }
        hand
    }

    fn headers(&mut self, draft: &Draft) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        let mut add = |name: &str, value: &str| headers.push((name.to_owned(), value.to_owned()));
        let json = "application/json";
        add("content-type", if self.one_in(5) { self.any(&CONTENT_TYPES) } else { json });
        if self.one_in(60) {
            add("content-type", self.any(&CONTENT_TYPES));
        }
        if self.one_in(40) {
            add("content-encoding", self.any(&["identity", "gzip", "", "br", "x"]));
        }
        if draft.mirrored {
            add("mcp-protocol-version", "2026-07-28");
            add(
                "mcp-method",
                if self.one_in(12) { self.any(&METHODS).trim() } else { draft.method },
            );
            if let Some(name) = draft.name {
                add("mcp-name", if self.one_in(12) { "cluster_db_query" } else { name });
            }
        } else if self.one_in(3) {
            add("mcp-protocol-version", self.any(&["2025-11-25", "2025-06-18", "2025-03-26", "x"]));
            if self.one_in(6) {
                add("mcp-method", self.any(&["ping", "tools/list", "tools/call"]));
            }
        }
        // Of these names NUL is no header value.
        headers.retain(|(_, value)| !value.contains('\0'));
        headers.retain(|(_, value)| value.is_ascii());
        headers
    }

    fn encoded(&mut self, written: String, headers: &mut Vec<(String, String)>) -> Vec<u8> {
        let charset = headers.iter().find(|(name, _)| name == "content-type");
        let charset = charset.map(|(_, value)| value.to_ascii_lowercase()).unwrap_or_default();
        // A charset that is announced is mostly the one that is used.
        if charset.contains("utf-7") && !self.one_in(4) {
            let all = self.rng.bool();
            let tools = |letter| letter == 't' || letter == '/';
            return encode::utf7(&written, |letter| {
                if all { "{}\"".contains(letter) } else { tools(letter) }
            });
        }
        if (charset.contains("utf-16") || charset.contains("utf-32")) && !self.one_in(4) {
            return encode::wide(&written, &mut self.rng);
        }
        match self.rng.u8(..60) {
            0 | 1 => [&b"\xef\xbb\xbf"[..], written.as_bytes()].concat(),
            2 => encode::wide(&written, &mut self.rng),
            3 => encode::latin1(&written),
            4 => {
                let (name, bytes) = encode::compressed(written.as_bytes(), &mut self.rng);
                if !self.one_in(4) {
                    headers.push(("content-encoding".to_owned(), name.to_owned()));
                }
                bytes
            }
            5 => {
                let other = self.any(&[" ", "\n", "{}", "null", ",", "]", "\0", "//x", "garbage"]);
                (written + other).into_bytes()
            }
            6 if self.one_in(6) => (" ".repeat(70_000) + &written).into_bytes(),
            7 => {
                let first =
                    self.any(&["\u{1e}", ")]}',\n", "data: ", "\u{feff} ", "\0", "[", "//\n"]);
                (first.to_owned() + &written).into_bytes()
            }
            _ => written.into_bytes(),
        }
    }

    /// Changes a few bytes, as if by accident.
    fn scratch(&mut self, body: &mut Vec<u8>) {
        const INTERESTING: [u8; 14] = *b"\"{}[]:,\\/ \0\x7f\x80\xff";
        for _ in 0..self.rng.u8(1..4) {
            let at = self.rng.usize(..=body.len());
            let byte = *self.rng.choice(&INTERESTING).unwrap_or(&b' ');
            match self.rng.u8(..4) {
                0 => body.insert(at, byte),
                1 if at < body.len() => {
                    body.remove(at);
                }
                2 => {
                    if let Some(there) = body.get_mut(at) {
                        *there = byte;
                    }
                }
                _ => {
                    // A piece of it once more, somewhere.
                    let end = (at + self.rng.usize(1..40)).min(body.len());
                    let piece = body.get(at..end).unwrap_or_default().to_vec();
                    let place = self.rng.usize(..=body.len());
                    body.splice(place..place, piece);
                }
            }
        }
    }
}

/// A key that some decoder takes for this one.
fn disguised(key: &str, rng: &mut Rng) -> String {
    match rng.u8(..6) {
        0 => key.to_ascii_uppercase(),
        1 => {
            let mut letters = key.chars();
            let first = letters.next().map(|letter| letter.to_ascii_uppercase());
            first.into_iter().chain(letters).collect()
        }
        2 => key.replace('s', "\u{17f}").replace('k', "\u{212a}"),
        3 => format!("{key}\0"),
        4 => format!(" {key}"),
        _ => key.replace('i', "\u{131}").replace('e', "\u{435}"),
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
