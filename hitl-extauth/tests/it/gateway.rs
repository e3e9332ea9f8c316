//! What a caller can do to the shipped configurations of Envoy: paths, headers, retries, tunnels.

mod shipped;

use self::shipped::{Envoy, Server, Shipped};
use crate::support::{Gate, Lab};

const PING: &str = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;

const CALL: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"run_migration","arguments":{"version":"v3"}}}"#;

/// What a caller sends to have Envoy run a call again.
const AGAIN: [(&str, &str); 5] = [
    ("x-envoy-retry-on", "5xx,gateway-error,reset,retriable-status-codes"),
    ("x-envoy-max-retries", "5"),
    ("x-envoy-retriable-status-codes", "200,503"),
    ("x-envoy-hedge-on-per-try-timeout", "true"),
    ("x-envoy-upstream-rq-per-try-timeout-ms", "5000"),
];

/// Has Envoy take the caller's address for an internal one, as many do that are set up for a mesh; in the
/// place of a setting that means nothing to the test.
const TRUSTED: (&str, &str) = (
    "path_with_escaped_slashes_action: REJECT_REQUEST",
    "internal_address_config: { cidr_ranges: [{ address_prefix: 127.0.0.0, prefix_len: 8 }] }",
);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite gateway"]
async fn odd_paths_are_refused_and_plain_ones_reach_the_server_as_they_are() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let server = Server::start().await;
    for shipped in Shipped::ALL {
        let envoy = Envoy::start(shipped, &[], &gate, &server).await;
        for (path, status) in [
            ("/public/mcp", 200),
            ("/public/mcp?next=/../;%2e%2f//\\", 200),
            ("/public/a-b_c~1.2", 200),
            ("/public/.well-known/x", 200),
            ("/privileged/mcp", 200),
            ("/privileged/mcp?x=..;", 200),
            ("/", 404),
            ("/publicity", 404),
            ("/PRIVILEGED/mcp", 404),
            ("/public/../privileged/mcp", 400),
            ("/public/./mcp", 400),
            ("/public/..", 400),
            ("/public/.%2e;/privileged/mcp", 400),
            ("/public/..;/privileged/mcp", 400),
            ("/public;x=1/mcp", 400),
            ("/public/mcp;", 400),
            ("/public/%2e%2e/privileged/mcp", 400),
            ("/public/%2E%2E/privileged/mcp", 400),
            ("/public/.%2E/privileged/mcp", 400),
            ("/public/..%2fprivileged/mcp", 400),
            ("/public/..%2Fprivileged/mcp", 400),
            ("/public/..%5cprivileged/mcp", 400),
            ("/public/..%5Cprivileged/mcp", 400),
            ("/public/..\\privileged\\mcp", 400),
            ("/public/%252e%252e/privileged/mcp", 400),
            ("/public/%3b/mcp", 400),
            ("/public/%c0%ae%c0%ae/privileged/mcp", 400),
            ("/%70rivileged/mcp", 400),
            ("//privileged/mcp", 400),
            ("/public//mcp", 400),
            ("/public/mcp//", 400),
            ("http://gateway/public/../privileged/mcp", 400),
            ("http://gateway//privileged/mcp", 400),
        ] {
            let told = envoy.send(&format!("POST {path}"), &[], PING).await;
            let came = server.take();
            assert_eq!(told, status, "{shipped:?} {path}: {came:?}");
            let expected = (status == 200).then(|| format!("post {path} http/1.1").to_lowercase());
            let lines: Vec<_> = came.iter().filter_map(|head| head.lines().next()).collect();
            assert_eq!(lines, expected.iter().collect::<Vec<_>>(), "{shipped:?} {path}");
        }
        // What is refused here, the gate is not asked about.
        assert_eq!(envoy.send("POST /privileged/mcp/..", &[], CALL).await, 400);
        assert!(gate.pending().await.is_empty());
    }
}

