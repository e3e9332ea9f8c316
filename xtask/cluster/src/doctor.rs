//! Looks for ways past the gate, and for settings that would end a hold too early.
//!
//! Owns the findings over objects, which are pure, and attempts to do what must not work. Must never
//! change anything: the call it tries asks for the schema version that is there already.

mod envoy;
mod kubernetes;
mod routes;
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
}

impl Seen {
    async fn in_cluster(cluster: &Cluster, lab: &Record) -> anyhow::Result<Self> {
        let deployment = async |namespace: &str, name: &str| {
            let of = named("apps/v1", "Deployment", namespace);
            anyhow::Ok(cluster.get(&of, name).await?.unwrap_or_default())
        };
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
            routes: cluster
                .list(&unspaced("gateway.networking.k8s.io/v1", "HTTPRoute"), "")
                .await?,
            policies: cluster
                .list(&unspaced("agentgateway.dev/v1alpha1", "AgentgatewayPolicy"), "")
                .await?,
            mcp_servers: cluster
                .list(&unspaced("kagent.dev/v1alpha2", "RemoteMCPServer"), "")
                .await?,
            network_policies: cluster
                .list(&unspaced("networking.k8s.io/v1", "NetworkPolicy"), "")
                .await?,
            services: cluster.list(&unspaced("v1", "Service"), "").await?,
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
    let mut tried = Vec::new();
    if lab.has(Part::OpsTools) && lab.has(Part::Hitl) {
        match trying::everything(&cluster, &lab).await {
            Ok((said, found)) => {
                tried = said;
                findings.extend(found);
            }
            // What was seen is said all the same.
            Err(error) => findings.push(Finding {
                weight: Weight::Wrong,
                about: "trying".to_owned(),
                text: format!("nothing was tried from pods: {error:#}"),
            }),
        }
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
            "Nothing was found: every privileged route is gated, nothing ends a hold early, nothing reaches the tools past the gate."
        );
    }
    Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
