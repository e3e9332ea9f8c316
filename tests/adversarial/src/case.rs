//! A request, and its form in the corpus: lines of headers, an empty line, the body as it is.

use hitl_extauth::classify::{Class, HarmlessMethods, Headers, Subject, classify};

/// A POST to a server behind the gate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// Headers in order, names in lower case. `content-length` is not among them.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Case {
    /// Reads a case from the corpus' form. Everything is a case: lines that are no headers are
    /// left out, and without an empty line all of it is the body.
    pub fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(2).position(|pair| pair == b"\n\n");
        let (head, body) = match end.map(|end| bytes.split_at(end)) {
            Some((head, rest)) => (head, rest.get(2..).unwrap_or_default()),
            None if bytes.starts_with(b"\n") => (&b""[..], bytes.get(1..).unwrap_or_default()),
            None => (&b""[..], bytes),
        };
        let lines = std::str::from_utf8(head).unwrap_or_default().lines();
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            let name = name.trim().to_ascii_lowercase();
            let token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            let plain = value.bytes().all(|byte| byte == b'\t' || (b' '..0x7f).contains(&byte));
            (!name.is_empty() && name.bytes().all(token) && plain)
                .then(|| (name, value.trim().to_owned()))
        };
        let mut headers: Vec<_> = lines.filter_map(header).collect();
        headers.retain(|(name, _)| name != "content-length");
        if headers.is_empty() {
            headers.push(("content-type".to_owned(), "application/json".to_owned()));
        }
        Self { headers, body: body.to_vec() }
    }

    /// The corpus' form.
    pub fn write(&self) -> Vec<u8> {
        let lines = self.headers.iter().map(|(name, value)| format!("{name}: {value}\n"));
        let mut bytes = lines.collect::<String>().into_bytes();
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The headers as a gateway gives them to the gate.
    pub fn forwarded(&self) -> Headers {
        let mut headers: Headers = self.headers.iter().map(|(name, value)| (name, value)).collect();
        headers.push("content-length", self.body.len().to_string());
        headers
    }

    /// What the gate makes of it.
    pub fn classify(&self) -> Class {
        let headers = self.forwarded();
        let stated_size = i64::try_from(self.body.len()).unwrap_or(i64::MAX);
        let subject = Subject { method: "POST", headers: &headers, body: &self.body, stated_size };
        classify(&subject, &HarmlessMethods::default())
    }

    /// Every value of a header.
    pub fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.headers.iter().filter(move |(known, _)| known == name);
        named.map(|(_, value)| value.as_str())
    }
}
