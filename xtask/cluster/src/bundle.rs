//! Everything that `up` takes from elsewhere, in a folder: for a machine that reaches nothing.
//!
//! `platform.toml` in it names charts and manifests beside it; `images/` is what nodes are given,
//! `node.tar` what they are made from, `ours.json` which images of ours are among them, so that none
//! has to be built. Must never leave out an image without a word.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;

use crate::{
    helm::Release,
    images::{self, Image},
    kind::engine,
    lab::{Place, Record},
    options::{BundleArgs, Part},
    plan::Plan,
    platform::{Platform, Source},
    shell::{command, follow, output},
    sources,
    values::Charts,
};

/// The image that nodes are made from, in a bundle.
pub(crate) const NODE: &str = "node.tar";

/// Which images of ours are in a bundle.
const OURS: &str = "ours.json";

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
    let lab = args.as_up().record(&plan, true);
    let Some(folder) = &args.folder else {
        for name in sources::images(place, &platform, &plan, &lab).await? {
            println!("{}", platform.image(&name));
        }
        return Ok(ExitCode::SUCCESS);
    };
    let folder = fs::canonicalize(made(folder)?)?;
    let archives = made(&folder.join("images"))?;
    let written = folder.join("platform.toml");
    let table = sourced(place, &platform, &plan, &lab, &folder).await?;
    fs::write(&written, toml::to_string_pretty(&table)?)?;

    // With the very file that `up` will be given: what it then asks for is here.
    let bundled = Platform::read(&own, Some(&written), &[])?;
    let names = sources::images(place, &bundled, &plan, &lab).await?;
    for name in &names {
        fetch(&platform.image(name), name).await?;
    }
    save(&archives.join("platform.tar"), names.iter().map(String::as_str)).await?;
    if !platform.node.image.is_empty() {
        fetch(&platform.node.image, &platform.node.image).await?;
        output(command(engine()).args(["tag", &platform.node.image, &bundled.node.image])).await?;
        save(&folder.join(NODE), [bundled.node.image.as_str()].into_iter()).await?;
    }
    let langgraph = lab.has(Part::Langgraph);
    let (built, _) =
        images::build(place, &args.build, langgraph, |line| eprintln!("{line}")).await?;
    let ours: Vec<_> = built.iter().map(Image::name).collect();
    save(&archives.join("ours.tar"), ours.iter().map(String::as_str)).await?;
    let tags: std::collections::BTreeMap<_, _> =
        built.iter().map(|image| (image.service, &image.tag)).collect();
    fs::write(folder.join(OURS), serde_json::to_string_pretty(&tags)?)?;
    let shown = folder.display();
    println!("\nIn {shown}: {} images of others, {} of ours.", names.len(), ours.len());
    println!("There: cargo xtask up --platform {shown}/platform.toml --preload {shown}/images");
    Ok(ExitCode::SUCCESS)
}

/// Brings manifests and charts into the folder, and returns its platform.toml: they are named there, and
/// everything else that decides which images the lab asks for is as it was.
async fn sourced(
    place: &Place,
    platform: &Platform,
    plan: &Plan,
    lab: &Record,
    folder: &Path,
) -> anyhow::Result<toml::Table> {
    let (manifests, archives) = (made(&folder.join("manifests"))?, made(&folder.join("charts"))?);
    let mut table = kept(platform)?;
    for (key, source) in sources::manifests(plan, platform) {
        println!("manifest  {source}");
        let text = sources::read(source).await?;
        fs::write(manifests.join(format!("{key}.yaml")), text)?;
        note(&mut table, "manifest", key, &format!("manifests/{key}.yaml"));
    }
    let charts = place.source("charts");
    let charts = Charts { lab, platform, images: &[], folder: &charts };
    for release in sources::releases(plan, &charts) {
        println!("chart     {}", release.chart);
        let archive = pull(&release, &archives).await?;
        let name = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
        note(&mut table, "chart", release.name, &format!("charts/{name}"));
    }
    Ok(table)
}

/// The part of a platform that a bundle keeps as it is. Mirrors are not: the images of manifests have
/// their first names there.
fn kept(platform: &Platform) -> anyhow::Result<toml::Table> {
    let mut table = toml::Table::new();
    note(&mut table, "image", "envoy", &platform.image.envoy);
    note(&mut table, "version", "agentgateway", &platform.version.agentgateway);
    note(&mut table, "version", "kagent", &platform.version.kagent);
    if !platform.node.image.is_empty() {
        // By its name alone: a digest is not kept in an archive.
        let untagged = platform.node.image.split('@').next().unwrap_or_default();
        note(&mut table, "node", "image", untagged);
    }
    let values =
        [("agentgateway", &platform.values.agentgateway), ("kagent", &platform.values.kagent)];
    let mut all = toml::Table::new();
    for (chart, values) in values {
        if let Some(values) = values {
            all.insert(chart.to_owned(), toml::Value::try_from(values)?);
        }
    }
    table.insert("values".to_owned(), toml::Value::Table(all));
    Ok(table)
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
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_bundle_keeps_what_decides_which_images_the_lab_asks_for() {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kind/platform.toml");
        let keys = [
            "values.kagent.registry=mirror.example",
            "values.kagent.database.postgres.bundled.image.registry=mirror.example",
            "version.kagent=0.10.9",
            "image.envoy=mirror.example/envoy:1",
            "node.image=kindest/node:v1@sha256:00",
        ];
        let keys = keys.map(|key| crate::platform::key_value(key).unwrap());
        let platform = Platform::read(&own, None, &keys).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("platform.toml");
        fs::write(&file, toml::to_string_pretty(&kept(&platform).unwrap()).unwrap()).unwrap();
        let bundled = Platform::read(&own, Some(&file), &[]).unwrap();
        assert_eq!(bundled.values, platform.values);
        assert_eq!(bundled.version, platform.version);
        assert_eq!(bundled.image, platform.image);
        assert_eq!(bundled.node.image, "kindest/node:v1");
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
