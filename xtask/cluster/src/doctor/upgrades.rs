//! Requests that a gateway lets become a tunnel: WebSocket, h2c, CONNECT. Nothing in a tunnel is reviewed.
//!
//! Pure. Invariant: what no object shows is not reported as absent; `trying.rs` tries it.

use serde_json::Value;

use super::Finding;
use crate::json::{name, text};

/// A request to upgrade, as a browser writes it.
pub(super) const REQUEST: &str = "GET /privileged/mcp HTTP/1.1\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                                  sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Which upgrades a route of Envoy lets through, if any: those of its connection manager and its own.
pub(super) fn allowed(manager: &Value, route: &Value) -> Option<String> {
    let mut kinds = Vec::new();
    for configs in [manager.get("upgrade_configs"), route.pointer("/route/upgrade_configs")] {
        for config in configs.and_then(Value::as_array).into_iter().flatten() {
            let kind = text(config, "/upgrade_type").to_ascii_lowercase();
            // A route may take one of the listener's back.
            kinds.retain(|known| *known != kind);
            if config.get("enabled") != Some(&Value::Bool(false)) {
                kinds.push(kind);
            }
        }
    }
    (!kinds.is_empty()).then(|| kinds.join(", "))
}

/// Whether a Service tells gateways that its port is for WebSockets.
pub(super) fn service(service: &Value) -> Option<Finding> {
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    let mut protocols = ports.into_iter().flatten().map(|port| text(port, "/appProtocol"));
    let web_socket =
        protocols.find(|protocol| matches!(*protocol, "kubernetes.io/ws" | "kubernetes.io/wss"))?;
    Some(Finding::weak(
        format!("Service {}/{}", text(service, "/metadata/namespace"), name(service)),
        format!(
            "appProtocol {web_socket} has gateways pass WebSockets on, in which nothing is reviewed; use http"
        ),
    ))
}

/// What it means that this was answered to [`REQUEST`].
pub(super) fn answered(answer: &str) -> Option<Finding> {
    let status = answer.split(' ').nth(1).unwrap_or_default();
    // The gate's own words, or a gateway that upgrades nothing.
    let refused = answer.contains("another protocol") || matches!(status, "403" | "426");
    (!refused).then(|| {
        let said = if status.is_empty() { "nothing".to_owned() } else { format!("status {status}") };
        Finding::wrong(
            "the gateway at /privileged/mcp",
            format!("a request to upgrade to a WebSocket was not refused (the answer: {said}): the gate is not asked about GET, or is older"),
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_route_may_take_back_what_its_listener_allows_and_allow_more() {
        let manager = json!({"upgrade_configs": [{"upgrade_type": "WebSocket"}]});
        let route = |configs| json!({"route": {"upgrade_configs": configs}});
        assert_eq!(allowed(&manager, &json!({})).as_deref(), Some("websocket"));
        let off = route(json!([{"upgrade_type": "websocket", "enabled": false}]));
        assert_eq!(allowed(&manager, &off), None);
        let more = route(json!([{"upgrade_type": "CONNECT", "connect_config": {}}]));
        assert_eq!(allowed(&manager, &more).as_deref(), Some("websocket, connect"));
        assert_eq!(allowed(&json!({}), &json!({})), None);
    }

    #[test]
    fn an_upgrade_that_is_not_refused_is_a_finding() {
        for refused in [
            "HTTP/1.1 400 Bad Request\r\n\r\n{\"error\":\"the header upgrade asks for another protocol\"}",
            "HTTP/1.1 403 Forbidden\r\n\r\n",
            "HTTP/1.1 426 Upgrade Required\r\n\r\n",
        ] {
            assert_eq!(answered(refused), None, "{refused}");
        }
        for passed in ["HTTP/1.1 101 Switching Protocols\r\n\r\n", "HTTP/1.1 405 X\r\n\r\n", ""] {
            assert!(answered(passed).is_some(), "{passed}");
        }
    }

    #[test]
    fn a_port_for_websockets_is_found() {
        let of = |protocol| {
            let ports = json!([{"port": 8080, "appProtocol": protocol}]);
            service(&json!({"metadata": {"name": "x"}, "spec": {"ports": ports}})).is_some()
        };
        assert!(of("kubernetes.io/ws") && of("kubernetes.io/wss"));
        assert!(!of("http") && !of("kubernetes.io/h2c"));
    }
}
