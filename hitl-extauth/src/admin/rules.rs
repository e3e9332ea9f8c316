//! Which rules are in force.

use axum::extract::State as Ctx;
use hitl_api::{RulesFile, RulesInForce};
use hitl_service::Json;

use super::Admin;
use crate::{people::Reviewer, rules::book::Standing};

/// Which rules are in force, and which are tried beside them.
///
/// A file that has become unusable is told here: the rules stay as they were.
#[utoipa::path(
    get,
    path = "/rules",
    tag = "queue",
    responses((status = OK, body = RulesInForce), (status = UNAUTHORIZED, body = hitl_api::Problem))
)]
pub(super) async fn rules(Ctx(admin): Ctx<Admin>, _reviewer: Reviewer) -> Json<RulesInForce> {
    let rules = admin.gate.rules();
    Json(RulesInForce {
        enforced: rules.standing().map(told),
        tried: rules.shadow_standing().map(told),
    })
}

fn told(standing: Standing) -> RulesFile {
    let Standing { digest, rules, broken } = standing;
    RulesFile { digest, rules: u32::try_from(rules).unwrap_or(u32::MAX), broken }
}
