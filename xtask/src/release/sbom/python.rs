//! The same for Python: what a lock of pip pins.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::Parts;

/// The lock of the agent in `LangGraph`.
pub(super) const LOCK: &str = "agents/langgraph/requirements.txt";

/// How a package is marked that is for one system alone, and the system that images have.
const SYSTEM: &str = "sys_platform == '";
const OURS: &str = "sys_platform == 'linux'";

/// What a lock pins; `root` uses all of it, since a lock does not say which uses which.
pub(super) fn parts(lock: &str, root: &str) -> anyhow::Result<Parts> {
    let mut components = BTreeMap::new();
    let pins = lock.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_alphanumeric()));
    for line in pins.filter(|line| !line.contains(SYSTEM) || line.contains(OURS)) {
        let pin = line.trim_end_matches('\\').split(';').next().unwrap_or_default().trim();
        let (name, version) =
            pin.split_once("==").with_context(|| format!("{LOCK}: {pin:?} pins no version"))?;
        // Extras change nothing about which package it is.
        let name = name.split('[').next().unwrap_or(name);
        let purl = format!("pkg:pypi/{}@{version}", name.to_lowercase().replace('_', "-"));
        let component = json!({
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "version": version,
            "purl": purl,
            "scope": "required",
        });
        components.insert(purl, component);
    }
    ensure!(!components.is_empty(), "{LOCK}: pins nothing");
    let names: Vec<&String> = components.keys().collect();
    let mut dependencies = vec![json!({"ref": root, "dependsOn": names})];
    dependencies.extend(names.iter().map(|name| json!({"ref": name, "dependsOn": []})));
    Ok(Parts { components: components.into_values().collect(), dependencies })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pin_for_this_system_is_a_component() {
        let lock = "# words==1\nb_c[all]==2.0 \\\n    --hash=sha256:00\na==1 ; python_version < '4' \\\n    --hash=sha256:01\n\
                    colorama==3 ; sys_platform == 'win32' \\\n";
        let Parts { components, dependencies } = parts(lock, "agent@1.0.0").unwrap();
        let purls: Vec<_> =
            components.iter().map(|component| component["purl"].as_str().unwrap()).collect();
        assert_eq!(purls, ["pkg:pypi/a@1", "pkg:pypi/b-c@2.0"]);
        assert_eq!(dependencies[0]["dependsOn"].as_array().unwrap().len(), 2);
        assert!(parts("a>=1\n", "agent@1.0.0").is_err());
        assert!(parts("", "agent@1.0.0").is_err());
    }
}
