//! What each image is made of, in the form of `CycloneDX`: out of what cargo says, and for the
//! agent in `LangGraph` out of its lock.
//!
//! Owns one file for each image. Must never list what is only used for tests, and never the same
//! thing in another order: two runs on a commit give the same bytes.

mod python;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{LANGGRAPH, SERVICES, archive::Arch, committed, read, version};
use crate::workspace::{self, Workspace};

/// What a bill lists.
struct Parts {
    /// What there is.
    components: Vec<Value>,
    /// What uses which.
    dependencies: Vec<Value>,
}

/// Crates as cargo knows them.
struct Crates {
    /// Each by its id.
    packages: BTreeMap<String, Crate>,
    /// Those that are part of a binary, as `name@version`.
    parts: BTreeSet<String>,
    /// Those, and what compiles or generates them.
    needed: BTreeSet<String>,
}

/// A crate.
struct Crate {
    /// `name@version`.
    reference: String,
    /// As a component.
    component: Value,
    /// What it uses but for tests, by id.
    uses: Vec<String>,
}

/// Writes a file for each image; gives the files.
///
/// # Errors
/// When cargo does not say it, or a file cannot be written.
pub(super) fn write(workspace: &Workspace, out: &Path) -> anyhow::Result<Vec<PathBuf>> {
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let version = version::ours(workspace)?;
    let time = committed(workspace, "%Y-%m-%dT%H:%M:%SZ")?;
    let crates = Crates::ask(workspace)?;
    let mut files = Vec::new();
    let mut write = |image: &str, parts: &Parts| {
        let bill = bill(image, &version, &time, parts);
        let file = out.join(format!("{image}-{version}.cdx.json"));
        let text = serde_json::to_string_pretty(&bill)? + "\n";
        fs::write(&file, text).with_context(|| file.display().to_string())?;
        files.push(file);
        anyhow::Ok(())
    };
    for service in SERVICES {
        write(service, &crates.of(&format!("{service}@{version}"))?)?;
    }
    let root = format!("{LANGGRAPH}@{version}");
    write(LANGGRAPH, &python::parts(&read(workspace, python::LOCK)?, &root)?)?;
    Ok(files)
}

/// A whole bill of materials.
fn bill(image: &str, version: &str, time: &str, parts: &Parts) -> Value {
    let mut bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": time,
            "tools": {"components": [
                {"type": "application", "name": "cargo xtask release sbom", "version": version},
            ]},
            "component": {
                "type": "application",
                "bom-ref": format!("{image}@{version}"),
                "name": image,
                "version": version,
                "licenses": [{"expression": "Apache-2.0"}],
            },
        },
        "components": parts.components,
        "dependencies": parts.dependencies,
    });
    // Its serial number follows from what it says, so that the same is called the same.
    let digest = Sha256::digest(bill.to_string());
    let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    let part = |from: usize, to: usize| digest.get(from..to).unwrap_or_default();
    let serial = [
        part(0, 8),
        part(8, 12),
        &format!("8{}", part(13, 16)),
        &format!("8{}", part(17, 20)),
        part(20, 32),
    ];
    if let Value::Object(fields) = &mut bill {
        fields.insert("serialNumber".to_owned(), json!(format!("urn:uuid:{}", serial.join("-"))));
    }
    bill
}

impl Crates {
    fn ask(workspace: &Workspace) -> anyhow::Result<Self> {
        let targets = [Arch::Amd64, Arch::Arm64].map(Arch::target);
        // What features are on is decided by what is compiled together: all services, and no tests.
        let tree = |edges: &str| -> anyhow::Result<BTreeSet<String>> {
            let mut cargo = workspace.cargo();
            cargo.args(["tree", "--locked", "--prefix=none", "--format={p}", "--edges", edges]);
            cargo.args(SERVICES.map(|service| format!("--package={service}")));
            cargo.args(targets.map(|target| format!("--target={target}")));
            Ok(workspace::output(&mut cargo)?.lines().filter_map(reference).collect())
        };
        let mut cargo = workspace.cargo();
        cargo.args(["metadata", "--locked", "--format-version=1"]);
        cargo.args(targets.map(|target| format!("--filter-platform={target}")));
        let said: Value = serde_json::from_str(&workspace::output(&mut cargo)?)?;
        Ok(Self {
            packages: packages(&said, &checksums(&read(workspace, "Cargo.lock")?))?,
            parts: tree("normal,no-proc-macro")?,
            needed: tree("normal,build")?,
        })
    }

