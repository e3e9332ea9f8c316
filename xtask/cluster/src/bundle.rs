//! Everything that `up` takes from elsewhere, in a folder: for a machine that reaches nothing.
//!
//! `platform.toml` in it names charts and manifests beside it; `images/` is what nodes are given,
//! `node.tar` what they are made from, `ours.json` which images of ours are among them, so that none
//! has to be built. Must never leave out an image without a word.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::{
    cluster::objects,
    helm::Release,
    images::{self, Image},
    kind::engine,
    lab::Place,
    options::{BundleArgs, GatewayKind, Part},
    plan::{Plan, Step},
    platform::{Platform, Source},
    shell::{command, follow, output},
    values::Charts,
};

/// Longest that a manifest may take to come.
const PATIENCE: Duration = Duration::from_mins(1);

/// The image that nodes are made from, in a bundle.
pub(crate) const NODE: &str = "node.tar";

/// Which images of ours are in a bundle.
const OURS: &str = "ours.json";

/// A manifest's text, from here or from elsewhere.
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

/// The images of ours that a bundle holds, where it does.
///
/// # Errors
/// When it says so in a way that cannot be read, or lacks one; the agent in `LangGraph` is wanted or
/// not.
pub(crate) fn ours(preload: &Path, langgraph: bool) -> anyhow::Result<Option<Vec<Image>>> {
    let file = preload.join("..").join(OURS);
    let Ok(text) = fs::read_to_string(&file) else { return Ok(None) };
    let tags: std::collections::BTreeMap<String, String> =
        serde_json::from_str(&text).with_context(|| file.display().to_string())?;
    let image = |service: &'static str| {
        let missing = || {
            let skip =
                if service == images::LANGGRAPH { "; --skip langgraph does without" } else { "" };
            format!("{} names no {service}{skip}", file.display())
        };
        let tag = tags.get(service).with_context(missing)?;
        anyhow::Ok(Image { service, tag: tag.clone(), size: 0 })
    };
    let wanted = images::SERVICES.into_iter().chain(langgraph.then_some(images::LANGGRAPH));
    wanted.map(image).collect::<Result<_, _>>().map(Some)
}

/// Collects everything.
pub(crate) async fn make(place: &Place, args: &BundleArgs) -> anyhow::Result<ExitCode> {
    let own = place.source("kind/platform.toml");
    let platform = Platform::read(&own, args.platform.as_deref(), &args.keys)?;
    let plan = Plan::of(args.gateway, &args.skip, true);
    let up = args.as_up();
    let lab = up.record(&plan, true);
    let folder = fs::canonicalize(made(&args.folder)?)?;
    let (manifests, charts) = (made(&folder.join("manifests"))?, made(&folder.join("charts"))?);
    let archives = made(&folder.join("images"))?;
    let mut written = toml::Table::new();
    let mut names = BTreeSet::new();

    for (wanted, key, source) in [
        (plan.has(Step::Metallb), "metallb", &platform.manifest.metallb),
        (plan.has(Step::GatewayApi), "gateway-api", &platform.manifest.gateway_api),
    ] {
        if wanted {
            println!("manifest  {source}");
            let text = read(source).await?;
            objects(&text)?.iter().for_each(|object| images_in(object, &mut names));
            fs::write(manifests.join(format!("{key}.yaml")), text)?;
            note(&mut written, "manifest", key, &format!("manifests/{key}.yaml"));
        }
    }
    let source_charts = place.source("charts");
    let values = Charts { lab: &lab, platform: &platform, images: &[], folder: &source_charts };
    let [agw_crds, agw] = values.agentgateway();
    let [kagent_crds, kagent] = values.kagent();
    for (wanted, release) in [
        (plan.has(Step::Agentgateway), agw_crds),
        (plan.has(Step::Agentgateway), agw),
        (plan.has(Step::Kagent), kagent_crds),
        (plan.has(Step::Kagent), kagent),
    ] {
        if wanted {
            println!("chart     {}", release.chart);
            let archive = pull(&release, &charts).await?;
            for object in rendered(&release, &archive).await? {
                images_in(&object, &mut names);
            }
            let name = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
            note(&mut written, "chart", release.name, &format!("charts/{name}"));
        }
    }
    // What no manifest names: controllers make pods of these.
    if plan.has(Step::Agentgateway) {
        names.insert(platform.image.agentgateway.clone());
    }
    if plan.has(Step::Kagent) {
        names.insert(platform.image.kagent_agent.clone());
    }
    if args.gateway == GatewayKind::Envoy && plan.has(Step::Gateway) {
        names.insert(platform.image.envoy.clone());
    }
    for name in &names {
        fetch(&platform.image(name), name).await?;
    }
    save(&archives.join("platform.tar"), names.iter().map(String::as_str)).await?;
    if !platform.node.image.is_empty() {
        fetch(&platform.node.image, &platform.node.image).await?;
        // By its name alone: a digest is not kept in an archive.
        let untagged = platform.node.image.split('@').next().unwrap_or_default().to_owned();
        output(command(engine()).args(["tag", &platform.node.image, &untagged])).await?;
        save(&folder.join(NODE), [untagged.as_str()].into_iter()).await?;
        note(&mut written, "node", "image", &untagged);
    }
    let (built, _) =
        images::build(place, &args.build, lab.has(Part::Langgraph), |line| eprintln!("{line}"))
            .await?;
    let ours: Vec<_> = built.iter().map(Image::name).collect();
    save(&archives.join("ours.tar"), ours.iter().map(String::as_str)).await?;
    let tags: std::collections::BTreeMap<_, _> =
        built.iter().map(|image| (image.service, &image.tag)).collect();
    fs::write(folder.join(OURS), serde_json::to_string_pretty(&tags)?)?;
    fs::write(folder.join("platform.toml"), toml::to_string_pretty(&written)?)?;
    let shown = folder.display();
    println!("\nIn {shown}: {} images of others, {} of ours.", names.len(), ours.len());
    println!("There: cargo xtask up --platform {shown}/platform.toml --preload {shown}/images");
    Ok(ExitCode::SUCCESS)
}

