//! Looks for ways past the gate, and for settings that would end a hold too early.
//!
//! Owns the findings over objects, which are pure, and attempts to do what must not work. Must never
//! change anything: what it tries asks for what is there already, or is a dry run.

mod asking;
mod dry_runs;
mod envoy;
#[cfg(test)]
mod fake;
mod kagent;
mod kubernetes;
mod rights;
mod routes;
mod selector;
mod trying;
mod upgrades;

use std::process::ExitCode;

use serde_json::Value;

use crate::{
    cluster::{Cluster, named, unspaced},
    lab::{Place, Record, written_down},
    options::{GatewayKind, Part},
};

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) weight: Weight,
    /// What it is about.
    pub(crate) about: String,
    /// What is wrong, and what to do.
    pub(crate) text: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    /// A call can run without approval, or an approved one cannot.
    Wrong,
    /// Something else still stands in the way.
    Weak,
}

impl Finding {
    pub(crate) fn wrong(about: impl Into<String>, text: impl Into<String>) -> Self {
        Self { weight: Weight::Wrong, about: about.into(), text: text.into() }
    }

    pub(crate) fn weak(about: impl Into<String>, text: impl Into<String>) -> Self {
        Self { weight: Weight::Weak, about: about.into(), text: text.into() }
    }
}

/// Everything the findings are made of.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) routes: Vec<Value>,
    pub(crate) policies: Vec<Value>,
    pub(crate) mcp_servers: Vec<Value>,
    pub(crate) network_policies: Vec<Value>,
    pub(crate) services: Vec<Value>,
    /// Configurations of plain Envoys.
    pub(crate) envoys: Vec<Value>,
    /// The gate's Deployment.
    pub(crate) gate: Value,
    /// The tool server's.
    pub(crate) tools: Value,
    /// All Deployments, among which the controllers of kagents are found.
    pub(crate) deployments: Vec<Value>,
    pub(crate) config_maps: Vec<Value>,
    pub(crate) roles: Vec<Value>,
    pub(crate) role_bindings: Vec<Value>,
    pub(crate) cluster_roles: Vec<Value>,
    pub(crate) cluster_role_bindings: Vec<Value>,
}

impl Seen {
    async fn in_cluster(cluster: &Cluster, lab: &Record) -> anyhow::Result<Self> {
        let deployment = async |namespace: &str, name: &str| {
            let of = named("apps/v1", "Deployment", namespace);
            anyhow::Ok(cluster.get(&of, name).await?.unwrap_or_default())
        };
        let all = async |api: &str, kind: &str| cluster.list(&unspaced(api, kind), "").await;
        let roles = "rbac.authorization.k8s.io/v1";
        let mut envoys = Vec::new();
        if lab.gateway == GatewayKind::Envoy {
            let maps = cluster.list(&named("v1", "ConfigMap", lab.gateway.namespace()), "").await?;
            for map in maps {
                let texts = map.get("data").and_then(Value::as_object).into_iter().flatten();
                let texts = texts.filter(|(file, _)| file.ends_with("envoy.yaml"));
                for (_, text) in texts {
                    envoys.push(serde_saphyr::from_str(text.as_str().unwrap_or_default())?);
                }
            }
        }
        Ok(Self {
            routes: all("gateway.networking.k8s.io/v1", "HTTPRoute").await?,
            policies: all("agentgateway.dev/v1alpha1", "AgentgatewayPolicy").await?,
            mcp_servers: all("kagent.dev/v1alpha2", "RemoteMCPServer").await?,
            network_policies: all("networking.k8s.io/v1", "NetworkPolicy").await?,
            services: all("v1", "Service").await?,
            deployments: all("apps/v1", "Deployment").await?,
            config_maps: all("v1", "ConfigMap").await?,
            roles: all(roles, "Role").await?,
            role_bindings: all(roles, "RoleBinding").await?,
            cluster_roles: all(roles, "ClusterRole").await?,
            cluster_role_bindings: all(roles, "ClusterRoleBinding").await?,
            envoys,
            gate: deployment("hitl", "hitl-extauth").await?,
            tools: deployment("ops-tools", "mcp-ops-tools").await?,
        })
    }
}

/// Looks, tries, and says what was found; fails when something is wrong.
pub(crate) async fn look(place: &Place) -> anyhow::Result<ExitCode> {
    let lab = written_down(place)?;
    let cluster = lab.cluster(place).await?;
    let seen = Seen::in_cluster(&cluster, &lab).await?;
    let mut findings = match lab.gateway {
        GatewayKind::Agentgateway => kubernetes::gateway(&seen, u64::from(lab.hold)),
        GatewayKind::Envoy => envoy::gateway(&seen.envoys),
    };
    findings.extend(kubernetes::around(&seen, u64::from(lab.hold)));
    findings.extend(kagent::findings(&seen, &["hitl", "ops-tools", lab.gateway.namespace()]));
    let mut tried = Vec::new();
    let mut try_out =
        |outcome: anyhow::Result<(Vec<String>, Vec<Finding>)>, what: &str| match outcome {
            Ok((said, found)) => {
                tried.extend(said);
                findings.extend(found);
            }
            // What was seen is said all the same.
            Err(error) => findings.push(Finding::wrong("trying", format!("{what}: {error:#}"))),
        };
    if lab.has(Part::OpsTools) && lab.has(Part::Hitl) {
        try_out(trying::everything(&cluster, &lab).await, "nothing was tried from pods");
    }
    let kagents = kagent::all(&seen);
    if lab.has(Part::Hitl) && !kagents.is_empty() {
        try_out(asking::everything(&cluster, &kagents).await, "not everything was tried at kagent");
    }
    for line in &tried {
        println!("tried   {line}");
    }
    findings.sort_by_key(|finding| finding.weight);
    for Finding { weight, about, text } in &findings {
        let word = match weight {
            Weight::Wrong => "WRONG",
            Weight::Weak => "weak",
        };
        println!("{word:<7} {about}: {text}");
    }
    let wrong = findings.iter().any(|finding| finding.weight == Weight::Wrong);
    if findings.is_empty() {
        println!(
            "Nothing was found: every privileged route is gated, nothing ends a hold early, nothing reaches the tools past the gate, no controller of kagent has rights there."
        );
    }
    Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
