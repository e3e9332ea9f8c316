//! `/public/mcp`: reading, and the one change that the asking user approves in the chat.
//!
//! Owns `cluster_db_query` and `truncate_table`. Nothing here is gated at the gateway.

use rmcp::model::{Tool, ToolAnnotations};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Call, Description, ToolError, Toolset, structured};
use crate::{
    database::{Database, QueryAnswer, Table, Truncated, UnknownTable},
    metrics::ToolLabel,
};

const QUERY: &str = "cluster_db_query";
const TRUNCATE: &str = "truncate_table";

/// Arguments of `cluster_db_query`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct QueryArguments {
    /// One SELECT (or WITH … SELECT) in SQLite's dialect, for example `SELECT * FROM orders`.
    sql: String,
}

/// Arguments of `truncate_table`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TruncateArguments {
    /// The table to empty.
    #[schemars(extend("enum" = Table::ALL))]
    table: String,
}

/// The tools of `/public/mcp`.
pub struct Public {
    database: Database,
    tools: Vec<Tool>,
}

impl Public {
    /// The tools over `database`.
    pub fn new(database: Database) -> Self {
        let tools = vec![
            Description {
                name: QUERY,
                title: "Query the orders database",
                text: "Read the orders database with one SQL SELECT (SQLite's dialect, WITH and \
                       recursive queries included). It cannot change anything. The tables are \
                       orders (id, customer, total, status) and customers (id, tier) at schema v2; \
                       a migration changes the columns, and `SELECT * FROM \
                       pragma_table_info('orders')` shows them. Answers at most 500 rows or 1 MiB \
                       (`truncated` says so) and runs for at most 2 seconds.",
                annotations: ToolAnnotations::new()
                    .read_only(true)
                    .destructive(false)
                    .idempotent(true),
            }
            .tool::<QueryArguments, QueryAnswer>(),
            Description {
                name: TRUNCATE,
                title: "Empty a table",
                text: "Delete every row of one table, orders or customers. This cannot be undone, \
                       so the user who asked should have said yes to exactly this table. Answers \
                       how many rows were deleted.",
                annotations: ToolAnnotations::new()
                    .read_only(false)
                    .destructive(true)
                    .idempotent(true),
            }
            .tool::<TruncateArguments, Truncated>(),
        ];
        Self { database, tools }
    }
}

impl Toolset for Public {
    const NAME: &'static str = "ops-tools-public";
    const INSTRUCTIONS: &'static str = "The lab's orders database. Read with cluster_db_query; \
        truncate_table deletes rows for good. Schema changes are at the privileged endpoint.";

    fn tools(&self) -> &[Tool] {
        &self.tools
    }

    fn label(tool: &str) -> ToolLabel {
        match tool {
            QUERY => ToolLabel::cluster_db_query,
            TRUNCATE => ToolLabel::truncate_table,
            _ => ToolLabel::unknown,
        }
    }

    async fn call(&self, mut call: Call<'_>) -> Result<Value, ToolError> {
        match call.tool {
            QUERY => {
                let QueryArguments { sql } = call.parse(QUERY)?;
                Ok(self.database.query(sql).await?.into())
            }
            TRUNCATE => {
                let TruncateArguments { table } = call.parse(TRUNCATE)?;
                let table: Table = table.parse().map_err(|unknown: UnknownTable| {
                    ToolError::Arguments { tool: TRUNCATE, reason: unknown.to_string() }
                })?;
                structured(&self.database.truncate(table, call.caller()).await?)
            }
            other => Err(ToolError::UnknownTool(other.to_owned())),
        }
    }
}
