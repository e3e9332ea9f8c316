//! Every single thing that can be wrong with a receipt is refused for that reason.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{LIFETIME_SECONDS, ReceiptId, Signer};

const NOW: u64 = 1_800_000_000;

fn signer() -> Signer {
    Signer::from_bytes(&[7; 32]).unwrap()
}

fn keys() -> KeySet {
    KeySet::parse(&signer().jwks().to_string()).unwrap()
}

fn arguments() -> ArgsDigest {
    ArgsDigest::of(json!({"version": "v3"}).as_object()).unwrap()
}

fn claims() -> Claims {
    Claims {
        iss: "hitl-extauth".into(),
        aud: "mcp-ops-tools".into(),
        jti: ReceiptId::new("0199"),
        iat: NOW,
        exp: NOW + LIFETIME_SECONDS,
        tool: "run_migration".into(),
        args_sha256: arguments().as_str().into(),
        sub: Some("alice".into()),
        approved_by: vec!["dana".into()],
        allowed_by: Vec::new(),
        preapproval: None,
    }
}

fn verify(token: &str) -> Result<Claims, Refusal> {
    verify_at(token, NOW)
}

fn verify_at(token: &str, now: u64) -> Result<Claims, Refusal> {
    Verifier::new("hitl-extauth", "mcp-ops-tools").verify(
        &keys(),
        token,
        now,
        "run_migration",
        &arguments(),
    )
}

fn verify_claims(change: impl FnOnce(&mut Claims)) -> Result<Claims, Refusal> {
    let mut claims = claims();
    change(&mut claims);
    verify(&signer().sign(&claims).unwrap())
}

#[test]
fn a_good_receipt_gives_its_claims() {
    assert_eq!(verify_claims(|_| ()), Ok(claims()));
}

#[test]
fn each_claim_that_does_not_fit_is_refused_for_that_reason() {
    assert_eq!(verify_claims(|c| c.iss = "evil".into()), Err(Refusal::WrongIssuer));
    assert_eq!(verify_claims(|c| c.aud = "billing".into()), Err(Refusal::WrongAudience));
    assert_eq!(verify_claims(|c| c.tool = "drop_all".into()), Err(Refusal::OtherTool));
    assert_eq!(verify_claims(|c| c.args_sha256 = "x".into()), Err(Refusal::OtherArguments));
    assert_eq!(verify_claims(|c| c.iat = NOW + 6), Err(Refusal::NotYet));
    assert_eq!(verify_claims(|c| c.exp = c.iat - 1), Err(Refusal::Expired));
    assert_eq!(verify_claims(|c| (c.iat, c.exp) = (0, u64::MAX)), Err(Refusal::LongLived));
    assert_eq!(verify_claims(|c| c.exp += 1), Err(Refusal::LongLived));
    assert_eq!(verify_claims(|c| c.jti = ReceiptId::new("")), Err(Refusal::Unattributed));
    assert_eq!(verify_claims(|c| c.approved_by.clear()), Err(Refusal::Unattributed));
}

#[test]
fn a_call_that_rules_let_pass_is_accepted_only_where_no_reviewer_is_required() {
    let strict = Verifier::new("hitl-extauth", "mcp-ops-tools");
    let lenient = strict.clone().require_reviewer(false);
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    for (approved_by, allowed_by, by_strict, by_lenient) in [
        (&["dana"][..], &[][..], None, None),
        (&["dana"], &["rehearsed"], None, None),
        (&[], &["rehearsed"], Some(Refusal::NoReviewer), None),
        (&[""], &["rehearsed"], Some(Refusal::NoReviewer), None),
        (&[], &[], Some(Refusal::Unattributed), Some(Refusal::Unattributed)),
        (&[" "], &["", " "], Some(Refusal::Unattributed), Some(Refusal::Unattributed)),
    ] {
        let (approved_by, allowed_by) = (names(approved_by), names(allowed_by));
        let claims =
            Claims { approved_by, allowed_by, preapproval: Some("0199".into()), ..claims() };
        let token = signer().sign(&claims).unwrap();
        for (verifier, refusal) in [(&strict, by_strict), (&lenient, by_lenient)] {
            let verified = verifier.verify(&keys(), &token, NOW, "run_migration", &arguments());
            assert_eq!(verified.err(), refusal, "{claims:?}");
        }
    }
}

#[test]
fn a_receipt_without_the_newer_claims_verifies_as_before() {
    let older = serde_json::to_value(claims()).unwrap();
    let names: Vec<_> = older.as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        ["approved_by", "args_sha256", "aud", "exp", "iat", "iss", "jti", "sub", "tool"]
    );
    assert_eq!(verify(&signer().sign(&claims()).unwrap()), Ok(claims()));
}

