//! What is set and cannot be meant: the agent says so before it listens.

use hitl_process::Process;

#[test]
fn a_password_in_any_setting_that_is_wrong_is_not_shown() {
    for url in ["postgres://me:Zq7x@W9kV@h/db", "me:Zq7x/W9kV@h/db", "http://me:Zq7x#W9kV@h/"] {
        let settings = ["database", "url", "model-url", "public-tools", "kagent-url", "listen"];
        for setting in settings.into_iter().chain(["allowed-host", "healthcheck"]) {
            let mut agent = hitl_process::command(env!("CARGO_BIN_EXE_dba-assistant"));
            let said = Process::refused(agent.arg(format!("--{setting}={url}")));
            assert!(!said.contains("Zq7x") && !said.contains("W9kV"), "{setting}: {said}");
        }
    }
}

#[test]
fn settings_that_cannot_be_meant_are_refused_with_what_to_write() {
    for (wrong, says) in [
        ("--url=ftp://agent", "--url <URL> (DBA_ASSISTANT_URL) cannot be used: \"ftp://agent\""),
        ("--model-url=ftp://model", "neither http nor https"),
        ("--model-url=", "it is empty"),
        ("--public-tools=ftp://tools/mcp", "neither http nor https"),
        ("--privileged-tools=tools/mcp", "put http:// or https:// in front"),
        ("--kagent-url=ftp://kagent", "neither http nor https"),
        ("--kagent-url=http://kagent/?a=b", "leave out what begins with ?"),
        ("--model=", "DBA_ASSISTANT_MODEL"),
        ("--allowed-host=http://agent", "is not a host name"),
        ("--allowed-host=agent:8080", "has a port"),
        ("--log-level=loud", "off, error, warn, info, debug and trace"),
        ("--listen=localhost:8080", "names are not looked up here"),
    ] {
        let mut agent = hitl_process::command(env!("CARGO_BIN_EXE_dba-assistant"));
        let said = Process::refused(agent.arg(wrong));
        assert!(said.contains(says), "{wrong}: {said}");
    }
}
