//! What a browser keeps for us: encrypted, in as many cookies as it takes.
//!
//! Owns the keys. Must never give back what it has not sealed itself, for this very purpose, whole.

use std::{fs, path::Path};

use axum::http::{HeaderMap, HeaderValue, header};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Serialize, de::DeserializeOwned};

/// Characters of one cookie. Browsers keep 4096 bytes of it with its name, and drop what is longer without
/// a word.
const LONGEST: usize = 3600;

/// Cookies of one thing, at most: proxies take headers of 16 KB.
const MOST: usize = 4;

/// Bytes of a key.
const KEY: usize = 32;

/// Why nothing can be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The keys cannot be read.
    #[error("--session-keys {0}: {1}")]
    File(String, String),
    /// There is no randomness.
    #[error("no randomness for a session: {0}")]
    Random(String),
    /// It takes too many cookies.
    #[error(
        "your tokens are too long for the cookies of a browser ({0} bytes); ask for fewer groups in them"
    )]
    TooLong(usize),
    /// Nothing that could fail.
    #[error("a session could not be sealed")]
    Sealing,
}

/// The keys, newest first.
pub(super) struct Keys(Vec<LessSafeKey>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

impl Keys {
    /// Reads keys: 32 bytes each, in base64, one a line. The first seals, all of them open.
    pub(super) fn read(path: &Path) -> Result<Self, SealError> {
        let name = path.display().to_string();
        let wrong = |what: String| SealError::File(name.clone(), what);
        let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys = lines
            .enumerate()
            .map(|(number, line)| {
                let bytes = STANDARD.decode(line).ok().filter(|bytes| bytes.len() == KEY);
                bytes.and_then(|bytes| key(&bytes)).ok_or_else(|| {
                    let number = number + 1;
                    wrong(format!(
                        "line {number} is not 32 bytes in base64 (`openssl rand -base64 32`)"
                    ))
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(wrong("there is no key in it".to_owned()));
        }
        Ok(Self(keys))
    }

    /// A key that lives as long as the process.
    pub(super) fn new() -> Result<Self, SealError> {
        let bytes = random::<KEY>()?;
        key(&bytes).map(|key| Self(vec![key])).ok_or(SealError::Sealing)
    }

    /// Seals something, so that it opens under this name alone.
    fn seal(&self, name: &str, kept: &impl Serialize) -> Result<String, SealError> {
        let key = self.0.first().ok_or(SealError::Sealing)?;
        let nonce = random::<NONCE_LEN>()?;
        let mut text = serde_json::to_vec(kept).map_err(|_| SealError::Sealing)?;
        key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(name),
            &mut text,
        )
        .map_err(|_| SealError::Sealing)?;
        Ok(URL_SAFE_NO_PAD.encode([&nonce[..], &text].concat()))
    }

    fn open<T: DeserializeOwned>(&self, name: &str, sealed: &str) -> Option<T> {
        let bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, text) = bytes.split_at_checked(NONCE_LEN)?;
        self.0.iter().find_map(|key| {
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut text = text.to_vec();
            let text = key.open_in_place(nonce, Aad::from(name), &mut text).ok()?;
            hitl_core::json::read(text).ok()
        })
    }
}

fn key(bytes: &[u8]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, bytes).ok().map(LessSafeKey::new)
}

/// So many random bytes.
fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| SealError::Random(error.to_string()))?;
    Ok(bytes)
}

/// A random text that nobody guesses.
pub(crate) fn secret() -> Result<String, SealError> {
    Ok(URL_SAFE_NO_PAD.encode(random::<32>()?))
}

/// One kind of thing that browsers keep.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cookie {
    pub(super) name: &'static str,
    pub(super) secure: bool,
    /// How long, in seconds.
    pub(super) lifetime: u64,
}

impl Cookie {
    /// The name of its parts. With this prefix browsers insist on TLS, on the path and on this very host.
    fn part(&self, number: usize) -> String {
        let prefix = if self.secure { "__Host-" } else { "" };
        let number = if number == 0 { String::new() } else { format!("-{number}") };
        format!("{prefix}{}{number}", self.name)
    }

    fn set(&self, number: usize, value: &str, seconds: u64) -> HeaderValue {
        let secure = if self.secure { "; Secure" } else { "" };
        let name = self.part(number);
        let cookie =
            format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
        // Letters of base64 and ours: always a header.
        HeaderValue::try_from(cookie).unwrap_or(HeaderValue::from_static(""))
    }