#[test]
fn time_has_five_seconds_of_leeway_on_either_side() {
    let token = signer().sign(&claims()).unwrap();
    assert!(verify_at(&token, NOW - 5).is_ok());
    assert_eq!(verify_at(&token, NOW - 6), Err(Refusal::NotYet));
    assert!(verify_at(&token, NOW + 64).is_ok());
    assert_eq!(verify_at(&token, NOW + 65), Err(Refusal::Expired));
}

#[test]
fn a_key_that_is_not_in_the_set_is_unknown_and_one_that_lies_about_its_id_does_not_verify() {
    let other = Signer::from_bytes(&[8; 32]).unwrap();
    let token = other.sign(&claims()).unwrap();
    assert_eq!(verify(&token), Err(Refusal::UnknownKey));

    let (_, rest) = token.split_once('.').unwrap();
    let header = json!({"alg": "EdDSA", "typ": TYPE, "kid": signer().kid()});
    let token = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()));
    assert_eq!(verify(&token), Err(Refusal::BadSignature));
}

#[test]
fn the_public_key_as_a_shared_secret_does_not_verify() {
    let public = signer().jwks()["keys"][0]["x"].as_str().unwrap().to_owned();
    for secret in [public.as_bytes().to_vec(), URL_SAFE_NO_PAD.decode(&public).unwrap()] {
        let header = Header {
            typ: Some(TYPE.into()),
            kid: Some(signer().kid().into()),
            ..Header::new(Algorithm::HS256)
        };
        let key = EncodingKey::from_secret(&secret);
        let token = jsonwebtoken::encode(&header, &claims(), &key).unwrap();
        assert_eq!(verify(&token), Err(Refusal::WrongAlgorithm));
    }
}

#[test]
fn no_algorithm_another_type_and_missing_claims_are_refused() {
    let unsigned = |header: Value, claims: Value| {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.", part(header), part(claims))
    };
    let good = serde_json::to_value(claims()).unwrap();
    let header = json!({"alg": "none", "typ": TYPE, "kid": signer().kid()});
    assert_eq!(verify(&unsigned(header, good.clone())), Err(Refusal::Malformed));
    let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": signer().kid()});
    assert_eq!(verify(&unsigned(header, good.clone())), Err(Refusal::WrongType));
    let header = json!({"alg": "EdDSA", "typ": TYPE});
    assert_eq!(verify(&unsigned(header, good)), Err(Refusal::UnknownKey));
    let header = json!({"alg": "EdDSA", "typ": TYPE, "kid": signer().kid()});
    assert_eq!(verify(&unsigned(header, json!({}))), Err(Refusal::BadSignature));
}

#[test]
fn key_sets_without_an_ed25519_key_are_refused_and_others_in_the_set_ignored() {
    assert!(matches!(KeySet::parse("{}"), Err(KeySetError::NotAJwks(_))));
    let hidden = r#"{"keys":[{"$serde_json::private::RawValue":"{}"}]}"#;
    assert!(matches!(KeySet::parse(hidden), Err(KeySetError::NotAJwks(_))));
    assert!(matches!(KeySet::parse(r#"{"keys":[]}"#), Err(KeySetError::NoUsableKey)));
    let mut jwks = signer().jwks();
    jwks["keys"].as_array_mut().unwrap().push(json!({"kty": "oct", "kid": "s", "k": "c2VjcmV0"}));
    assert_eq!(KeySet::parse(&jwks.to_string()).unwrap().kids().count(), 1);
}

#[test]
fn a_key_that_is_no_key_is_refused_when_the_set_is_read() {
    for x in ["AA", "", "!!", &"A".repeat(44)] {
        let jwks = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "bad", "x": x}]});
        assert!(matches!(KeySet::parse(&jwks.to_string()), Err(KeySetError::BadKey { .. })), "{x}");
    }
}

#[test]
fn a_header_that_marks_something_as_critical_is_refused() {
    let token = signer().sign(&claims()).unwrap();
    let (_, rest) = token.split_once('.').unwrap();
    let header = json!({"alg": "EdDSA", "typ": TYPE, "kid": signer().kid(), "crit": ["exp"]});
    let token = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()));
    assert_eq!(verify(&token), Err(Refusal::Malformed));
}

proptest! {
    #[test]
    fn nothing_but_a_receipt_is_accepted_and_nothing_panics(token: String) {
        prop_assert!(verify(&token).is_err());
    }

    #[test]
    fn changing_one_byte_of_a_receipt_breaks_it(at in 0_usize..400, byte in b'-'..=b'z') {
        let token = signer().sign(&claims()).unwrap();
        let at = at % token.len();
        let mut changed = token.clone().into_bytes();
        changed[at] = byte;
        let changed = String::from_utf8(changed).unwrap();
        prop_assume!(changed != token);
        prop_assert!(verify(&changed).is_err());
    }
}
