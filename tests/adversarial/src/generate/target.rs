//! Request targets: methods other than POST, and paths that two programs take for different routes.
//!
//! Invariant: a target has no space and no control character, so that it is one target on the wire.

use super::Generator;

/// Paths that some server takes for `/privileged/mcp`, or that a gateway may take for `/public`.
const PATHS: [&str; 34] = [
    "/public/../privileged/mcp",
    "/public/%2e%2e/privileged/mcp",
    "/public/.%2E/privileged/mcp",
    "/public/..%2fprivileged/mcp",
    "/public/..%2Fprivileged/mcp",
    "/public%2f..%2fprivileged/mcp",
    "/public/..%5cprivileged/mcp",
    "/public/..\\privileged/mcp",
    "/public\\..\\privileged\\mcp",
    "/public/%252e%252e/privileged/mcp",
    "/public/%252e%252e%252fprivileged/mcp",
    "/public/..;/privileged/mcp",
    "/public/..;x=y/privileged/mcp",
    "/public;/../privileged/mcp",
    "/public/mcp;/../../privileged/mcp",
    "/public/.;/../privileged/mcp",
    "/public//../privileged/mcp",
    "/public/./../privileged/mcp",
    "/public/x/../../privileged/mcp",
    "/public/..//privileged/mcp",
    "//privileged/mcp",
    "/./privileged/mcp",
    "/privileged;x/mcp",
    "/privileged%2fmcp",
    "/%70rivileged/mcp",
    "/PRIVILEGED/mcp",
    "/privileged/mcp/",
    "/privileged//mcp",
    "/privileged/mcp?x=/public/mcp",
    "/privileged/mcp;/../../public/mcp",
    "/public/%c0%ae%c0%ae/privileged/mcp",
    "/public/%00/../privileged/mcp",
    "http://gateway.example/public/../privileged/mcp",
    "/public/..%c0%afprivileged/mcp",
];

impl Generator {
    /// Mostly a POST to the server's own path, which is `None`.
    pub(super) fn target(&mut self) -> (Option<String>, Option<String>) {
        let path = self.one_in(20).then(|| self.any(&PATHS).to_owned());
        let method = self.one_in(100).then(|| {
            self.any(&["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "post", "CONNECT", "TRACE"])
                .to_owned()
        });
        (method, path)
    }
}
