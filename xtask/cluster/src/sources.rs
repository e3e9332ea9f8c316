//! What the lab takes from others: manifests, and charts rendered with the lab's values. Owns which
//! images that needs, also those that only a controller names.
//!
//! Invariant: an image is read from what was rendered, never from a list.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::{
    cluster::objects,
    helm::Release,
    images,
    json::text,
    lab::{Place, Record},
    options::GatewayKind,
    plan::{Plan, Step},
    platform::{Platform, Source},
    shell::{command, output},
    values::Charts,
};

/// Longest that a manifest may take to come.
const PATIENCE: Duration = Duration::from_mins(1);

/// Reads a manifest's text, from a file or an address.
///
/// # Errors
/// When it cannot be had; with what to do about it.
pub(crate) async fn read(source: &Source) -> anyhow::Result<String> {
    let address = match source {
        Source::Here(path) => {
            return fs::read_to_string(path).with_context(|| path.display().to_string());
        }
        Source::Address(address) => address,
    };
    let elsewhere = || {
        format!(
            "{address} cannot be had. Behind a mirror or without a network, name a file of your own: \
             --set manifest.NAME=PATH"
        )
    };
    let http = reqwest::Client::builder().timeout(PATIENCE).build()?;
    let response = http.get(address).send().await.with_context(elsewhere)?;
    if !response.status().is_success() {
        bail!("{} (it answers {})", elsewhere(), response.status());
    }
    response.text().await.with_context(elsewhere)
}

/// Returns the manifests that a plan applies, by their keys in kind/platform.toml.
pub(crate) fn manifests<'a>(
    plan: &Plan,
    platform: &'a Platform,
) -> Vec<(&'static str, &'a Source)> {
    let all = [
        (Step::Metallb, "metallb", &platform.manifest.metallb),
        (Step::GatewayApi, "gateway-api", &platform.manifest.gateway_api),
    ];
    let wanted = all.into_iter().filter(|(step, ..)| plan.has(*step));
    wanted.map(|(_, key, source)| (key, source)).collect()
}

/// Returns the releases of others' charts that a plan installs.
pub(crate) fn releases(plan: &Plan, charts: &Charts<'_>) -> Vec<Release> {
    let mut all = Vec::new();
    if plan.has(Step::Agentgateway) {
        all.extend(charts.agentgateway());
    }
    if plan.has(Step::Kagent) {
        all.extend(charts.kagent());
    }
    all
}

/// Returns the images of others that a plan needs, under the names by which the cluster asks for them.
/// Manifests keep the names that they have: `up` puts mirrors into them when it applies them.
///
/// # Errors
/// When a manifest or a chart cannot be had, or a chart does not take its values.
pub(crate) async fn images(
    place: &Place,
    platform: &Platform,
    plan: &Plan,
    lab: &Record,
) -> anyhow::Result<BTreeSet<String>> {
    let mut all = Vec::new();
    for (_, source) in manifests(plan, platform) {
        all.extend(objects(&read(source).await?).with_context(|| source.to_string())?);
    }
    let folder = place.source("charts");
    let charts = Charts { lab, platform, images: &[], folder: &folder };
    let mut releases = releases(plan, &charts);
    // Ours name no image of others, but say which runtimes kagent's agents have.
    if plan.has(Step::Agents) {
        releases.push(charts.agents(""));
    }
    if plan.has(Step::Gateway) && lab.gateway == GatewayKind::Envoy {
        releases.push(charts.envoy());
    }
    place.make()?;
    for release in releases {
        all.extend(rendered(&release, place).await?);
    }
    let mut names = named(&all);
    names.retain(|name| !images::is_ours(name));
    Ok(names)
}

/// Renders a chart.
async fn rendered(release: &Release, place: &Place) -> anyhow::Result<Vec<Value>> {
    let values = place.kept(&format!("sources-{}.json", release.name));
    fs::write(&values, release.values.to_string()).with_context(|| values.display().to_string())?;
    let mut helm = command("helm");
    helm.args(["template", release.name]).arg(release.chart.to_string());
    if let (Source::Address(_), Some(version)) = (&release.chart, &release.version) {
        helm.args(["--version", version]);
    }
    // By itself helm takes a cluster for an old one.
    helm.args(["--namespace", release.namespace, "--kube-version", "1.35.0", "--values"]);
    let text = output(helm.arg(&values)).await;
    fs::remove_file(&values)?;
    objects(&text?)
}

