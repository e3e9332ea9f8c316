//! What a binary says of itself: for which machine it is, and whether it asks for a loader.
//!
//! Owns no more of the format than that: ELF, 64 bits, little-endian.

/// A binary, as far as a release is concerned.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Binary {
    /// The machine's number.
    pub(super) machine: u16,
    /// Whether it is complete: it names no program that would load libraries for it.
    pub(super) complete: bool,
}

/// The kind of a part that names a loader.
const INTERPRETER: u32 = 3;

/// Reads it; none where it is none of these binaries.
pub(super) fn read(bytes: &[u8]) -> Option<Binary> {
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let machine = u16::from_le_bytes(at(bytes, 18)?);
    let parts = usize::try_from(u64::from_le_bytes(at(bytes, 32)?)).ok()?;
    let size = usize::from(u16::from_le_bytes(at(bytes, 54)?));
    let count = usize::from(u16::from_le_bytes(at(bytes, 56)?));
    let mut complete = true;
    for part in 0..count {
        let offset = parts.checked_add(part.checked_mul(size)?)?;
        complete &= u32::from_le_bytes(at(bytes, offset)?) != INTERPRETER;
    }
    Some(Binary { machine, complete })
}

fn at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header, and parts of these kinds.
    fn binary(machine: u16, kinds: &[u32]) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01".to_vec();
        bytes.resize(64, 0);
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&u16::try_from(kinds.len()).unwrap().to_le_bytes());
        for kind in kinds {
            bytes.extend(kind.to_le_bytes());
            bytes.resize(bytes.len() + 52, 0);
        }
        bytes
    }

    #[test]
    fn a_binary_says_its_machine_and_whether_it_asks_for_a_loader() {
        let complete = read(&binary(62, &[1, 1]));
        assert_eq!(complete, Some(Binary { machine: 62, complete: true }));
        let loaded = read(&binary(183, &[6, 3]));
        assert_eq!(loaded, Some(Binary { machine: 183, complete: false }));
    }

    #[test]
    fn what_is_no_binary_or_cut_off_is_none() {
        assert_eq!(read(b"#!/bin/sh\n"), None);
        let mut cut = binary(62, &[1, 1]);
        cut.truncate(100);
        assert_eq!(read(&cut), None);
        let mut far = binary(62, &[1]);
        far[32..40].fill(0xff);
        assert_eq!(read(&far), None);
    }
}
