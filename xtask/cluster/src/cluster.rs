//! The cluster's API: applying objects, reading them, and forwarding a port.
//!
//! Owns the connection. Must never act on another cluster than the lab's: it knows only the
//! kubeconfig that kind gives for it, never the context that happens to be current.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config,
    api::{DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
    discovery::{ApiCapabilities, ApiResource, Scope},
};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

/// Who applies, in the objects' managed fields.
const MANAGER: &str = "hitl-lab";

/// A connection to the lab's cluster; a cheap handle.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    /// The file that other programs reach it by.
    kubeconfig: PathBuf,
}

/// What an object is called.
pub(crate) struct Named<'a> {
    /// `group/version`, or the version alone.
    pub(crate) api: &'a str,
    pub(crate) kind: &'a str,
    /// None where the kind has no namespaces.
    pub(crate) namespace: Option<&'a str>,
}

/// A kind of objects in a namespace.
pub(crate) const fn named<'a>(api: &'a str, kind: &'a str, namespace: &'a str) -> Named<'a> {
    Named { api, kind, namespace: Some(namespace) }
}

/// A kind of objects without namespaces.
pub(crate) const fn unspaced<'a>(api: &'a str, kind: &'a str) -> Named<'a> {
    Named { api, kind, namespace: None }
}

impl Cluster {
    /// Connects as a kubeconfig says, which is kept in a file.
    pub(crate) async fn connect(text: &str, file: &Path) -> anyhow::Result<Self> {
        let kubeconfig = Kubeconfig::from_yaml(text).context("kind's kubeconfig")?;
        let config =
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let mut config = config.context("kind's kubeconfig")?;
        // The API server is on this machine: no proxy of the environment stands before it.
        config.proxy_url = None;
        let client = Client::try_from(config)?;
        Ok(Self { client, kubeconfig: file.to_owned() })
    }

    /// The file that other programs reach it by.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The client itself.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the API server answers.
    pub(crate) async fn answers(&self) -> anyhow::Result<()> {
        self.client.apiserver_version().await?;
        Ok(())
    }

    /// A kind of objects, as the cluster knows it; none where it does not.
    async fn find(
        &self,
        api: &str,
        kind: &str,
    ) -> anyhow::Result<Option<(ApiResource, ApiCapabilities)>> {
        let (group, version) = api.split_once('/').unwrap_or(("", api));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        match kube::discovery::pinned_kind(&self.client, &gvk).await {
            Ok(known) => Ok(Some(known)),
            // Only these say that there is no such kind. Everything else says nothing at all, and
            // nothing at all must not be taken for "nothing is there".
            Err(kube::Error::Discovery(_)) => Ok(None),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => {
                Err(error).with_context(|| format!("asking the cluster for {kind} of {api}"))
            }
        }
    }

    /// The objects of a kind; none where the cluster does not know it.
    async fn maybe(&self, of: &Named<'_>) -> anyhow::Result<Option<Api<DynamicObject>>> {
        let Some((resource, capabilities)) = self.find(of.api, of.kind).await? else {
            return Ok(None);
        };
        Ok(Some(match (capabilities.scope, of.namespace) {
            (Scope::Namespaced, Some(namespace)) => {
                Api::namespaced_with(self.client.clone(), namespace, &resource)
            }
            _ => Api::all_with(self.client.clone(), &resource),
        }))
    }

    /// The objects of a kind.
    ///
    /// # Errors
    /// When the cluster does not know it, or cannot be asked.
    pub(crate) async fn api(&self, of: &Named<'_>) -> anyhow::Result<Api<DynamicObject>> {
        let known = self.maybe(of).await?;
        known.with_context(|| format!("the cluster does not know {} of {}", of.kind, of.api))
    }

    /// One object; none where it is not there, or where its kind is not known.
    pub(crate) async fn get(&self, of: &Named<'_>, name: &str) -> anyhow::Result<Option<Value>> {
        let Some(api) = self.maybe(of).await? else { return Ok(None) };
        let object = api.get_opt(name).await?;
        object.map(|object| serde_json::to_value(object).map_err(Into::into)).transpose()
    }

    /// All objects of a kind with these labels; none where the kind is not known.
    pub(crate) async fn list(&self, of: &Named<'_>, labels: &str) -> anyhow::Result<Vec<Value>> {
        let Some(api) = self.maybe(of).await? else { return Ok(Vec::new()) };
        let list = api.list(&ListParams::default().labels(labels)).await?;
        let items = list.items.into_iter();
        items.map(|object| serde_json::to_value(object).map_err(Into::into)).collect()
    }