    /// What `root` is made of.
    fn of(&self, root: &str) -> anyhow::Result<Parts> {
        let by_reference =
            |id: &String| self.packages.get(id).filter(|c| self.needed.contains(&c.reference));
        let mut open: Vec<&Crate> =
            self.packages.values().filter(|c| c.reference == root).collect();
        ensure!(open.len() == 1, "cargo knows no {root}");
        let (mut components, mut dependencies) = (BTreeMap::new(), BTreeMap::new());
        while let Some(found) = open.pop() {
            let uses: Vec<&Crate> = found.uses.iter().filter_map(by_reference).collect();
            let names: BTreeSet<&String> = uses.iter().map(|used| &used.reference).collect();
            let entry = json!({"ref": found.reference, "dependsOn": names});
            if dependencies.insert(&found.reference, entry).is_some() {
                continue;
            }
            if found.reference != root {
                let mut component = found.component.clone();
                // What only compiles or generates is not there when the service runs.
                let scope =
                    if self.parts.contains(&found.reference) { "required" } else { "excluded" };
                if let Value::Object(fields) = &mut component {
                    fields.insert("scope".to_owned(), json!(scope));
                }
                components.insert(&found.reference, component);
            }
            open.extend(uses);
        }
        Ok(Parts {
            components: components.into_values().collect(),
            dependencies: dependencies.into_values().collect(),
        })
    }
}

/// `name@version` of a line of cargo's tree: `name v1.2.3 (where)`.
fn reference(line: &str) -> Option<String> {
    let mut words = line.split(' ');
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    Some(format!("{name}@{version}"))
}

/// Every crate of cargo's account.
fn packages(
    said: &Value,
    checksums: &BTreeMap<String, String>,
) -> anyhow::Result<BTreeMap<String, Crate>> {
    let list = |value: &Value, path: &str| {
        value
            .pointer(path)
            .and_then(Value::as_array)
            .cloned()
            .with_context(|| format!("cargo metadata: no {path}"))
    };
    let text =
        |value: &Value, field: &str| value.get(field).and_then(Value::as_str).map(str::to_owned);
    let mut uses = BTreeMap::new();
    for node in list(said, "/resolve/nodes")? {
        let edges = list(&node, "/deps")?;
        let edges = edges.iter().filter(|edge| {
            let kinds = edge.get("dep_kinds").and_then(Value::as_array).into_iter().flatten();
            kinds.into_iter().any(|kind| kind.get("kind").and_then(Value::as_str) != Some("dev"))
        });
        let ids: Vec<String> = edges.filter_map(|edge| text(edge, "pkg")).collect();
        uses.insert(text(&node, "id").unwrap_or_default(), ids);
    }
    let mut packages = BTreeMap::new();
    for package in list(said, "/packages")? {
        let field =
            |name: &str| text(&package, name).with_context(|| format!("a package without {name}"));
        let (id, name, version) = (field("id")?, field("name")?, field("version")?);
        let reference = format!("{name}@{version}");
        let mut component = json!({
            "type": "library",
            "bom-ref": reference,
            "name": name,
            "version": version,
        });
        let mut set = |key: &str, value: Value| {
            component.as_object_mut().and_then(|fields| fields.insert(key.to_owned(), value))
        };
        if let Ok(licence) = field("license") {
            set("licenses", json!([{"expression": expression(&licence)}]));
        }
        // Ours are published nowhere.
        if field("source").is_ok() {
            set("purl", json!(format!("pkg:cargo/{reference}")));
        }
        if let Some(checksum) = checksums.get(&reference) {
            set("hashes", json!([{"alg": "SHA-256", "content": checksum}]));
        }
        let uses = uses.remove(&id).unwrap_or_default();
        packages.insert(id, Crate { reference, component, uses });
    }
    Ok(packages)
}

