//! Schemas for kubeconform, out of what the API server itself says of its types, and kubeconform.
//!
//! The server has looked at the same objects already; this is what a team's own pipeline would do.

use std::{collections::BTreeSet, fs, path::PathBuf};

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::Suite;
use crate::workspace;

/// Where it comes from, where it is not there.
const KUBECONFORM: &str = "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0";

/// The program, installed with Go where it is not on the path; none where there is no Go either.
pub(super) fn kubeconform(suite: &Suite<'_>) -> anyhow::Result<Option<PathBuf>> {
    let there = suite.machine.program("kubeconform");
    if there.is_absolute() {
        return Ok(Some(there));
    }
    let go = suite.machine.program("go");
    if !go.is_absolute() {
        return Ok(None);
    }
    let folder = suite.workspace.tools().join("go");
    let program = folder.join("kubeconform");
    if !program.is_file() {
        let mut install = suite.workspace.command(go);
        workspace::run(install.args(["install", KUBECONFORM]).env("GOBIN", &folder))?;
    }
    Ok(Some(program))
}

/// Writes a schema for every type that the server knows; gives where, as kubeconform wants it said.
pub(super) fn write(suite: &Suite<'_>) -> anyhow::Result<String> {
    let text = workspace::output(&mut suite.tool("kubectl", &["get", "--raw", "/openapi/v2"]))?;
    let mut said: Value = serde_json::from_str(&text).context("/openapi/v2")?;
    let Some(Value::Object(mut definitions)) = said.get_mut("definitions").map(Value::take) else {
        anyhow::bail!("/openapi/v2 has no definitions")
    };
    definitions.values_mut().for_each(close);
    let folder = suite.folder().join("schemas");
    for (name, definition) in &definitions {
        let kinds = definition.get("x-kubernetes-group-version-kind").and_then(Value::as_array);
        // Those of several kinds are lists and options, which no manifest holds.
        let Some([kind]) = kinds.map(Vec::as_slice) else { continue };
        let text = |field| kind.get(field).and_then(Value::as_str).unwrap_or_default();
        let (group, version, kind) = (text("group"), text("version"), text("kind").to_lowercase());
        // What has no group is named by its version there.
        let own = folder.join(if group.is_empty() { version } else { group });
        fs::create_dir_all(&own)?;
        let mut needed = BTreeSet::new();
        reach(name, &definitions, &mut needed);
        let needed: Map<_, _> = needed
            .into_iter()
            .filter_map(|name| Some((name.clone(), definitions.get(&name)?.clone())))
            .collect();
        let schema = json!({"$ref": format!("#/definitions/{name}"), "definitions": needed});
        fs::write(own.join(format!("{kind}_{version}.json")), schema.to_string())?;
    }
    let group = "{{ .Group }}";
    Ok(format!(
        "{}/{group}/{{{{ .ResourceKind }}}}_{{{{ .ResourceAPIVersion }}}}.json",
        folder.display()
    ))
}

/// Makes a schema refuse fields that it does not name, and take what the server takes for a number.
fn close(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    let open = fields.contains_key("additionalProperties")
        || fields.contains_key("x-kubernetes-preserve-unknown-fields")
        || fields.contains_key("x-kubernetes-embedded-resource");
    if fields.contains_key("properties") && !open {
        fields.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    let either = fields.get("format").is_some_and(|format| format == "int-or-string");
    let quantity = fields.get("description").and_then(Value::as_str).is_some_and(|text| {
        text.starts_with("Quantity is a fixed-point representation of a number")
    });
    if either || quantity {
        fields.remove("format");
        fields.insert("type".to_owned(), json!(["string", "number"]));
    }
    for part in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(part) {
            close(inner);
        }
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(close);
    }
}

/// Everything that a definition refers to.
fn reach(name: &str, definitions: &Map<String, Value>, seen: &mut BTreeSet<String>) {
    if !seen.insert(name.to_owned()) {
        return;
    }
    let mut open: Vec<&Value> = definitions.get(name).into_iter().collect();
    while let Some(value) = open.pop() {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(to)) = fields.get("$ref") {
                    reach(to.trim_start_matches("#/definitions/"), definitions, seen);
                }
                open.extend(fields.values());
            }
            Value::Array(all) => open.extend(all),
            _ => {}
        }
    }
}