fn made(folder: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    Ok(folder.to_owned())
}

fn note(table: &mut toml::Table, section: &str, key: &str, value: &str) {
    let section = table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    if let toml::Value::Table(section) = section {
        section.insert(key.to_owned(), toml::Value::String(value.to_owned()));
    }
}

/// A chart as an archive in a folder.
async fn pull(release: &Release, into: &Path) -> anyhow::Result<PathBuf> {
    // Pulled into a folder of its own, so that what came is known.
    let own = made(&into.join(format!("new-{}", release.name)))?;
    let mut helm = command("helm");
    match &release.chart {
        Source::Address(address) => {
            helm.args(["pull", address]);
            if let Some(version) = &release.version {
                helm.args(["--version", version]);
            }
        }
        Source::Here(path) if path.is_dir() => {
            helm.arg("package").arg(path);
        }
        Source::Here(path) => {
            let to = into.join(path.file_name().unwrap_or_default());
            fs::copy(path, &to).with_context(|| path.display().to_string())?;
            fs::remove_dir(&own)?;
            return Ok(to);
        }
    }
    output(helm.arg("--destination").arg(&own)).await?;
    let archive =
        fs::read_dir(&own)?.flatten().next().context("helm has brought no archive")?.path();
    let to = into.join(archive.file_name().unwrap_or_default());
    fs::rename(&archive, &to)?;
    fs::remove_dir(&own)?;
    Ok(to)
}

async fn rendered(release: &Release, archive: &Path) -> anyhow::Result<Vec<Value>> {
    let values = archive.with_extension("values.json");
    fs::write(&values, release.values.to_string())?;
    let mut helm = command("helm");
    helm.args(["template", release.name]).arg(archive).args(["--namespace", release.namespace]);
    let text = output(helm.args(["--kube-version", "1.35.0", "--values"]).arg(&values)).await;
    fs::remove_file(&values)?;
    objects(&text?)
}

/// Every `image:` of an object.
fn images_in(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    // Definitions describe a field of this name; that is no image.
                    Value::String(image) if key == "image" && image.contains('/') => {
                        names.insert(image.clone());
                    }
                    other => images_in(other, names),
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|value| images_in(value, names)),
        _ => {}
    }
}

/// Brings an image, unless it is here, and gives it the name that manifests use.
async fn fetch(from: &str, name: &str) -> anyhow::Result<()> {
    println!("image     {from}");
    if output(command(engine()).args(["image", "inspect", "--format", "{{.Id}}", from]))
        .await
        .is_err()
    {
        follow(command(engine()).args(["pull", from]), |line| eprintln!("{line}")).await?;
    }
    if from != name {
        output(command(engine()).args(["tag", from, name])).await?;
    }
    Ok(())
}

/// Saves images into one archive.
pub(crate) async fn save(archive: &Path, names: impl Iterator<Item = &str>) -> anyhow::Result<()> {
    let mut save = command(engine());
    save.arg("save");
    if engine() == "podman" {
        // Else it takes all names for names of the first image.
        save.arg("--multi-image-archive");
    }
    output(save.arg("--output").arg(archive).args(names)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn images_are_found_wherever_they_stand_and_schemas_are_none() {
        let mut names = BTreeSet::new();
        images_in(
            &json!({"spec": {"initContainers": [{"image": "a/b:1"}], "containers": [{"image": "c/d@sha256:00"}]},
                "schema": {"properties": {"image": {"type": "string"}}}, "list": [{"image": "e/f"}]}),
            &mut names,
        );
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a/b:1", "c/d@sha256:00", "e/f"]);
    }

    #[test]
    fn a_bundle_says_which_images_of_ours_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let archives = made(&folder.path().join("images")).unwrap();
        assert_eq!(ours(&archives, true).unwrap(), None);
        let tags: serde_json::Map<_, _> =
            images::SERVICES.iter().map(|name| ((*name).to_owned(), json!("abc"))).collect();
        fs::write(folder.path().join(OURS), Value::from(tags).to_string()).unwrap();
        let held = ours(&archives, false).unwrap().unwrap();
        assert!(held.iter().all(|image| image.tag == "abc"));
        let error = ours(&archives, true).unwrap_err().to_string();
        assert!(error.contains("names no dba-assistant-langgraph"), "{error}");
        fs::write(folder.path().join(OURS), "{}").unwrap();
        assert!(ours(&archives, false).unwrap_err().to_string().contains("names no"));
    }
}
