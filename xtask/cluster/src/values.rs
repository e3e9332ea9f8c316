//! Values for the charts. Pure.
//!
//! Must never carry a secret: helm keeps values where others can read them.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    helm::Release,
    images::{self, Image},
    json::set,
    lab::Record,
    objects::{GATEWAY, GATEWAY_PORT},
    options::{
        CHAT_NODE_PORT, GATEWAY_NODE_PORT, GatewayKind, Part, QUEUE_NODE_PORT, TOOLS_NODE_PORT,
    },
    platform::{Platform, Source},
};

/// Seconds that an agent and a gateway wait longer than the gate holds.
const MARGIN: u32 = 60;

/// The annotation of pods with the version of the Secret that they have read.
const KEY_VERSION: &str = "model-key-version";

/// What the charts are installed with.
pub(crate) struct Charts<'a> {
    pub(crate) lab: &'a Record,
    pub(crate) platform: &'a Platform,
    pub(crate) images: &'a [Image],
    /// The folder of our charts.
    pub(crate) folder: &'a Path,
}

impl Charts<'_> {
    fn ours(
        &self,
        chart: &str,
        name: &'static str,
        namespace: &'static str,
        values: Value,
    ) -> Release {
        Release {
            name,
            namespace,
            chart: Source::Here(self.folder.join(chart)),
            version: None,
            values,
        }
    }

    fn image(&self, service: &str) -> Value {
        let tag = self
            .images
            .iter()
            .find(|image| image.service == service)
            .map(|image| image.tag.clone());
        json!({"registry": "docker.io", "repository": Image::repository(service), "tag": tag.unwrap_or_default()})
    }

    /// Whether there will be anybody who knows agentgateway's policies.
    fn has_agentgateway(&self) -> bool {
        self.lab.gateway == GatewayKind::Agentgateway && self.lab.has(Part::Agentgateway)
    }

    fn gateway_pods(&self) -> Value {
        json!({"namespace": self.lab.gateway.namespace(), "podLabels": {"gateway.networking.k8s.io/gateway-name": GATEWAY}})
    }

    /// Where the gateway is in the cluster.
    fn gateway_url(&self) -> String {
        format!("http://{GATEWAY}.{}:{GATEWAY_PORT}", self.lab.gateway.namespace())
    }

    /// Gate and queue.
    pub(crate) fn hitl(&self) -> Release {
        let agentgateway = self.has_agentgateway();
        self.ours(
            "hitl",
            "hitl",
            "hitl",
            json!({
                "gate": {"image": self.image("hitl-extauth"), "hold": self.lab.hold},
                "reviewers": {"existingSecret": "hitl-reviewers"},
                "ui": {
                    "image": self.image("hitl-ui"),
                    "url": self.lab.ports.queue_url(),
                    "service": {"type": "NodePort", "nodePort": QUEUE_NODE_PORT},
                    "opsTools": ["http://mcp-ops-tools.ops-tools:8083"],
                    // Through the gateway: nothing else reaches the tools.
                    "mcp": [format!("mcp-ops-tools={}/privileged/mcp", self.gateway_url())],
                },
                "gatewayPolicy": {"kind": if agentgateway { "agentgateway" } else { "none" }},
                "networkPolicy": {"gateway": self.gateway_pods()},
            }),
        )
    }

    /// Tool server and routes; the gateway is also reached by `hosts`.
    pub(crate) fn ops_tools(&self, hosts: &[String]) -> Release {
        let namespace = self.lab.gateway.namespace();
        let agentgateway = self.has_agentgateway();
        let names =
            ["", ".svc", ".svc.cluster.local"].map(|end| format!("{GATEWAY}.{namespace}{end}"));
        let hosts: Vec<_> = names.iter().chain(hosts).collect();
        self.ours("mcp-ops-tools", "mcp-ops-tools", "ops-tools", json!({
            "image": self.image("mcp-ops-tools"),
            "allowedHosts": hosts,
            "stateService": {"enabled": true, "type": "NodePort", "nodePort": TOOLS_NODE_PORT},
            "gateway": {"kind": if agentgateway { "agentgateway" } else { "none" }, "name": GATEWAY, "namespace": namespace},
            "networkPolicy": {"gateway": self.gateway_pods()},
        }))
    }

    /// The plain Envoy.
    pub(crate) fn envoy(&self) -> Release {
        let image = self.platform.image(&self.platform.image.envoy);
        let (name, tag) = image.rsplit_once(':').unwrap_or((&image, "latest"));
        let (registry, repository) = name.split_once('/').unwrap_or(("docker.io", name));
        self.ours("envoy", GATEWAY, GatewayKind::Envoy.namespace(), json!({
            "image": {"registry": registry, "repository": repository, "tag": tag},
            "service": {"type": if self.lab.has(Part::Metallb) { "LoadBalancer" } else { "NodePort" }, "nodePort": GATEWAY_NODE_PORT},
            "test": {"image": self.image("hitl-extauth")},
        }))
    }

    /// Agents, with a Secret of this version.
    pub(crate) fn agents(&self, key_version: &str) -> Release {
        let kagent = self.lab.has(Part::Kagent);
        let mut values = json!({
            "mode": if kagent { "kagent" } else { "standalone" },
            "gatewayUrl": self.gateway_url(),
            "callLimit": self.lab.hold + MARGIN,
            "image": self.image("dba-assistant"),
            "scriptedModel": {"enabled": self.lab.scripted, "image": self.image("scripted-model")},
            // Pods read the key when they start; of a Secret that changes, kagent restarts declarative
            // agents alone.
            "podAnnotations": {KEY_VERSION: key_version},
        });
        if self.lab.scripted {
            set(&mut values, "model", json!({"name": "scripted"}));
        }
        if kagent {
            let wanted = self.lab.has(Part::Langgraph);
            let langgraph = json!({"enabled": wanted, "image": self.image(images::LANGGRAPH)});
            set(&mut values, "agents", json!({"langgraph": langgraph}));
        } else {
            set(&mut values, "service", json!({"type": "NodePort", "nodePort": CHAT_NODE_PORT}));
        }
        self.ours("dba-assistant", "dba-assistant", self.lab.agents(), values)
    }

    /// agentgateway, in two releases.
    pub(crate) fn agentgateway(&self) -> [Release; 2] {
        let namespace = GatewayKind::Agentgateway.namespace();
        let version = Some(self.platform.version.agentgateway.clone());
        let given = self.platform.values.agentgateway.as_ref();
        let registries = [("cr.agentgateway.dev", "image.registry")];
        let values = self.platform.chart_values(json!({}), &registries, given);
        let (definitions, chart) = (
            self.platform.chart.agentgateway_crds.clone(),
            self.platform.chart.agentgateway.clone(),
        );
        [
            Release {
                name: "agentgateway-crds",
                namespace,
                chart: definitions,
                version: version.clone(),
                values: json!({}),
            },
            Release { name: "agentgateway", namespace, chart, version, values },
        ]
    }

    /// kagent, in two releases, with nothing but what the lab needs.
    pub(crate) fn kagent(&self) -> [Release; 2] {
        let version = Some(self.platform.version.kagent.clone());
        let off = [
            "k8s-agent",
            "kgateway-agent",
            "istio-agent",
            "promql-agent",
            "observability-agent",
            "argo-rollouts-agent",
            "helm-agent",
            "cilium-policy-agent",
            "cilium-manager-agent",
            "cilium-debug-agent",
            "kagent-tools",
            "grafana-mcp",
            "querydoc",
            "kmcp",
            "oauth2-proxy",
        ];
        let mut anthropic = json!({"model": "claude-haiku-4-5"});
        if self.lab.scripted {
            // Also for the agents that a person makes in kagent's own page.
            let url = format!("http://scripted-model.{}:8082", self.lab.agents());
            anthropic = json!({"model": "scripted", "config": {"baseUrl": url}});
        }
        let mut values = json!({
            "providers": {"default": "anthropic", "anthropic": anthropic},
            // Without this the controller may create and delete everything in the cluster, and its API
            // authenticates no caller.
            "rbac": {"namespaces": ["kagent"]},
        });
        for part in off {
            set(&mut values, part, json!({"enabled": false}));
        }
        let registries =
            [("ghcr.io", "registry"), ("docker.io", "database.postgres.bundled.image.registry")];
        let given = self.platform.values.kagent.as_ref();
        let values = self.platform.chart_values(values, &registries, given);
        let (definitions, chart) =
            (self.platform.chart.kagent_crds.clone(), self.platform.chart.kagent.clone());
        [
            Release {
                name: "kagent-crds",
                namespace: "kagent",
                chart: definitions,
                version: version.clone(),
                values: json!({}),
            },
            Release { name: "kagent", namespace: "kagent", chart, version, values },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Ports;

    fn releases(gateway: GatewayKind, left_out: Vec<(Part, String)>, scripted: bool) -> Value {
        let ports = Ports { chat: 8080, queue: 8090, tools: 8081, gateway: 8088 };
        let lab = Record { name: "hitl".into(), gateway, ports, hold: 240, left_out, scripted };
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kind/platform.toml");
        let keys = [("values.kagent.registry".to_owned(), "mirror.example".to_owned())];
        let platform = Platform::read(&own, None, &keys).unwrap();
        let image = |service| Image { service, tag: "0123456789ab".into(), size: 1 };
        let all = images::SERVICES.into_iter().chain([images::LANGGRAPH]);
        let images: Vec<_> = all.map(image).collect();
        let charts =
            Charts { lab: &lab, platform: &platform, images: &images, folder: Path::new("charts") };
        let mut all = vec![
            charts.hitl(),
            charts.ops_tools(&["172.18.255.205".to_owned()]),
            charts.envoy(),
            charts.agents("4711"),
        ];
        all.extend(charts.agentgateway());
        all.extend(charts.kagent());
        all.into_iter().map(|release| (release.name.to_owned(), json!({
            "namespace": release.namespace, "chart": release.chart.to_string(), "version": release.version, "values": release.values,
        }))).collect()
    }

    #[test]
    fn values_of_the_whole_lab() {
        insta::assert_json_snapshot!(releases(GatewayKind::Agentgateway, vec![], false));
    }

    #[test]
    fn values_of_the_whole_lab_with_the_scripted_model() {
        let releases = releases(GatewayKind::Agentgateway, vec![], true);
        let anthropic = &releases["kagent"]["values"]["providers"]["anthropic"];
        assert_eq!(anthropic["config"]["baseUrl"], "http://scripted-model.kagent:8082");
        assert_eq!(anthropic["model"], "scripted");
        assert_eq!(releases["dba-assistant"]["values"]["scriptedModel"]["enabled"], true);
    }

    #[test]
    fn charts_of_others_take_their_images_from_mirrors() {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kind/platform.toml");
        let keys = ["mirror.ghcr.io=m/g", "mirror.docker.io=m/d", "mirror.cr.agentgateway.dev=m/a"];
        let keys = keys.map(|key| crate::platform::key_value(key).unwrap());
        let platform = Platform::read(&own, None, &keys).unwrap();
        let ports = Ports { chat: 8080, queue: 8090, tools: 8081, gateway: 8088 };
        let gateway = GatewayKind::Agentgateway;
        let lab = Record {
            name: "hitl".into(),
            gateway,
            ports,
            hold: 240,
            left_out: vec![],
            scripted: true,
        };
        let charts = Charts { lab: &lab, platform: &platform, images: &[], folder: Path::new("x") };
        let [_, kagent] = charts.kagent();
        assert_eq!(kagent.values["registry"], "m/g");
        let postgres = "/database/postgres/bundled/image/registry";
        assert_eq!(kagent.values.pointer(postgres), Some(&json!("m/d")));
        let [_, agentgateway] = charts.agentgateway();
        assert_eq!(agentgateway.values, json!({"image": {"registry": "m/a"}}));
        assert_eq!(charts.envoy().values["image"]["registry"], "m");
    }

    #[test]
    fn values_with_envoy_and_without_kagent_and_key() {
        let left_out = vec![(Part::Kagent, String::new()), (Part::Metallb, String::new())];
        insta::assert_json_snapshot!(releases(GatewayKind::Envoy, left_out, true));
    }
}
