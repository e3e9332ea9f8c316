//! The lab as manifests: for whoever wants to read them, or to apply them by other means.
//!
//! Must never print a secret: what `up` makes at random stands here as a word.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    lab::Place,
    objects::{self, REVIEWERS},
    options::{GatewayKind, UpArgs},
    plan::{Plan, Step},
    platform::Platform,
    shell::{command, output},
    values::Charts,
};

/// What stands in the place of a secret.
const SECRET: &str = "made-by-up";

/// Prints every object that `up` would apply, but those of charts and manifests of others.
///
/// # Errors
/// When helm is missing, or a chart does not take its values.
pub(crate) async fn print(place: &Place, args: &UpArgs) -> anyhow::Result<()> {
    let own = place.source("kind/platform.toml");
    let platform = Platform::read(&own, args.platform.as_deref(), &args.keys)?;
    let plan = Plan::of(args.gateway, &args.skip, false);
    let lab = args.record(&plan, args.secrets_file.is_none());
    let charts = place.source("charts");
    let charts = Charts { lab: &lab, platform: &platform, images: &[], folder: &charts };

    let tokens: BTreeMap<_, _> =
        REVIEWERS.iter().map(|(name, _)| (*name, SECRET.to_owned())).collect();
    let mut all = objects::namespaces(&lab);
    all.extend(objects::reviewers(&tokens));
    all.push(objects::model_key(&lab, Some(SECRET)));
    if plan.has(Step::Metallb) {
        // The real ones are of the network that kind makes.
        all.extend(objects::pool("192.0.2.200-192.0.2.250"));
    }
    if plan.has(Step::Kagent) {
        all.extend(objects::chat());
    }
    let mut releases = Vec::new();
    if plan.has(Step::Gateway) {
        match args.gateway {
            GatewayKind::Agentgateway => all.extend(objects::gateway()),
            GatewayKind::Envoy => releases.push(charts.envoy()),
        }
    }
    let steps = [
        (Step::Hitl, charts.hitl()),
        (Step::OpsTools, charts.ops_tools(&[])),
        (Step::Agents, charts.agents("1")),
    ];
    releases
        .extend(steps.into_iter().filter(|(step, _)| plan.has(*step)).map(|(_, release)| release));
    for object in &all {
        document(object)?;
    }
    place.make()?;
    for release in releases {
        let values = place.kept(&format!("render-{}.json", release.name));
        std::fs::write(&values, release.values.to_string())?;
        let mut helm = command("helm");
        helm.args(["template", release.name]).arg(release.chart.to_string());
        // By itself helm takes a cluster for an old one.
        helm.args(["--namespace", release.namespace, "--kube-version", "1.35.0", "--values"])
            .arg(values);
        println!("{}", output(&mut helm).await?);
    }
    Ok(())
}

/// One object as a document of its own; JSON is YAML.
fn document(object: &Value) -> anyhow::Result<()> {
    println!("---\n{}", serde_json::to_string_pretty(object)?);
    Ok(())
}
