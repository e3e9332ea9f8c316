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
    #[arg(value_name = "SERVICE", value_parser = ["mcp-ops-tools", "hitl-extauth", "replicas", "agents"])]
    service: Option<String>,
}

pub(crate) fn run(workspace: &Workspace, args: &BenchArgs) -> anyhow::Result<ExitCode> {
    workspace::run(workspace.cargo().args(["build", "--release", "--workspace", "--locked"]))?;
    let bin = workspace.target().join("release");
    let mut bench = workspace.command(bin.join("hitl-bench"));
    bench.arg("run").arg("--bin").arg(&bin).args(["--seconds", &args.seconds.to_string()]);
    bench.arg("--folder").arg(workspace.target().join("bench"));
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
