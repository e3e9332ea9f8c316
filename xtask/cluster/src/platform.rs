//! What others make, and where it comes from: `kind/platform.toml`, what is laid over it, and single
//! keys.
//!
//! Must never let a key pass that means nothing: a typing error would leave the default in place
//! without a word.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::{Value, json};

/// Where every part of the platform comes from.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Platform {
    pub(crate) node: Node,
    pub(crate) manifest: Manifests,
    pub(crate) chart: Charts,
    pub(crate) version: Versions,
    pub(crate) image: Images,
    /// Registries, and what is asked in their place.
    #[serde(default)]
    pub(crate) mirror: BTreeMap<String, String>,
    /// More values for charts of others.
    #[serde(default)]
    pub(crate) values: ExtraValues,
}

/// Nodes of the cluster.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Node {
    /// Their image; empty for the one that the installed kind has built in.
    pub(crate) image: String,
}

/// Plain manifests.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Manifests {
    pub(crate) metallb: Source,
    pub(crate) gateway_api: Source,
}

/// Charts.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Charts {
    pub(crate) agentgateway_crds: Source,
    pub(crate) agentgateway: Source,
    pub(crate) kagent_crds: Source,
    pub(crate) kagent: Source,
}

/// Versions of charts.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Versions {
    pub(crate) agentgateway: String,
    pub(crate) kagent: String,
}

/// Images of others in charts of ours.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Images {
    /// The plain Envoy's.
    pub(crate) envoy: String,
}

/// Values for charts of others, as they are given to helm.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExtraValues {
    #[serde(default)]
    pub(crate) agentgateway: Option<Value>,
    #[serde(default)]
    pub(crate) kagent: Option<Value>,
}

/// Where a manifest or a chart comes from.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(from = "String")]
pub(crate) enum Source {
    /// An address: `https://…`, `oci://…`.
    Address(String),
    /// A file or a folder here.
    Here(PathBuf),
}

