//! kind, and the containers that are its nodes.
//!
//! Must never delete a cluster that this lab has not made.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    json::set,
    options::Ports,
    shell::{command, follow, output},
};

/// Where a folder of the checkout that made it is mounted in every node.
const MARK: &str = "/etc/hitl-lab";

/// Who has made a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// There is no such cluster.
    None,
    /// A lab, of the checkout that this folder belongs to.
    Lab(PathBuf),
    /// Somebody else.
    Stranger,
}

/// One cluster of kind.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    name: String,
    engine: &'static str,
}

/// The program that runs containers: kind's own choice, else what is there.
pub(crate) fn engine() -> &'static str {
    let chosen = std::env::var("KIND_EXPERIMENTAL_PROVIDER").unwrap_or_default();
    let there = |name| on_path(name).is_some();
    match chosen.as_str() {
        "podman" => "podman",
        "" if !there("docker") && there("podman") => "podman",
        _ => "docker",
    }
}

/// A program on the path.
pub(crate) fn on_path(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

impl Kind {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), engine: engine() }
    }

    fn kind(&self, words: &[&str]) -> Command {
        let mut kind = command("kind");
        // Kind looks for an engine by itself; it must find the one that is asked here.
        kind.env("KIND_EXPERIMENTAL_PROVIDER", self.engine);
        kind.args(words).args(["--name", &self.name]);
        kind
    }

    pub(crate) fn engine(&self) -> Command {
        command(self.engine)
    }

    /// Whether kind knows the cluster, whole or not.
    pub(crate) async fn exists(&self) -> anyhow::Result<bool> {
        let mut kind = command("kind");
        kind.env("KIND_EXPERIMENTAL_PROVIDER", self.engine);
        let clusters = output(kind.args(["get", "clusters"])).await?;
        Ok(clusters.lines().any(|line| line.trim() == self.name))
    }

    /// Makes the cluster.
    ///
    /// Its kubeconfig goes into a file of the lab: which cluster a person's kubectl acts on is theirs
    /// to choose.
    pub(crate) async fn create(
        &self,
        config: &Path,
        kubeconfig: &Path,
        line: impl Fn(&str),
    ) -> anyhow::Result<()> {
        let mut create = self.kind(&["create", "cluster", "--wait", "0s"]);
        create.arg("--config").arg(config).arg("--kubeconfig").arg(kubeconfig);
        follow(&mut create, line).await?;
        Ok(())
    }

    /// Deletes the cluster; one that is not there is fine.
    pub(crate) async fn delete(&self, kubeconfig: &Path) -> anyhow::Result<()> {
        output(self.kind(&["delete", "cluster"]).arg("--kubeconfig").arg(kubeconfig)).await?;
        Ok(())
    }

    /// How its API server is reached.
    pub(crate) async fn kubeconfig(&self) -> anyhow::Result<String> {
        output(&mut self.kind(&["get", "kubeconfig"])).await
    }

    /// The nodes' containers.
    pub(crate) async fn nodes(&self) -> anyhow::Result<Vec<String>> {
        let nodes = output(&mut self.kind(&["get", "nodes"])).await?;
        Ok(nodes
            .lines()
            .map(|line| line.trim().to_owned())
            .filter(|line| !line.is_empty())
            .collect())
    }

    /// Who has made the cluster: what is mounted into its nodes tells.
    pub(crate) async fn owner(&self) -> anyhow::Result<Owner> {
        if !self.exists().await? {
            return Ok(Owner::None);
        }
        // Known to kind, but without nodes: nothing that could be lost.
        let nodes = self.nodes().await?;
        let Some(node) = nodes.first() else { return Ok(Owner::None) };
        let mut inspect = self.engine();
        let text = output(inspect.args(["inspect", "--format", "{{json .Mounts}}", node])).await?;
        let mounts: Vec<Value> =
            serde_json::from_str(&text).context("the engine's account of a node")?;
        let ours =
            mounts.iter().find(|mount| mount.get("Destination").is_some_and(|to| to == MARK));
        let folder = ours.and_then(|mount| mount.get("Source")?.as_str());
        Ok(folder.map_or(Owner::Stranger, |folder| Owner::Lab(folder.into())))
    }

    /// Starts nodes that were stopped, as a machine's restart leaves them; says which.
    pub(crate) async fn wake(&self) -> anyhow::Result<Vec<String>> {
        let mut woken = Vec::new();
        for node in self.nodes().await? {
            let running =
                output(self.engine().args(["inspect", "--format", "{{.State.Running}}", &node]))
                    .await?;
            if running.trim() != "true" {
                output(self.engine().args(["start", &node])).await?;
                woken.push(format!("started node {node}"));
            }
        }
        Ok(woken)
    }

    /// Ports of this machine, by the node ports behind them.
    pub(crate) async fn host_ports(&self) -> anyhow::Result<BTreeMap<u16, u16>> {
        let mut ports = BTreeMap::new();
        for node in self.nodes().await? {
            let text = output(self.engine().args([
                "inspect",
                "--format",
                "{{json .HostConfig.PortBindings}}",
                &node,
            ]))
            .await?;
            let bindings: BTreeMap<String, Option<Vec<Value>>> =
                serde_json::from_str(&text).unwrap_or_default();
            for (container, hosts) in bindings {
                let port =
                    |text: &str| text.split('/').next().and_then(|port| port.parse::<u16>().ok());
                let host =
                    hosts.iter().flatten().find_map(|host| port(host.get("HostPort")?.as_str()?));
                if let (Some(container), Some(host)) = (port(&container), host) {
                    ports.insert(container, host);
                }
            }
        }
        Ok(ports)
    }

    /// Subnets of the network that the nodes are in.
    pub(crate) async fn subnets(&self) -> anyhow::Result<Vec<String>> {
        let network =
            std::env::var("KIND_EXPERIMENTAL_DOCKER_NETWORK").unwrap_or_else(|_| "kind".to_owned());
        let text = output(self.engine().args(["network", "inspect", &network])).await?;
        Ok(subnets(&serde_json::from_str(&text).context("the engine's account of the network")?))
    }

    /// Names of the images that a node has.
    pub(crate) async fn images(&self, node: &str) -> anyhow::Result<Vec<String>> {
        let list = output(self.engine().args([
            "exec",
            node,
            "ctr",
            "--namespace=k8s.io",
            "images",
            "list",
            "-q",
        ]))
        .await?;
        Ok(list.lines().map(str::to_owned).collect())
    }

    /// Loads an archive of images into every node.
    pub(crate) async fn load(&self, archive: &Path) -> anyhow::Result<()> {
        output(self.kind(&["load", "image-archive"]).arg(archive))
            .await
            .with_context(|| format!("loading {}", archive.display()))?;
        Ok(())
    }
}

