//! Images of our services: built, named by their content, and in the nodes.
//!
//! Must never give a name to two different images: a Deployment would not notice that it changed.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::{
    kind::{Kind, engine},
    lab::Place,
    options::{BuildArgs, PROFILE},
    shell::{command, follow, output},
};

/// The services that have an image; the binary is called like the image.
pub(crate) const SERVICES: [&str; 5] =
    ["dba-assistant", "hitl-extauth", "hitl-ui", "mcp-ops-tools", "scripted-model"];

/// The agent in LangGraph, whose image is built from a Dockerfile of its own.
pub(crate) const LANGGRAPH: &str = "dba-assistant-langgraph";

/// Where our images are said to be from; nobody pulls them.
const REPOSITORY: &str = "docker.io/hitl";

/// Largest that an image of a service may be, in bytes.
const LARGEST: u64 = 20 * 1000 * 1000;

/// Largest that one with a Python in it may be.
const LARGEST_PYTHON: u64 = 400 * 1000 * 1000;

/// Where an image build looks for the certificates that a service trusts.
const CERTIFICATES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// An image of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) service: &'static str,
    /// Its tag: the beginning of its content's digest.
    pub(crate) tag: String,
    /// In bytes.
    pub(crate) size: u64,
}

impl Image {
    /// The whole name.
    pub(crate) fn name(&self) -> String {
        format!("{REPOSITORY}/{}:{}", self.service, self.tag)
    }

    /// Its size, for people.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn megabytes(&self) -> f64 {
        self.size as f64 / 1e6
    }

    /// The name without registry, tag and digest, for charts.
    pub(crate) fn repository(service: &str) -> String {
        format!("{}/{service}", REPOSITORY.trim_start_matches("docker.io/"))
    }
}

/// Whether an image is one of ours.
pub(crate) fn is_ours(name: &str) -> bool {
    name.strip_prefix(REPOSITORY).is_some_and(|rest| rest.starts_with('/'))
}

/// Builds every image, and gives those that were not there before a line each. The agent in
/// `LangGraph` is wanted or not.
pub(crate) async fn build(
    place: &Place,
    args: &BuildArgs,
    langgraph: bool,
    line: impl Fn(&str),
) -> anyhow::Result<(Vec<Image>, Vec<String>)> {
    let before = tagged().await?;
    let contexts = if args.host_build {
        Some(compile(place, &args.image_profile, &line).await?)
    } else {
        None
    };
    let mut images = Vec::new();
    for service in SERVICES.into_iter().chain(langgraph.then_some(LANGGRAPH)) {
        line(&format!("packaging {service}"));
        let latest = format!("{REPOSITORY}/{service}:latest");
        let mut build = command(engine());
        build.args(["build", "--tag", &latest, "--file"]);
        // Else a build that took everything from its cache is called a new image nevertheless.
        build.env("BUILDX_NO_DEFAULT_ATTESTATIONS", "1");
        if service == LANGGRAPH {
            let folder = place.source("agents/langgraph");
            let base = format!("PYTHON_IMAGE={}", args.python_image);
            build.arg(folder.join("Dockerfile")).args(["--build-arg", &base]).arg(folder);
        } else if let Some(folder) = &contexts {
            build.arg(folder.join(service).join("Dockerfile")).arg(folder.join(service));
        } else {
            build.arg(place.source("Dockerfile"));
            let base = format!("BUILD_IMAGE={}", args.build_image);
            build.args(["--build-arg", &base, "--build-arg", &format!("SERVICE={service}")]);
            build.args(["--target", "service"]).arg(place.source("."));
        }
        follow(&mut build, &line).await?;
        let inspected = output(command(engine()).args([
            "image",
            "inspect",
            "--format",
            "{{.Id}} {{.Size}}",
            &latest,
        ]))
        .await?;
        let (id, size) =
            inspected.trim().split_once(' ').context("the engine's account of an image")?;
        let tag: String = id.trim_start_matches("sha256:").chars().take(12).collect();
        let image = Image { service, tag, size: size.parse().unwrap_or_default() };
        let most = match service {
            LANGGRAPH => LARGEST_PYTHON,
            _ if args.image_profile == PROFILE => LARGEST,
            _ => u64::MAX,
        };
        if image.size > most {
            let (has, may) = (image.size / 1_000_000, most / 1_000_000);
            bail!("the image of {service} has {has} MB; {may} are allowed");
        }
        output(command(engine()).args(["tag", &latest, &image.name()])).await?;
        images.push(image);
    }
    let new = images.iter().filter(|image| !before.contains(&image.name()));
    let new = new.map(|image| format!("image {} built", image.name())).collect();
    Ok((images, new))
}

