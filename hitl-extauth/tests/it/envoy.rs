//! Envoy in front of several gates; killed when dropped.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::PATIENCE;

/// A running Envoy. What passes the gates is answered by Envoy itself, with the approval it passed
/// with.
pub(crate) struct Envoy {
    process: Child,
    address: String,
    http: reqwest::Client,
    _folder: TempDir,
}

/// What a caller sees.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    /// The call has passed, with this approval.
    Passed(String),
    /// The gate says no, and why.
    Denied(Value),
    /// No gate could be asked.
    Away(u16),
}

impl Envoy {
    /// In front of the gates at these ports.
    pub(crate) async fn start(gates: &[u16]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let path = folder.path().join("envoy.yaml");
        // JSON is YAML.
        std::fs::write(&path, configuration(port, gates).to_string()).unwrap();
        let program = std::env::var_os("HITL_TEST_ENVOY").expect("HITL_TEST_ENVOY: an Envoy");
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new(program)
            .args(["--log-level", "warn", "--concurrency", "1", "--use-dynamic-base-id", "-c"])
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let address = format!("http://127.0.0.1:{port}");
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let envoy = Self { process, address, http, _folder: folder };
        let ready = async {
            while !matches!(envoy.list().await, Some(Answer::Passed(_))) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.expect("Envoy to start");
        envoy
    }

    /// A call of `run_migration`; `None` when the connection broke.
    pub(crate) async fn call(&self, user: &str, version: &str, id: u32) -> Option<Answer> {
        let body = json!({
            "jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": {"name": "run_migration", "arguments": {"version": version}},
        });
        self.post(user, &body).await
    }

    /// Something that needs no approval.
    pub(crate) async fn list(&self) -> Option<Answer> {
        self.post("alice", &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})).await
    }

    async fn post(&self, user: &str, body: &Value) -> Option<Answer> {
        let request = self.http.post(format!("{}/privileged/mcp", self.address));
        let request = request.header("content-type", "application/json").header("x-user-id", user);
        let response = request.body(body.to_string()).send().await.ok()?;
        let status = response.status().as_u16();
        let passed = response.headers().get("x-passed-with").cloned();
        let text = response.text().await.ok()?;
        Some(match (status, passed) {
            (200, Some(approval)) => {
                let approval = approval.to_str().unwrap();
                Answer::Passed(approval.trim_start_matches("with ").to_owned())
            }
            (200, None) => Answer::Denied(serde_json::from_str(&text).unwrap()),
            (status, _) => Answer::Away(status),
        })
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configuration(port: u16, gates: &[u16]) -> Value {
    let address =
        |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let endpoints: Vec<_> =
        gates.iter().map(|port| json!({"endpoint": {"address": address(*port)}})).collect();
    let v3 = |name: &str| format!("type.googleapis.com/envoy.{name}");
    json!({"static_resources": {
        "listeners": [{
            "name": "mcp",
            "address": address(port),
            "filter_chains": [{"filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": v3("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
                    "stat_prefix": "mcp",
                    "use_remote_address": true,
                    "route_config": {"virtual_hosts": [{
                        "name": "mcp",
                        "domains": ["*"],
                        "routes": [{
                            "match": {"prefix": "/"},
                            "direct_response": {"status": 200},
                            "response_headers_to_add": [{
                                "header": {"key": "x-passed-with", "value": "with %REQ(x-hitl-approval-id)%"},
                            }],
                        }],
                    }]},
                    "http_filters": [
                        {"name": "envoy.filters.http.ext_authz", "typed_config": {
                            "@type": v3("extensions.filters.http.ext_authz.v3.ExtAuthz"),
                            "transport_api_version": "V3",
                            "failure_mode_allow": false,
                            "status_on_error": {"code": "ServiceUnavailable"},
                            "grpc_service": {"envoy_grpc": {"cluster_name": "gate"}, "timeout": "0s"},
                            "with_request_body": {
                                "max_request_bytes": 65536,
                                "allow_partial_message": false,
                                "pack_as_bytes": true,
                            },
                        }},
                        {"name": "envoy.filters.http.router", "typed_config": {
                            "@type": v3("extensions.filters.http.router.v3.Router"),
                        }},
                    ],
                },
            }]}],
        }],
        "clusters": [{
            "name": "gate",
            "type": "STATIC",
            "connect_timeout": "1s",
            "health_checks": [{
                "timeout": "1s", "interval": "0.2s", "no_traffic_interval": "0.2s",
                "unhealthy_threshold": 1, "healthy_threshold": 1, "grpc_health_check": {
                    "service_name": "envoy.service.auth.v3.Authorization",
                },
            }],
            // By default a change of health within a second of another one is kept back until that
            // second is over.
            "common_lb_config": {
                "healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s",
            },
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": v3("extensions.upstreams.http.v3.HttpProtocolOptions"),
                    "explicit_http_config": {"http2_protocol_options": {"max_concurrent_streams": 100}},
                },
            },
            "load_assignment": {
                "cluster_name": "gate",
                "endpoints": [{"lb_endpoints": endpoints}],
            },
        }],
    }})
}
