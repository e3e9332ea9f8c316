//! The corpora, replayed: what the gate makes of every request in it, that nothing in it could be a
//! call where it passes, and what the strict reader makes of what fuzzing has left.

#![allow(clippy::unwrap_used)]

use std::{fmt::Write as _, fs, path::Path};

use hitl_adversarial::{case::Case, generate::Generator, packed, reading, strict};
use hitl_extauth::classify::Class;

#[test]
fn every_request_of_the_corpus_is_taken_as_it_was_and_none_that_passes_could_be_a_call() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    names.sort();
    let mut taken = String::new();
    for path in names {
        let name = path.file_name().unwrap().to_str().unwrap();
        let case = Case::parse(&fs::read(&path).unwrap());
        let class = reading::check(&case).unwrap_or_else(|why| panic!("{name}: {why}"));
        let word = match class {
            Class::Pass(_) => "passes".to_owned(),
            Class::Gate(call) => format!("gated: {} {:?}", call.tool, call.arguments),
            Class::Refuse(refusal) => format!("refused: {}", refusal.label()),
        };
        // Its path is the gateway's to judge: the suite `adversarial` sends it through Envoy.
        let word = if case.path.is_some() { format!("(by its body) {word}") } else { word };
        let word: String = word.chars().take(80).collect();
        writeln!(taken, "{name:<32} {word}").unwrap();
        // What is kept in the corpus' form is the same request when it is read again.
        assert_eq!(Case::parse(&case.write()), case, "{name}");
    }
    insta::assert_snapshot!(taken);
}

#[test]
fn of_twenty_thousand_generated_requests_none_that_passes_could_be_a_call() {
    let seed = fastrand::u64(..);
    let mut generator = Generator::new(seed);
    let (mut passed, mut gated) = (0, 0);
    for _ in 0..20_000 {
        let case = generator.case();
        let class = reading::check(&case).unwrap_or_else(|why| {
            panic!("seed {seed}: {why}\n{}", case.write().escape_ascii());
        });
        passed += u32::from(matches!(class, Class::Pass(_)));
        gated += u32::from(matches!(class, Class::Gate(_)));
    }
    // Otherwise nothing was tested.
    assert!(passed > 1000 && gated > 1000, "{passed} {gated}");
}

#[test]
fn what_the_strict_reader_accepts_of_the_corpora_has_one_reading() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kept = fs::read_dir(folder.join("corpus")).unwrap();
    let mut texts: Vec<_> =
        kept.map(|file| Case::parse(&fs::read(file.unwrap().path()).unwrap()).body).collect();
    let packed = fs::read_to_string(folder.join("fuzz/corpus/json.packed")).unwrap();
    texts.extend(packed::unpack(&packed).unwrap());
    let mut accepted = 0;
    for text in &texts {
        let checked =
            strict::check(text).unwrap_or_else(|why| panic!("{}: {why}", text.escape_ascii()));
        accepted += u32::from(checked);
    }
    // Otherwise nothing was tested.
    assert!(accepted > 100, "{accepted}");
}

#[test]
fn the_oracle_sees_calls_that_a_lenient_server_would_run() {
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}"#;
    // Passed off as harmless by a gate that is not ours, each would be found out.
    for body in [
        call.to_owned(),
        format!("\u{feff}{call}"),
        format!("[{call}]"),
        call.replace("\"method\"", "\"METHOD\""),
        call.replace("\"id\"", "\"method\":\"ping\",\"id\""),
        call.replace("tools/call", "Tools/Call "),
        format!("{{}} {call}"),
    ] {
        assert!(reading::could_be_a_call(body.as_bytes()), "{body}");
    }
    let wide: Vec<u8> = call.encode_utf16().flat_map(u16::to_be_bytes).collect();
    assert!(reading::could_be_a_call(&wide));
    assert!(!reading::could_be_a_call(br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#));
}