/// Subnets in the account that docker or podman gives of a network.
fn subnets(networks: &Value) -> Vec<String> {
    let all = networks.as_array().into_iter().flatten();
    let listed = all.flat_map(|network| {
        let docker = network.pointer("/IPAM/Config").and_then(Value::as_array);
        let podman = network.get("subnets").and_then(Value::as_array);
        docker.into_iter().chain(podman).flatten().collect::<Vec<_>>()
    });
    let subnet = |entry: &Value| {
        entry.get("Subnet").or_else(|| entry.get("subnet"))?.as_str().map(str::to_owned)
    };
    listed.filter_map(subnet).collect()
}

/// The configuration for kind, out of the checkout's `kind/cluster.yaml`.
///
/// # Errors
/// When that is not what it should be.
pub(crate) fn config(
    template: &str,
    name: &str,
    workers: u8,
    image: &str,
    ports: &Ports,
    own: &Path,
) -> anyhow::Result<Value> {
    let mut config: Value = serde_saphyr::from_str(template).context("kind/cluster.yaml")?;
    let nodes = config.get("nodes").and_then(Value::as_array).cloned().unwrap_or_default();
    let role = |role: &str| {
        nodes.iter().find(|node| node.get("role").is_some_and(|is| is == role)).cloned()
    };
    let Some(mut first) = role("control-plane") else {
        bail!("kind/cluster.yaml has no control plane")
    };
    let mappings: Vec<_> = ports
        .all()
        .iter()
        .map(|(host, _, _, node)| json!({"containerPort": node, "hostPort": host, "listenAddress": "127.0.0.1"}))
        .collect();
    set(&mut first, "extraPortMappings", json!(mappings));
    let worker = role("worker").unwrap_or_else(|| json!({"role": "worker"}));
    let mut all = vec![first];
    all.extend(std::iter::repeat_n(worker, usize::from(workers)));
    for node in &mut all {
        let mount = json!({"hostPath": own, "containerPath": MARK, "readOnly": true});
        set(node, "extraMounts", json!([mount]));
    }
    if !image.is_empty() {
        for node in &mut all {
            set(node, "image", json!(image));
        }
    }
    set(&mut config, "name", json!(name));
    set(&mut config, "nodes", json!(all));
    Ok(config)
}

/// Addresses of the nodes, as the API server knows them.
pub(crate) fn addresses(nodes: &[Value]) -> Vec<IpAddr> {
    let all = nodes.iter().filter_map(|node| node.pointer("/status/addresses")?.as_array());
    all.flatten().filter_map(|address| address.get("address")?.as_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = include_str!("../../../kind/cluster.yaml");

    fn ports() -> Ports {
        Ports { chat: 8080, queue: 8090, tools: 8081, gateway: 18088 }
    }

    #[test]
    fn the_cluster_s_configuration_has_what_was_asked_for() {
        insta::assert_json_snapshot!(
            config(TEMPLATE, "hitl", 2, "kindest/node:v1", &ports(), Path::new("/lab")).unwrap()
        );
        let one = config(TEMPLATE, "hitl", 0, "", &ports(), Path::new("/lab")).unwrap();
        assert_eq!(one["nodes"].as_array().unwrap().len(), 1);
        assert!(one["nodes"][0].get("image").is_none());
    }

    #[test]
    fn the_file_by_itself_maps_what_the_options_say_by_default() {
        let own: Value = serde_saphyr::from_str(TEMPLATE).unwrap();
        let defaults = Ports { gateway: 8088, ..ports() };
        let mut made = config(TEMPLATE, "hitl", 1, "", &defaults, Path::new("/lab")).unwrap();
        for node in made["nodes"].as_array_mut().unwrap() {
            node.as_object_mut().unwrap().remove("extraMounts").unwrap();
        }
        assert_eq!(own, made);
    }

    #[test]
    fn subnets_of_docker_and_of_podman_are_read() {
        let docker =
            json!([{"IPAM": {"Config": [{"Subnet": "fc00::/64"}, {"Subnet": "172.18.0.0/16"}]}}]);
        assert_eq!(subnets(&docker), ["fc00::/64", "172.18.0.0/16"]);
        let podman = json!([{"name": "kind", "subnets": [{"subnet": "10.89.0.0/24", "gateway": "10.89.0.1"}]}]);
        assert_eq!(subnets(&podman), ["10.89.0.0/24"]);
        assert!(subnets(&json!([{"IPAM": {"Config": null}}])).is_empty());
    }
}
