//! Many inputs in one file: base64, one input a line.
//!
//! Invariant: the same inputs give the same file, so that a corpus changes only where inputs do.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// The file of these inputs: each once, sorted by length.
pub fn pack(mut inputs: Vec<Vec<u8>>) -> String {
    inputs.sort_by(|one, other| one.len().cmp(&other.len()).then_with(|| one.cmp(other)));
    inputs.dedup();
    inputs.iter().map(|input| STANDARD.encode(input) + "\n").collect()
}

/// The inputs of a file.
///
/// # Errors
/// The line that is not base64.
pub fn unpack(file: &str) -> Result<Vec<Vec<u8>>, String> {
    let lines = file.lines().enumerate();
    lines
        .map(|(number, line)| {
            STANDARD.decode(line).map_err(|error| format!("line {}: {error}", number + 1))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{pack, unpack};

    #[test]
    fn what_is_packed_is_unpacked_each_input_once() {
        let inputs = vec![b"{}".to_vec(), Vec::new(), vec![0, 10, 255], b"{}".to_vec()];
        let unpacked = unpack(&pack(inputs)).unwrap();
        assert_eq!(unpacked, [Vec::new(), b"{}".to_vec(), vec![0, 10, 255]]);
        assert!(unpack("!\n").unwrap_err().starts_with("line 1"));
    }
}
