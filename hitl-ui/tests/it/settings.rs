//! What is set and cannot be meant: the queue says so before it listens.

use hitl_process::Process;

fn refused(words: &[&str]) -> String {
    let mut queue = hitl_process::command(env!("CARGO_BIN_EXE_hitl-ui"));
    Process::refused(queue.arg("--listen=127.0.0.1:0").args(words))
}

#[test]
fn settings_that_cannot_be_meant_are_refused_with_what_to_write() {
    let issuer = "--oidc-issuer=https://id.example.com";
    for (words, says) in [
        (
            &["--gate=ftp://gate"][..],
            "--gate <URL> (HITL_ADMIN_URL) cannot be used: \"ftp://gate\"",
        ),
        (&["--gate=gate:8081"], "put http:// or https:// in front"),
        (&["--gate=http://gate/?a=b"], "leave out what begins with ?"),
        (&["--url=https://queue.example.com/queue"], "has a path"),
        (&["--url=ftp://queue.example.com"], "neither http nor https"),
        (&["--ops-tools=ftp://tools"], "neither http nor https"),
        (&["--mcp=tools=ftp://tools"], "neither http nor https"),
        (&["--mcp=http://tools/mcp"], "the name is missing; write NAME=URL"),
        (&["--oidc-client-id="], "HITL_UI_OIDC_CLIENT_ID"),
        (&["--oidc-scopes="], "HITL_UI_OIDC_SCOPES"),
        (&["--oidc-ca=ca.pem"], "--oidc-issuer"),
        (&["--oidc-client-secret-file=secret"], "--oidc-issuer"),
        (&[issuer], "--url"),
        (&["--log-level=loud"], "off, error, warn, info, debug and trace"),
    ] {
        let said = refused(words);
        assert!(said.contains(says), "{words:?}: {said}");
    }
    let said = refused(&["--gate=http://me:s3cret@gate"]);
    assert!(said.contains("leave them out") && !said.contains("s3cret"), "{said}");
    let mut queue = hitl_process::command(env!("CARGO_BIN_EXE_hitl-ui"));
    let said = Process::refused(queue.arg("--listen=8090"));
    assert!(said.contains("'8090'") && said.contains("the IP address is missing"), "{said}");
}
