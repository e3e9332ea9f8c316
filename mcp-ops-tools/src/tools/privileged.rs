//! `/privileged/mcp`: what a platform reviewer approves.
//!
//! Owns `run_migration`. With receipts required, must never run it for a call that no unused
//! receipt covers, whoever the caller is and however the call got here.

use std::sync::Arc;

use rmcp::model::{Tool, ToolAnnotations};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Call, Description, ToolError, Toolset, structured};
use crate::{
    database::{Database, Migrated, UnknownVersion, Version},
    metrics::ToolLabel,
    receipt::Receipts,
};

const MIGRATE: &str = "run_migration";

/// Arguments of `run_migration`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MigrateArguments {
    /// The schema version to go to, up or down.
    #[schemars(extend("enum" = Version::all().collect::<Vec<_>>()))]
    version: String,
}

/// The tools of `/privileged/mcp`.
pub struct Privileged {
    database: Database,
    /// Required when there.
    receipts: Option<Arc<Receipts>>,
    tools: Vec<Tool>,
}

impl Privileged {
    /// The tools over `database`; with `receipts`, only for calls that one covers.
    pub fn new(database: Database, receipts: Option<Arc<Receipts>>) -> Self {
        let tools = vec![
            Description {
                name: MIGRATE,
                title: "Migrate the schema",
                text: "Take the schema of the orders database to a version from v1 to v4, up or \
                       down; all of it happens or nothing. Going down loses the columns that the \
                       higher version added. A platform reviewer has to approve each call, so the \
                       answer may take minutes: wait for it and do not repeat the call. A refusal \
                       says why; tell it to the user word for word.",
                annotations: ToolAnnotations::new()
                    .read_only(false)
                    .destructive(true)
                    .idempotent(true),
            }
            .tool::<MigrateArguments, Migrated>(),
        ];
        Self { database, receipts, tools }
    }
}

impl Toolset for Privileged {
    const NAME: &'static str = "ops-tools-privileged";
    const INSTRUCTIONS: &'static str = "Schema changes of the lab's orders database. Every call \
        waits until a platform reviewer has decided about it.";

    fn tools(&self) -> &[Tool] {
        &self.tools
    }

    fn label(tool: &str) -> ToolLabel {
        if tool == MIGRATE { ToolLabel::run_migration } else { ToolLabel::unknown }
    }

    async fn call(&self, mut call: Call<'_>) -> Result<Value, ToolError> {
        if call.tool != MIGRATE {
            return Err(ToolError::UnknownTool(call.tool.to_owned()));
        }
        let mut caller = call.caller();
        if let Some(receipts) = &self.receipts {
            let receipt =
                receipts.check(&call.parts.headers, MIGRATE, call.arguments.as_ref()).await?;
            caller.receipt = Some(receipt);
        }
        let MigrateArguments { version } = call.parse(MIGRATE)?;
        let version: Version = version.parse().map_err(|unknown: UnknownVersion| {
            ToolError::Arguments { tool: MIGRATE, reason: unknown.to_string() }
        })?;
        structured(&self.database.migrate(version, caller).await?)
    }
}
