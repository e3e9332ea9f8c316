//! What each step of `up` does. Each may be done again at any time, and says what it has changed.

use std::{
    collections::BTreeMap,
    future::Future,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::{
    check,
    cluster::{Cluster, Named, named, objects as documents, unspaced},
    conditions::{self, Verdict},
    images::{self, Image},
    json::{name, text},
    kind::{self, Kind},
    lab::{Place, Record},
    objects::{self, GATEWAY, REVIEWERS, TOKENS},
    options::{GatewayKind, Part, UpArgs},
    plan::Step,
    platform::{Platform, Source},
    run::Progress,
    values::Charts,
};

/// What the steps share.
pub(crate) struct Lab {
    pub(crate) place: Place,
    pub(crate) args: UpArgs,
    pub(crate) platform: Platform,
    pub(crate) record: Record,
    /// The model's key, when there is one.
    pub(crate) key: Option<String>,
    /// What was written down before: then the cluster was whole once.
    pub(crate) known: Option<Record>,
    charts: PathBuf,
    /// The version of the Secret with the model's key.
    key_version: OnceLock<String>,
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
        known: Option<Record>,
    ) -> Self {
        let charts = place.source("charts");
        Self {
            place,
            args,
            platform,
            record,
            key,
            known,
            charts,
            key_version: OnceLock::new(),
            cluster: OnceCell::new(),
            images: OnceLock::new(),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.record.kind()
    }

    /// Longest that one thing may take to be ready: an image may have to be pulled first.
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(u64::from(self.args.timeout))
    }

    /// The cluster; the step that makes it is done.
    pub(crate) async fn cluster(&self) -> anyhow::Result<&Cluster> {
        self.cluster.get_or_try_init(|| self.record.cluster(&self.place)).await
    }

    /// Does one step.
    pub(crate) fn act(
        self: Arc<Self>,
        step: Step,
        progress: Progress,
    ) -> BoxFuture<'static, anyhow::Result<Vec<String>>> {
        Box::pin(async move {
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
        })
    }

    async fn build(&self, progress: &Progress) -> anyhow::Result<Vec<String>> {
        // A bundle brings them.
        let bundled = self.args.preload.as_deref();
        let langgraph = self.record.has(Part::Langgraph);
        let bundled =
            bundled.map(|folder| crate::bundle::ours(folder, langgraph)).transpose()?.flatten();
        if let Some(images) = bundled {
            let _ = self.images.set(images);
            return Ok(Vec::new());
        }
        let (images, changed) =
            images::build(&self.place, &self.args.build, langgraph, |line| progress.say(line))
                .await?;
        let _ = self.images.set(images);
        Ok(changed)
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
        let key = objects::model_key(&self.record, self.key.as_deref());
        let (secrets, key_name) =
            (named("v1", "Secret", self.record.agents()), name(&key).to_owned());
        changed.extend(cluster.apply(&[key]).await?);
        let kept = cluster.get(&secrets, &key_name).await?.unwrap_or_default();
        let _ = self.key_version.set(text(&kept, "/metadata/resourceVersion").to_owned());
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
                self.patience(),
                conditions::deployment,
            )
            .await?;
        cluster
            .until(
                &named(apps, "DaemonSet", namespace),
                "speaker",
                self.patience(),
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
                cluster.until(&of, name(object), self.patience(), conditions::established).await?;
            }
        }
        Ok(changed)
    }

    async fn agentgateway(&self, progress: &Progress) -> anyhow::Result<Vec<String>> {
        let [definitions, controller] = self.charts(&[]).agentgateway();
        let mut changed = definitions.install(&self.place).await?;
        self.established("agentgateway.dev").await?;
        changed.extend(controller.install(&self.place).await?);
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
                    cluster.until(&of, GATEWAY, self.patience(), conditions::gateway).await?;
                }
                changed
            }
            GatewayKind::Envoy => self.charts(self.built()?).envoy().install(&self.place).await?,
        };
        self.rolled_out(namespace, GATEWAY).await?;
        Ok(changed)
    }

    async fn kagent(&self, progress: &Progress) -> anyhow::Result<Vec<String>> {
        let [definitions, dashboard] = self.charts(&[]).kagent();
        let mut changed = definitions.install(&self.place).await?;
        self.established("kagent.dev").await?;
        changed.extend(dashboard.install(&self.place).await?);
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
        let hosts = self.gateway_hosts().await?;
        let changed = self.charts(self.built()?).ops_tools(&hosts).install(&self.place).await?;
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
        let key_version = self.key_version.get().map_or("", String::as_str);
        let charts = self.charts(self.built()?);
        let changed = charts.agents(key_version).install(&self.place).await?;
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
            let agents = self.cluster().await?.list(&of, "app.kubernetes.io/part-of=hitl").await?;
            if agents.is_empty() {
                bail!("no Agent of this lab is in {namespace}");
            }
            let deployments = named("apps/v1", "Deployment", namespace);
            for agent in agents {
                self.ready(&of, name(&agent), conditions::agent).await?;
                // kagent calls an Agent ready while a pod of its old generation still answers.
                let rolled_out = |object: &Value| conditions::agent_deployment(&agent, object);
                self.ready(&deployments, name(&agent), rolled_out).await?;
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
        judge: impl Fn(&Value) -> Verdict + Send + Sync,
    ) -> anyhow::Result<()> {
        self.cluster().await?.until(of, name, self.patience(), judge).await
    }

    /// Hosts by which the gateway is reached beside its names in the cluster: the addresses that the
    /// cluster has given to it, and those of the nodes, where its node port is.
    async fn gateway_hosts(&self) -> anyhow::Result<Vec<String>> {
        let (cluster, namespace) = (self.cluster().await?, self.record.gateway.namespace());
        let of = match self.record.gateway {
            GatewayKind::Agentgateway => {
                named("gateway.networking.k8s.io/v1", "Gateway", namespace)
            }
            GatewayKind::Envoy => named("v1", "Service", namespace),
        };
        let gateway = cluster.get(&of, GATEWAY).await?.unwrap_or_default();
        let nodes = cluster.list(&unspaced("v1", "Node"), "").await?;
        Ok(objects::hosts(&gateway, &nodes))
    }

    async fn rolled_out(&self, namespace: &str, name: &str) -> anyhow::Result<()> {
        self.ready(&named("apps/v1", "Deployment", namespace), name, conditions::deployment).await
    }

    /// Waits for every Deployment with these labels.
    async fn deployments(&self, namespace: &str, labels: &str) -> anyhow::Result<()> {
        let of = named("apps/v1", "Deployment", namespace);
        let all = self.cluster().await?.list(&of, labels).await?;
        if all.is_empty() {
            bail!(
                "no Deployment with {labels} is in {namespace}: the chart is another than this was made for"
            );
        }
        for deployment in all {
            self.rolled_out(namespace, name(&deployment)).await?;
        }
        Ok(())
    }

    /// Waits for the definitions of a group, of which there must be some.
    async fn established(&self, group: &str) -> anyhow::Result<()> {
        let of = unspaced("apiextensions.k8s.io/v1", "CustomResourceDefinition");
        let cluster = self.cluster().await?;
        let all = cluster.list(&of, "").await?;
        let all: Vec<_> = all.iter().filter(|one| text(one, "/spec/group") == group).collect();
        if all.is_empty() {
            bail!(
                "no definitions of {group} are in the cluster: the chart is another than this was made for"
            );
        }
        for definition in all {
            cluster.until(&of, name(definition), self.patience(), conditions::established).await?;
        }
        Ok(())
    }

    /// A manifest, from here or from elsewhere, with its images from the mirrors that are named.
    async fn manifest(&self, source: &Source) -> anyhow::Result<Vec<Value>> {
        let text = crate::sources::read(source).await?;
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
