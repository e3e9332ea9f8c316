//! Starting: what is taken, what is refused, and in which words.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
};

use hitl_process::{Process, command_with_umask, open_to_others};
use rusqlite::Connection;

use crate::support::{Server, command};

fn refusal(args: &[&str]) -> String {
    let output = command(args).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn a_database_in_a_file_is_there_again_after_a_restart_and_in_wal_mode() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.db");
    let args = ["--database", file.to_str().unwrap()];
    let server = Server::start(&args).await;
    server.call("truncate_table", serde_json::json!({"table": "orders"})).await.structured();
    server.kill();
    let mode: String = Connection::open(&file)
        .unwrap()
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .unwrap();
    assert_eq!(mode, "wal");
    let state = Server::start(&args).await.state().await;
    assert_eq!(state["row_counts"], serde_json::json!({"orders": 0, "customers": 3}));
    assert_eq!(state["audit"][0]["op"], "truncate");
}

#[test]
fn the_database_is_private_under_every_umask_and_an_older_one_becomes_so() {
    for umask in ["0", "077", "0277"] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("orders.db");
        let start = || {
            let mut command = command_with_umask(umask, env!("CARGO_BIN_EXE_mcp-ops-tools"));
            Process::start(command.arg("--listen=127.0.0.1:0").arg("--database").arg(&file))
        };
        let mut server = start();
        for name in ["orders.db", "orders.db-wal", "orders.db-shm"] {
            let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name} under umask {umask}");
        }
        server.kill();
        for left in fs::read_dir(folder.path()).unwrap().flatten() {
            fs::set_permissions(left.path(), Permissions::from_mode(0o644)).unwrap();
        }
        let _server = start();
        assert_eq!(open_to_others(folder.path()), []);
    }
}

#[test]
fn another_programs_database_and_a_newer_one_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.db");
    let path = file.to_str().unwrap();
    Connection::open(&file).unwrap().execute_batch("CREATE TABLE theirs (a)").unwrap();
    let before = std::fs::read(&file).unwrap();
    let text = refusal(&["--database", path]);
    assert!(text.contains("file of another program"), "{text}");
    assert_eq!(std::fs::read(&file).unwrap(), before);

    // In WAL mode with rows that are not in the file yet: not even those are moved.
    let file = folder.path().join("wal.db");
    let theirs = Connection::open(&file).unwrap();
    theirs.execute_batch("PRAGMA journal_mode = wal; CREATE TABLE theirs (a)").unwrap();
    let names = ["wal.db", "wal.db-wal"].map(|name| folder.path().join(name));
    let before = names.each_ref().map(|name| std::fs::read(name).unwrap());
    assert!(refusal(&["--database", file.to_str().unwrap()]).contains("another program"));
    assert_eq!(names.map(|name| std::fs::read(name).unwrap()), before);

    let file = folder.path().join("newer.db");
    let newer = "PRAGMA application_id = 0x4849544c; PRAGMA user_version = 99";
    Connection::open(&file).unwrap().execute_batch(newer).unwrap();
    let text = refusal(&["--database", file.to_str().unwrap()]);
    assert!(text.contains("layout 99") && text.contains("or newer"), "{text}");

    std::fs::write(folder.path().join("text.db"), "not a database, and long enough").unwrap();
    let text = refusal(&["--database", folder.path().join("text.db").to_str().unwrap()]);
    assert!(text.contains("file of another program"), "{text}");
    let text = refusal(&["--database", folder.path().join("no/such/x.db").to_str().unwrap()]);
    assert!(text.contains("there is no folder"), "{text}");
    assert!(!text.contains("backtrace"), "{text}");
}

#[tokio::test]
async fn a_taken_port_and_unusable_settings_are_explained() {
    let server = Server::start(&[]).await;
    let port = server.address.port().to_string();
    let text = refusal(&["--port", &port]);
    assert!(text.contains(&format!("another process has port {port}")), "{text}");

    for (args, expected) in [
        (["--allowed-host", "http://x/"], "is not a host name"),
        (
            ["--receipt-keys", "/nonexistent/keys.json"],
            "--receipt-keys /nonexistent/keys.json cannot be read",
        ),
        (["--receipt-keys", "ftp://x"], "is neither http nor https"),
        (["--log-level", "a=b=c"], "is not a level"),
    ] {
        let text = refusal(&args);
        assert!(text.contains(expected), "{args:?}: {text}");
    }
}

