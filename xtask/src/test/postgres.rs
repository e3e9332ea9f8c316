//! The gate's replicas over a real PostgreSQL, behind a real Envoy.

use super::{Outcome, cargo, install};
use crate::workspace::Workspace;

pub(crate) fn run(workspace: &Workspace) -> Outcome {
    let installed = install::postgres(workspace)
        .and_then(|programs| Ok((programs, install::envoy(workspace)?)));
    let (programs, envoy) = match installed {
        Ok(installed) => installed,
        Err(error) => {
            return Outcome::Skipped(format!("PostgreSQL or Envoy cannot be installed: {error:#}"));
        }
    };
    cargo::with_postgres(workspace, &programs, &envoy)
        .map(|passed| format!("{passed} tests, of the store and of three replicas behind Envoy"))
        .into()
}
