//! Charts, through the helm command.
//!
//! Must never give helm a secret, and never make a new revision of a release that is as it should be.

use std::{fs, path::Path};

use anyhow::{Context as _, bail};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{
    cluster::{Cluster, Named, objects},
    json::{name, text},
    lab::{Place, write_private},
    platform::Source,
    shell::{command, output},
};

/// A release: a chart, where it goes, and with which values.
#[derive(Clone, Debug)]
pub(crate) struct Release {
    pub(crate) name: &'static str,
    pub(crate) namespace: &'static str,
    pub(crate) chart: Source,
    /// None where the chart lies here.
    pub(crate) version: Option<String>,
    pub(crate) values: Value,
}

/// In which state helm has a release.
#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    status: String,
    description: String,
}

impl Release {
    /// What makes it this release: chart, version, values. Kept in the release's description.
    fn digest(&self) -> anyhow::Result<String> {
        let mut hash = Sha256::new();
        match &self.chart {
            Source::Address(address) => hash.update(address),
            Source::Here(path) => hash_files(path, &mut hash)?,
        }
        hash.update(format!("\n{:?}\n{}", self.version, self.values));
        let digest = hitl_api::hex(&hash.finalize());
        // As much as tells releases apart.
        Ok(format!("hitl-lab {}", digest.get(..16).unwrap_or(&digest)))
    }

    /// Installs or upgrades it, unless it is so already; says what was done.
    pub(crate) async fn install(&self, place: &Place) -> anyhow::Result<Vec<String>> {
        let digest = self.digest()?;
        let kubeconfig = place.kept("kubeconfig");
        let known = self.known(&kubeconfig).await?;
        let same = known
            .as_ref()
            .is_some_and(|known| known.status == "deployed" && known.description == digest);
        if same && self.is_there(place, &kubeconfig).await? {
            return Ok(Vec::new());
        }
        match known {
            // What was interrupted here blocks every install that comes after.
            Some(known) if matches!(known.status.as_str(), "pending-install" | "uninstalling") => {
                output(self.helm(&kubeconfig, &["uninstall", self.name]).arg("--wait")).await?;
            }
            Some(known) if known.status.starts_with("pending") => {
                output(&mut self.helm(&kubeconfig, &["rollback", self.name])).await?;
            }
            _ => {}
        }
        let values = place.kept(&format!("values-{}.json", self.name));
        write_private(&values, &serde_json::to_string_pretty(&self.values)?)?;
        let mut helm = self.helm(&kubeconfig, &["upgrade", "--install", self.name]);
        helm.arg(self.chart.to_string()).arg("--values").arg(&values);
        helm.args(["--description", &digest, "--history-max", "3"]);
        if let (Source::Address(_), Some(version)) = (&self.chart, &self.version) {
            helm.args(["--version", version]);
        }
        output(&mut helm).await?;
        Ok(vec![format!("release {}/{} installed", self.namespace, self.name)])
    }

    /// What helm knows of it; nothing where it was never installed.
    async fn known(&self, kubeconfig: &Path) -> anyhow::Result<Option<Known>> {
        let mut status = self.helm(kubeconfig, &["status", self.name, "--output", "json"]);
        let status = match output(&mut status).await {
            Ok(status) => status,
            Err(error) if error.to_string().contains("not found") => return Ok(None),
            Err(error) => return Err(error),
        };
        let status: Value = serde_json::from_str(&status).context("helm's status")?;
        let text = |pointer| text(&status, pointer).to_owned();
        Ok(Some(Known { status: text("/info/status"), description: text("/info/description") }))
    }

    /// Whether every object of the release is there: somebody may have deleted one, which helm does
    /// not notice by itself.
    async fn is_there(&self, place: &Place, kubeconfig: &Path) -> anyhow::Result<bool> {
        let manifest = output(&mut self.helm(kubeconfig, &["get", "manifest", self.name])).await?;
        let file = place.kept("kubeconfig");
        let cluster = Cluster::connect(&std::fs::read_to_string(&file)?, &file).await?;
        for object in objects(&manifest).context("helm's manifest")? {
            let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str);
            let of = Named {
                api: text(&object, "/apiVersion"),
                kind: text(&object, "/kind"),
                namespace: Some(namespace.unwrap_or(self.namespace)),
            };
            if cluster.get(&of, name(&object)).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn helm(&self, kubeconfig: &Path, words: &[&str]) -> tokio::process::Command {
        let mut helm = command("helm");
        // Only the lab's cluster, whatever the environment names.
        for (variable, _) in std::env::vars_os() {
            let name = variable.to_string_lossy();
            if name.starts_with("HELM_KUBE") || name == "HELM_NAMESPACE" || name == "HELM_DRIVER" {
                helm.env_remove(variable);
            }
        }
        helm.args(words).args(["--namespace", self.namespace]).arg("--kubeconfig").arg(kubeconfig);
        helm
    }
}

/// Every file of a chart, by name and content.
fn hash_files(path: &Path, hash: &mut Sha256) -> anyhow::Result<()> {
    let said = || format!("the chart {}", path.display());
    if path.is_file() {
        hash.update(fs::read(path).with_context(said)?);
        return Ok(());
    }
    if !path.is_dir() {
        bail!("{} is not there", said());
    }
    let mut entries: Vec<_> =
        fs::read_dir(path).with_context(said)?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for entry in entries {
        hash.update(entry.file_name().unwrap_or_default().as_encoded_bytes());
        hash_files(&entry, hash)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_release_is_another_when_its_chart_version_or_values_are() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("templates")).unwrap();
        fs::write(folder.path().join("Chart.yaml"), "name: a").unwrap();
        let release = |values: Value| Release {
            name: "a",
            namespace: "b",
            chart: Source::Here(folder.path().to_owned()),
            version: None,
            values,
        };
        let first = release(json!({"a": 1})).digest().unwrap();
        assert_eq!(release(json!({"a": 1})).digest().unwrap(), first);
        assert_ne!(release(json!({"a": 2})).digest().unwrap(), first);
        fs::write(folder.path().join("templates/x.yaml"), "x").unwrap();
        assert_ne!(release(json!({"a": 1})).digest().unwrap(), first);
        let gone =
            Release { chart: Source::Here(folder.path().join("gone")), ..release(json!({})) };
        assert!(gone.digest().unwrap_err().to_string().contains("gone"));
    }
}