#[tokio::test]
async fn running_without_receipts_is_said_loudly() {
    let open = Server::start(&[]).await;
    let said = open.lines();
    assert!(said.iter().any(|line| line.contains("WITHOUT an approval receipt")), "{said:?}");
}

#[test]
fn a_url_in_place_of_a_file_is_refused_and_its_password_is_not_shown() {
    for url in ["postgres://me:Zq7x@W9kV@h/db", "me:Zq7x/W9kV@h/db", "host=h password=Zq7xW9kV"] {
        for setting in ["--database", "--receipt-keys", "--listen", "--allowed-host"] {
            let said = refusal(&[setting, url]);
            assert!(!said.contains("Zq7x") && !said.contains("W9kV"), "{setting}: {said}");
        }
    }
}

#[tokio::test]
async fn a_name_is_a_name_and_never_a_uri() {
    let folder = tempfile::tempdir().unwrap();
    let name = "file:orders.db?mode=memory";
    let path = folder.path().join(name);
    let server = Server::start(&["--database", path.to_str().unwrap()]).await;
    assert!(path.is_file());
    drop(server);
}

#[tokio::test]
async fn port_in_the_environment_counts_only_where_no_address_was_said() {
    // The tests' own `--listen 127.0.0.1:0` is said, so this port is not taken.
    let server = Server::start_with(&[], &[("PORT", "1")]).await;
    assert_ne!(server.address.port(), 1);
    let empty = Server::start_with(&[], &[("OPS_TOOLS_ALLOWED_HOSTS", "")]).await;
    assert_eq!(empty.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn the_second_address_serves_what_is_no_tool_and_answers_probes_by_any_name() {
    let server = Server::start(&["--status-listen=127.0.0.1:0"]).await;
    let line = server.said("status is served").await;
    let (_, port) = line.split_once("127.0.0.1:").unwrap();
    let port: String = port.chars().take_while(char::is_ascii_digit).collect();
    let at = |path: &str| format!("http://127.0.0.1:{port}{path}");
    let status = async |path: &str, host: &str| {
        let get = server.http.get(at(path)).header("host", host.to_owned());
        get.send().await.unwrap().status().as_u16()
    };
    for path in ["/state", "/migrations/v3", "/healthz", "/metrics"] {
        assert_eq!(status(path, "localhost").await, 200, "{path}");
    }
    // A probe knows the pod's address; a browser that was sent here under another name does not
    // learn what is in the database.
    assert_eq!(status("/healthz", "10.244.0.7:8083").await, 200);
    assert_eq!(status("/metrics", "10.244.0.7:8083").await, 200);
    assert_eq!(status("/state", "rebound.example").await, 403);
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"truncate_table","arguments":{"table":"orders"}}}"#;
    for path in ["/public/mcp", "/privileged/mcp"] {
        let call_there = server.http.post(at(path)).header("content-type", "application/json");
        let call_there =
            call_there.header("accept", "application/json, text/event-stream").body(call);
        assert_eq!(call_there.send().await.unwrap().status().as_u16(), 404, "{path}");
    }
    assert_eq!(server.state().await["row_counts"]["orders"], 3);
}

#[test]
fn settings_that_cannot_be_meant_are_refused_with_what_to_write() {
    for (wrong, says) in [
        ("--receipt-audience=", "OPS_TOOLS_RECEIPT_AUDIENCE"),
        ("--receipt-issuer=", "OPS_TOOLS_RECEIPT_ISSUER"),
        ("--receipt-keys=", "it is empty"),
        ("--status-listen=8083", "the IP address is missing"),
        ("--log-level=mcp_ops_tools=loud", "off, error, warn, info, debug and trace"),
    ] {
        let text = Process::refused(&mut command(&[wrong]));
        assert!(text.contains(says), "{wrong}: {text}");
    }
    let text = Process::refused(&mut command(&["--receipt-keys=http://me:s3cret@gate/keys"]));
    assert!(text.contains("leave them out") && !text.contains("s3cret"), "{text}");
}
