//! What each step of `up` does. Each may be done again at any time, and says what it has changed.

use std::{
    collections::BTreeMap,
    fs,
    future::Future,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::{
    check,
    cluster::{Cluster, Named, named, objects as documents, unspaced},
    conditions::{self, Verdict},
    images::{self, Image},
    json::name,
    kind::{self, Kind},
    lab::{Place, Record, write_private},
    objects::{self, GATEWAY, REVIEWERS, TOKENS},
    options::{GatewayKind, Part, UpArgs},
    plan::Step,
    platform::{Platform, Source},
    run::Progress,
    values::Charts,
};

/// Longest that one thing may take to be ready: an image may have to be pulled first.
const PATIENCE: Duration = Duration::from_mins(5);

/// Longest that an API server may take to answer that was just started.
const AWAKE: Duration = Duration::from_secs(90);

/// Whatever is there when a cluster of this lab is whole; without it, its creation was interrupted.
const WHOLE: &str = "hitl-lab";

/// What the steps share.
pub(crate) struct Lab {
    pub(crate) place: Place,
    pub(crate) args: UpArgs,
    pub(crate) platform: Platform,
    pub(crate) record: Record,
    /// The model's key, when there is one.
    pub(crate) key: Option<String>,
    charts: PathBuf,
    cluster: OnceCell<Cluster>,
    images: OnceLock<Vec<Image>>,
}

impl Lab {
    pub(crate) fn new(
        place: Place,
        args: UpArgs,
        platform: Platform,
        record: Record,
        key: Option<String>,
    ) -> Self {
        let charts = place.source("charts");
        Self {
            place,
            args,
            platform,
            record,
            key,
            charts,
            cluster: OnceCell::new(),
            images: OnceLock::new(),
        }
    }

    fn kind(&self) -> Kind {
        self.record.kind()
    }

    /// The cluster; the step that makes it is done.
    pub(crate) async fn cluster(&self) -> anyhow::Result<&Cluster> {
        self.cluster.get_or_try_init(|| self.record.cluster(&self.place)).await
    }

    /// Does one step.
    pub(crate) async fn act(
        self: Arc<Self>,
        step: Step,
        progress: Progress,
    ) -> anyhow::Result<Vec<String>> {
        match step {
            Step::Images => self.build(&progress).await,
            Step::Cluster => self.make_cluster(&progress).await,
            Step::Preload => self.preload().await,
            Step::Load => self.load().await,
            Step::Namespaces => self.namespaces().await,
            Step::Metallb => self.metallb(&progress).await,
            Step::GatewayApi => self.gateway_api().await,
            Step::Agentgateway => self.agentgateway(&progress).await,
            Step::Gateway => self.gateway(&progress).await,
            Step::Kagent => self.kagent(&progress).await,
            Step::Hitl => self.hitl(&progress).await,
            Step::OpsTools => self.ops_tools(&progress).await,
            Step::Agents => self.agents(&progress).await,
            Step::Check => check::from_outside(&self, &progress).await,
        }
    }

    async fn build(&self, progress: &Progress) -> anyhow::Result<Vec<String>> {
        let (images, changed) =
            images::build(&self.place, &self.args.build, |line| progress.say(line)).await?;
        let _ = self.images.set(images);
        Ok(changed)
    }

    async fn make_cluster(&self, progress: &Progress) -> anyhow::Result<Vec<String>> {
        let (kind, begun) = (self.kind(), self.place.kept("creating"));
        let mut changed = Vec::new();
        if kind.exists().await? {
            changed.extend(kind.wake().await?);
            if self.is_whole(&kind).await? {
                self.same_ports(&kind).await?;
                return Ok(changed);
            }
            if !begun.exists() {
                bail!(
                    "a kind cluster {0:?} is there that this lab has not made, or that was left half made elsewhere: choose \
                     another --name, or delete it with `kind delete cluster --name {0}`",
                    self.args.name
                );
            }
            progress.say("deleting what an interruption has left");
            kind.delete().await?;
        }
        let template = self.place.source("kind/cluster.yaml");
        let template =
            fs::read_to_string(&template).with_context(|| template.display().to_string())?;
        let image = &self.platform.node.image;
        let config =
            kind::config(&template, &self.args.name, self.args.workers, image, &self.args.ports)?;
        let file = self.place.kept("kind.json");
        fs::write(&file, serde_json::to_string_pretty(&config)?)?;
        fs::write(&begun, "")?;
        kind.create(&file, |line| progress.say(line)).await?;
        self.mark_whole().await?;
        let _ = fs::remove_file(begun);
        changed.push(format!("cluster {} created", self.args.name));
        Ok(changed)
    }

    /// Whether the cluster answers, and is one of ours whose making was not interrupted.
    async fn is_whole(&self, kind: &Kind) -> anyhow::Result<bool> {
        // Without one, not even its first node is there.
        let Ok(kubeconfig) = kind.kubeconfig().await else { return Ok(false) };
        write_private(&self.place.kept("kubeconfig"), &kubeconfig)?;
        let cluster = Cluster::connect(&kubeconfig).await?;
        let half_made = self.place.kept("creating").exists();
        let answering = async {
            while cluster.answers().await.is_err() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        let patience = if half_made { Duration::from_secs(10) } else { AWAKE };
        if tokio::time::timeout(patience, answering).await.is_err() {
            if half_made {
                return Ok(false);
            }
            bail!(
                "the cluster {:?} is there and does not answer: `docker ps` shows its nodes, `cargo xtask teardown` removes it",
                self.args.name
            );
        }
        Ok(cluster.get(&named("v1", "ConfigMap", "kube-system"), WHOLE).await?.is_some())
    }

    async fn mark_whole(&self) -> anyhow::Result<()> {
        let cluster = self.cluster().await?;
        for node in cluster.list(&unspaced("v1", "Node"), "").await? {
            let of = unspaced("v1", "Node");
            cluster.until(&of, name(&node), PATIENCE, conditions::ready).await?;
        }
        cluster
            .apply(&[serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": WHOLE, "namespace": "kube-system"}})])
            .await?;
        Ok(())
    }

    async fn same_ports(&self, kind: &Kind) -> anyhow::Result<()> {
        let there = kind.host_ports().await?;
        for (wanted, what, flag, node) in self.args.ports.all() {
            match there.get(&node) {
                Some(port) if *port == wanted => {}
                Some(port) => bail!(
                    "the cluster was made with port {port} for {what}, which cannot be changed: give {flag} {port}, or begin anew with `cargo xtask teardown`"
                ),
                None => bail!(
                    "the cluster was made without a port for {what}: begin anew with `cargo xtask teardown`"
                ),
            }
        }
        Ok(())
    }

    async fn preload(&self) -> anyhow::Result<Vec<String>> {
        let Some(folder) = &self.args.preload else { return Ok(Vec::new()) };
        // What was loaded is known for this cluster only.
        let node = self.cluster().await?.get(&unspaced("v1", "Namespace"), "kube-system").await?;
        let id = node
            .as_ref()
            .and_then(|node| node.pointer("/metadata/uid")?.as_str())
            .unwrap_or("none");
        images::preload(&self.kind(), folder, &self.place.kept(&format!("preloaded-{id}"))).await
    }

    fn built(&self) -> anyhow::Result<&[Image]> {
        self.images.get().map(Vec::as_slice).context("images are not built")
    }

    async fn load(&self) -> anyhow::Result<Vec<String>> {
        let names: Vec<_> = self.built()?.iter().map(Image::name).collect();
        images::load(&self.place, &self.kind(), &names).await
    }

    async fn namespaces(&self) -> anyhow::Result<Vec<String>> {
        let cluster = self.cluster().await?;
        let mut changed = cluster.apply(&objects::namespaces(&self.record)).await?;
        let mut tokens = tokens(cluster).await?;
        for (name, _) in REVIEWERS {
            if !tokens.contains_key(name) {
                tokens.insert(name, random()?);
            }
        }
        changed.extend(cluster.apply(&objects::reviewers(&tokens)).await?);
        changed
            .extend(cluster.apply(&[objects::model_key(&self.record, self.key.as_deref())]).await?);
        Ok(changed)
    }

    async fn metallb(&self, progress: &Progress) -> anyhow::Result<Vec<String>> {
        let cluster = self.cluster().await?;
        let manifest = self.manifest(&self.platform.manifest.metallb).await?;
        let mut changed = cluster.apply(&manifest).await?;
        progress.say("waiting for its controller and speakers");
        let (apps, namespace) = ("apps/v1", "metallb-system");
        cluster
            .until(
                &named(apps, "Deployment", namespace),
                "controller",
                PATIENCE,
                conditions::deployment,
            )
            .await?;
        cluster
            .until(
                &named(apps, "DaemonSet", namespace),
                "speaker",
                PATIENCE,
                conditions::daemon_set,
            )
            .await?;
        let nodes = cluster.list(&unspaced("v1", "Node"), "").await?;
        let subnets = self.kind().subnets().await?;
        let pool = crate::pool::pool(&subnets, &kind::addresses(&nodes))?;
        // Its webhook is called ready a moment before it answers.
        changed.extend(again(|| async { cluster.apply(&objects::pool(&pool)).await }).await?);
        Ok(changed)
    }

    async fn gateway_api(&self) -> anyhow::Result<Vec<String>> {
        let cluster = self.cluster().await?;
        let manifest = self.manifest(&self.platform.manifest.gateway_api).await?;
        let changed = cluster.apply(&manifest).await?;
        for object in &manifest {
            if object.get("kind").is_some_and(|kind| kind == "CustomResourceDefinition") {
                let of = unspaced("apiextensions.k8s.io/v1", "CustomResourceDefinition");
                cluster.until(&of, name(object), PATIENCE, conditions::established).await?;
            }
        }
        Ok(changed)
    }

    async fn agentgateway(&self, progress: &Progress) -> anyhow::Result<Vec<String>> {
        let mut changed = Vec::new();
        for release in self.charts(&[]).agentgateway() {
            changed.extend(release.install(&self.place).await?);
        }
        progress.say("waiting for its controller");
        self.deployments("agentgateway-system", "app.kubernetes.io/instance=agentgateway").await?;
        Ok(changed)
    }

    async fn gateway(&self, progress: &Progress) -> anyhow::Result<Vec<String>> {
        let cluster = self.cluster().await?;
        let namespace = self.record.gateway.namespace();
        let changed = match self.record.gateway {
            GatewayKind::Agentgateway => {
                let changed = cluster.apply(&objects::gateway()).await?;
                progress.say("waiting until it is programmed");
                let of = named("gateway.networking.k8s.io/v1", "Gateway", namespace);
                if self.record.has(Part::Metallb) {
                    cluster.until(&of, GATEWAY, PATIENCE, conditions::gateway).await?;
                }
                changed
            }
            GatewayKind::Envoy => self.charts(&[]).envoy().install(&self.place).await?,
        };
        self.rolled_out(namespace, GATEWAY).await?;
        Ok(changed)
    }

    async fn kagent(&self, progress: &Progress) -> anyhow::Result<Vec<String>> {
        let mut changed = Vec::new();
        for release in self.charts(&[]).kagent() {
            changed.extend(release.install(&self.place).await?);
        }
        changed.extend(self.cluster().await?.apply(&objects::chat()).await?);
        progress.say("waiting for its controller and its chat");
        self.deployments("kagent", "app.kubernetes.io/instance=kagent").await?;
        Ok(changed)
    }

    async fn hitl(&self, progress: &Progress) -> anyhow::Result<Vec<String>> {
        let changed = self.charts(self.built()?).hitl().install(&self.place).await?;
        progress.say("waiting for the gate and the queue");
        self.rolled_out("hitl", "hitl-extauth").await?;
        self.rolled_out("hitl", "hitl-ui").await?;
        Ok(changed)
    }

    async fn ops_tools(&self, progress: &Progress) -> anyhow::Result<Vec<String>> {
        let changed = self.charts(self.built()?).ops_tools().install(&self.place).await?;
        progress.say("waiting for the tool server");
        self.rolled_out("ops-tools", "mcp-ops-tools").await?;
        if self.record.gateway == GatewayKind::Agentgateway {
            progress.say("waiting until routes and policy are attached");
            let route = named("gateway.networking.k8s.io/v1", "HTTPRoute", "ops-tools");
            let policy =
                |namespace| named("agentgateway.dev/v1alpha1", "AgentgatewayPolicy", namespace);
            self.ready(&route, "mcp-public", conditions::route).await?;
            self.ready(&route, "mcp-privileged", conditions::route).await?;
            self.ready(&policy("ops-tools"), "privileged-extauth", conditions::policy).await?;
            self.ready(&policy("hitl"), "hitl-extauth", conditions::policy).await?;
        }
        Ok(changed)
    }

    async fn agents(&self, progress: &Progress) -> anyhow::Result<Vec<String>> {
        let changed = self.charts(self.built()?).agents().install(&self.place).await?;
        let namespace = self.record.agents();
        if self.record.scripted {
            self.rolled_out(namespace, "scripted-model").await?;
        }
        if self.record.has(Part::Kagent) {
            progress.say("waiting until kagent has discovered the tools");
            let server = named("kagent.dev/v1alpha2", "RemoteMCPServer", namespace);
            for name in ["ops-tools-public", "ops-tools-privileged"] {
                self.ready(&server, name, conditions::mcp_server).await?;
            }
            progress.say("waiting for the agents");
            let of = named("kagent.dev/v1alpha2", "Agent", namespace);
            for agent in self.cluster().await?.list(&of, "app.kubernetes.io/part-of=hitl").await? {
                self.ready(&of, name(&agent), conditions::agent).await?;
            }
        } else {
            progress.say("waiting for the agent");
            self.rolled_out(namespace, "dba-assistant").await?;
        }
        Ok(changed)
    }

    fn charts<'a>(&'a self, images: &'a [Image]) -> Charts<'a> {
        Charts { lab: &self.record, platform: &self.platform, images, folder: &self.charts }
    }

    async fn ready(
        &self,
        of: &Named<'_>,
        name: &str,
        judge: fn(&Value) -> Verdict,
    ) -> anyhow::Result<()> {
        self.cluster().await?.until(of, name, PATIENCE, judge).await
    }

    async fn rolled_out(&self, namespace: &str, name: &str) -> anyhow::Result<()> {
        self.ready(&named("apps/v1", "Deployment", namespace), name, conditions::deployment).await
    }

    /// Waits for every Deployment with these labels.
    async fn deployments(&self, namespace: &str, labels: &str) -> anyhow::Result<()> {
        let of = named("apps/v1", "Deployment", namespace);
        for deployment in self.cluster().await?.list(&of, labels).await? {
            self.rolled_out(namespace, name(&deployment)).await?;
        }
        Ok(())
    }

    /// A manifest, from here or from elsewhere, with its images from the mirrors that are named.
    async fn manifest(&self, source: &Source) -> anyhow::Result<Vec<Value>> {
        let text = crate::bundle::read(source).await?;
        let mut objects = documents(&text).with_context(|| source.to_string())?;
        if objects.is_empty() {
            bail!("{source} holds no objects");
        }
        for object in &mut objects {
            mirror_images(object, &self.platform);
        }
        Ok(objects)
    }
}

/// Every `image:` of an object, from the mirror of its registry.
fn mirror_images(value: &mut Value, platform: &Platform) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(image) if key == "image" => *image = platform.image(image),
                    other => mirror_images(other, platform),
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|value| mirror_images(value, platform)),
        _ => {}
    }
}

/// Tokens of the lab's reviewers, as the cluster keeps them.
pub(crate) async fn tokens(cluster: &Cluster) -> anyhow::Result<BTreeMap<&'static str, String>> {
    let secret = cluster.get(&named("v1", "Secret", "hitl"), TOKENS).await?.unwrap_or_default();
    let token = |name: &str| {
        let encoded = secret.pointer("/data")?.get(name)?.as_str()?;
        String::from_utf8(STANDARD.decode(encoded).ok()?).ok().filter(|token| !token.is_empty())
    };
    Ok(REVIEWERS.iter().filter_map(|(name, _)| Some((*name, token(name)?))).collect())
}

fn random() -> anyhow::Result<String> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

/// Tries until it works, for half a minute: for what is called ready a moment before it is.
async fn again<T, Trying>(attempt: impl Fn() -> Trying) -> anyhow::Result<T>
where
    Trying: Future<Output = anyhow::Result<T>>,
{
    let mut pause = Duration::from_millis(100);
    loop {
        match attempt().await {
            Err(_) if pause < Duration::from_secs(13) => {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            outcome => return outcome,
        }
    }
}
