//! rmcp's own client, in both lifecycles, lists and calls every tool.

use rmcp::{
    ClientLifecycleMode, ClientServiceExt as _, RoleClient,
    model::{CallToolRequestParams, CallToolResult, ClientConfig, ProtocolVersion},
    service::RunningService,
    transport::StreamableHttpClientTransport,
};
use serde_json::{Value, json};

use crate::support::Server;

type Client = RunningService<RoleClient, ClientConfig>;

fn lifecycles() -> [ClientLifecycleMode; 2] {
    [
        ClientLifecycleMode::Initialize,
        ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] },
    ]
}

async fn connect(server: &Server, path: &str, lifecycle: ClientLifecycleMode) -> Client {
    let transport = StreamableHttpClientTransport::from_uri(server.url(path));
    ClientConfig::default().serve_with_lifecycle(transport, lifecycle).await.unwrap()
}

async fn call(client: &Client, tool: &'static str, arguments: Value) -> CallToolResult {
    let arguments = arguments.as_object().unwrap().clone();
    client.call_tool(CallToolRequestParams::new(tool).with_arguments(arguments)).await.unwrap()
}

#[tokio::test]
async fn both_lifecycles_list_and_call_all_three_tools() {
    for lifecycle in lifecycles() {
        let server = Server::start(&[]).await;
        let public = connect(&server, "/public/mcp", lifecycle.clone()).await;
        let privileged = connect(&server, "/privileged/mcp", lifecycle.clone()).await;

        let names = |tools: Vec<rmcp::model::Tool>| {
            tools.into_iter().map(|tool| tool.name.to_string()).collect::<Vec<_>>()
        };
        let tools = names(public.list_all_tools().await.unwrap());
        assert_eq!(tools, ["cluster_db_query", "truncate_table"], "{lifecycle:?}");
        let tools = names(privileged.list_all_tools().await.unwrap());
        assert_eq!(tools, ["run_migration"], "{lifecycle:?}");

        let migrated = call(&privileged, "run_migration", json!({"version": "v3"})).await;
        let expected = json!({"migrated": true, "from": "v2", "to": "v3"});
        assert_eq!(migrated.structured_content, Some(expected));
        let orders =
            call(&public, "cluster_db_query", json!({"sql": "SELECT * FROM orders"})).await;
        let orders = orders.structured_content.unwrap();
        assert_eq!(orders["schema_version"], "v3");
        assert_eq!(orders["rows"][0]["currency"], "USD");
        let truncated = call(&public, "truncate_table", json!({"table": "orders"})).await;
        let expected = json!({"truncated": "orders", "rows_deleted": 3});
        assert_eq!(truncated.structured_content, Some(expected));

        public.cancel().await.unwrap();
        privileged.cancel().await.unwrap();
    }
}

#[tokio::test]
async fn what_the_tools_say_about_themselves() {
    let server = Server::start(&[]).await;
    for (path, name) in [("/public/mcp", "public"), ("/privileged/mcp", "privileged")] {
        let client = connect(&server, path, ClientLifecycleMode::Initialize).await;
        insta::assert_json_snapshot!(name, client.list_all_tools().await.unwrap());
        client.cancel().await.unwrap();
    }
}