impl From<String> for Source {
    fn from(text: String) -> Self {
        if text.contains("://") { Self::Address(text) } else { Self::Here(text.into()) }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => f.write_str(address),
            Self::Here(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Source {
    fn relative_to(&mut self, folder: &Path) {
        if let Self::Here(path) = self
            && path.is_relative()
        {
            *path = folder.join(&*path);
        }
    }
}

impl Platform {
    /// The checkout's own file, another laid over it, and single keys over both.
    ///
    /// Paths in a file are relative to its folder, those of single keys to where the command runs.
    ///
    /// # Errors
    /// What cannot be read, and which key means nothing.
    pub(crate) fn read(
        own: &Path,
        other: Option<&Path>,
        keys: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let mut table = parse(own)?;
        if let Some(other) = other {
            lay_over(&mut table, parse(other)?);
        }
        let here = std::env::current_dir().context("where this runs")?;
        for (key, value) in keys {
            lay_over(&mut table, nested(key, &from_here(key, value, &here)));
        }
        toml::Value::Table(table).try_into().with_context(|| {
            let keys: Vec<_> = keys.iter().map(|(key, _)| format!("--set {key}")).collect();
            let other = other.map(|path| path.display().to_string());
            format!(
                "the platform ({})",
                other.into_iter().chain(keys).collect::<Vec<_>>().join(", ")
            )
        })
    }

    /// Warns of versions that this lab was not tested with: it was with those of its own file.
    ///
    /// # Errors
    /// When that file cannot be read.
    pub(crate) fn untested(&self, own: &Path) -> anyhow::Result<Vec<String>> {
        let tested = Self::read(own, None, &[])?.version;
        let asked = &self.version;
        let all = [
            ("agentgateway", &asked.agentgateway, tested.agentgateway),
            ("kagent", &asked.kagent, tested.kagent),
        ];
        let others = all.into_iter().filter(|(_, asked, tested)| *asked != tested);
        let warning = |(part, asked, tested): (_, &String, String)| {
            format!(
                "{part} {asked}: not tested with this lab, which was tested with {tested}. `cargo xtask doctor` checks \
                 that the gate holds calls and that nothing ends a hold early."
            )
        };
        Ok(others.map(warning).collect())
    }

    /// Returns an image's name with the mirror of its registry, if there is one.
    pub(crate) fn image(&self, name: &str) -> String {
        let mirrored = self.mirror.iter().find_map(|(registry, mirror)| {
            let rest = name.strip_prefix(registry.as_str())?.strip_prefix('/')?;
            Some(format!("{mirror}/{rest}"))
        });
        mirrored.unwrap_or_else(|| name.to_owned())
    }

    /// Returns values for a chart of others: the mirrors of the registries it uses, by the pointer of each
    /// value, below those that were given for it.
    pub(crate) fn chart_values(
        &self,
        own: Value,
        registries: &[(&str, &str)],
        given: Option<&Value>,
    ) -> Value {
        let mut values = own;
        for (registry, keys) in registries {
            if let Some(mirror) = self.mirror.get(*registry) {
                let leaf = Value::from(mirror.as_str());
                let value = keys.rsplit('.').fold(leaf, |value, key| json!({key: value}));
                merge(&mut values, &value);
            }
        }
        if let Some(given) = given {
            merge(&mut values, given);
        }
        values
    }
}

/// Lays values over others.
fn merge(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                merge(under.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over.clone(),
    }
}

/// Reads one file, with its paths made whole.
fn parse(file: &Path) -> anyhow::Result<toml::Table> {
    let text =
        fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let mut table: toml::Table =
        text.parse().with_context(|| format!("{} is not TOML", file.display()))?;
    let folder = file.parent().unwrap_or(Path::new(".")).to_owned();
    for section in ["manifest", "chart"] {
        let Some(toml::Value::Table(sources)) = table.get_mut(section) else { continue };
        for (_, value) in sources.iter_mut() {
            if let toml::Value::String(text) = value {
                let mut source = Source::from(text.clone());
                source.relative_to(&folder);
                *text = source.to_string();
            }
        }
    }
    Ok(table)
}

fn from_here(key: &str, value: &str, here: &Path) -> String {
    if !key.starts_with("manifest.") && !key.starts_with("chart.") {
        return value.to_owned();
    }
    let mut source = Source::from(value.to_owned());
    source.relative_to(here);
    source.to_string()
}

/// `a.b` and a value as a table of tables.
fn nested(key: &str, value: &str) -> toml::Table {
    let mut parts: Vec<&str> = key.split('.').collect();
    // Registries have dots of their own.
    if let Some(("mirror", registry)) = key.split_once('.') {
        parts = vec!["mirror", registry];
    }
    // Values of charts may be numbers and yes or no; everything else is text.
    let text = toml::Value::String(value.to_owned());
    let typed = || format!("v = {value}").parse::<toml::Table>().ok()?.remove("v");
    let typed = if parts.first() == Some(&"values") { typed() } else { None };
    let leaf = typed.filter(|value| value.is_bool() || value.is_integer()).unwrap_or(text);
    let (first, rest) = parts.split_first().map_or(("", &[][..]), |(first, rest)| (*first, rest));
    let inner = rest.iter().rev().fold(leaf, |value, part| {
        toml::Value::Table(toml::Table::from_iter([((*part).to_owned(), value)]))
    });
    toml::Table::from_iter([(first.to_owned(), inner)])
}

fn lay_over(table: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => lay_over(under, over),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

/// Reads `KEY=VALUE`.
///
/// # Errors
/// When there is no `=`.
pub(crate) fn key_value(text: &str) -> anyhow::Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if key.contains('.') => Ok((key.to_owned(), value.to_owned())),
        _ => bail!("write it as SECTION.KEY=VALUE, like chart.kagent=./kagent"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kind/platform.toml")
    }

    #[test]
    fn single_keys_and_another_file_lie_over_the_lab_s_own() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("mirror.toml");
        fs::write(&other, "[chart]\nkagent = \"charts/kagent\"\n[mirror]\n\"quay.io\" = \"m/q\"\n")
            .unwrap();
        let keys = [("version.kagent".to_owned(), "0.10.5".to_owned())];
        let platform = Platform::read(&own(), Some(&other), &keys).unwrap();
        assert_eq!(platform.chart.kagent, Source::Here(folder.path().join("charts/kagent")));
        assert!(matches!(platform.chart.kagent_crds, Source::Address(_)));
        assert_eq!(platform.version.kagent, "0.10.5");
        assert_eq!(platform.image("quay.io/metallb/speaker:v1"), "m/q/metallb/speaker:v1");
        assert_eq!(platform.image("quay.iox/metallb"), "quay.iox/metallb");
        let keys = [
            "mirror.ghcr.io=m/g",
            "values.kagent.x.on=true",
            "values.kagent.x.n=3",
            "values.kagent.x.tag=1.2",
        ];
        let keys = keys.map(|key| key_value(key).unwrap());
        let platform = Platform::read(&own(), None, &keys).unwrap();
        assert_eq!(platform.image("ghcr.io/a:1"), "m/g/a:1");
        let values = platform.values.kagent.unwrap();
        assert_eq!(values, serde_json::json!({"x": {"on": true, "n": 3, "tag": "1.2"}}));
    }

    #[test]
    fn the_example_of_a_mirror_takes_everything_from_the_mirror() {
        let example = own().with_file_name("mirror.toml");
        let platform = Platform::read(&own(), Some(&example), &[]).unwrap();
        let mirror = "registry.example.com/";
        let charts = &platform.chart;
        for chart in
            [&charts.agentgateway_crds, &charts.agentgateway, &charts.kagent_crds, &charts.kagent]
        {
            assert!(chart.to_string().starts_with(&format!("oci://{mirror}")), "{chart}");
        }
        for manifest in [&platform.manifest.metallb, &platform.manifest.gateway_api] {
            assert!(matches!(manifest, Source::Here(_)), "{manifest}");
        }
        assert!(platform.node.image.starts_with(mirror), "{}", platform.node.image);
        // The registries of everything that the lab's own file and the charts name.
        for registry in ["cr.agentgateway.dev", "docker.io", "ghcr.io", "quay.io"] {
            let image = platform.image(&format!("{registry}/a/b:1"));
            assert_eq!(image, format!("{mirror}{registry}/a/b:1"));
        }
        // A registry that is in no chart's values would be asked past the mirror.
        let text = fs::read_to_string(own()).unwrap();
        let table: toml::Table = text.parse().unwrap();
        for section in ["chart", "image"] {
            for (_, source) in table[section].as_table().unwrap() {
                let source = source.as_str().unwrap().trim_start_matches("oci://");
                let registry = source.split('/').next().unwrap();
                assert!(platform.mirror.contains_key(registry), "{registry}");
            }
        }
    }

    #[test]
    fn a_version_that_the_lab_was_not_tested_with_is_warned_of() {
        let warnings = |keys: &[(String, String)]| {
            Platform::read(&own(), None, keys).unwrap().untested(&own()).unwrap()
        };
        assert!(warnings(&[]).is_empty());
        let newer = ("version.agentgateway".to_owned(), "1.7.0".to_owned());
        let [warning] = warnings(&[newer]).try_into().unwrap();
        assert!(warning.starts_with("agentgateway 1.7.0: not tested"), "{warning}");
        assert!(warning.contains("1.4.1") && warning.contains("doctor"), "{warning}");
    }

    #[test]
    fn a_key_that_means_nothing_is_an_error_that_names_it() {
        let keys = [("chart.kagnet".to_owned(), "./x".to_owned())];
        let error = format!("{:#}", Platform::read(&own(), None, &keys).unwrap_err());
        assert!(error.contains("kagnet") && error.contains("--set"), "{error}");
        key_value("chart.kagent").unwrap_err();
    }
}
