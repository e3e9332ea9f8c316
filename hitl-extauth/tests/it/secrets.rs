//! A secret in a URL is not shown: not where the URL is refused, and not where it is used.

use std::process::{Command, Output};

use hitl_process::Process;

use crate::{
    postgres::free_port,
    support::{Lab, command},
};

/// Both halves of a password; some character stands between them.
const HALVES: [&str; 2] = ["Zq7xK2mP", "W9kVb4Ty"];

/// No piece of four characters of the password is in what a program has said.
fn shows_nothing(said: &str, of: &str) {
    for half in HALVES {
        for at in 0..=half.len() - 4 {
            let piece = &half[at..at + 4];
            assert!(!said.contains(piece), "{of:?} is shown: {said}");
        }
    }
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// What a program says that ends by itself.
fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = said(&output);
    assert!(!output.status.success(), "{said}");
    said
}

/// In a folder of its own, where a file would be seen.
fn gate(lab: &Lab, args: &[&str]) -> Command {
    let mut command = command();
    command.current_dir(lab.path("")).arg("--insecure-no-reviewer-auth").args(args);
    command
}

#[test]
fn an_unescaped_password_in_the_database_url_is_refused_and_never_shown() {
    let lab = Lab::new();
    let [left, right] = HALVES;
    for sign in ["@", "/", "#", "?", "%", " ", "\n", "@/", "?@", "%2", "&x=@", "://", "=/"] {
        for end in ["@127.0.0.1:1/hitl", "@127.0.0.1:1", "@db.invalid/hitl?sslmode=disable"] {
            let url = format!("postgres://gate:{left}{sign}{right}{end}");
            let by_flag = refused(gate(&lab, &["--database", &url]).env_remove("HITL_DATABASE"));
            let by_variable = refused(gate(&lab, &[]).env("HITL_DATABASE", &url));
            for said in [by_flag, by_variable] {
                shows_nothing(&said, &url);
                assert!(said.contains("percent-encoded: \"@\" as %40, \"/\" as %2F"), "{said}");
            }
        }
    }
    let left_over: Vec<_> = std::fs::read_dir(lab.path("")).unwrap().flatten().collect();
    assert_eq!(left_over.len(), 1, "no database was made: {left_over:?}");
}

#[test]
fn what_is_no_url_of_a_database_is_refused_without_its_password() {
    let lab = Lab::new();
    let [left, right] = HALVES;
    for wrong in [
        format!("host=127.0.0.1 user=gate password={left}{right} dbname=hitl"),
        format!("password = '{left} {right}' host = db"),
        format!("Server=db;Password={left};{right}=x"),
        format!("gate:{left}{right}@db/hitl"),
        format!("postgres:gate:{left}@{right}@db/hitl"),
        format!("mysql://gate:{left}{right}@db/hitl"),
        format!("gate:{left}://{right}@db/hitl"),
        format!("postgres://gate:{left}{right}/hitl"),
        format!("postgres://gate@db/hitl?password={left}&{right}=x"),
        format!("postgres://gate@db/hitl?password={left}&sslmode={right}"),
        format!("postgres://gate@db/hitl?port={left}{right}"),
        format!("postgres://gate:%ff{left}@db/%ff{right}"),
    ] {
        shows_nothing(&refused(&mut gate(&lab, &["--database", &wrong])), &wrong);
        shows_nothing(&refused(command().args(["audit", "verify", &wrong])), &wrong);
        shows_nothing(
            &refused(command().args(["migrate", "--from", "a.db", "--to", &wrong])),
            &wrong,
        );
    }
    let url = format!("postgres://gate:{left}@{right}@db/hitl");
    for misplaced in [
        &["--grpc-listen", &url][..],
        &["--hold", &url],
        &["--healthcheck", &url],
        &[&url],
        &["--requester-from", &url],
        &["--log-level", &url],
        &["--receipt-key", "/nowhere/key", &url],
    ] {
        shows_nothing(&refused(&mut gate(&lab, misplaced)), &url);
    }
    let host = format!("gate:{left}@{right}@db");
    let mut by_host = gate(&lab, &["--database", "postgres:///hitl"]);
    shows_nothing(&refused(by_host.env("PGHOST", &host)), &host);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_answer_is_waited_for_without_showing_its_password() {
    let lab = Lab::new();
    let [left, right] = HALVES;
    for end in [format!("127.0.0.1:{}/hitl", free_port()), "db.invalid/hitl".to_owned()] {
        let url = format!("postgres://gate:{left}%40%2F{right}@{end}?sslmode=disable");
        let mut command = gate(&lab, &["--database", &url, "--log-level", "trace"]);
        let process = Process::spawn(command.args(["--admin-listen=127.0.0.1:0"]));
        process.said("waiting for the database").await;
        shows_nothing(&process.lines().join("\n"), &url);
    }
}

#[test]
fn a_secret_in_any_other_url_is_not_shown() {
    let lab = Lab::new();
    let [left, right] = HALVES;
    for sign in ["", "@", "/", "#", "?", "%", " ", ":"] {
        let url = format!("https://gate:{left}{sign}{right}@id.example.com/");
        let [audience, groups] = ["--oidc-audience=gate", "--oidc-reviewer-groups=dba"];
        let mut issuer = command();
        issuer.args(["--oidc-issuer", &url, audience, groups]);
        let mut keys = command();
        keys.args(["--oidc-issuer=https://id.example.com", audience, groups, "--oidc-jwks", &url]);
        let mut desk = command();
        desk.args(["pending", "--admin", &url]);
        let mut healthcheck = command();
        healthcheck.args(["--healthcheck", &url]);
        let mut traces = gate(&lab, &["--database", "hitl.db"]);
        traces.env("OTEL_EXPORTER_OTLP_ENDPOINT", &url);
        let hook = format!("- {{name: a, url: \"{url}\", as: slack, unknown: 1}}");
        std::fs::write(lab.path("hooks.yaml"), format!("queue: https://q\nwebhooks:\n{hook}\n"))
            .unwrap();
        let mut field = gate(&lab, &["--webhooks", "hooks.yaml"]);
        for command in
            [&mut issuer, &mut keys, &mut desk, &mut healthcheck, &mut traces, &mut field]
        {
            shows_nothing(&refused(command), &url);
        }
        std::fs::write(lab.path("queue.yaml"), format!("queue: \"{url}\"\nwebhooks: []\n"))
            .unwrap();
        shows_nothing(&refused(&mut gate(&lab, &["--webhooks", "queue.yaml"])), &url);
    }
    let query = format!("http://id.example.com/keys?key={left}{right}");
    let provider = ["--oidc-issuer=https://id.example.com", "--oidc-audience=gate"];
    let mut plain = command();
    plain.args(provider).args(["--oidc-reviewer-groups=dba", "--oidc-jwks", &query]);
    shows_nothing(&refused(&mut plain), &query);
    let help = command().arg("--help").env("HITL_OIDC_JWKS", &query).output().unwrap();
    shows_nothing(&said(&help), &query);
}
