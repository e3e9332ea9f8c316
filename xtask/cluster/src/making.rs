//! Making the cluster, or finding it as it was made.
//!
//! Must never change, start or delete a cluster that no lab has made. Every node of a lab has a folder
//! of the checkout mounted that made it, empty and read-only: that is how one is known again, from its
//! first moment on.

use std::{fs, time::Duration};

use anyhow::{Context as _, bail};

use crate::{
    bundle::NODE,
    cluster::{Cluster, named, unspaced},
    conditions,
    json::name,
    kind::{self, Owner},
    lab::{Record, write_private},
    run::Progress,
    shell::output,
    steps::Lab,
};

/// Longest that an API server may take to answer that was just started.
const AWAKE: Duration = Duration::from_secs(90);

/// And one of a cluster that may never have been finished.
const HALF: Duration = Duration::from_secs(10);

/// Whatever is there when a cluster of this lab is whole; without it, its creation was interrupted.
const WHOLE: &str = "hitl-lab";

impl Lab {
    pub(crate) async fn make_cluster(&self, progress: &Progress) -> anyhow::Result<Vec<String>> {
        let kind = self.kind();
        let own = self.place.kept("owner");
        let asked = &self.args.name;
        let owner = kind.owner().await?;
        match &owner {
            Owner::None => {}
            Owner::Stranger => bail!(
                "a kind cluster {asked:?} is there that no lab has made: choose another --name, or delete it yourself with \
                 `kind delete cluster --name {asked}`"
            ),
            Owner::Lab(_) if self.known.is_some() => {
                let mut changed = kind.wake().await?;
                if self.answering(AWAKE).await?.is_none() {
                    bail!(
                        "the cluster {asked:?} is there and does not answer: `{} ps` shows its nodes, `cargo xtask teardown` \
                         removes it",
                        kind::engine()
                    );
                }
                self.as_asked(&kind).await?;
                changed.extend(self.mark_whole().await?);
                return Ok(changed);
            }
            Owner::Lab(folder) => {
                if self.is_whole().await {
                    self.as_asked(&kind).await?;
                    self.record.write(&self.place)?;
                    return Ok(Vec::new());
                }
                if *folder != own {
                    bail!(
                        "a cluster {asked:?} is there that the lab in {} has left half made: `cargo xtask teardown --name \
                         {asked}` removes it",
                        folder.display()
                    );
                }
                progress.say("deleting what an interruption has left");
                kind.delete(&self.place.kept("kubeconfig")).await?;
            }
        }
        // A bundle brings the image that nodes are made from.
        let bundled = self.args.preload.as_ref().map(|folder| folder.join("..").join(NODE));
        if let Some(archive) = bundled.filter(|archive| archive.is_file()) {
            progress.say("the image of the nodes");
            output(kind.engine().args(["load", "--input"]).arg(archive)).await?;
        }
        fs::create_dir_all(&own).with_context(|| own.display().to_string())?;
        let template = self.place.source("kind/cluster.yaml");
        let template =
            fs::read_to_string(&template).with_context(|| template.display().to_string())?;
        let image = &self.platform.node.image;
        let config =
            kind::config(&template, asked, self.args.workers, image, &self.args.ports, &own)?;
        let file = self.place.kept("kind.json");
        fs::write(&file, serde_json::to_string_pretty(&config)?)?;
        // Of a cluster that is no more: beside it an interrupted creation would be taken for whole.
        Record::forget(&self.place);
        kind.create(&file, &self.place.kept("kubeconfig"), |line| progress.say(line)).await?;
        progress.say("waiting for its nodes");
        self.mark_whole().await?;
        self.record.write(&self.place)?;
        Ok(vec![format!("cluster {asked} created")])
    }

    /// The cluster, once its API server answers; none where that takes too long. Not the one that
    /// the steps share: this cluster may yet be deleted and made anew.
    async fn answering(&self, patience: Duration) -> anyhow::Result<Option<Cluster>> {
        // Without one, not even its first node is there.
        let Ok(kubeconfig) = self.kind().kubeconfig().await else { return Ok(None) };
        write_private(&self.place.kept("kubeconfig"), &kubeconfig)?;
        let cluster = Cluster::connect(&kubeconfig, &self.place.kept("kubeconfig")).await?;
        // An API server that is not there cannot be watched.
        let answering = async {
            while cluster.answers().await.is_err() {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        };
        let answers = tokio::time::timeout(patience, answering).await.is_ok();
        Ok(answers.then_some(cluster))
    }

    /// Whether a cluster that is not written down was nevertheless finished. One that was not says
    /// anything, or nothing.
    async fn is_whole(&self) -> bool {
        let maps = named("v1", "ConfigMap", "kube-system");
        match self.answering(HALF).await {
            Ok(Some(cluster)) => matches!(cluster.get(&maps, WHOLE).await, Ok(Some(_))),
            Ok(None) | Err(_) => false,
        }
    }

    /// Waits for the nodes, and marks the cluster as whole.
    async fn mark_whole(&self) -> anyhow::Result<Vec<String>> {
        let cluster = self.cluster().await?;
        let nodes = cluster.list(&unspaced("v1", "Node"), "").await?;
        if nodes.is_empty() {
            bail!("the cluster has no nodes");
        }
        for node in nodes {
            cluster
                .until(&unspaced("v1", "Node"), name(&node), self.patience(), conditions::ready)
                .await?;
        }
        let mark = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": WHOLE, "namespace": "kube-system"}});
        cluster.apply(&[mark]).await
    }

    /// What cannot be changed of a cluster must be as it is asked for.
    async fn as_asked(&self, kind: &kind::Kind) -> anyhow::Result<()> {
        let again = "or begin anew with `cargo xtask teardown`";
        let there = kind.host_ports().await?;
        for (wanted, what, flag, node) in self.args.ports.all() {
            match there.get(&node) {
                Some(port) if *port == wanted => {}
                Some(port) => bail!(
                    "the cluster was made with port {port} for {what}, which cannot be changed: give {flag} {port}, {again}"
                ),
                None => bail!(
                    "the cluster was made without a port for {what}: begin anew with `cargo xtask teardown`"
                ),
            }
        }
        let workers = kind.nodes().await?.len().saturating_sub(1);
        if workers != usize::from(self.args.workers) {
            bail!(
                "the cluster was made with {workers} workers, which cannot be changed: give --workers {workers}, {again}"
            );
        }
        Ok(())
    }
}
