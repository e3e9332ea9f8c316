//! JSON texts: valid, slightly invalid, hostile.
//!
//! Numbers in every spelling, escapes and surrogates, keys that repeat or fold, depth, a few bytes
//! changed. Invariant: a text has no line feed, so that it is one line of a reader's input, and the
//! same seed gives the same texts.

use fastrand::Rng;

use crate::{
    encode,
    json::{Hand, Node, raw, write},
};

/// Makes texts, without end.
#[derive(Debug)]
pub struct Texts {
    rng: Rng,
}

/// What stands for a value in texts that are not JSON, or in JSON that readers treat differently.
const ODD: [&str; 34] = [
    "NaN",
    "Infinity",
    "-Infinity",
    "nan",
    "True",
    "None",
    "undefined",
    "nul",
    "truefalse",
    "01",
    "-01",
    "1.",
    ".5",
    "+1",
    "0x10",
    "1e",
    "1e+",
    "--1",
    "- 1",
    "1_000",
    "1e400",
    "-1e400",
    "1e-400",
    "18446744073709551616",
    "-9223372036854775809",
    "9007199254740993",
    "'a'",
    "\"a",
    "[1,]",
    "{\"a\":1,}",
    "{a:1}",
    "{\"a\" 1}",
    "[1 2]",
    "/**/1",
];

/// Inside of strings: escapes as they stand in a text.
const ESCAPES: [&str; 24] = [
    "\\\"",
    "\\\\",
    "\\/",
    "\\b",
    "\\f",
    "\\n",
    "\\r",
    "\\t",
    "\\u0000",
    "\\u000A",
    "\\u2028",
    "\\uFFFF",
    "\\ufffd",
    "\\ud83d\\ude00",
    "\\ud83d",
    "\\ude00",
    "\\ude00\\ud83d",
    "\\uD83D\\u0041",
    "\\u12",
    "\\x41",
    "\\'",
    "\\u00E9",
    "\\u+123",
    "\\U0041",
];

/// Keys that repeat, fold into each other, or mean something to a reader.
const KEYS: [&str; 22] = [
    "a",
    "A",
    "b",
    "k",
    "K",
    "\\u212a",
    "s",
    "\u{17f}",
    "\\u017F",
    "stra\u{df}e",
    "STRA\u{1e9e}E",
    "\u{3c3}",
    "\u{3c2}",
    "i",
    "\u{130}",
    "__proto__",
    "\\u005f_proto__",
    "constructor",
    "",
    "1",
    "01",
    "$serde_json::private::Number",
];