/// Names of our images that the engine has.
async fn tagged() -> anyhow::Result<Vec<String>> {
    let format = "{{.Repository}}:{{.Tag}}";
    let list = output(command(engine()).args(["images", "--format", format])).await?;
    let full = |name: &str| {
        if name.starts_with("hitl/") { format!("docker.io/{name}") } else { name.to_owned() }
    };
    Ok(list.lines().map(full).filter(|name| is_ours(name)).collect())
}

/// Removes our images from the engine.
pub(crate) async fn remove() -> anyhow::Result<usize> {
    let all = tagged().await?;
    let mut removed = 0;
    for image in &all {
        // One that somebody else has removed meanwhile is gone as well.
        if output(command(engine()).args(["rmi", "--force", image])).await.is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

/// Compiles here, statically, and lays out a folder for each image: so that packaging needs neither
/// a base image nor a network.
async fn compile(place: &Place, profile: &str, line: impl Fn(&str)) -> anyhow::Result<PathBuf> {
    let target = static_target().await?;
    let mut cargo = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(place.source(".")).args([
        "build",
        "--profile",
        profile,
        "--locked",
        "--target",
        target,
    ]);
    for service in SERVICES {
        cargo.args(["--package", service]);
    }
    follow(&mut cargo, &line).await.with_context(|| {
        format!("compiling for {target}: it needs `rustup target add {target}` and a C compiler for musl (apt install musl-tools)")
    })?;
    let contexts = place.kept("images");
    let dockerfile = place.source("Dockerfile");
    let dockerfile =
        fs::read_to_string(&dockerfile).with_context(|| dockerfile.display().to_string())?;
    let recipe = packaging(&dockerfile)
        .context("the Dockerfile's last stage is another than this was made for")?;
    let certificates = CERTIFICATES.iter().map(Path::new).find(|path| path.is_file());
    for service in SERVICES {
        let folder = contexts.join(service);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let binary = place.target().join(target).join(profile).join(service);
        write_changed(&folder.join("Dockerfile"), recipe.as_bytes(), 0o644)?;
        copy_changed(&binary, &folder.join("service"), 0o755)?;
        match certificates {
            Some(path) => copy_changed(path, &folder.join("ca-certificates.crt"), 0o644)?,
            None => bail!(
                "no certificates of authorities at {}: install ca-certificates",
                CERTIFICATES.join(", ")
            ),
        }
    }
    Ok(contexts)
}

/// The last stage of the Dockerfile, with what it takes from the stage before taken from beside it.
fn packaging(dockerfile: &str) -> Option<String> {
    let (_, stage) = dockerfile.split_once("\nFROM scratch AS service\n")?;
    let mut recipe = vec!["FROM scratch".to_owned()];
    let mut copies = 0;
    for line in stage.lines().filter(|line| !line.starts_with("ARG ")) {
        let Some(copy) = line.strip_prefix("COPY --from=build ") else {
            recipe.push(line.to_owned());
            continue;
        };
        let (from, to) = copy.split_once(' ')?;
        let name =
            if from.ends_with("${SERVICE}") { "service" } else { from.rsplit('/').next()? };
        recipe.push(format!("COPY {name} {to}"));
        copies += 1;
    }
    recipe.push(String::new());
    (copies == 2).then(|| recipe.join("\n"))
}

/// Copies a file unless the copy is the same, so that its time, and an image of it, stay.
fn copy_changed(from: &Path, to: &Path, mode: u32) -> anyhow::Result<()> {
    write_changed(to, &fs::read(from).with_context(|| from.display().to_string())?, mode)
}

/// Writes a file unless it is so already. Its mode is said: a service runs as nobody in particular.
fn write_changed(to: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let said = || to.display().to_string();
    if fs::read(to).is_ok_and(|there| there == bytes)
        && fs::metadata(to).is_ok_and(|meta| meta.permissions().mode() & 0o777 == mode)
    {
        return Ok(());
    }
    let beside = to.with_extension("new");
    fs::write(&beside, bytes).with_context(said)?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(mode)).with_context(said)?;
    fs::rename(&beside, to).with_context(said)
}

/// The target of a static binary for the engine's machines.
async fn static_target() -> anyhow::Result<&'static str> {
    let architecture =
        output(command(engine()).args(["version", "--format", "{{.Server.Arch}}"])).await;
    let architecture = architecture.unwrap_or_default();
    let architecture =
        if architecture.trim().is_empty() { std::env::consts::ARCH } else { architecture.trim() };
    match architecture {
        "amd64" | "x86_64" => Ok("x86_64-unknown-linux-musl"),
        "arm64" | "aarch64" => Ok("aarch64-unknown-linux-musl"),
        other => bail!("no image is built for {other}: linux/amd64 and linux/arm64 are"),
    }
}

