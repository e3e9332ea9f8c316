//! Values: ids, numbers, arguments, depth, and objects that a JSON library takes for its own.
//!
//! Invariant: a value is text that stands in a document; it is never read here.

use super::{
    Generator, METHODS,
    keys::{PRIVATE, folding},
};
use crate::json::{Node, object, raw, text};

impl Generator {
    pub(super) fn id(&mut self) -> Node {
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
        // Mostly an id that every server accepts.
        if self.one_in(6) { raw(id) } else { raw("7") }
    }

    pub(super) fn call_params(&mut self, mirrored: bool) -> Node {
        let arguments = match self.rng.u8(..13) {
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
            7 => object([("version", text("v3")), ("nested", self.private_object())]),
            8 => self.folding_arguments(),
            _ => object([("version", text("v3"))]),
        };
        let mut members =
            vec![("name".to_owned(), text("run_migration")), ("arguments".to_owned(), arguments)];
        if !mirrored && self.one_in(8) {
            let token = if self.one_in(4) { self.private_object() } else { self.number() };
            members.push(("_meta".to_owned(), object([("progressToken", token)])));
        }
        Node::Object(members)
    }

    pub(super) fn number(&mut self) -> Node {
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

    pub(super) fn deep(&mut self) -> Node {
        let depth = *self.rng.choice(&[3, 60, 63, 64, 65, 130, 190, 300]).unwrap_or(&3);
        let (open, close) = if self.rng.bool() { ("[", "]") } else { ("{\"a\":", "}") };
        let nested = format!("{}1{}", open.repeat(depth), close.repeat(depth));
        object([("deep", raw(&nested))])
    }

    pub(super) fn value(&mut self) -> Node {
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

    /// Arguments with two keys that are one to a reader without regard to case, at some depth.
    fn folding_arguments(&mut self) -> Node {
        let key =
            self.any(&["version", "stra\u{df}e", "task", "kind", "\u{3c3}ας", "id", "Ünïcode"]);
        let other = folding(key, &mut self.rng);
        let mut pair = vec![(key.to_owned(), text("v3")), (other, text("v1"))];
        if self.rng.bool() {
            pair.reverse();
        }
        if self.one_in(3) {
            // Only the variant: one key, which a reader without regard to case takes for the other.
            pair.truncate(1);
        }
        match self.rng.u8(..4) {
            0 => object([("version", text("v3")), ("deep", Node::List(vec![Node::Object(pair)]))]),
            1 => object([("a", object([("b", Node::Object(pair))]))]),
            _ => Node::Object(pair),
        }
    }

    /// An object that a JSON library may take for a value of its own: a key with a private name, and
    /// a value that the library would read again.
    pub(super) fn private_object(&mut self) -> Node {
        let key = self.any(&PRIVATE).to_owned();
        let value = match self.rng.u8(..8) {
            0 => text(r#"{"version":"v1"}"#),
            1 => text(r#""v1""#),
            2 => text("1e5"),
            3 => text("{"),
            4 => text(""),
            5 => raw("1"),
            6 if self.one_in(2) => self.private_object(),
            _ => text("1979-05-27T07:32:00Z"),
        };
        let mut members = vec![(key, value)];
        if self.one_in(3) {
            let at = self.rng.usize(..=1);
            members.insert(at, ("version".to_owned(), text("v3")));
        }
        Node::Object(members)
    }
}