/// A licence as SPDX writes it; old manifests have a slash between alternatives.
fn expression(licence: &str) -> String {
    licence.split('/').map(str::trim).collect::<Vec<_>>().join(" OR ")
}

/// Checksums of a lock, by `name@version`.
fn checksums(lock: &str) -> BTreeMap<String, String> {
    let package = |text: &str| {
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.strip_suffix('"').map(str::to_owned)
        };
        let reference = format!("{}@{}", value("name = \"")?, value("version = \"")?);
        Some((reference, value("checksum = \"")?))
    };
    lock.split("[[package]]\n").skip(1).filter_map(package).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said() -> Value {
        let node = |id: &str, deps: &[(&str, &str)]| {
            let deps: Vec<_> = deps
                .iter()
                .map(|(id, kind)| {
                    let kind = if *kind == "normal" { Value::Null } else { json!(kind) };
                    json!({"pkg": id, "dep_kinds": [{"kind": kind}]})
                })
                .collect();
            json!({"id": id, "deps": deps})
        };
        let package = |id: &str, licence: &str, source: Option<&str>| json!({"id": id, "name": id, "version": "1.0.0", "license": licence, "source": source});
        json!({
            "packages": [
                package("service", "Apache-2.0", None),
                package("part", "MIT/Apache-2.0", Some("registry")),
                package("maker", "MIT", Some("registry")),
                package("tester", "MIT", Some("registry")),
                package("unused", "MIT", Some("registry")),
            ],
            "resolve": {"nodes": [
                node("service", &[("part", "normal"), ("maker", "build"), ("tester", "dev"), ("unused", "normal")]),
                node("part", &[("maker", "normal")]),
                node("maker", &[]),
                node("tester", &[]),
                node("unused", &[]),
            ]},
        })
    }

    #[test]
    fn what_a_service_is_made_of_is_listed_and_what_only_tests_is_not() {
        let sums = checksums(
            "[[package]]\nname = \"part\"\nversion = \"1.0.0\"\nsource = \"registry\"\nchecksum = \"ab\"\n",
        );
        let set = |names: &[&str]| names.iter().map(|name| format!("{name}@1.0.0")).collect();
        let crates = Crates {
            packages: packages(&said(), &sums).unwrap(),
            parts: set(&["service", "part"]),
            needed: set(&["service", "part", "maker"]),
        };
        let Parts { components, dependencies } = crates.of("service@1.0.0").unwrap();
        let maker = json!({"type": "library", "bom-ref": "maker@1.0.0", "name": "maker", "version": "1.0.0",
            "licenses": [{"expression": "MIT"}], "purl": "pkg:cargo/maker@1.0.0", "scope": "excluded"});
        let part = json!({"type": "library", "bom-ref": "part@1.0.0", "name": "part", "version": "1.0.0",
            "licenses": [{"expression": "MIT OR Apache-2.0"}], "purl": "pkg:cargo/part@1.0.0",
            "hashes": [{"alg": "SHA-256", "content": "ab"}], "scope": "required"});
        assert_eq!(components, [maker, part]);
        assert_eq!(dependencies.len(), 3);
        assert_eq!(
            dependencies[2],
            json!({"ref": "service@1.0.0", "dependsOn": ["maker@1.0.0", "part@1.0.0"]})
        );
        assert!(crates.of("service@2.0.0").is_err());
    }

    #[test]
    fn the_same_bill_has_the_same_serial_number_and_another_has_another() {
        let none = Parts { components: Vec::new(), dependencies: Vec::new() };
        let serial =
            |name: &str| bill(name, "1.0.0", "2030-01-01T00:00:00Z", &none)["serialNumber"].clone();
        assert_eq!(serial("a"), serial("a"));
        assert_ne!(serial("a"), serial("b"));
        assert_eq!(serial("a").as_str().unwrap().len(), "urn:uuid:".len() + 36);
    }
}
