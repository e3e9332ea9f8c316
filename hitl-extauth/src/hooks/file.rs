//! The webhooks as they are written: YAML.
//!
//! Owns the form. Secrets stand in files of their own. Must never show one in an error.

use std::{collections::BTreeSet, fs, path::PathBuf};

use hitl_service::given::url::SiteUrl;
use reqwest::Url;
use serde::Deserialize;

use super::{address, message::Event, sign::Secret};

/// Most webhooks.
const MOST: usize = 50;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct File {
    /// Address of the queue, where messages lead.
    queue: String,
    webhooks: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    name: String,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    url_file: Option<PathBuf>,
    #[serde(default)]
    secret_file: Option<PathBuf>,
    #[serde(default)]
    token_file: Option<PathBuf>,
    #[serde(default, rename = "as")]
    template: Template,
    #[serde(default)]
    events: Vec<Event>,
    #[serde(default)]
    private_addresses: bool,
    #[serde(default)]
    arguments: bool,
}

/// In which form a message is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Template {
    /// Standard Webhooks, signed.
    #[default]
    Standard,
    /// An incoming webhook of Slack.
    Slack,
    /// A change request of `ServiceNow`.
    ServiceNow,
    /// A notification of Backstage.
    Backstage,
}

impl Template {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Slack => "slack",
            Self::ServiceNow => "servicenow",
            Self::Backstage => "backstage",
        }
    }
}

/// A webhook.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Its name, which no other one has.
    pub name: String,
    /// Where messages go. It may be a secret.
    pub(super) url: Url,
    pub(super) secrets: Vec<Secret>,
    /// What stands behind `Authorization:`.
    pub(super) authorization: Option<String>,
    /// In which form.
    pub(super) template: Template,
    pub(super) events: Vec<Event>,
    pub(super) private: bool,
    pub(super) arguments: bool,
}

/// All of them.
#[derive(Debug)]
pub struct Hooks {
    /// Address of the queue.
    pub(super) queue: SiteUrl,
    hooks: Vec<Hook>,
}

impl Hooks {
    /// Each.
    pub fn all(&self) -> impl Iterator<Item = &Hook> {
        self.hooks.iter()
    }

    pub(super) fn named(&self, name: &str) -> Option<&Hook> {
        self.hooks.iter().find(|hook| hook.name == name)
    }
}

/// Reads a file's text, and the files it names.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<Hooks, String> {
    // Without the lines around it: an address that is a secret may stand in one of them.
    let options = serde_saphyr::options! { with_snippet: false };
    let file: File = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| without_urls(&error.to_string()))?;
    let queue = file.queue.parse().map_err(|error| format!("queue: {error}"))?;
    if file.webhooks.len() > MOST {
        return Err(format!("there are more than {MOST} webhooks"));
    }
    let mut names = BTreeSet::new();
    let mut hooks = Vec::with_capacity(file.webhooks.len());
    for written in file.webhooks {
        let name = written.name.clone();
        let hook = written.read().map_err(|what| format!("webhook {name:?}: {what}"))?;
        if !names.insert(name.clone()) {
            return Err(format!("two webhooks are called {name:?}"));
        }
        hooks.push(hook);
    }
    Ok(Hooks { queue, hooks })
}

/// What is wrong, where it repeats a value of the file, without addresses: of some receivers it is all
/// that one needs to write there.
fn without_urls(said: &str) -> String {
    let mut parts = said.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_whitespace() || c == '"' || c == '`');
        shown.push_str("://…");
        shown.push_str(part.split_at(end.unwrap_or(part.len())).1);
    }
    shown
}

fn secret(path: &PathBuf) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text.trim().to_owned())
}

