//! Objects of the lab that no chart makes: namespaces, secrets, the pool of addresses, the Gateway,
//! and the Services that a person's browser reaches. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    json::{set, text},
    kind,
    lab::Record,
    options::{CHAT_NODE_PORT, GATEWAY_NODE_PORT, GatewayKind, Part},
};

/// Name of the gateway: its object, its Service, and the label of its pods.
pub(crate) const GATEWAY: &str = "hitl-gateway";

/// Port of the gateway, at its Service and in its pods.
pub(crate) const GATEWAY_PORT: u16 = 8080;

/// The Secret with the tokens of the lab's reviewers, for the driver alone.
pub(crate) const TOKENS: &str = "hitl-lab-tokens";

/// Who looks from outside whether the gate holds: a reviewer who may withdraw their own request.
pub(crate) const CHECKER: &str = "lab-check";

/// Reviewers of the lab, with their groups; the first is the one who is signed in by a link.
pub(crate) const REVIEWERS: [(&str, &str); 3] = [("dana", "dba"), ("lee", "dba"), (CHECKER, "lab")];

/// The label that everything of the lab carries.
fn meta(name: &str, namespace: Option<&str>) -> Value {
    let mut meta = json!({"name": name, "labels": {"app.kubernetes.io/part-of": "hitl", "app.kubernetes.io/managed-by": "hitl-lab"}});
    if let Some(namespace) = namespace {
        set(&mut meta, "namespace", json!(namespace));
    }
    meta
}

/// Namespaces of what is brought up. Ours take only pods that need no privilege. In kagent's, every caller
/// of its API can create agents: none of their pods may open the files of the node.
pub(crate) fn namespaces(lab: &Record) -> Vec<Value> {
    let agents = if lab.has(Part::Kagent) { "baseline" } else { "restricted" };
    let gateway = (lab.gateway == GatewayKind::Envoy).then_some("restricted");
    let all = [
        ("hitl", Some("restricted")),
        ("ops-tools", Some("restricted")),
        (lab.agents(), Some(agents)),
        (lab.gateway.namespace(), gateway),
    ];
    let namespace = |(name, level): (&str, Option<&str>)| {
        let mut meta = meta(name, None);
        let enforce = "pod-security.kubernetes.io/enforce";
        if let (Some(level), Some(labels)) = (level, meta.get_mut("labels")) {
            set(labels, enforce, json!(level));
        }
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    };
    all.into_iter().map(namespace).collect()
}

/// The digest of a token, as the gate knows a reviewer by.
fn digest(token: &str) -> String {
    hitl_api::hex(&Sha256::digest(token))
}

fn secret(name: &str, namespace: &str, data: &BTreeMap<&str, String>) -> Value {
    let data: BTreeMap<_, _> =
        data.iter().map(|(key, value)| (key, STANDARD.encode(value))).collect();
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta(name, Some(namespace)), "type": "Opaque", "data": data})
}

/// Who may decide, for the gate, and their tokens, for the driver.
pub(crate) fn reviewers(tokens: &BTreeMap<&str, String>) -> Vec<Value> {
    let lines = REVIEWERS.iter().filter_map(|(name, group)| {
        let token = tokens.get(name)?;
        Some(format!("- name: {name}\n  groups: [{group}]\n  token_sha256: {}\n", digest(token)))
    });
    let file = format!("reviewers:\n{}", lines.collect::<String>());
    let file = BTreeMap::from([("reviewers.yaml", file)]);
    vec![secret(TOKENS, "hitl", tokens), secret("hitl-reviewers", "hitl", &file)]
}

/// The key for the model; any will do for a scripted one.
pub(crate) fn model_key(lab: &Record, key: Option<&str>) -> Value {
    let key = key.unwrap_or("none-needed").to_owned();
    secret("kagent-anthropic", lab.agents(), &BTreeMap::from([("ANTHROPIC_API_KEY", key)]))
}

/// `MetalLB`'s pool, and that it is announced.
pub(crate) fn pool(addresses: &str) -> Vec<Value> {
    let (name, namespace) = ("hitl-lab", Some("metallb-system"));
    vec![
        json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": meta(name, namespace),
            "spec": {"addresses": [addresses]}}),
        json!({"apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement", "metadata": meta(name, namespace),
            "spec": {"ipAddressPools": [name]}}),
    ]
}

/// The Gateway that agentgateway serves, and the way to it from this machine.
pub(crate) fn gateway() -> Vec<Value> {
    let namespace = GatewayKind::Agentgateway.namespace();
    vec![
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": meta(GATEWAY, Some(namespace)),
            "spec": {"gatewayClassName": "agentgateway", "listeners": [
                {"name": "mcp", "protocol": "HTTP", "port": GATEWAY_PORT, "allowedRoutes": {"namespaces": {"from": "All"}}}]}}),
        from_outside(
            "hitl-gateway-local",
            namespace,
            &json!({"gateway.networking.k8s.io/gateway-name": GATEWAY}),
            (GATEWAY_PORT, GATEWAY_NODE_PORT),
        ),
    ]
}

