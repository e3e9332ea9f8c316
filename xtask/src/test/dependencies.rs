//! What may be in the dependency tree: the bans, licences and sources of `deny.toml`.
//!
//! Owns those checks, over `cargo metadata`; a scheduled workflow runs cargo-deny itself, with the
//! same file, and looks at advisories, which change without a change of ours. Invariant: a package
//! that some target is built of is looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use spdx::{Expression, ParseMode};

use super::Outcome;
use crate::workspace::{self, Workspace};

/// The only registry.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Features that give keys of an object, or numbers, a second meaning in the whole workspace.
const SECOND_MEANINGS: [&str; 2] = ["raw_value", "arbitrary_precision"];

/// `deny.toml`, as far as it is checked here.
#[derive(Deserialize)]
struct Rules {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Banned>,
}

#[derive(Deserialize)]
struct Banned {
    name: String,
}

/// What `cargo metadata` says.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    license: Option<String>,
    source: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    req: String,
    path: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

/// A package that is built, with its features.
#[derive(Deserialize)]
struct Node {
    id: String,
    features: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace) -> Outcome {
    check(workspace).into()
}

fn check(workspace: &Workspace) -> anyhow::Result<String> {
    let rules = fs::read_to_string(workspace.path("deny.toml")).context("deny.toml")?;
    let rules: Rules = toml::from_str(&rules).context("deny.toml")?;
    let mut command = workspace.cargo();
    command.args(["metadata", "--format-version=1", "--locked"]);
    command.args(rules.graph.targets.iter().map(|target| format!("--filter-platform={target}")));
    let metadata: Metadata = serde_json::from_str(&workspace::output(&mut command)?)?;
    let packages: BTreeMap<_, _> =
        metadata.packages.iter().map(|package| (package.id.as_str(), package)).collect();
    let nodes = &metadata.resolve.nodes;
    ensure!(nodes.len() > 100, "cargo metadata names only {} packages", nodes.len());
    let mut wrong = Vec::new();
    for node in nodes {
        let package = packages.get(node.id.as_str()).context("a package without a name")?;
        wrong.extend(rules.wrong_with(package, &node.features));
    }
    if wrong.is_empty() {
        return Ok(format!(
            "{} packages: none banned, every licence allowed, every source known",
            nodes.len()
        ));
    }
    bail!("{} rules of deny.toml broken:\n  {}", wrong.len(), wrong.join("\n  "))
}

impl Rules {
    /// What is wrong with a package that is built with these features.
    fn wrong_with(&self, package: &Package, features: &[String]) -> Vec<String> {
        let name = &package.name;
        let mut wrong = Vec::new();
        if self.bans.deny.iter().any(|banned| banned.name == *name) {
            wrong.push(format!("{name} is banned"));
        }
        match package.source.as_deref() {
            Some(CRATES_IO) => wrong.extend(self.unlicensed(package)),
            Some(other) => wrong.push(format!("{name} comes from {other}")),
            None => {
                let any =
                    |dependency: &&Dependency| dependency.req == "*" && dependency.path.is_none();
                let wildcards = package.dependencies.iter().filter(any);
                wrong.extend(
                    wildcards.map(|dependency| {
                        format!("{name} takes any version of {}", dependency.name)
                    }),
                );
            }
        }
        if name == "serde_json" {
            let second = features.iter().filter(|on| SECOND_MEANINGS.contains(&on.as_str()));
            wrong.extend(second.map(|on| {
                format!(
                    "serde_json's feature {on} is on, which changes what JSON means everywhere; \
                     `cargo tree -e features -i serde_json` names who switches it on"
                )
            }));
        }
        wrong
    }

    /// Why a package's licence is not allowed, if so.
    fn unlicensed(&self, package: &Package) -> Option<String> {
        let name = &package.name;
        let Some(license) = &package.license else {
            return Some(format!("{name} names no licence"));
        };
        let expression = match Expression::parse_mode(license, ParseMode::LAX) {
            Ok(expression) => expression,
            Err(error) => return Some(format!("{name}: {license:?}: {}", error.reason)),
        };
        let allowed = expression.evaluate(|one| self.licenses.allow.contains(&one.to_string()));
        (!allowed).then(|| format!("{name} is licensed as {license:?}, which is not allowed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(license: &str, source: Option<&str>, features: &[&str]) -> usize {
        let allow = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"];
        let rules = Rules {
            graph: Graph { targets: Vec::new() },
            licenses: Licenses { allow: allow.map(str::to_owned).into() },
            bans: Bans { deny: vec![Banned { name: "openssl".to_owned() }] },
        };
        let package = Package {
            id: String::new(),
            name: "serde_json".to_owned(),
            license: Some(license.to_owned()),
            source: source.map(str::to_owned),
            dependencies: Vec::new(),
        };
        let features: Vec<_> = features.iter().map(|on| (*on).to_owned()).collect();
        rules.wrong_with(&package, &features).len()
    }

    #[test]
    fn licences_sources_and_features_that_are_not_allowed_are_found() {
        for good in [
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "GPL-3.0-only OR MIT",
            "(MIT OR GPL-3.0-only) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert_eq!(wrong(good, Some(CRATES_IO), &["std"]), 0, "{good}");
        }
        for bad in ["GPL-3.0-only", "MIT AND GPL-3.0-only", "BSD-2-Clause", "no such licence"] {
            assert_eq!(wrong(bad, Some(CRATES_IO), &[]), 1, "{bad}");
        }
        assert_eq!(wrong("MIT", Some("git+https://example.com/x"), &[]), 1);
        assert_eq!(wrong("MIT", Some(CRATES_IO), &["raw_value", "arbitrary_precision"]), 2);
    }
}