impl Texts {
    /// The texts of a seed.
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed) }
    }

    /// The next text.
    pub fn text(&mut self) -> Vec<u8> {
        let node = self.value(0);
        let hand = match self.rng.u8(..6) {
            0 => Hand { spaces: 30, ..Hand::default() },
            1 => Hand { spaces: 30, odd_spaces: 20, ..Hand::default() },
            _ => Hand::default(),
        };
        let text = write(&node, hand, &mut self.rng);
        let mut bytes = match self.rng.u16(..200) {
            0 => [&b"\xef\xbb\xbf"[..], text.as_bytes()].concat(),
            1 => encode::wide(&text, &mut self.rng),
            2 => encode::latin1(&text),
            3..=6 => {
                (text + self.any(&["null", "{}", ",", "]", "\0", "//", "\u{a0}", "#"])).into_bytes()
            }
            _ => text.into_bytes(),
        };
        if self.rng.u8(..5) == 0 {
            self.scratch(&mut bytes);
        }
        for byte in &mut bytes {
            if *byte == b'\n' {
                *byte = b' ';
            }
        }
        bytes
    }

    fn any<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        self.rng.choice(choices).copied().unwrap_or_default()
    }

    fn value(&mut self, depth: u8) -> Node {
        let leaf = depth > 3 || (depth > 0 && self.rng.bool());
        match self.rng.u8(if leaf { 4 } else { 0 }..16) {
            0 | 1 => {
                let many = self.rng.u8(..4);
                Node::List((0..many).map(|_| self.value(depth + 1)).collect())
            }
            2 | 3 => self.object(depth),
            4..=8 => raw(&self.number()),
            9..=12 => raw(&self.string()),
            13 if self.rng.u8(..4) == 0 => raw(self.any(&ODD)),
            14 if self.rng.u8(..8) == 0 => self.deep(),
            _ => raw(self.any(&["null", "true", "false"])),
        }
    }

    /// Keys are raw as well, so that their escapes stand as they are.
    fn object(&mut self, depth: u8) -> Node {
        let mut text = "{".to_owned();
        for number in 0..self.rng.u8(..4) {
            if number > 0 {
                text.push(',');
            }
            let key = match self.rng.u8(..4) {
                0 => format!("\"{}\"", self.any(&KEYS)),
                1 => self.string(),
                _ => format!("\"k{}\"", self.rng.u8(..40)),
            };
            text.push_str(&key);
            text.push(':');
            let value = self.value(depth + 1);
            text.push_str(&write(&value, Hand::default(), &mut self.rng));
        }
        raw(&(text + "}"))
    }

    fn digits(&mut self, most: usize) -> String {
        let many = self.rng.usize(1..=most);
        (0..many).map(|_| self.rng.digit(10)).collect()
    }

    fn number(&mut self) -> String {
        let sign = if self.rng.u8(..3) == 0 { "-" } else { "" };
        let number = match self.rng.u8(..10) {
            0 => (self.rng.u64(..) >> self.rng.u8(..64)).to_string(),
            // Integers of 53 bits and zeros behind them: the largest that doubles hold.
            1 => ((self.rng.u64(..) >> 11) << self.rng.u8(..12)).to_string(),
            2 => (9_007_199_254_740_990 + self.rng.u64(..8)).to_string(),
            3 => self.rng.u16(..1000).to_string(),
            4 => format!("{:?}", f64::from_bits(self.rng.u64(..)).abs()),
            5 => format!("{:e}", f64::from_bits(self.rng.u64(..)).abs()),
            6 => format!("{}.{}", self.rng.u8(..), self.digits(20)),
            7 => {
                let exponent =
                    self.any(&["e", "E", "e+", "E-", "e-0"]).to_owned() + &self.digits(3);
                format!("{}.{}{exponent}", self.rng.u8(..), self.digits(4))
            }
            8 => format!("{}{}", self.rng.u8(1..), self.digits(30)),
            _ => format!(
                "{}.{}{}",
                self.rng.u16(..),
                self.digits(3),
                "0".repeat(self.rng.usize(..9))
            ),
        };
        format!("{sign}{number}")
    }

    fn string(&mut self) -> String {
        let mut text = "\"".to_owned();
        for _ in 0..self.rng.u8(..6) {
            match self.rng.u8(..12) {
                0..=2 => text.push_str(self.any(&ESCAPES)),
                3 => text.push(self.rng.char('\u{80}'..='\u{10ffff}')),
                4 => text.push(self.rng.char('\u{0}'..='\u{ff}')),
                5 => text.push_str(&unit(self.rng.u16(..))),
                _ => text.push(self.rng.alphanumeric()),
            }
        }
        text + "\""
    }

    fn deep(&mut self) -> Node {
        let depth = *self.rng.choice(&[10, 60, 62, 63, 64, 65, 127, 128, 600]).unwrap_or(&10);
        let (open, close) = if self.rng.bool() { ("[", "]") } else { ("{\"a\":", "}") };
        raw(&format!("{}1{}", open.repeat(depth), close.repeat(depth)))
    }

    /// Changes a few bytes.
    fn scratch(&mut self, bytes: &mut Vec<u8>) {
        const INTERESTING: [u8; 18] = *b"\"{}[]:,\\/ 0-.e\0\x7f\x80\xff";
        for _ in 0..self.rng.u8(1..3) {
            let at = self.rng.usize(..=bytes.len());
            let byte = *self.rng.choice(&INTERESTING).unwrap_or(&b' ');
            match (self.rng.u8(..3), bytes.get_mut(at)) {
                (0, Some(there)) => *there = byte,
                (1, Some(_)) => {
                    bytes.remove(at);
                }
                _ => bytes.insert(at, byte),
            }
        }
    }
}

/// A code unit as an escape.
fn unit(unit: u16) -> String {
    format!("\\u{unit:04x}")
}
