//! Signatures of messages, as Standard Webhooks has them: HMAC-SHA256 over id, moment and body.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::hmac::{HMAC_SHA256, Key, sign};

/// A secret that a receiver knows, too.
#[derive(Clone)]
pub(super) struct Secret(Key);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// Reads one: `whsec_` and 24 to 64 bytes in base64.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.strip_prefix("whsec_")?).ok()?;
        (24..=64).contains(&bytes.len()).then(|| Self(Key::new(HMAC_SHA256, &bytes)))
    }
}

/// The signatures of a message by each secret, for the header.
pub(super) fn signatures(secrets: &[Secret], id: &str, moment: i64, body: &[u8]) -> String {
    let content = [format!("{id}.{moment}.").as_bytes(), body].concat();
    let sign = |secret: &Secret| format!("v1,{}", STANDARD.encode(sign(&secret.0, &content)));
    secrets.iter().map(sign).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_one_that_other_libraries_make() {
        // Of the standard's own test.
        let secret = Secret::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        let signed = signatures(&[secret], "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, body);
        assert_eq!(signed, "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
        for wrong in ["C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_AAAA", "whsec_?"] {
            assert!(Secret::parse(wrong).is_none(), "{wrong}");
        }
    }
}