    /// Applies objects on the server's side, in order, and names those that were not so before.
    ///
    /// # Errors
    /// The first that the server does not take, named.
    pub(crate) async fn apply(&self, objects: &[Value]) -> anyhow::Result<Vec<String>> {
        let mut changed = Vec::new();
        for object in objects {
            let text =
                |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let (api, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
            let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str);
            let shown = format!(
                "{kind} {}{name}",
                namespace.map(|space| format!("{space}/")).unwrap_or_default()
            );
            if name.is_empty() || api.is_empty() {
                bail!("an object without a name or a kind: {object}");
            }
            let api = self.api(&Named { api, kind, namespace }).await?;
            let before = api.get_opt(name).await.with_context(|| shown.clone())?;
            let params = PatchParams::apply(MANAGER).force();
            let after = api.patch(name, &params, &Patch::Apply(object)).await;
            let after = after.with_context(|| format!("{shown} is not taken by the cluster"))?;
            match before {
                None => changed.push(format!("{shown} created")),
                Some(before) if content(&before)? != content(&after)? => {
                    changed.push(format!("{shown} changed"));
                }
                Some(_) => {}
            }
        }
        Ok(changed)
    }

    /// Deletes an object and waits until it is gone; one that is not there is fine.
    pub(crate) async fn delete(&self, of: &Named<'_>, name: &str) -> anyhow::Result<()> {
        let api = self.api(of).await?;
        if let Some(object) = api.get_opt(name).await? {
            let uid = object.metadata.uid.unwrap_or_default();
            let deleted = kube::runtime::conditions::is_deleted(&uid);
            api.delete(name, &kube::api::DeleteParams::default().grace_period(0)).await?;
            kube::runtime::wait::await_condition(api, name, deleted).await?;
        }
        Ok(())
    }

    /// Forwards a port of loopback to a port of the first ready pod with these labels, until what is
    /// given back is dropped.
    ///
    /// # Errors
    /// When no such pod is ready.
    pub(crate) async fn forward(
        &self,
        namespace: &str,
        labels: &str,
        port: u16,
    ) -> anyhow::Result<Forward> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let ready = |pod: &Pod| {
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.is_some_and(|all| {
                all.iter().any(|one| one.type_ == "Ready" && one.status == "True")
            })
        };
        let list = pods.list(&ListParams::default().labels(labels)).await?;
        let pod = list.items.into_iter().find(ready).and_then(|pod| pod.metadata.name);
        let pod = pod.with_context(|| format!("no pod of {labels} in {namespace} is ready"))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            // Each connection is one stream through the API server; one that ends ends alone.
            while let Ok((mut here, _)) = listener.accept().await {
                let (pods, pod) = (pods.clone(), pod.clone());
                tokio::spawn(async move {
                    let Ok(mut forwarder) = pods.portforward(&pod, &[port]).await else { return };
                    let Some(mut there) = forwarder.take_stream(port) else { return };
                    let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
                });
            }
        });
        Ok(Forward { address, task })
    }
}

/// What somebody has said of an object: without what the cluster says of it.
fn content(object: &DynamicObject) -> anyhow::Result<Value> {
    let mut content = serde_json::to_value(object)?;
    if let Some(content) = content.as_object_mut() {
        content.remove("status");
    }
    if let Some(meta) = content.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["managedFields", "resourceVersion", "generation"] {
            meta.remove(field);
        }
    }
    Ok(content)
}

/// A port that is forwarded; not any more when this is dropped.
pub(crate) struct Forward {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Forward {
    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The objects of a manifest of several documents.
///
/// # Errors
/// When it is not YAML.
pub(crate) fn objects(manifest: &str) -> anyhow::Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(manifest)?;
    Ok(documents.into_iter().filter(|document| document.get("kind").is_some()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_document_by_document_and_empty_ones_are_nothing() {
        let text = "# a comment\n---\nkind: A\nmetadata: {name: a}\n---\n# nothing\n---\nkind: B\n";
        let kinds: Vec<_> =
            objects(text).unwrap().iter().map(|one| one["kind"].to_string()).collect();
        assert_eq!(kinds, ["\"A\"", "\"B\""]);
    }
}