/// Loads what the nodes do not have yet, and names it.
pub(crate) async fn load(
    place: &Place,
    kind: &Kind,
    names: &[String],
) -> anyhow::Result<Vec<String>> {
    let mut missing: BTreeMap<&String, usize> = BTreeMap::new();
    for node in kind.nodes().await? {
        let there = kind.images(&node).await?;
        for name in names.iter().filter(|name| !there.contains(name)) {
            *missing.entry(name).or_default() += 1;
        }
    }
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    place.make()?;
    let archive = place.kept("images.tar");
    crate::bundle::save(&archive, missing.keys().map(|name| name.as_str())).await?;
    let loaded = kind.load(&archive).await;
    // It is as large as the images are, and made anew when it is needed.
    let _ = fs::remove_file(&archive);
    loaded?;
    Ok(missing.keys().map(|name| format!("image {name} loaded")).collect())
}

/// Loads archives of a folder, each once, and names them.
pub(crate) async fn preload(
    kind: &Kind,
    folder: &Path,
    seen: &Path,
) -> anyhow::Result<Vec<String>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("--preload {}", folder.display()))?;
    let mut archives: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    archives.retain(|path| path.extension().is_some_and(|extension| extension == "tar"));
    archives.sort();
    if archives.is_empty() {
        bail!("--preload {}: no archive (*.tar) is in it", folder.display());
    }
    // An archive is known by size and time: reading gigabytes to find them unchanged is no use.
    let known = fs::read_to_string(seen).unwrap_or_default();
    let (mut lines, mut loaded) = (Vec::new(), Vec::new());
    for archive in archives {
        let meta = fs::metadata(&archive)?;
        let time = meta.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let line = format!("{} {} {}", archive.display(), meta.len(), time.as_nanos());
        if !known.lines().any(|known| known == line) {
            kind.load(&archive).await?;
            loaded.push(format!("archive {} loaded", archive.display()));
        }
        lines.push(line);
    }
    fs::write(seen, lines.join("\n"))?;
    Ok(loaded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packaging_is_the_last_stage_of_the_dockerfile() {
        let recipe = packaging(include_str!("../../../Dockerfile")).unwrap();
        insta::assert_snapshot!(recipe);
    }

    #[test]
    fn a_copy_is_made_anew_only_when_it_differs() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&from, "one").unwrap();
        copy_changed(&from, &to, 0o644).unwrap();
        let time = fs::metadata(&to).unwrap().modified().unwrap();
        copy_changed(&from, &to, 0o644).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), time);
        fs::write(&from, "two").unwrap();
        copy_changed(&from, &to, 0o755).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_to_string(&to).unwrap(), "two");
    }
}
