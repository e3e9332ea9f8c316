//! What one caller can make the gate write into its log.

use std::time::Instant;

use futures_util::{StreamExt as _, stream};
use serde_json::Value;

use crate::support::{Gate, Lab, PATIENCE, Verdict, migrate, post};

/// What the line says that counts the rest.
const LEFT_OUT: &str = "not logged one by one";

/// The fields of every line with this message.
fn lines(gate: &Gate, message: &str) -> Vec<Value> {
    let read = |line: &String| serde_json::from_str::<Value>(line).unwrap();
    let has = |line: &Value| line.to_string().contains(message);
    gate.lines().iter().map(read).filter(has).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_refused_requests_with_long_paths_leave_a_short_log() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let before = gate.lines().len();
    let path = format!("/privileged/{}\n\u{1b}[31m", "p".repeat(50_000));
    let begun = Instant::now();
    let gateway = gate.gateway().await;
    let refused = stream::iter(0..10_000).map(|_| {
        let (mut gateway, path) = (gateway.clone(), path.clone());
        async move {
            let mut check = post("[]", &[]);
            let http = check.attributes.as_mut().unwrap().request.as_mut().unwrap();
            http.http.as_mut().unwrap().path = path;
            gateway.check(check).await.unwrap()
        }
    });
    refused.buffer_unordered(64).for_each(|_| async {}).await;

    let counted = async {
        loop {
            let told: Vec<_> = lines(&gate, LEFT_OUT);
            let sum: u64 = told.iter().filter_map(|line| line["requests"].as_u64()).sum();
            let single = u64::try_from(lines(&gate, "\"refused\"").len()).unwrap();
            assert!(sum + single <= 10_000);
            if sum + single == 10_000 {
                return (single, told.len());
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let counted = tokio::time::timeout(PATIENCE, counted).await;
    let (single, told) = counted.expect("every request is logged or counted");
    let seconds = begun.elapsed().as_secs() + 1;
    assert!((20..=20 + 5 * seconds).contains(&single), "{single} lines in {seconds} s");
    assert!(u64::try_from(told).unwrap() <= 1 + seconds / 5, "{told} counts");
    for line in &gate.lines()[before..] {
        assert!(line.len() < 1024, "{} bytes: {line:.200}", line.len());
    }
    println!("{single} lines, {told} counts, {} s", begun.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_denied_again_and_again_leaves_few_lines_and_another_address_has_its_own() {
    let lab = Lab::new();
    std::fs::write(lab.path("rules.yaml"), "rules:\n- name: no\n  deny: never\n").unwrap();
    let rules = lab.path("rules.yaml");
    let gate = lab.start(&["--rules", rules.to_str().unwrap()]);
    let begun = Instant::now();
    for number in 0..300 {
        let (text, _) = gate.check(migrate("alice", "v3", number)).await.denial();
        assert!(text.contains("never"), "{text}");
    }
    let denied = lines(&gate, "\"not released\"").len();
    let most = 20 + 5 * (begun.elapsed().as_secs() + 1);
    assert!(denied >= 20 && u64::try_from(denied).unwrap() <= most, "{denied} lines");
    let mut other = post("[]", &[]);
    let source = other.attributes.as_mut().unwrap().source.as_mut().unwrap();
    source.address = None;
    assert!(matches!(gate.check(other).await, Verdict::Denied { .. }));
    let logged = async {
        while lines(&gate, "\"refused\"").is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, logged).await.expect("its first request is logged");
}