impl Written {
    fn read(self) -> Result<Hook, String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > 40 || !self.name.chars().all(plain) {
            return Err("a name is 1 to 40 small letters, digits and hyphens".to_owned());
        }
        let url = match (self.url, self.url_file) {
            (Some(url), None) => url,
            (None, Some(path)) => secret(&path)?,
            _ => return Err("give one of url and urlFile".to_owned()),
        };
        let url: Url = url.parse().map_err(|error| format!("its address is no URL: {error}"))?;
        match url.scheme() {
            "https" => {}
            "http" if self.private_addresses => {}
            _ => return Err("its address must be https, or privateAddresses be true".to_owned()),
        }
        if !self.private_addresses && !address::may_be_reached(&url) {
            let text =
                "its address is not a public one; set privateAddresses for a receiver of your own";
            return Err(text.to_owned());
        }
        let secrets = match &self.secret_file {
            Some(path) => {
                let text = secret(path)?;
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                let read = lines.map(Secret::parse).collect::<Option<Vec<_>>>();
                read.filter(|secrets| !secrets.is_empty()).ok_or_else(|| {
                    format!(
                        "{}: a secret is whsec_ and 24 to 64 bytes in base64, one a line; the first that \
                         are there sign, all of them",
                        path.display()
                    )
                })?
            }
            None if self.template == Template::Standard => {
                return Err("name the file with its secret: secretFile".to_owned());
            }
            None => Vec::new(),
        };
        let authorization = self.token_file.as_ref().map(secret).transpose()?.map(|token| {
            let whole = token.starts_with("Basic ") || token.starts_with("Bearer ");
            if whole { token } else { format!("Bearer {token}") }
        });
        if authorization.as_ref().is_some_and(|text| !text.bytes().all(|b| (32..127).contains(&b)))
        {
            return Err("its token is not one line of plain characters".to_owned());
        }
        if authorization.is_none()
            && matches!(self.template, Template::ServiceNow | Template::Backstage)
        {
            return Err("name the file with its token: tokenFile".to_owned());
        }
        let events = if self.events.is_empty() { Event::ALL.to_vec() } else { self.events };
        Ok(Hook {
            name: self.name,
            url,
            secrets,
            authorization,
            template: self.template,
            events,
            private: self.private_addresses,
            arguments: self.arguments,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_meant_is_refused_and_shows_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\n").unwrap();
        let secret = format!("secretFile: {}", path.display());
        let file =
            |hook: &str| format!("queue: https://queue.example.com\nwebhooks:\n- {{{hook}}}\n");
        let good = file(&format!("name: a, url: https://example.com/x, {secret}"));
        assert_eq!(parse(&good).unwrap().all().next().unwrap().events, Event::ALL);
        for (hook, wrong) in [
            ("name: A, url: https://example.com".to_owned(), "small letters"),
            ("name: a".into(), "one of url"),
            (format!("name: a, url: http://example.com, {secret}"), "must be https"),
            (format!("name: a, url: https://10.0.0.1, {secret}"), "not a public one"),
            ("name: a, url: https://example.com".into(), "secretFile"),
            ("name: a, url: https://example.com, as: backstage".into(), "tokenFile"),
            (format!("name: a, url: https://example.com, {secret}, events: [told]"), "told"),
            (format!("name: a, url: https://example.com, {secret}, event: [decided]"), "event"),
        ] {
            let error = parse(&file(&hook)).err().unwrap_or_else(|| panic!("{hook}"));
            assert!(error.contains(wrong) && !error.contains("whsec_C2"), "{hook}: {error}");
        }
        for (queue, wrong) in [("ftp://queue", "neither http"), ("https://h/queue", "has a path")] {
            let error = parse(&good.replace("https://queue.example.com", queue)).err().unwrap();
            assert!(error.contains("queue: ") && error.contains(wrong), "{error}");
        }
        for hook in [
            format!("name: a, url: https://example.com/s3cret, {secret}, event: [decided]"),
            "name: a, as: https://example.com/s3cret".into(),
            "name: a, privateAddresses: https://example.com/s3cret".into(),
            "name: a, url: [https://example.com/s3cret".into(),
            "name: a, url: https://me:s3cret@exa mple.com/s3cret".into(),
        ] {
            let error = parse(&file(&hook)).err().unwrap_or_else(|| panic!("{hook}"));
            assert!(!error.contains("s3cret"), "{hook}: {error}");
        }
        fs::write(&path, "s3cret-that-is-none").unwrap();
        let error = parse(&good).err().unwrap();
        assert!(error.contains("24 to 64 bytes") && !error.contains("s3cret"), "{error}");
    }
}
