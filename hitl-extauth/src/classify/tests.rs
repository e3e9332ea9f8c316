//! Every known way past a gate, and the properties that hold for the ways nobody has thought of.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const CALL: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"run_migration","arguments":{"version":"v3"}}}"#;

fn headers(more: &[(&str, &str)]) -> Headers {
    let json = [("content-type", "application/json")];
    json.iter().chain(more).copied().collect()
}

fn post(body: &[u8], more: &[(&str, &str)]) -> Class {
    let headers = headers(more);
    let stated_size = i64::try_from(body.len()).unwrap();
    let subject = Subject { method: "POST", headers: &headers, body, stated_size };
    classify(&subject, &HarmlessMethods::default())
}

fn label(class: &Class) -> &'static str {
    match class {
        Class::Pass(_) => "pass",
        Class::Gate(_) => "gate",
        Class::Refuse(refusal) => refusal.label(),
    }
}

fn of(body: &str) -> &'static str {
    label(&post(body.as_bytes(), &[]))
}

#[test]
fn a_tool_call_is_gated_as_it_is_written() {
    let call = ToolCall {
        id: json!(7),
        tool: "run_migration".into(),
        arguments: json!({"version": "v3"}).as_object().unwrap().clone(),
    };
    assert_eq!(post(CALL.as_bytes(), &[]), Class::Gate(call.clone()));
    // The same call, spelled otherwise.
    let escaped = CALL.replace("tools/call", r"tools\u002fcall").replace("run_m", r"run\u005fm");
    assert_eq!(post(escaped.as_bytes(), &[]), Class::Gate(call.clone()));
    let with_meta = CALL.replace(r#""params":{"#, r#""params":{"_meta":{"progressToken":1},"#);
    assert_eq!(post(format!(" {with_meta}\n").as_bytes(), &[]), Class::Gate(call));
    let bare = r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"x"}}"#;
    assert!(matches!(post(bare.as_bytes(), &[]), Class::Gate(call) if call.arguments.is_empty()));
}

#[test]
fn harmless_requests_pass() {
    for method in ["GET", "DELETE", "OPTIONS"] {
        let none = Headers::default();
        let subject = Subject { method, headers: &none, body: b"", stated_size: 0 };
        let class = classify(&subject, &HarmlessMethods::default());
        assert_eq!(class, Class::Pass(Harmless::NoBody));
    }
    for body in [
        r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{}}"#,
        r#"{"jsonrpc":"2.0","id":"s","method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"roots":[]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no"}}"#,
    ] {
        assert_eq!(of(body), "pass", "{body}");
    }
}

