//! What must be there before anything is begun: everything that is missing is named at once, with the
//! command that installs it.

use std::{fs, net::TcpListener};

use anyhow::bail;
use serde_json::Value;

use crate::{
    kind::{Kind, engine, on_path},
    lab::Place,
    options::UpArgs,
    plan::{Plan, Step},
    shell::{command, output},
};

/// Least memory of the machine that runs the nodes, in MiB: with kagent, and without.
const MEMORY: [u64; 2] = [6 * 1024, 3 * 1024];

/// Least free disk where images lie, in MiB.
const DISK: u64 = 8 * 1024;

/// Versions that are known to do: the oldest of each.
const KIND: (u64, u64) = (0, 27);
const HELM: (u64, u64) = (3, 14);

/// Finds everything that is in the way.
///
/// # Errors
/// All of it, one a line.
pub(crate) async fn look(place: &Place, args: &UpArgs, plan: &Plan) -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    let engine = engine();
    if on_path(engine).is_none() {
        wrong.push(missing(
            "docker (or podman)",
            "apt install docker.io",
            "brew install --cask docker",
        ));
    } else {
        match output(command(engine).args(["info", "--format", "{{json .}}"])).await {
            Ok(info) => wrong.extend(machine(&serde_json::from_str(&info).unwrap_or_default(), plan)),
            Err(error) => wrong.push(format!(
                "{engine} is installed but does not answer: start it (systemctl start {engine}, or open Docker Desktop). It says: {}",
                last_line(&error)
            )),
        }
    }
    wrong.extend(
        tool("kind", &["version"], KIND, "go install sigs.k8s.io/kind@latest", "brew install kind")
            .await,
    );
    wrong.extend(
        tool(
            "helm",
            &["version", "--short"],
            HELM,
            "snap install helm --classic",
            "brew install helm",
        )
        .await,
    );
    if plan.has(Step::Images) && args.build.host_build && on_path("rustup").is_some() {
        let targets = output(command("rustup").args(["target", "list", "--installed"]))
            .await
            .unwrap_or_default();
        if !targets.contains("-unknown-linux-musl") {
            let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
            wrong.push(format!(
                "--host-build needs the target for static binaries: rustup target add {target}"
            ));
        }
        if cfg!(target_os = "linux") && on_path("musl-gcc").is_none() {
            wrong.push(
                "--host-build needs a C compiler for musl: apt install musl-tools".to_owned(),
            );
        }
    }
    if let Some(mib) = free_disk(place).await.filter(|mib| *mib < DISK) {
        wrong.push(format!("{mib} MiB of disk are free where this is built; {DISK} are needed"));
    }
    // Ports of a cluster that is there are its own.
    if wrong.is_empty() && !Kind::new(&args.name).exists().await? {
        for (port, what, flag, _) in args.ports.all() {
            if let Err(error) = TcpListener::bind(("127.0.0.1", port)) {
                wrong.push(format!("port {port} for {what} is taken ({error}): stop what listens there, or choose another by {flag}"));
            }
        }
    }
    if !wrong.is_empty() {
        bail!(
            "this is in the way:\n{}",
            wrong.iter().map(|line| format!("  - {line}")).collect::<Vec<_>>().join("\n")
        );
    }
    Ok(())
}

fn missing(name: &str, linux: &str, mac: &str) -> String {
    format!("{name} is not installed: Linux: {linux}; macOS: {mac}")
}

fn last_line(error: &anyhow::Error) -> String {
    format!("{error:#}").lines().last().unwrap_or_default().to_owned()
}

/// A tool that is missing or too old.
async fn tool(
    name: &str,
    version: &[&str],
    least: (u64, u64),
    linux: &str,
    mac: &str,
) -> Option<String> {
    if on_path(name).is_none() {
        return Some(missing(name, linux, mac));
    }
    match output(command(name).args(version)).await {
        Ok(said) => match parse_version(&said) {
            Some(found) if found < least => Some(format!(
                "{name} {}.{} is too old, {}.{} is needed: Linux: {linux}; macOS: {mac}",
                found.0, found.1, least.0, least.1
            )),
            _ => None,
        },
        Err(error) => Some(format!("{name} does not run: {}", last_line(&error))),
    }
}

/// Major and minor of the first `vX.Y` or `X.Y.Z` in a text.
fn parse_version(text: &str) -> Option<(u64, u64)> {
    let words =
        text.split(|sign: char| sign.is_whitespace() || sign == ',' || sign == '"' || sign == '+');
    words.map(|word| word.trim_start_matches('v')).find_map(|word| {
        let mut numbers = word.split('.');
        let (major, minor) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        Some((major, minor))
    })
}

/// What the engine says of its machine.
fn machine(info: &Value, plan: &Plan) -> Vec<String> {
    let mut wrong = Vec::new();
    let memory =
        info.get("MemTotal").or_else(|| info.pointer("/host/memTotal")).and_then(Value::as_u64);
    let [with, without] = MEMORY;
    let least = if plan.has(Step::Kagent) { with } else { without };
    if let Some(mib) = memory.map(|bytes| bytes / 1024 / 1024).filter(|mib| *mib < least) {
        wrong.push(format!("the engine's machine has {mib} MiB of memory; {least} are needed (Docker Desktop: Settings, Resources), less with --skip kagent"));
    }
    let driver = info
        .get("CgroupDriver")
        .or_else(|| info.pointer("/host/cgroupManager"))
        .and_then(Value::as_str);
    if driver == Some("none") {
        wrong.push(
            "the engine has no cgroups: a rootless engine needs cgroup v2 with delegation"
                .to_owned(),
        );
    }
    wrong
}

/// Free space, in MiB, where cargo builds.
async fn free_disk(place: &Place) -> Option<u64> {
    let folder = place.target().ancestors().find(|folder| fs::metadata(folder).is_ok())?;
    let said = output(command("df").args(["-Pm"]).arg(folder)).await.ok()?;
    said.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::options::{GatewayKind, Part};

    #[test]
    fn versions_are_read_as_tools_say_them() {
        for (said, expected) in [
            ("kind v0.33.0 go1.26.8 linux/amd64", Some((0, 33))),
            ("v3.22.0", Some((3, 22))),
            ("v4.0.1+g1b4c8f6", Some((4, 0))),
            ("kind version 0.27.0", Some((0, 27))),
            ("unknown", None),
        ] {
            assert_eq!(parse_version(said), expected, "{said}");
        }
    }

    #[test]
    fn a_small_machine_and_one_without_cgroups_are_named() {
        let whole = Plan::of(GatewayKind::Agentgateway, &[], false);
        let small = Plan::of(GatewayKind::Envoy, &[Part::Kagent], false);
        let four = json!({"MemTotal": 4_u64 * 1024 * 1024 * 1024, "CgroupDriver": "systemd"});
        assert!(machine(&four, &whole).concat().contains("4096 MiB"));
        assert!(machine(&four, &small).is_empty());
        assert!(machine(&json!({"CgroupDriver": "none"}), &small).concat().contains("cgroup"));
        assert!(machine(&json!({}), &whole).is_empty());
    }
}
