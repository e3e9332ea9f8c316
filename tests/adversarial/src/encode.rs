//! The same text in encodings that a server may undo and a gate may not.

use std::io::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use fastrand::Rng;
use flate2::{
    Compression,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};

/// UTF-16 or UTF-32, in either order of bytes, with or without a mark.
pub fn wide(text: &str, rng: &mut Rng) -> Vec<u8> {
    let (little, units_of_four, mark) = (rng.bool(), rng.u8(..3) == 0, rng.bool());
    let marked = mark.then_some('\u{feff}').into_iter().chain(text.chars());
    let mut bytes = Vec::with_capacity(text.len() * 2);
    for letter in marked {
        if units_of_four {
            let unit = u32::from(letter);
            bytes.extend(if little { unit.to_le_bytes() } else { unit.to_be_bytes() });
        } else {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                bytes.extend(if little { unit.to_le_bytes() } else { unit.to_be_bytes() });
            }
        }
    }
    bytes
}

/// UTF-7, with these letters of the text escaped. What is left is plain ASCII, harmless to look at.
pub fn utf7(text: &str, escaped: impl Fn(char) -> bool) -> Vec<u8> {
    let mut out = String::new();
    for letter in text.chars() {
        if letter == '+' {
            out.push_str("+-");
        } else if escaped(letter) || !letter.is_ascii() {
            let units = letter.encode_utf16(&mut [0; 2]).to_vec();
            let bytes: Vec<u8> = units.into_iter().flat_map(u16::to_be_bytes).collect();
            out.push('+');
            out.push_str(&STANDARD_NO_PAD.encode(bytes));
            out.push('-');
        } else {
            out.push(letter);
        }
    }
    out.into_bytes()
}

/// Latin-1: a letter a byte; what has no such byte becomes `?`.
pub fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|letter| u8::try_from(u32::from(letter)).unwrap_or(b'?')).collect()
}

/// Compressed, and the `content-encoding` that says so.
pub fn compressed(bytes: &[u8], rng: &mut Rng) -> (&'static str, Vec<u8>) {
    let level = Compression::fast();
    // Writing to memory does not fail.
    match rng.u8(..3) {
        0 => {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            let _ = encoder.write_all(bytes);
            ("gzip", encoder.finish().unwrap_or_default())
        }
        1 => {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            let _ = encoder.write_all(bytes);
            ("deflate", encoder.finish().unwrap_or_default())
        }
        _ => {
            let mut encoder = DeflateEncoder::new(Vec::new(), level);
            let _ = encoder.write_all(bytes);
            ("deflate", encoder.finish().unwrap_or_default())
        }
    }
}