#[test]
fn what_the_original_gate_let_through_is_refused() {
    let padded = format!("{}{CALL}", " ".repeat(70_000));
    let cut = &padded.as_bytes()[..65_536];
    let none = headers(&[]);
    let subject = Subject { method: "POST", headers: &none, body: cut, stated_size: -1 };
    assert_eq!(label(&classify(&subject, &HarmlessMethods::default())), "truncated");
    assert_eq!(label(&post(cut, &[("x-envoy-auth-partial-body", "true")])), "truncated");
    let subject = Subject { stated_size: 70_105, ..subject };
    assert_eq!(label(&classify(&subject, &HarmlessMethods::default())), "size");

    assert_eq!(of(&CALL.replace("}}}", r#"}},"Method":"ping"}"#)), "json");
    assert_eq!(of(&CALL.replace("}}}", r#"}},"Params":{"name":""}}"#)), "json");
    assert_eq!(of(&format!("\u{feff}{CALL}")), "json");
    // Both orders of a repeated method.
    assert_eq!(of(&CALL.replace(r#""method""#, r#""method":"ping","method""#)), "json");
    assert_eq!(of(&CALL.replace("}}}", r#"}},"method":"ping"}"#)), "json");
    // It would run, and nobody could be answered.
    assert_eq!(of(&CALL.replace(r#""id":7,"#, "")), "tool_call");
    assert_eq!(of(&CALL.replace("v3", "v\u{fffd}")), "json");
    assert_eq!(of(&CALL.replace("v3", r"v\ufffd")), "json");
    assert_eq!(of(&format!("[{CALL}]")), "batch");
    assert_eq!(of(&format!("{CALL}{CALL}")), "json");
    assert_eq!(of("ping"), "json");
    assert_eq!(of(""), "json");
    assert_eq!(of(&CALL.replace(r#""name":"run_migration","#, "")), "tool_call");
    assert_eq!(of(&CALL.replace(r#"{"version":"v3"}"#, r#"["v3"]"#)), "tool_call");
    assert_eq!(label(&post(CALL.as_bytes(), &[("content-encoding", "gzip")])), "encoding");
}

#[test]
fn what_is_kept_while_a_call_is_held_is_short() {
    let long = "x".repeat(257);
    assert_eq!(of(&CALL.replace(r#""id":7"#, &format!(r#""id":"{long}""#))), "tool_call");
    assert_eq!(of(&CALL.replace("run_migration", &long)), "tool_call");
    assert_eq!(of(&CALL.replace("run_migration", &long[1..])), "gate");
}

#[test]
fn a_key_that_is_no_member_in_javascript_is_refused_at_any_depth() {
    for key in ["__proto__", r"\u005f_proto__"] {
        let hidden = format!(r#"{{"version":"v3","{key}":{{"version":"v1"}}}}"#);
        assert_eq!(of(&CALL.replace(r#"{"version":"v3"}"#, &hidden)), "json");
        assert_eq!(of(&CALL.replace(r#""v3""#, &format!(r#"[{{"{key}":1}}]"#))), "json");
    }
    assert_eq!(of(&CALL.replace(r#""v3""#, r#""__proto__""#)), "gate");
}

#[test]
fn keys_with_a_private_meaning_to_a_library_are_refused_at_any_depth() {
    let key = "$serde_json::private::RawValue";
    let hidden = format!(r#"{{"filter":{{"{key}":"{{\"id\":5}}"}}}}"#);
    assert_eq!(of(&CALL.replace(r#"{"version":"v3"}"#, &hidden)), "json");
    let nested = format!(r#""_meta":{{"a":[{{"{key}":"no JSON"}}]}},"#);
    assert_eq!(of(&CALL.replace(r#""params":{"#, &format!(r#""params":{{{nested}"#))), "json");
    // As a text it is a text.
    assert_eq!(of(&CALL.replace("v3", key)), "gate");
}

#[test]
fn keys_that_another_server_reads_as_ours_are_refused() {
    for (key, why) in [
        ("Method", "json"),
        ("METHOD", "json"),
        ("Jsonrpc", "json"),
        ("ID", "json"),
        ("Result", "folded_key"),
        ("para\u{6d}S", "folded_key"),
        ("param\u{17f}", "folded_key"),
    ] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","{key}":{{}}}}"#);
        assert_eq!(of(&body), why, "{key}");
    }
    for (key, why) in [
        ("Name", "json"),
        ("argument\u{17f}", "json"),
        ("ARGUMENTS", "json"),
        ("_Meta", "folded_key"),
    ] {
        let body = CALL.replace(r#""params":{"#, &format!(r#""params":{{"{key}":"x","#));
        assert_eq!(of(&body), why, "{key}");
    }
    // Among the arguments, where a rule reads the one and the server the other.
    for two in [r#"{"version":"v1","Version":"v4"}"#, r#"{"a":[{"sql":1,"\u017fql":2}]}"#] {
        assert_eq!(of(&CALL.replace(r#"{"version":"v3"}"#, two)), "json", "{two}");
    }
    for member in [r#""task":{"ttl":1},"#, r#""requestState":"x","#, r#""inputResponses":{},"#] {
        let body = CALL.replace(r#""params":{"#, &format!(r#""params":{{{member}"#));
        assert_eq!(of(&body), "unknown_member", "{member}");
    }
    assert_eq!(of(&CALL.replace("}}}", r#"}},"extra":1}"#)), "unknown_member");
    // What the tool itself takes is the tool's business, and shown as it is.
    assert_eq!(of(&CALL.replace(r#""version":"v3""#, r#""Version":"v3","more":"v1""#)), "gate");
}

#[test]
fn messages_that_are_two_things_or_none_are_refused() {
    for (body, expected) in [
        (CALL.replace("}}}", r#"}},"result":{}}"#), "json_rpc"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#.into(), "json_rpc"),
        (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#.into(), "json_rpc"),
        (r#"{"jsonrpc":"2.0","id":1,"result":{},"params":{}}"#.into(), "json_rpc"),
        (r#"{"jsonrpc":"2.0","id":1}"#.into(), "json_rpc"),
        (r#"{"jsonrpc":"2.0","result":{}}"#.into(), "json_rpc"),
        (CALL.replace(r#""2.0""#, r#""1.0""#), "json_rpc"),
        (CALL.replace(r#""jsonrpc":"2.0","#, ""), "json_rpc"),
        (CALL.replace(r#""tools/call""#, r#"["tools/call"]"#), "json_rpc"),
        (CALL.replace(r#""tools/call""#, "null"), "json_rpc"),
        (CALL.replace(r#""id":7"#, r#""id":null"#), "json_rpc"),
        (CALL.replace(r#""id":7"#, r#""id":{}"#), "json_rpc"),
        (CALL.replace(r#""id":7"#, r#""id":1.5"#), "json_rpc"),
        (CALL.replace("tools/call", "tools/Call"), "method"),
        (CALL.replace("tools/call", "tools/call "), "method"),
        (CALL.replace("tools/call", "resources/read"), "method"),
        ("null".into(), "json_rpc"),
        (r#""tools/call""#.into(), "json_rpc"),
        (CALL.replace("run_migration", ""), "tool_call"),
        (CALL.replace(r#""run_migration""#, "7"), "tool_call"),
        (CALL.replace(r#""v3""#, "9007199254740993"), "json"),
        (CALL.replace(r#""v3""#, &format!("{}{}", "[".repeat(64), "]".repeat(64))), "json"),
        (CALL.replace(r#""v3""#, &format!("{}{}", "[".repeat(9_000), "]".repeat(9_000))), "json"),
        (CALL.replace(r#""v3""#, r#"{"a":1,"b":{"c":1,"\u0063":2}}"#), "json"),
        (CALL.replace(r#""v3""#, "NaN"), "json"),
        (CALL.replace(r#""v3""#, "1e999"), "json"),
        (CALL.replace(r#""v3""#, r#""\ud800""#), "json"),
        (format!("{CALL}\0"), "json"),
        (format!("//\n{CALL}"), "json"),
    ] {
        assert_eq!(of(&body), expected, "{body:.200}");
    }
    assert_eq!(
        label(&post(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\xff\"}", &[])),
        "json"
    );
}

#[test]
fn headers_that_change_how_the_body_is_read_are_refused() {
    let ping = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let typed = |value: &str| {
        let headers = Headers::from_iter([("content-type", value)]);
        let stated_size = i64::try_from(ping.len()).unwrap();
        let subject = Subject { method: "POST", headers: &headers, body: ping, stated_size };
        label(&classify(&subject, &HarmlessMethods::default()))
    };
    for good in [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/json;charset=\"UTF-8\"",
    ] {
        assert_eq!(typed(good), "pass", "{good}");
    }
    for bad in [
        "application/json; charset=utf-7",
        "application/json;charset=utf-8;charset=utf-7",
        "application/json; charset=utf-16",
        "application/json; boundary=x",
        "text/plain",
        "",
        "application/json, text/plain",
        "application/json,application/json",
        "application/jsonp",
    ] {
        assert_eq!(typed(bad), "encoding", "{bad}");
    }
    for (name, value, expected) in [
        ("content-encoding", "gzip", "encoding"),
        ("content-encoding", "identity, gzip", "encoding"),
        ("content-encoding", "identity", "pass"),
        ("transfer-encoding", "chunked", "pass"),
        ("transfer-encoding", "gzip, chunked", "encoding"),
        ("content-type", "application/json", "encoding"),
        ("content-length", "1", "size"),
        ("content-length", "x", "size"),
        ("content-length", "40", "pass"),
        ("x-envoy-auth-partial-body", "false", "pass"),
        ("x-envoy-auth-partial-body", "False", "truncated"),
    ] {
        assert_eq!(label(&post(ping, &[(name, value)])), expected, "{name}: {value}");
    }
    assert_eq!(label(&post(b"", &[("content-length", "40")])), "size");
}

#[test]
fn mirrored_headers_must_say_what_the_body_says_once() {
    let with = |more: &[(&str, &str)]| label(&post(CALL.as_bytes(), more));
    assert_eq!(with(&[("mcp-method", "tools/call"), ("mcp-name", "run_migration")]), "gate");
    assert_eq!(with(&[("mcp-name", "=?base64?cnVuX21pZ3JhdGlvbg==?=")]), "gate");
    for wrong in [
        vec![("mcp-method", "ping")],
        vec![("mcp-method", "tools/call,tools/call")],
        vec![("mcp-method", "tools/call"), ("mcp-method", "tools/call")],
        vec![("mcp-method", "")],
        vec![("mcp-name", "cluster_db_query")],
        vec![("mcp-name", "=?base64?!!?=")],
        vec![("mcp-name", "run_migration"), ("mcp-name", "other")],
    ] {
        assert_eq!(with(&wrong), "mirror_header", "{wrong:?}");
    }
    let ping = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    assert_eq!(label(&post(ping, &[("mcp-method", "tools/call")])), "mirror_header");
    assert_eq!(label(&post(ping, &[("mcp-name", "x")])), "mirror_header");
    let response = br#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    assert_eq!(label(&post(response, &[("mcp-method", "tools/call")])), "mirror_header");
}

#[test]
fn a_request_that_asks_for_a_tunnel_is_refused_with_any_method() {
    let none = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#.as_slice();
    for (name, value) in [
        ("Upgrade", "websocket"),
        ("upgrade", "h2c"),
        ("upgrade", ""),
        ("UPGRADE", "TLS/1.2"),
        ("connection", "Upgrade"),
        ("connection", "keep-alive,UPGRADE"),
        ("connection", "close, \tupgrade , x"),
        ("connection", "HTTP2-Settings"),
        ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
        (":protocol", "websocket"),
        (":Protocol", "connect-udp"),
    ] {
        for (method, body) in
            [("GET", b"".as_slice()), ("DELETE", b""), ("OPTIONS", b""), ("POST", none)]
        {
            let headers = headers(&[(name, value)]);
            let stated_size = i64::try_from(body.len()).unwrap();
            let subject = Subject { method, headers: &headers, body, stated_size };
            let class = classify(&subject, &HarmlessMethods::default());
            assert_eq!(label(&class), "tunnel", "{method} {name}: {value}");
        }
    }
    for connection in ["keep-alive", "close, te", "upgrade-insecure-requests", "x-upgrade"] {
        let plain = [("connection", connection), ("upgrade-insecure-requests", "1")];
        assert_eq!(label(&post(none, &plain)), "pass", "{connection}");
    }
}

#[test]
fn a_header_that_a_server_reads_as_one_that_decides_is_refused() {
    let ping = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for name in [
        "content_type",
        "Content_Type",
        "CONTENT_LENGTH",
        "content_encoding",
        "content.encoding",
        "transfer_encoding",
        "Transfer~Encoding",
        "http2_settings",
        "mcp_method",
        "MCP_Name",
        "mcp-protocol_version",
        "mcp_protocol-version",
    ] {
        assert_eq!(label(&post(CALL.as_bytes(), &[(name, "x")])), "folded_header", "{name}");
        assert_eq!(label(&post(ping, &[(name, "x")])), "folded_header", "{name}");
        let headers = headers(&[(name, "chunked")]);
        let subject = Subject { method: "GET", headers: &headers, body: b"", stated_size: 0 };
        let class = classify(&subject, &HarmlessMethods::default());
        assert_eq!(label(&class), "folded_header", "{name}");
    }
    for name in ["x_user_id", "mcp-param-user_id", "content_disposition", "contenttype"] {
        assert_eq!(label(&post(CALL.as_bytes(), &[(name, "x")])), "gate", "{name}");
    }
}

#[test]
fn a_body_that_was_announced_and_not_shown_is_refused_where_none_belongs() {
    for (name, value, expected) in [
        ("transfer-encoding", "chunked", "unexpected_body"),
        ("transfer-encoding", "identity", "unexpected_body"),
        ("Transfer-Encoding", "", "unexpected_body"),
        ("content-length", "5", "size"),
        ("content-length", "+0", "size"),
        ("content-length", "0,5", "size"),
        ("content-length", "", "size"),
        ("content-length", "0", "pass"),
    ] {
        for method in ["GET", "DELETE", "OPTIONS"] {
            let headers = headers(&[(name, value)]);
            let subject = Subject { method, headers: &headers, body: b"", stated_size: 0 };
            let class = classify(&subject, &HarmlessMethods::default());
            assert_eq!(label(&class), expected, "{method} {name}: {value}");
        }
    }
}

#[test]
fn only_methods_of_the_list_pass_and_nothing_resolves_into_another() {
    let of = |method: &str| of(&json!({"jsonrpc": "2.0", "method": method}).to_string());
    for method in ["cancelled", "initialized", "progress", "roots/list_changed", "tasks/status"] {
        assert_eq!(of(&format!("notifications/{method}")), "pass", "{method}");
    }
    for method in [
        "notifications/../tools/call",
        "notifications/./../tools/call",
        "notifications/",
        "notifications//tools/call",
        "notifications/x",
        "notifications/Initialized",
        "notifications/initialized/",
        "notifications/initialized/../../tools/call",
        "notifications/%2e%2e/tools/call",
        "notifications\\..\\tools\\call",
        "ping/../tools/call",
    ] {
        assert_eq!(of(method), "method", "{method}");
    }
}

#[test]
fn http_methods_mcp_does_not_use_and_bodies_where_none_belong_are_refused() {
    for (method, body, expected) in [
        ("PUT", CALL, "http_method"),
        ("PATCH", CALL, "http_method"),
        ("post", CALL, "http_method"),
        ("HEAD", "", "http_method"),
        ("CONNECT", "", "http_method"),
        ("", "", "http_method"),
        ("GET", CALL, "unexpected_body"),
        ("DELETE", " ", "unexpected_body"),
        ("OPTIONS", CALL, "unexpected_body"),
    ] {
        let headers = headers(&[]);
        let stated_size = i64::try_from(body.len()).unwrap();
        let subject = Subject { method, headers: &headers, body: body.as_bytes(), stated_size };
        assert_eq!(label(&classify(&subject, &HarmlessMethods::default())), expected, "{method}");
    }
}

/// Bodies close to a call: its pieces in any order, with what an attacker would try between them.
fn nearly_a_call() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            r#""jsonrpc":"2.0""#, r#""id":1"#, r#""id":"a""#, r#""method":"tools/call""#,
            r#""method":"ping""#, r#""Method":"ping""#, r#""method":"tools\u002fcall""#,
            r#""params":{"name":"x","arguments":{}}"#, r#""params":{"name":"x"}"#, r#""params":{}"#,
            r#""Params":{"name":"x"}"#, r#""param\u017f":{"name":"x"}"#, r#""result":{}"#,
            r#""params":{"name":"x","name":"y"}"#, r#""error":{}"#, r#""params":null"#,
        ]).prop_map(str::to_owned),
        1 => "\"[a-zA-Z]{1,8}\":(1|null|\"tools/call\"|\\{\\})",
    ];
    let frame =
        prop::sample::select(vec!["{}", "[{}]", " {}", "\u{feff}{}", "{}{}", "{},", "{}\u{0}"]);
    (prop::collection::vec(piece, 0..7), frame)
        .prop_map(|(pieces, frame)| frame.replacen("{}", &format!("{{{}}}", pieces.join(",")), 1))
}

/// Whether a lenient reader finds a tool call in a body: any parser, any order, any case.
fn mentions_a_call(body: &str) -> bool {
    let lower = body.to_ascii_lowercase();
    lower.contains("tools/call") || lower.contains(r"tools\u002fcall")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_are_classified_without_a_panic_and_never_pass_unless_strict_json(body: Vec<u8>) {
        if let Class::Pass(_) = post(&body, &[]) {
            prop_assert!(json::message(&body).is_ok());
        }
    }

    #[test]
    fn nothing_that_could_be_read_as_a_tool_call_passes(body in nearly_a_call()) {
        let class = post(body.as_bytes(), &[]);
        if mentions_a_call(&body) && matches!(class, Class::Pass(_)) {
            // Only as a value that nothing calls: inside a response.
            prop_assert_eq!(class, Class::Pass(Harmless::Response), "{}", body);
            let value: Value = serde_json::from_str(&body).unwrap();
            prop_assert!(value.get("method").is_none());
        }
    }

    #[test]
    fn what_is_gated_is_exactly_what_a_strict_parser_reads(body in nearly_a_call()) {
        if let Class::Gate(call) = post(body.as_bytes(), &[]) {
            let value: Value = serde_json::from_str(&body).unwrap();
            prop_assert_eq!(&value["method"], "tools/call");
            prop_assert_eq!(&value["params"]["name"], &call.tool);
            prop_assert_eq!(&value["id"], &call.id);
        }
    }

    #[test]
    fn a_body_that_is_not_whole_never_passes_and_is_never_gated(cut in 0..CALL.len(), size: i64) {
        let headers = headers(&[]);
        let body = &CALL.as_bytes()[..cut];
        let subject = Subject { method: "POST", headers: &headers, body, stated_size: size };
        prop_assert!(matches!(classify(&subject, &HarmlessMethods::default()), Class::Refuse(_)));
    }
}