/// Returns the hosts by which a gateway is reached: its own addresses, by the status of a Gateway or of a
/// Service of type LoadBalancer, those of the nodes, and the host's name inside of containers.
pub(crate) fn hosts(gateway: &Value, nodes: &[Value]) -> Vec<String> {
    let own = ["/status/addresses", "/status/loadBalancer/ingress"].into_iter();
    let own = own.filter_map(|list| gateway.pointer(list)?.as_array()).flatten();
    let own = own.flat_map(|one| ["/value", "/ip", "/hostname"].map(|field| text(one, field)));
    let own = own.filter(|host| !host.is_empty()).map(|host| match host.parse() {
        Ok(address) => host_of(address),
        Err(_) => host.to_owned(),
    });
    let nodes = kind::addresses(nodes).into_iter().map(host_of);
    let mut hosts: Vec<_> = own.chain(nodes).collect();
    // So that the order in which a cluster lists them changes no release.
    hosts.sort();
    hosts.dedup();
    hosts.push("host.docker.internal".to_owned());
    hosts
}

/// An address as it stands in a URL.
fn host_of(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// The way to kagent's chat from this machine.
pub(crate) fn chat() -> Vec<Value> {
    let pods = json!({"app.kubernetes.io/name": "kagent", "app.kubernetes.io/component": "ui"});
    vec![from_outside("hitl-chat-local", "kagent", &pods, (8080, CHAT_NODE_PORT))]
}

/// A Service at a port of the nodes, which kind maps to loopback.
fn from_outside(name: &str, namespace: &str, pods: &Value, (port, node): (u16, u16)) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": meta(name, Some(namespace)),
        "spec": {"type": "NodePort", "selector": pods,
            "ports": [{"name": "http", "port": port, "targetPort": port, "nodePort": node, "protocol": "TCP"}]}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Ports;

    fn lab(gateway: GatewayKind, left_out: Vec<(Part, String)>) -> Record {
        let ports = Ports { chat: 8080, queue: 8090, tools: 8081, gateway: 8088 };
        Record { name: "hitl".into(), gateway, ports, hold: 240, left_out, scripted: true }
    }

    #[test]
    fn objects_of_the_lab() {
        let whole = lab(GatewayKind::Agentgateway, vec![]);
        let small = lab(GatewayKind::Envoy, vec![(Part::Kagent, String::new())]);
        let tokens = BTreeMap::from([
            ("dana", "one".to_owned()),
            ("lee", "two".to_owned()),
            (CHECKER, "three".to_owned()),
        ]);
        insta::assert_json_snapshot!(serde_json::json!({
            "namespaces": namespaces(&whole), "namespaces with envoy and without kagent": namespaces(&small),
            "reviewers": reviewers(&tokens), "key": model_key(&small, None), "pool": pool("172.18.255.205-172.18.255.254"),
            "gateway": gateway(), "chat": chat(),
        }));
    }

    #[test]
    fn a_gateway_is_reached_by_its_addresses_and_by_those_of_the_nodes() {
        let nodes = [json!({"status": {"addresses": [
            {"type": "InternalIP", "address": "172.18.0.2"}, {"type": "InternalIP", "address": "fc00::2"},
            {"type": "Hostname", "address": "hitl-control-plane"}]}})];
        let gateway =
            json!({"status": {"addresses": [{"type": "IPAddress", "value": "172.18.255.205"}]}});
        let host = "host.docker.internal";
        assert_eq!(hosts(&gateway, &nodes), ["172.18.0.2", "172.18.255.205", "[fc00::2]", host]);
        let service = json!({"status": {"loadBalancer": {"ingress": [{"ip": "fc00::205"}, {"hostname": "lb.example"}]}}});
        assert_eq!(hosts(&service, &[]), ["[fc00::205]", "lb.example", host]);
        assert_eq!(hosts(&Value::Null, &[]), [host]);
    }

    #[test]
    fn the_gate_learns_digests_and_never_a_token() {
        let tokens = BTreeMap::from([("dana", "very-secret".to_owned())]);
        let objects = reviewers(&tokens);
        let file = objects[1]["data"]["reviewers.yaml"].as_str().unwrap();
        let file = String::from_utf8(STANDARD.decode(file).unwrap()).unwrap();
        assert!(file.contains(&digest("very-secret")) && !file.contains("very-secret"), "{file}");
    }
}
