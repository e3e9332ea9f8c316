//! A request, and its form in the corpus: lines of headers, an empty line, the body byte for byte.
//!
//! A line `:method: NAME` or `:path: PATH` gives a method other than POST, or a path other than the
//! server's own. Invariant: what is written reads back as the same case.

use hitl_extauth::classify::{Class, HarmlessMethods, Headers, Subject, classify};

/// A request to a server behind the gate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// The HTTP method; POST unless given.
    pub method: Option<String>,
    /// The request target; the server's own path unless given.
    pub path: Option<String>,
    /// Headers in order, spelled as they are sent. `content-length` is not among them.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Case {
    /// Reads a case from the corpus' form. Every input is a case: lines that are no headers are
    /// left out, and without an empty line all of it is the body.
    pub fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(2).position(|pair| pair == b"\n\n");
        let (head, body) = match end.map(|end| bytes.split_at(end)) {
            Some((head, rest)) => (head, rest.get(2..).unwrap_or_default()),
            None if bytes.starts_with(b"\n") => (&b""[..], bytes.get(1..).unwrap_or_default()),
            None => (&b""[..], bytes),
        };
        let mut case = Self { body: body.to_vec(), ..Self::default() };
        for line in std::str::from_utf8(head).unwrap_or_default().lines() {
            if let Some(method) = line.strip_prefix(":method:").map(str::trim) {
                let name =
                    !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_alphabetic());
                case.method = name.then(|| method.to_owned());
            } else if let Some(path) = line.strip_prefix(":path:").map(str::trim) {
                let target = !path.is_empty() && path.bytes().all(|byte| byte.is_ascii_graphic());
                case.path = target.then(|| path.to_owned());
            } else {
                case.headers.extend(header_line(line));
            }
        }
        if case.headers.is_empty() {
            case.headers.push(("content-type".to_owned(), "application/json".to_owned()));
        }
        case
    }

    /// The corpus' form.
    pub fn write(&self) -> Vec<u8> {
        let method = self.method.iter().map(|method| format!(":method: {method}\n"));
        let path = self.path.iter().map(|path| format!(":path: {path}\n"));
        let lines = self.headers.iter().map(|(name, value)| format!("{name}: {value}\n"));
        let mut bytes = method.chain(path).chain(lines).collect::<String>().into_bytes();
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The HTTP method.
    pub fn method(&self) -> &str {
        self.method.as_deref().unwrap_or("POST")
    }

    /// The headers as a gateway gives them to the gate.
    pub fn forwarded(&self) -> Headers {
        let mut headers: Headers = self.headers.iter().map(|(name, value)| (name, value)).collect();
        headers.push("content-length", self.body.len().to_string());
        headers
    }

    /// Whether two of its headers have one name.
    pub fn repeats_a_header(&self) -> bool {
        let mut names: Vec<_> =
            self.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        names.sort();
        names.windows(2).any(|pair| pair.first() == pair.last())
    }

    /// Classifies the request as the gate does.
    pub fn classify(&self) -> Class {
        let headers = self.forwarded();
        let stated_size = i64::try_from(self.body.len()).unwrap_or(i64::MAX);
        let method = self.method();
        let subject = Subject { method, headers: &headers, body: &self.body, stated_size };
        classify(&subject, &HarmlessMethods::default())
    }
}

/// A header as HTTP/1.1 carries it. `content-length` is what the body has.
fn header_line(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    let name = name.trim();
    let token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let plain = value.bytes().all(|byte| byte == b'\t' || (b' '..0x7f).contains(&byte));
    (!name.is_empty()
        && name.bytes().all(token)
        && plain
        && !name.eq_ignore_ascii_case("content-length"))
    .then(|| (name.to_owned(), value.trim().to_owned()))
}
