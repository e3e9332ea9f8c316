//! `cargo xtask bench`: builds for release and measures. The measuring is in the `bench` crate.

use std::process::ExitCode;

use clap::Args;

use crate::{
    test::{conversations, install},
    workspace::{self, Workspace},
};

/// What to measure
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// Seconds of load for each figure
    #[arg(long, default_value_t = 8, value_name = "SECONDS")]
    seconds: u64,

    /// The service to measure; all when none is named
    #[arg(value_name = "SERVICE", value_parser = ["mcp-ops-tools", "hitl-extauth", "hitl-ui", "replicas", "agents"])]
    service: Option<String>,

    /// Put the table into docs/performance.md, in place of the last run's
    #[arg(long, conflicts_with = "service")]
    record: bool,
}

pub(crate) fn run(workspace: &Workspace, args: &BenchArgs) -> anyhow::Result<ExitCode> {
    workspace::run(workspace.cargo().args(["build", "--release", "--workspace", "--locked"]))?;
    let bin = workspace.target().join("release");
    let mut bench = workspace.command(bin.join("hitl-bench"));
    bench.arg("run").arg("--bin").arg(&bin).args(["--seconds", &args.seconds.to_string()]);
    bench.arg("--folder").arg(workspace.target().join("bench"));
    bench.arg("--commit").arg(commit(workspace)?);
    let compiler = workspace::output(workspace.command("rustc").arg("--version"))?;
    bench.arg("--compiler").arg(compiler.split(" (").next().unwrap_or_default().trim());
    if args.record {
        bench.arg("--record").arg(workspace.path("docs/performance.md"));
    }
    if let Some(service) = &args.service {
        bench.args(["--only", service]);
    }
    if args.service.as_ref().is_none_or(|service| service == "replicas") {
        bench.arg("--postgres").arg(install::postgres(workspace)?);
    }
    if args.service.as_ref().is_none_or(|service| service == "agents") {
        let (langgraph, adk) = conversations::pythons(workspace)?;
        bench.arg("--langgraph").arg(langgraph).arg("--adk-python").arg(adk);
        if let Some(go) = conversations::go_runtime() {
            bench.arg("--adk-go").arg(go);
        }
    }
    workspace::run(&mut bench)?;
    Ok(ExitCode::SUCCESS)
}

/// What is measured: the commit, and whether there is more than that.
fn commit(workspace: &Workspace) -> anyhow::Result<String> {
    let git = |args: &[&str]| workspace::output(workspace.command("git").args(args));
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changed = git(&["status", "--porcelain"])?;
    let more = if changed.trim().is_empty() { "" } else { " and changes" };
    Ok(format!("{}{more}", commit.trim()))
}
