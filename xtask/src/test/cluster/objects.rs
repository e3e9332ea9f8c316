//! Every object of every way to install the lab, before a real API server with the real definitions:
//! by server-side apply, with unknown fields refused.

use std::{io::Write as _, process::Stdio};

use anyhow::{Context as _, bail};

use super::Suite;
use crate::workspace;

/// Beside the checkout: the definitions of Gateway API, agentgateway and kagent.
const DEFINITIONS: &str = "../shared/crds";

/// Charts of ours.
const CHARTS: [&str; 4] = ["hitl", "mcp-ops-tools", "envoy", "dba-assistant"];

/// Ways to install the lab, as options; those with the whole platform need its definitions.
const WAYS: [(&[&str], bool); 4] = [
    (&["--gateway", "envoy", "--skip", "kagent"], false),
    (&["--gateway", "envoy"], true),
    (&[], true),
    (&["--skip", "kagent", "--skip", "metallb"], true),
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
    } else {
        println!("only what needs no platform: its definitions are not beside the checkout");
    }
    let mut count = 0;
    for (options, platform) in WAYS {
        if platform && !whole {
            continue;
        }
        let rendered = workspace::output(suite.xtask(&["render"]).args(options))?;
        // The lab that is up has the ports of the nodes.
        let rendered =
            [("30080", "31080"), ("30081", "31081"), ("30088", "31088"), ("30090", "31090")]
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
        let taken = kubectl(suite, &dry, &rendered)
            .with_context(|| format!("render {}", options.join(" ")))?;
        count += taken.lines().count();
    }
    Ok(count)
}

/// kubectl, with a text to read.
fn kubectl(suite: &Suite<'_>, words: &[&str], text: &str) -> anyhow::Result<String> {
    let mut command = suite.tool("kubectl", words);
    println!("$ {}", workspace::shown(&command));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start kubectl")?;
    let mut input = child.stdin.take().context("kubectl reads nothing")?;
    let text = text.to_owned();
    // Beside the reading: it answers while it is told.
    let telling = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    let told = telling.join();
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    if !matches!(told, Ok(Ok(()))) {
        bail!("kubectl did not read to the end");
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