    /// Has a browser keep something. Parts of something longer are taken away.
    pub(super) fn keep(
        &self,
        keys: &Keys,
        kept: &impl Serialize,
    ) -> Result<Vec<HeaderValue>, SealError> {
        let sealed = keys.seal(self.name, kept)?;
        let parts: Vec<_> =
            sealed.as_bytes().chunks(LONGEST).map(String::from_utf8_lossy).collect();
        if parts.len() > MOST {
            return Err(SealError::TooLong(sealed.len()));
        }
        Ok((0..MOST)
            .map(|number| match parts.get(number) {
                Some(part) => self.set(number, part, self.lifetime),
                None => self.set(number, "", 0),
            })
            .collect())
    }

    /// Has a browser forget it.
    pub(super) fn forget(&self) -> Vec<HeaderValue> {
        (0..MOST).map(|number| self.set(number, "", 0)).collect()
    }

    /// What a browser has kept.
    pub(super) fn read<T: DeserializeOwned>(&self, keys: &Keys, headers: &HeaderMap) -> Option<T> {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|c| c.to_str().ok());
        let pairs: Vec<_> = cookies
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .collect();
        let part = |number: usize| {
            let name = self.part(number);
            pairs.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
        };
        let parts = (0..MOST).map_while(part).filter(|part| !part.is_empty());
        keys.open(self.name, &parts.collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOKIE: Cookie = Cookie { name: "kept", secure: true, lifetime: 60 };

    /// What a browser sends that was told this.
    fn sent(told: &[HeaderValue]) -> HeaderMap {
        let pairs = told.iter().filter_map(|cookie| {
            let cookie = cookie.to_str().unwrap();
            (!cookie.contains("Max-Age=0")).then(|| cookie.split(';').next().unwrap())
        });
        let mut headers = HeaderMap::new();
        let all = pairs.collect::<Vec<_>>().join("; ");
        headers.insert(header::COOKIE, all.parse().unwrap());
        headers
    }

    #[test]
    fn what_was_sealed_opens_here_and_for_this_alone_however_long_it_is() {
        let keys = Keys::new().unwrap();
        for length in [1, 2000, 5000, 9000] {
            let text = "x".repeat(length);
            let told = COOKIE.keep(&keys, &text).unwrap();
            assert!(told.iter().all(|cookie| cookie.len() < 3800 && !cookie.is_empty()));
            assert_eq!(COOKIE.read::<String>(&keys, &sent(&told)), Some(text));
            let other = Cookie { name: "other", ..COOKIE };
            assert_eq!(other.read::<String>(&keys, &sent(&told)), None);
            assert_eq!(COOKIE.read::<String>(&Keys::new().unwrap(), &sent(&told)), None);
        }
        let long = COOKIE.keep(&keys, &"x".repeat(20_000)).unwrap_err();
        assert!(long.to_string().contains("too long"));
        let mut told = COOKIE.keep(&keys, &"x".repeat(5000)).unwrap();
        // A part that is missing, or changed.
        assert_eq!(COOKIE.read::<String>(&keys, &sent(&told[..1])), None);
        told[0] = HeaderValue::from_str(&told[0].to_str().unwrap().replacen('A', "B", 1)).unwrap();
        let changed = COOKIE.read::<String>(&keys, &sent(&told));
        assert!(changed.is_none() || told[0] == COOKIE.keep(&keys, &"").unwrap()[0]);
    }

    #[test]
    fn the_first_key_seals_and_older_ones_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let (one, two) = (STANDARD.encode([1; 32]), STANDARD.encode([2; 32]));
        let read = |text: String| {
            fs::write(&path, text).unwrap();
            Keys::read(&path)
        };
        let old = read(format!("{one}\n")).unwrap();
        let told = COOKIE.keep(&old, &"kept").unwrap();
        let both = read(format!("{two}\n\n{one}\n")).unwrap();
        assert_eq!(COOKIE.read::<String>(&both, &sent(&told)).as_deref(), Some("kept"));
        let new = COOKIE.keep(&both, &"kept").unwrap();
        assert_eq!(COOKIE.read::<String>(&old, &sent(&new)), None);
        for wrong in ["", "short", "AAAA"] {
            assert!(read(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