/// How often one approved call runs whose caller has asked for more.
async fn runs(shipped: Shipped, changed: &[(&str, &str)], gate: &Gate, status: u16) -> usize {
    let server = Server::start().await;
    server.answers(status);
    let envoy = Envoy::start(shipped, changed, gate, &server).await;
    let approve = async {
        let id = gate.waiting_one().await;
        assert_eq!(gate.decide("dana", &id, true, "").await.0, 204);
    };
    let call = envoy.send("POST /privileged/mcp", &AGAIN, CALL);
    let (told, ()) = tokio::join!(call, approve);
    assert_eq!(told, status, "{shipped:?}");
    let heads = server.take();
    if heads.len() == 1 {
        assert!(!heads[0].contains("\r\nx-envoy-retry"), "{heads:?}");
    }
    heads.len()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite gateway"]
async fn one_approval_runs_once_whatever_a_caller_orders_envoy_to_do() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let unstripped = ("key_matcher: { prefix: x-envoy- }", "key_matcher: { prefix: x-unused- }");
    let unheard = ("(hitl|envoy)", "(hitl)");
    for shipped in Shipped::ALL {
        for status in [503, 200] {
            for changed in [&[][..], &[TRUSTED], &[TRUSTED, unstripped], &[TRUSTED, unheard]] {
                let runs = runs(shipped, changed, &gate, status).await;
                assert_eq!(runs, 1, "{shipped:?} {status} {changed:?}");
            }
        }
        // Without either of the two, Envoy does as it is told.
        let bare = runs(shipped, &[TRUSTED, unstripped, unheard], &gate, 503).await;
        assert!(bare > 1, "{shipped:?}: this Envoy does not listen to callers");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite gateway"]
async fn other_spellings_of_a_header_are_refused_by_envoy_and_taken_off_or_refused_by_the_gate() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let server = Server::start().await;
    let lenient = (
        "common_http_protocol_options: { headers_with_underscores_action: REJECT_REQUEST }",
        "common_http_protocol_options: {}",
    );
    for shipped in Shipped::ALL {
        let envoy = Envoy::start(shipped, &[], &gate, &server).await;
        for (name, value) in [("x_hitl_receipt", "forged"), ("content_type", "application/json")] {
            for path in ["/public/mcp", "/privileged/mcp"] {
                let told = envoy.send(&format!("POST {path}"), &[(name, value)], PING).await;
                assert_eq!((told, server.take().len()), (400, 0), "{shipped:?} {path} {name}");
            }
        }
        drop(envoy);
        let envoy = Envoy::start(shipped, &[lenient], &gate, &server).await;
        for (name, status) in [
            ("x_hitl_receipt", 200),
            ("X-HITL_Receipt", 200),
            ("X_HITL_approval-id", 200),
            ("x.hitl.receipt", 200),
            ("content_type", 400),
            ("transfer_encoding", 400),
            ("mcp_method", 400),
        ] {
            let told = envoy.send("POST /privileged/mcp", &[(name, "forged")], PING).await;
            let came = server.take();
            assert_eq!((told, came.len()), (status, usize::from(status == 200)), "{name}");
            assert!(came.iter().all(|head| !head.contains("forged")), "{name}: {came:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite gateway"]
async fn where_a_gateway_allows_upgrades_the_gate_lets_none_through() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let server = Server::start().await;
    let upgrades = (
        "path_with_escaped_slashes_action: REJECT_REQUEST",
        "upgrade_configs: [{ upgrade_type: websocket }]",
    );
    let envoy = Envoy::start(Shipped::Example, &[upgrades], &gate, &server).await;
    let websocket = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ];
    for method in ["GET", "DELETE", "OPTIONS"] {
        let told = envoy.send(&format!("{method} /privileged/mcp"), &websocket, "").await;
        assert_eq!((told, server.take().len()), (400, 0), "{method}");
    }
    // This gateway passes them on where it does not ask.
    server.answers(101);
    assert_eq!(envoy.send("GET /public/mcp", &websocket, "").await, 101);
    assert!(server.take()[0].contains("\r\nupgrade: websocket"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite gateway"]
async fn a_body_that_is_announced_with_a_method_that_has_none_is_refused() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let server = Server::start().await;
    for shipped in Shipped::ALL {
        let envoy = Envoy::start(shipped, &[], &gate, &server).await;
        for method in ["GET", "DELETE", "OPTIONS"] {
            let line = format!("{method} /privileged/mcp");
            assert_eq!(envoy.send(&line, &[], "").await, 200, "{line}");
            assert_eq!(server.take().len(), 1);
            assert_eq!(envoy.send(&line, &[], CALL).await, 400, "{line}");
            let head =
                format!("{line} HTTP/1.1\r\nhost: gateway\r\ntransfer-encoding: chunked\r\n");
            let chunk = format!("{head}\r\n{:x}\r\n{CALL}\r\n0\r\n\r\n", CALL.len());
            assert_eq!(envoy.send_raw(&chunk).await, 400, "{line}");
            assert_eq!(server.take().len(), 0, "{line}");
        }
    }
}
