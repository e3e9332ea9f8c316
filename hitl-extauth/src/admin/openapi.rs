//! The API as an OpenAPI document, made from the code that serves it.

use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use super::{events, health, history, insights, preapprovals, queue, rules, webhooks};

/// The gate's admin API
///
/// Reviewers read the queue, decide, and audit. Every request is made in the name of whoever the
/// bearer token belongs to.
#[derive(OpenApi)]
#[openapi(
    paths(
        queue::me,
        queue::pending,
        queue::decide,
        queue::withdraw,
        preapprovals::list,
        preapprovals::make,
        preapprovals::end,
        history::list,
        history::one,
        insights::insights,
        rules::rules,
        webhooks::dead,
        webhooks::redeliver,
        events::stream,
        events::audit,
        events::head,
        super::jwks,
        health::healthz,
        health::readyz,
        health::metrics,
    ),
    components(schemas(hitl_api::Event)),
    modifiers(&Bearer),
    security(("reviewer" = [])),
    tags(
        (name = "queue", description = "What waits for a decision"),
        (name = "history", description = "What became of every request"),
        (name = "webhooks", description = "Messages that did not arrive"),
        (name = "proof", description = "The audit, and the keys of receipts"),
        (name = "health", description = "For probes and scrapers"),
    )
)]
struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A reviewer's token"))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("reviewer", SecurityScheme::Http(scheme));
    }
}

/// The document.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}
