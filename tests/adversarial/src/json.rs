//! Documents that no JSON library would write: keys twice, numbers in any spelling, letters
//! escaped here and there.

use fastrand::Rng;

/// A JSON value, or nearly one.
#[derive(Clone, Debug)]
pub enum Node {
    /// Text that stands in the document as it is: numbers, literals, and what is neither.
    Raw(String),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Node>),
    /// An object; keys may repeat.
    Object(Vec<(String, Node)>),
}

/// A string.
pub fn text(text: &str) -> Node {
    Node::Text(text.to_owned())
}

/// Something that stands as it is.
pub fn raw(text: &str) -> Node {
    Node::Raw(text.to_owned())
}

/// An object of these members.
pub fn object<const N: usize>(members: [(&str, Node); N]) -> Node {
    Node::Object(members.map(|(key, value)| (key.to_owned(), value)).into())
}

impl Node {
    /// Nodes in this one, itself included.
    fn count(&self) -> usize {
        1 + match self {
            Self::Raw(_) | Self::Text(_) => 0,
            Self::List(items) => items.iter().map(Self::count).sum(),
            Self::Object(members) => members.iter().map(|(_, value)| value.count()).sum(),
        }
    }

    /// Any node in this one, the outer ones more often.
    pub fn pick(&mut self, rng: &mut Rng) -> &mut Self {
        let stop = match self {
            Self::Raw(_) | Self::Text(_) => true,
            Self::List(items) => items.is_empty(),
            Self::Object(members) => members.is_empty(),
        };
        if stop || rng.u8(..4) == 0 || self.count() == 1 {
            return self;
        }
        match self {
            Self::List(items) => {
                let at = rng.usize(..items.len());
                match items.get_mut(at) {
                    Some(item) => item.pick(rng),
                    None => unreachable!("an index below the length"),
                }
            }
            Self::Object(members) => {
                let at = rng.usize(..members.len());
                match members.get_mut(at) {
                    Some((_, value)) => value.pick(rng),
                    None => unreachable!("an index below the length"),
                }
            }
            leaf => leaf,
        }
    }

    /// Any object in this one, itself if it is one.
    pub fn pick_object(&mut self, rng: &mut Rng) -> Option<&mut Vec<(String, Self)>> {
        for _ in 0..8 {
            if matches!(self.pick(&mut rng.clone()), Self::Object(_)) {
                break;
            }
            rng.u8(..);
        }
        match self.pick(rng) {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }
}

/// How a document is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hand {
    /// Of 100 letters, how many are escaped.
    pub escapes: u8,
    /// Of 100 gaps, how many have white space.
    pub spaces: u8,
    /// Of 100 gaps with white space, how many have some that JSON does not know.
    pub odd_spaces: u8,
}

/// Writes a document.
pub fn write(node: &Node, hand: Hand, rng: &mut Rng) -> String {
    let mut out = String::new();
    Writer { hand, rng, out: &mut out }.node(node);
    out
}

struct Writer<'a> {
    hand: Hand,
    rng: &'a mut Rng,
    out: &'a mut String,
}

impl Writer<'_> {
    fn chance(&mut self, of_hundred: u8) -> bool {
        of_hundred > 0 && self.rng.u8(..100) < of_hundred
    }

    fn gap(&mut self) {
        if self.chance(self.hand.spaces) {
            let odd = self.chance(self.hand.odd_spaces);
            let choices: &[&str] = if odd {
                &["\u{feff}", "\u{a0}", "\u{c}", "\u{b}", "\u{2028}", "/**/", "\0"]
            } else {
                &[" ", "\n", "\r\n", "\t", "   "]
            };
            let space = self.rng.choice(choices).copied().unwrap_or_default();
            self.out.push_str(space);
        }
    }

    fn node(&mut self, node: &Node) {
        self.gap();
        match node {
            Node::Raw(raw) => self.out.push_str(raw),
            Node::Text(text) => self.string(text),
            Node::List(items) => {
                self.out.push('[');
                for (number, item) in items.iter().enumerate() {
                    if number > 0 {
                        self.out.push(',');
                    }
                    self.node(item);
                }
                self.out.push(']');
            }
            Node::Object(members) => {
                self.out.push('{');
                for (number, (key, value)) in members.iter().enumerate() {
                    if number > 0 {
                        self.out.push(',');
                    }
                    self.gap();
                    self.string(key);
                    self.gap();
                    self.out.push(':');
                    self.node(value);
                }
                self.gap();
                self.out.push('}');
            }
        }
        self.gap();
    }

    fn escape(&mut self, letter: char, upper: bool) {
        for unit in letter.encode_utf16(&mut [0; 2]) {
            let escaped = if upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") };
            self.out.push_str(&escaped);
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for letter in text.chars() {
            if self.chance(self.hand.escapes) {
                let upper = self.rng.bool();
                self.escape(letter, upper);
            } else {
                match letter {
                    '"' => self.out.push_str("\\\""),
                    '\\' => self.out.push_str("\\\\"),
                    '/' if self.hand.escapes > 0 && self.rng.bool() => self.out.push_str("\\/"),
                    control if control < ' ' => {
                        self.escape(control, false);
                    }
                    letter => self.out.push(letter),
                }
            }
        }
        self.out.push('"');
    }
}
