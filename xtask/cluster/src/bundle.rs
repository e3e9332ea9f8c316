//! What is taken from elsewhere: reading a manifest.

use std::{fs, time::Duration};

use anyhow::{Context as _, bail};

use crate::platform::Source;

/// Longest that a manifest may take to come.
const PATIENCE: Duration = Duration::from_mins(1);

/// A manifest's text, from here or from elsewhere.
///
/// # Errors
/// When it cannot be had; with what to do about it.
pub(crate) async fn read(source: &Source) -> anyhow::Result<String> {
    let address = match source {
        Source::Here(path) => {
            return fs::read_to_string(path).with_context(|| path.display().to_string());
        }
        Source::Address(address) => address,
    };
    let elsewhere = || {
        format!(
            "{address} cannot be had. Behind a mirror or without a network, name a file of your own: --set manifest.NAME=PATH"
        )
    };
    let http = reqwest::Client::builder().timeout(PATIENCE).build()?;
    let response = http.get(address).send().await.with_context(elsewhere)?;
    if !response.status().is_success() {
        bail!("{} (it answers {})", elsewhere(), response.status());
    }
    response.text().await.with_context(elsewhere)
}
