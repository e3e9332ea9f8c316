//! What must be there before anything is begun: everything that is missing is named at once, with the
//! command that installs it.

use std::{fs, io::ErrorKind, net::TcpListener};

use anyhow::bail;
use serde_json::Value;

use crate::{
    kind::{Kind, engine, on_path},
    lab::Place,
    options::UpArgs,
    plan::{Plan, Step},
    platform::Platform,
    shell::{command, output},
};

/// Least memory of the machine that runs the nodes, in MiB: with kagent, and without.
const MEMORY: [u64; 2] = [6 * 1024, 3 * 1024];

/// Least free disk where images are made, in MiB: with kagent's among them or compiled in containers, and
/// neither.
// Compiled on the host, the compiler's own files are 1.5 GiB of it; the rest is for images and the nodes.
const DISK: [u64; 2] = [8 * 1024, 4 * 1024];

/// Versions that are known to do: the oldest of each.
// Of the release that knows the pinned image of the nodes.
const KIND: (u64, u64) = (0, 33);
const HELM: (u64, u64) = (3, 14);

/// Finds everything that is in the way.
///
/// # Errors
/// All of it, one a line.
pub(crate) async fn look(
    place: &Place,
    args: &UpArgs,
    platform: &Platform,
    plan: &Plan,
) -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    let engine = engine();
    if std::env::var("KIND_EXPERIMENTAL_PROVIDER").is_ok_and(|provider| provider == "nerdctl") {
        wrong.push("KIND_EXPERIMENTAL_PROVIDER is nerdctl, with which this was never run: docker or podman".to_owned());
    }
    if on_path(engine).is_none() {
        wrong.push(missing(
            "docker (or podman)",
            "apt install docker.io",
            "brew install --cask docker",
        ));
    } else {
        match output(command(engine).args(["info", "--format", "{{json .}}"])).await {
            Ok(info) => {
                let pinned = platform.node.image.starts_with("kindest/");
                wrong.extend(machine(&serde_json::from_str(&info).unwrap_or_default(), plan, pinned));
            },
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
    if let Some(mib) = free_disk(place).await {
        wrong.extend(disk(mib, plan, args.build.host_build));
    }
    let ports = args.ports.all();
    for (at, (port, what, flag, _)) in ports.iter().enumerate() {
        if *port == 0 || ports.iter().take(at).any(|(other, ..)| other == port) {
            wrong.push(format!(
                "port {port} for {what} cannot be it: each needs one of its own ({flag})"
            ));
        }
    }
    // Ports of a cluster that is there are its own.
    if wrong.is_empty() && !Kind::new(&args.name).exists().await? {
        for (port, what, flag, _) in ports {
            // A browser may take `localhost` for either.
            let taken = ["127.0.0.1", "::1"]
                .iter()
                .filter_map(|host| TcpListener::bind((*host, port)).err());
            if let Some(error) =
                taken.into_iter().find(|error| error.kind() == ErrorKind::AddrInUse)
            {
                wrong.push(format!(
                    "port {port} for {what} is taken ({error}): stop what listens there, or choose another by {flag}"
                ));
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
fn machine(info: &Value, plan: &Plan, pinned: bool) -> Vec<String> {
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
    let cgroups = info
        .get("CgroupVersion")
        .or_else(|| info.pointer("/host/cgroupVersion"))
        .and_then(Value::as_str);
    if pinned && matches!(cgroups, Some("1" | "v1")) {
        wrong.push("the machine has cgroup v1, which the nodes' kubelet refuses: boot with systemd.unified_cgroup_hierarchy=1, or --set node.image=… with one that takes it".to_owned());
    }
    wrong
}

/// Too little free disk, in MiB.
fn disk(mib: u64, plan: &Plan, host_build: bool) -> Option<String> {
    let [most, least] = DISK;
    let needed = if plan.has(Step::Kagent) || !host_build { most } else { least };
    (mib < needed).then(|| {
        let less = if needed == most { " (less with --host-build and --skip kagent)" } else { "" };
        format!("{mib} MiB of disk are free where this is built; {needed} are needed{less}")
    })
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
    fn a_disk_must_hold_what_is_built_on_it_and_no_more() {
        let whole = Plan::of(GatewayKind::Agentgateway, &[], false);
        let small = Plan::of(GatewayKind::Envoy, &[Part::Kagent], false);
        assert!(disk(8191, &whole, true).unwrap().contains("8191 MiB of disk are free"));
        assert!(disk(8191, &small, false).unwrap().contains("less with --host-build"));
        assert_eq!(disk(8192, &whole, false), None);
        assert_eq!(disk(4096, &small, true), None);
        assert!(disk(4095, &small, true).unwrap().ends_with("4096 are needed"));
    }

    #[test]
    fn a_small_machine_and_one_without_cgroups_are_named() {
        let whole = Plan::of(GatewayKind::Agentgateway, &[], false);
        let small = Plan::of(GatewayKind::Envoy, &[Part::Kagent], false);
        let four = json!({"MemTotal": 4_u64 * 1024 * 1024 * 1024, "CgroupDriver": "systemd"});
        assert!(machine(&four, &whole, true).concat().contains("4096 MiB"));
        assert!(machine(&four, &small, true).is_empty());
        assert!(
            machine(&json!({"CgroupDriver": "none"}), &small, true).concat().contains("cgroup")
        );
        assert!(machine(&json!({}), &whole, true).is_empty());
        let old = json!({"CgroupVersion": "1"});
        assert!(machine(&old, &small, true).concat().contains("cgroup v1"));
        // Somebody's own image may take it.
        assert!(machine(&old, &small, false).is_empty());
    }
}