/// Returns every image that objects name, and those that controllers among them make pods of.
fn named(objects: &[Value]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut settings = BTreeMap::new();
    for object in objects {
        in_fields(object, &mut names);
        if let Some(Value::Object(data)) = object.get("data") {
            settings.extend(data.iter().filter_map(|(key, value)| setting(key, value.as_str()?)));
        }
    }
    // What stands in a container itself wins over its ConfigMap.
    for container in objects.iter().flat_map(containers) {
        let env = container.get("env").and_then(Value::as_array).into_iter().flatten();
        settings.extend(env.filter_map(|one| setting(text(one, "/name"), text(one, "/value"))));
        // A controller of agentgateway that is told no tag takes its own.
        if settings.contains_key(&format!("{PROXY}REPOSITORY")) {
            let tag = text(container, "/image").rsplit_once(':').map_or("", |(_, tag)| tag);
            settings.entry(format!("{PROXY}TAG")).or_insert_with(|| tag.to_owned());
        }
    }
    let image = |prefix: &str, registry: Option<&str>, suffix: &str| {
        let of = |part: &str| settings.get(&format!("{prefix}{part}")).map(String::as_str);
        let registry = registry.filter(|registry| !registry.is_empty()).or(of("REGISTRY"))?;
        Some(format!("{registry}/{}:{}{suffix}", of("REPOSITORY")?, of("TAG")?))
    };
    names.extend(image(PROXY, None, ""));
    // What kagent runs an agent by that says nothing of it, as those that are made in its page.
    names.extend(image(GO_RUNTIME, None, ""));
    for agent in objects.iter().filter(|object| text(object, "/kind") == "Agent") {
        let Some(spec) = agent.pointer("/spec/declarative") else { continue };
        let python = text(spec, "/runtime") == "python";
        let skills = agent.pointer("/spec/skills").is_some();
        let code = spec.get("executeCodeBlocks") == Some(&Value::Bool(true));
        let suffix = if skills || code { "-full" } else { "" };
        let registry = Some(text(spec, "/deployment/imageRegistry"));
        names.extend(image(if python { PYTHON_RUNTIME } else { GO_RUNTIME }, registry, suffix));
        names.extend(skills.then(|| image(SKILLS, None, "")).flatten());
    }
    names
}

/// How the settings begin that name an image: of agentgateway's proxies, and of kagent's runtimes.
const PROXY: &str = "AGW_PROXY_IMAGE_";
const GO_RUNTIME: &str = "GO_IMAGE_";
const PYTHON_RUNTIME: &str = "IMAGE_";
const SKILLS: &str = "SKILLS_INIT_IMAGE_";

/// A setting that is part of an image's name.
fn setting(key: &str, value: &str) -> Option<(String, String)> {
    let known = [PROXY, GO_RUNTIME, PYTHON_RUNTIME, SKILLS];
    let part = known.iter().find_map(|prefix| key.strip_prefix(prefix))?;
    let part = ["REGISTRY", "REPOSITORY", "TAG"].contains(&part) && !value.is_empty();
    part.then(|| (key.to_owned(), value.to_owned()))
}

fn containers(object: &Value) -> impl Iterator<Item = &Value> {
    let list = object.pointer("/spec/template/spec/containers").and_then(Value::as_array);
    list.into_iter().flatten()
}

