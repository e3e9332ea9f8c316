//! A message as bytes: spacing, escapes, encodings, and a few bytes changed.
//!
//! Invariant: the same seed gives the same bytes.

use super::Generator;
use crate::{encode, json::Hand};

impl Generator {
    pub(super) fn hand(&mut self) -> Hand {
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

    pub(super) fn encoded(
        &mut self,
        written: String,
        headers: &mut Vec<(String, String)>,
    ) -> Vec<u8> {
        let charset = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
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
    pub(super) fn scratch(&mut self, body: &mut Vec<u8>) {
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
