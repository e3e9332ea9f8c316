//! Numbers that a double changes.
//!
//! The digest of a call is taken over RFC 8785, which writes numbers as doubles. A number that a
//! double cannot hold would share its digest with another one, and the reviewer would approve
//! both. So an integer must be held exactly, and any other number must be the shortest way to
//! write its double.

/// The first number in a JSON text that a double would change.
///
/// `text` must be valid JSON: then a digit or a minus outside a string begins a number.
pub(super) fn inexact(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_string(bytes, at + 1),
            b'-' | b'0'..=b'9' => {
                let length = bytes
                    .iter()
                    .skip(at)
                    .take_while(|byte| {
                        matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')
                    })
                    .count();
                let number = text.get(at..at + length)?;
                if !is_exact(number) {
                    return Some(number);
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    None
}

fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

/// From 2^63 on an integer may have become a double on the way, and may have been another number
/// before: the digest takes none of those.
const TOO_LARGE: f64 = 9_223_372_036_854_775_808.0;

fn is_exact(number: &str) -> bool {
    if !number.contains(['.', 'e', 'E']) {
        return integer_is_exact(number);
    }
    let Ok(double) = number.parse::<f64>() else { return false };
    // The shortest digits that read back as the same double, as JavaScript chooses them.
    let shortest = serde_json::Number::from_f64(double).map(|number| number.to_string());
    double.abs() < TOO_LARGE
        && shortest.is_some_and(|shortest| Decimal::parse(number) == Decimal::parse(&shortest))
}

/// Whether a double holds an integer exactly: its significant bits fit into 53.
fn integer_is_exact(number: &str) -> bool {
    let magnitude = match number.strip_prefix('-') {
        Some(_) => number.parse().ok().map(i64::unsigned_abs),
        None => number.parse::<u64>().ok(),
    };
    magnitude.is_some_and(|integer| {
        integer == 0 || 64 - integer.leading_zeros() - integer.trailing_zeros() <= 53
    })
}

/// A decimal number without its ways of writing: digits without zeros at either end, and the
/// power of ten of the last one.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    /// `None` for what is not a number, which makes no number equal to it… but itself.
    fn parse(text: &str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_start_matches('0');
        let trimmed = digits.trim_end_matches('0');
        if trimmed.is_empty() {
            return Some(Self { negative, digits: String::new(), exponent: 0 });
        }
        let dropped = i64::try_from(digits.len() - trimmed.len()).ok()?;
        let fraction = i64::try_from(fraction.len()).ok()?;
        let exponent = exponent.checked_sub(fraction)?.checked_add(dropped)?;
        Some(Self { negative, digits: trimmed.to_owned(), exponent })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_a_double_holds_are_exact_however_they_are_written() {
        for number in [
            "0",
            "-0",
            "1",
            "-1",
            "9007199254740992",
            "1152921504606846976",
            "0.1",
            "1.10",
            "-42.50",
            "1e3",
            "1E+3",
            "1.5e-7",
            "5e-324",
            "2.2250738585072014e-308",
            "906764206682954.2",
            "-9223372036854775808",
            "0.0",
            "100.000",
            "199.00",
        ] {
            assert_eq!(inexact(number), None, "{number}");
        }
    }

    #[test]
    fn numbers_a_double_changes_are_found_wherever_they_stand() {
        for number in [
            "9007199254740993",
            "-9007199254740993",
            "18446744073709551616",
            "18446744073709551617",
            "-9223372036854775809",
            "9223372036854775808.0",
            "1.7976931348623157e308",
            "4503599627370E96",
            "100000000000000000000000000000000000000000",
            "9007199254740993.0",
            "0.1000000000000000055",
            "1e-400",
            "4.9e-324",
            "1e400",
        ] {
            assert_eq!(inexact(number), Some(number));
            let text =
                format!(r#"{{"a\"9007199254740993":["9007199254740993",{{"b":{number}}}]}}"#);
            assert_eq!(inexact(&text), Some(number));
        }
    }

    proptest! {
        #[test]
        fn what_a_double_prints_is_exact(double in any::<f64>()) {
            prop_assume!(double.abs() < TOO_LARGE);
            let text = serde_json::to_string(&double).unwrap();
            prop_assert_eq!(inexact(&text), None);
        }

        #[test]
        fn two_exact_numbers_of_one_double_are_one_number(a: u64, b: u64) {
            #[allow(clippy::cast_precision_loss, clippy::float_cmp)]
            let same = a as f64 == b as f64;
            let exact = |n: u64| inexact(&n.to_string()).is_none();
            prop_assert!(!(same && a != b && exact(a) && exact(b)));
        }
    }
}