/// Every `image:` of an object.
fn in_fields(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    // Definitions describe a field of this name; that is no image.
                    Value::String(image) if key == "image" && image.contains('/') => {
                        names.insert(image.clone());
                    }
                    other => in_fields(other, names),
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|value| in_fields(value, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(objects: &Value) -> Vec<String> {
        named(objects.as_array().unwrap()).into_iter().collect()
    }

    #[test]
    fn images_are_found_wherever_they_stand_and_schemas_are_none() {
        let objects = json!([
            {"spec": {"initContainers": [{"image": "a/b:1"}], "containers": [{"image": "c/d@sha256:00"}]},
                "schema": {"properties": {"image": {"type": "string"}}}, "list": [{"image": "e/f"}]}]);
        assert_eq!(names(&objects), ["a/b:1", "c/d@sha256:00", "e/f"]);
    }

    /// The settings of kagent's controller, with these images.
    fn kagent(tag: &str, registry: &str) -> Value {
        json!({"kind": "ConfigMap", "metadata": {"name": "kagent-controller"}, "data": {
            "GO_IMAGE_REGISTRY": registry, "GO_IMAGE_REPOSITORY": "kagent-dev/kagent/golang-adk", "GO_IMAGE_TAG": tag,
            "IMAGE_REGISTRY": registry, "IMAGE_REPOSITORY": "kagent-dev/kagent/app", "IMAGE_TAG": tag,
            "IMAGE_PULL_POLICY": "IfNotPresent", "SKILLS_INIT_IMAGE_REGISTRY": registry,
            "SKILLS_INIT_IMAGE_REPOSITORY": "kagent-dev/kagent/skills-init", "SKILLS_INIT_IMAGE_TAG": tag}})
    }

    fn agent(declarative: &Value, skills: bool) -> Value {
        let mut spec = json!({"type": "Declarative", "declarative": declarative});
        if skills {
            spec["skills"] = json!({"refs": ["x"]});
        }
        json!({"kind": "Agent", "spec": spec})
    }

    #[test]
    fn the_runtime_of_an_agent_is_the_one_that_the_controller_is_told() {
        for (declarative, skills, wanted) in [
            (json!({"runtime": "go"}), false, vec!["r/kagent-dev/kagent/golang-adk:0.10.9"]),
            (json!({}), false, vec!["r/kagent-dev/kagent/golang-adk:0.10.9"]),
            (json!({"runtime": "python"}), false, vec!["r/kagent-dev/kagent/app:0.10.9"]),
            (
                json!({"runtime": "go", "deployment": {"imageRegistry": "mine"}}),
                false,
                vec!["mine/kagent-dev/kagent/golang-adk:0.10.9"],
            ),
            (
                json!({"runtime": "go"}),
                true,
                vec![
                    "r/kagent-dev/kagent/golang-adk:0.10.9-full",
                    "r/kagent-dev/kagent/skills-init:0.10.9",
                ],
            ),
        ] {
            let found = names(&json!([kagent("0.10.9", "r"), agent(&declarative, skills)]));
            for name in &wanted {
                assert!(found.contains(&(*name).to_owned()), "{declarative}: {found:?}");
            }
            // Agents that a person makes in kagent's page have its default.
            assert!(found.contains(&"r/kagent-dev/kagent/golang-adk:0.10.9".to_owned()));
        }
        let env = json!([{"name": "GO_IMAGE_TAG", "value": "next"}, {"name": "GO_IMAGE_REGISTRY", "value": ""}]);
        let controller = json!({"kind": "Deployment", "spec": {"template": {"spec": {"containers": [{"image": "c/c:1", "env": env}]}}}});
        let found = names(&json!([kagent("0.10.9", "r"), controller]));
        assert_eq!(found, ["c/c:1", "r/kagent-dev/kagent/golang-adk:next"]);
    }

    #[test]
    fn agentgateway_makes_proxies_of_the_image_it_is_told_or_of_its_own_version() {
        let controller = |tag: &Value| {
            let mut env = json!([
                {"name": "AGW_PROXY_IMAGE_REGISTRY", "value": "r"}, {"name": "AGW_PROXY_IMAGE_REPOSITORY", "value": "proxy"}]);
            if tag.is_string() {
                env.as_array_mut()
                    .unwrap()
                    .push(json!({"name": "AGW_PROXY_IMAGE_TAG", "value": tag}));
            }
            json!([{"kind": "Deployment", "spec": {"template": {"spec": {"containers": [{"image": "r/controller:v1.4.1", "env": env}]}}}}])
        };
        assert_eq!(names(&controller(&json!("v9"))), ["r/controller:v1.4.1", "r/proxy:v9"]);
        assert_eq!(names(&controller(&Value::Null)), ["r/controller:v1.4.1", "r/proxy:v1.4.1"]);
    }
}
