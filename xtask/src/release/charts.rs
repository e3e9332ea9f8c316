//! Charts as they are released: each names the images of its release, by digest, so that whoever has
//! verified a chart has verified what it runs.
//!
//! Must never change the charts of the checkout, and never release one that names an image by a tag.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use super::{LANGGRAPH, SERVICES, version};
use crate::workspace::{self, Workspace};

/// Where they are.
const CHARTS: &str = "charts";

/// The registry of releases.
const REGISTRY: &str = "ghcr.io";

/// What to package the charts with
#[derive(Args)]
pub(super) struct ChartArgs {
    /// The repository that is released, as OWNER/NAME: its images are there
    #[arg(long, value_name = "OWNER/NAME")]
    pub(super) repository: String,
    /// Where the images' digests are: a file for each, called like it
    #[arg(long, value_name = "FOLDER")]
    pub(super) digests: PathBuf,
    /// Where the charts go
    #[arg(long, value_name = "FOLDER")]
    pub(super) out: PathBuf,
}

/// The charts of this repository.
///
/// # Errors
/// When their folder cannot be read.
pub(super) fn names(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(workspace.path(CHARTS)).context(CHARTS)? {
        let entry = entry?;
        if entry.path().join("Chart.yaml").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Digests of images: of all that are released, and of no other.
///
/// # Errors
/// When one is missing, or something else is there.
pub(super) fn digests(folder: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut digests = BTreeMap::new();
    for image in SERVICES.into_iter().chain([LANGGRAPH]) {
        let file = folder.join(image);
        let digest = fs::read_to_string(&file)
            .with_context(|| format!("no digest of {image} in {}", file.display()))?;
        let digest = digest.trim();
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        ensure!(
            hex.len() == 64 && hex.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')),
            "{}: {digest:?} is no digest (sha256:…)",
            file.display()
        );
        digests.insert(image.to_owned(), digest.to_owned());
    }
    Ok(digests)
}

/// helm: the one on the path, or the one that the suite cluster has made.
pub(super) fn helm(workspace: &Workspace) -> Option<PathBuf> {
    let mut folders: Vec<_> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    folders.push(workspace.tools().join("kube/bin"));
    folders.into_iter().map(|folder| folder.join("helm")).find(|helm| helm.is_file())
}

/// Packages all charts; gives the archives.
///
/// # Errors
/// When a chart does not name its images as it should, or helm is not there or refuses it.
pub(super) fn package(workspace: &Workspace, args: &ChartArgs) -> anyhow::Result<Vec<PathBuf>> {
    let Some(helm) = helm(workspace) else {
        bail!("charts are packaged by helm, and there is none on the path")
    };
    let version = version::ours(workspace)?;
    let stage = workspace.target().join("release-charts");
    fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let mut packaged = Vec::new();
    for chart in stamp_all(workspace, args, &stage)? {
        let folder = stage.join(&chart);
        workspace::run(
            workspace.command(&helm).args(["lint", "--strict", "--quiet"]).arg(&folder),
        )?;
        let mut package = workspace.command(&helm);
        package.current_dir(env::current_dir()?).arg("package").arg(&folder);
        workspace::run(package.arg("--destination").arg(&args.out))?;
        packaged.push(args.out.join(format!("{chart}-{version}.tgz")));
    }
    Ok(packaged)
}

/// Lays out every chart as it is released; gives their names.
///
/// # Errors
/// When one does not name its images as it should, or cannot be written.
pub(super) fn stamp_all(
    workspace: &Workspace,
    args: &ChartArgs,
    stage: &Path,
) -> anyhow::Result<Vec<String>> {
    let one_slash = args.repository.split('/').filter(|part| !part.is_empty()).count() == 2;
    ensure!(one_slash, "--repository {}: OWNER/NAME is wanted", args.repository);
    let registry = format!("{REGISTRY}/{}", args.repository.to_lowercase());
    let digests = digests(&args.digests)?;
    // What an earlier one has left must not get in.
    let _ = fs::remove_dir_all(stage);
    let names = names(workspace)?;
    for chart in &names {
        let folder = stage.join(chart);
        copy(&workspace.path(CHARTS).join(chart), &folder)?;
        edit(&folder.join("values.yaml"), |text| stamp(text, &registry, &digests))?;
        edit(&folder.join("Chart.yaml"), |text| {
            Ok(format!("{text}sources:\n  - https://github.com/{}\n", args.repository))
        })?;
    }
    Ok(names)
}

/// Values whose images of ours are where a release has them, by digest.
fn stamp(
    values: &str,
    registry: &str,
    digests: &BTreeMap<String, String>,
) -> anyhow::Result<String> {
    let mut lines: Vec<String> = values.lines().map(str::to_owned).collect();
    let named: Vec<(usize, String, String)> = lines
        .iter()
        .enumerate()
        .filter_map(|(at, line)| {
            let (indent, name) = line.split_once("repository: ")?;
            let ours = digests.contains_key(name) && indent.trim().is_empty();
            ours.then(|| (at, indent.to_owned(), name.to_owned()))
        })
        .collect();
    ensure!(!named.is_empty(), "values.yaml names no image of ours");
    for (at, indent, name) in named {
        let digest = digests.get(&name).map(String::as_str).unwrap_or_default();
        // Its neighbours: lines as far in as it is, with nothing but comments between.
        let block = block(&lines, at, &indent);
        for (key, value) in [("registry", registry), ("tag", ""), ("digest", digest)] {
            let empty = format!("{indent}{key}: \"\"");
            let found = block.clone().find(|at| lines.get(*at) == Some(&empty));
            let line = found.and_then(|at| lines.get_mut(at)).with_context(|| {
                let at = at + 1;
                format!("values.yaml, line {at}: the image {name} has no `{key}: \"\"` beside it")
            })?;
            *line = format!("{indent}{key}: \"{value}\"");
        }
    }
    Ok(lines.join("\n") + "\n")
}

/// The lines around one that belong to the same mapping.
fn block(lines: &[String], at: usize, indent: &str) -> std::ops::Range<usize> {
    let inside = |line: &String| {
        line.strip_prefix(indent).is_some_and(|rest| !rest.is_empty()) && !line.trim().is_empty()
    };
    let (before, after) = lines.split_at(at.min(lines.len()));
    let from = at - before.iter().rev().take_while(|line| inside(line)).count();
    from..at + after.iter().take_while(|line| inside(line)).count()
}

fn edit(file: &Path, change: impl Fn(&str) -> anyhow::Result<String>) -> anyhow::Result<()> {
    let said = || file.display().to_string();
    let text = fs::read_to_string(file).with_context(said)?;
    fs::write(file, change(&text).with_context(said)?).with_context(said)
}

/// Copies a folder with everything in it.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).with_context(|| target.display().to_string())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests() -> BTreeMap<String, String> {
        let digest = |name: &&str| ((*name).to_owned(), format!("sha256:{name}"));
        ["ours", "also-ours"].iter().map(digest).collect()
    }

    const VALUES: &str = "image:\n  # Where.\n  registry: \"\"\n  repository: ours\n  # Tag.\n  tag: \"\"\n  digest: \"\"\n  pullPolicy: Always\n\n\
                          other:\n  image:\n    registry: docker.io\n    repository: theirs\n    tag: v1\n    digest: \"\"\n";

    #[test]
    fn images_of_ours_are_named_by_digest_and_those_of_others_are_left_alone() {
        let stamped = stamp(VALUES, "ghcr.io/o/n", &digests()).unwrap();
        let expected = VALUES.replacen("registry: \"\"", "registry: \"ghcr.io/o/n\"", 1).replacen(
            "digest: \"\"",
            "digest: \"sha256:ours\"",
            1,
        );
        assert_eq!(stamped, expected);
    }

    #[test]
    fn an_image_that_cannot_be_named_by_digest_is_refused() {
        for (from, to) in [
            ("  digest: \"\"\n  pull", "  pull"),
            ("tag: \"\"", "tag: v2"),
            ("  registry: \"\"\n", ""),
            ("repository: ours", "repository: nobodys"),
        ] {
            assert!(stamp(&VALUES.replacen(from, to, 1), "r", &digests()).is_err(), "{to}");
        }
    }

    #[test]
    fn a_digest_that_is_none_is_refused() {
        let folder = env::temp_dir().join(format!("release-digests-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for image in SERVICES.into_iter().chain([LANGGRAPH]) {
            assert!(super::digests(&folder).is_err());
            fs::write(folder.join(image), format!("sha256:{}\n", "0a".repeat(32))).unwrap();
        }
        assert_eq!(super::digests(&folder).unwrap().len(), 6);
        fs::write(folder.join(LANGGRAPH), "latest").unwrap();
        assert!(super::digests(&folder).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
