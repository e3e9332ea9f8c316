//! What the steps share: options, where things are, and the cluster once it is there.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::{
    cluster::Cluster,
    kind::Kind,
    options::{GatewayKind, Part, Ports, UpArgs},
    plan::{Plan, Step},
};

/// Where the checkout is, and what is kept of a lab.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    root: PathBuf,
    target: PathBuf,
    folder: PathBuf,
}

impl Place {
    /// The checkout that this was built in.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
        let root = root.context("no workspace around this program")?.to_owned();
        if !root.join("charts").is_dir() {
            bail!(
                "{} is not the checkout this was built in: run `cargo xtask` inside it",
                root.display()
            );
        }
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let lab = std::env::var_os("HITL_LAB").map_or_else(|| target.join("lab"), PathBuf::from);
        let folder = lab.join("cluster");
        Ok(Self { root, target, folder })
    }

    /// Something of the checkout.
    pub(crate) fn source(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Where cargo builds.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Something that is kept of the lab.
    pub(crate) fn kept(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes the folder of what is kept.
    pub(crate) fn make(&self) -> anyhow::Result<()> {
        private_folder(&self.folder).with_context(|| self.folder.display().to_string())
    }

    /// Keeps others from bringing up or taking down the same lab meanwhile, until what is given back
    /// is dropped. It makes no folder of a lab: to ask whether there is one must not leave one.
    ///
    /// # Errors
    /// When somebody does it already.
    pub(crate) fn lock(&self) -> anyhow::Result<fs::File> {
        let path = self.folder.with_extension("lock");
        if let Some(around) = path.parent() {
            private_folder(around).with_context(|| around.display().to_string())?;
        }
        let file = fs::File::create(&path).with_context(|| path.display().to_string())?;
        if file.try_lock().is_err() {
            bail!("another `up` or `teardown` of this lab is running: wait for it, or end it");
        }
        Ok(file)
    }

    /// Forgets everything that is kept.
    pub(crate) fn forget(&self) {
        // What is not there needs no removing.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Makes a folder, and those around it, that only its owner opens.
fn private_folder(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file that only its owner reads: all of it or nothing, and not at all where it is so already,
/// since other programs may be reading it.
pub(crate) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let said = || path.display().to_string();
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&beside).with_context(said)?;
    file.write_all(text.as_bytes()).with_context(said)?;
    fs::rename(&beside, path).with_context(said)
}

/// What is written down of a lab, for those who come later.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) gateway: GatewayKind,
    pub(crate) ports: Ports,
    pub(crate) hold: u32,
    pub(crate) left_out: Vec<(Part, String)>,
    pub(crate) scripted: bool,
}

impl Record {
    /// What is written down; nothing where there is no lab.
    pub(crate) fn read(place: &Place) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(place.kept("lab.json")).ok()?).ok()
    }

    /// Writes it down.
    pub(crate) fn write(&self, place: &Place) -> anyhow::Result<()> {
        place.make()?;
        write_private(&place.kept("lab.json"), &serde_json::to_string_pretty(self)?)
    }

    /// Forgets it; one that is not written down needs no forgetting.
    pub(crate) fn forget(place: &Place) {
        let _ = fs::remove_file(place.kept("lab.json"));
    }

    /// Whether a part is in the lab.
    pub(crate) fn has(&self, part: Part) -> bool {
        !self.left_out.iter().any(|(out, _)| *out == part)
    }

    /// The namespace of the agents.
    pub(crate) fn agents(&self) -> &'static str {
        if self.has(Part::Kagent) { "kagent" } else { "dba-assistant" }
    }

    /// kind, for this cluster.
    pub(crate) fn kind(&self) -> Kind {
        Kind::new(&self.name)
    }

    /// The cluster, which must be there.
    pub(crate) async fn cluster(&self, place: &Place) -> anyhow::Result<Cluster> {
        let kubeconfig = self.kind().kubeconfig().await?;
        write_private(&place.kept("kubeconfig"), &kubeconfig)?;
        Cluster::connect(&kubeconfig, &place.kept("kubeconfig")).await
    }
}

/// The lab that is written down.
///
/// # Errors
/// When none is, with what to do.
pub(crate) fn written_down(place: &Place) -> anyhow::Result<Record> {
    Record::read(place).context("no lab on kind is known here: `cargo xtask up` brings one up (of a lab on this machine alone, \
         `cargo xtask status` without more words says what there is)")
}

impl UpArgs {
    /// What will be written down.
    pub(crate) fn record(&self, plan: &Plan, scripted: bool) -> Record {
        let mut left_out = plan.left_out.clone();
        for (part, step) in [
            (Part::Metallb, Step::Metallb),
            (Part::Kagent, Step::Kagent),
            (Part::Hitl, Step::Hitl),
            (Part::OpsTools, Step::OpsTools),
            (Part::Agents, Step::Agents),
        ] {
            if !plan.has(step) && !left_out.iter().any(|(out, _)| *out == part) {
                left_out.push((part, "not in the plan".to_owned()));
            }
        }
        Record {
            name: self.name.clone(),
            gateway: self.gateway,
            ports: self.ports.clone(),
            hold: self.hold,
            left_out,
            scripted,
        }
    }
}
