//! Every object of every way to install the lab, before a real API server with the real definitions:
//! by server-side apply, with unknown fields refused.

use std::{
    env, fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::{Suite, schemas};
use crate::workspace;

/// Beside the checkout: the definitions of Gateway API, agentgateway and kagent.
const DEFINITIONS: &str = "../shared/crds";

/// Charts of ours.
const CHARTS: [&str; 4] = ["hitl", "mcp-ops-tools", "envoy", "dba-assistant"];

/// A way to install the lab.
struct Way {
    /// Of the file in `tests/cluster/` that holds its manifests.
    name: &'static str,
    options: &'static [&'static str],
    /// Whether it needs the definitions of the platform.
    platform: bool,
}

const WAYS: [Way; 4] = [
    Way { name: "envoy", options: &["--gateway", "envoy", "--skip", "kagent"], platform: false },
    Way { name: "envoy-kagent", options: &["--gateway", "envoy"], platform: true },
    Way { name: "whole", options: &[], platform: true },
    Way {
        name: "agentgateway",
        options: &["--skip", "kagent", "--skip", "metallb"],
        platform: true,
    },
];

/// Has everything accepted; gives how many objects that were.
pub(super) fn accepted(suite: &Suite<'_>) -> anyhow::Result<usize> {
    for chart in CHARTS {
        let folder = suite.workspace.path("charts").join(chart);
        workspace::run(suite.tool("helm", &["lint", "--strict"]).arg(folder))?;
    }
    let definitions = suite.workspace.path(DEFINITIONS);
    let whole = definitions.is_dir();
    if whole {
        let apply = ["apply", "--server-side", "--recursive", "--filename"];
        workspace::run(suite.tool("kubectl", &apply).arg(&definitions))?;
        let wait = ["wait", "--for=condition=Established", "customresourcedefinition", "--all"];
        workspace::run(&mut suite.tool("kubectl", &wait))?;
        timeouts(suite)?;
    } else {
        println!("only what needs no platform: its definitions are not beside the checkout");
    }
    let conform = if let Some(program) = schemas::kubeconform(suite)? {
        Some((program, schemas::write(suite)?))
    } else {
        println!("no kubeconform, and no Go to install it with: the server alone looks");
        None
    };
    let mut count = 0;
    for Way { name, options, platform } in WAYS {
        if platform && !whole {
            continue;
        }
        let rendered = workspace::output(suite.xtask(&["render"]).args(options))?;
        as_written_down(suite, name, &rendered)?;
        let way = format!("render {}", options.join(" "));
        count += taken(suite, &way, rendered, conform.as_ref())?;
    }
    // No lab has a PostgreSQL; what the chart makes for one is looked at all the same.
    let values = suite.workspace.path("tests/cluster/postgres.values.yaml");
    let mut team = suite.tool("helm", &["template", "hitl", "--namespace", "hitl"]);
    team.args(["--kube-version", "1.35.0", "--values"]).arg(&values);
    team.arg(suite.workspace.path("charts/hitl"));
    let rendered = workspace::output(&mut team)?;
    as_written_down(suite, "postgres", &rendered)?;
    count += taken(suite, "the gate over PostgreSQL", rendered, conform.as_ref())?;
    Ok(count)
}

/// What kagent's definition makes of a tool server for which no timeout was said: `doctor` takes the first for
/// 30 s where it is not set, and leaves the second to the agent's runtime.
fn timeouts(suite: &Suite<'_>) -> anyhow::Result<()> {
    let server = json!({"apiVersion": "kagent.dev/v1alpha2", "kind": "RemoteMCPServer",
        "metadata": {"name": "suite", "namespace": "default"},
        "spec": {"description": "none", "url": "http://none"}});
    let dry = ["create", "--dry-run=server", "--validate=strict", "--output=json", "--filename=-"];
    let made: Value =
        serde_json::from_str(&kubectl(suite, &dry, &server.to_string())?).context("kubectl")?;
    let spec = made.get("spec").cloned().unwrap_or_default();
    let (timeout, read) = (spec.get("timeout"), spec.get("sseReadTimeout"));
    if timeout != Some(&Value::from("30s")) || read.is_some() {
        bail!("a RemoteMCPServer has other defaults than doctor says (30s, and none): {spec}");
    }
    Ok(())
}

/// Has a way's objects accepted; gives how many that were.
fn taken(
    suite: &Suite<'_>,
    way: &str,
    rendered: String,
    conform: Option<&(PathBuf, String)>,
) -> anyhow::Result<usize> {
    // The lab that is up has the ports of the nodes.
    let rendered = [("30080", "31080"), ("30081", "31081"), ("30088", "31088"), ("30090", "31090")]
        .iter()
        .fold(rendered, |text, (taken, free)| text.replace(taken, free));
    // An object cannot be looked at in a namespace that is not there.
    let namespaces = "apiVersion: v1\nkind: List\nitems:\n".to_owned()
        + &["agentgateway-system", "kagent", "hitl-gateway", "dba-assistant", "metallb-system"]
            .map(|name| {
                format!("- {{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}\n")
            })
            .concat();
    kubectl(
        suite,
        &["apply", "--server-side", "--field-manager=suite", "--filename=-"],
        &namespaces,
    )?;
    let dry = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "--validate=strict",
        "--output=name",
        "--filename=-",
    ];
    let taken = kubectl(suite, &dry, &rendered).with_context(|| way.to_owned())?;
    if let Some((program, schemas)) = conform {
        let mut conform = suite.workspace.command(program);
        conform.args(["-strict", "-summary", "-schema-location", schemas, "-"]);
        println!("{}", told(&mut conform, &rendered).with_context(|| way.to_owned())?.trim());
    }
    Ok(taken.lines().count())
}

/// Manifests must be those that are written down, so that a change of a chart is seen for what it does.
fn as_written_down(suite: &Suite<'_>, name: &str, rendered: &str) -> anyhow::Result<()> {
    let file = suite.workspace.path("tests/cluster").join(format!("{name}.yaml"));
    if env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        fs::create_dir_all(suite.workspace.path("tests/cluster"))?;
        fs::write(&file, rendered)?;
    }
    let written = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let differ = written.lines().zip(rendered.lines()).position(|(was, is)| was != is);
    if written != rendered {
        let line =
            differ.unwrap_or_else(|| written.lines().count().min(rendered.lines().count())) + 1;
        bail!(
            "render {name} gives other manifests than {} from line {line} on: INSTA_UPDATE=always writes them down",
            file.display()
        );
    }
    Ok(())
}

/// kubectl, with a text to read.
fn kubectl(suite: &Suite<'_>, words: &[&str], text: &str) -> anyhow::Result<String> {
    told(&mut suite.tool("kubectl", words), text)
}

/// A command, with a text to read; gives what it says.
fn told(command: &mut Command, text: &str) -> anyhow::Result<String> {
    let name = workspace::shown(command);
    println!("$ {name}");
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    let mut input = child.stdin.take().with_context(|| format!("{name} reads nothing"))?;
    let text = text.to_owned();
    // Beside the reading: it answers while it is told.
    let telling = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    let told = telling.join();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{}{}", said.trim(), String::from_utf8_lossy(&output.stderr).trim());
    }
    if !matches!(told, Ok(Ok(()))) {
        bail!("{name} did not read to the end");
    }
    Ok(said)
}
