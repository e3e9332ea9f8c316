//! Who may see and decide, as it is set.

// The documentation of the fields is the text of `--help`, where backticks are noise.
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;

use clap::Args;
use hitl_service::given::{
    self, Name,
    url::{EndpointUrl, Issuer},
};

use crate::people::{
    People,
    list::{List, ListError},
    oidc::{Provider, ProviderError, ProviderSettings},
};

/// Longest that clocks may differ, in seconds.
const MOST_LEEWAY: i64 = 300;

/// Who may see and decide.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = None)]
pub struct PeopleArgs {
    /// Reviewers and the digests of their tokens (YAML); read again when it changes
    ///
    /// `reviewers:` and a list of name, groups, also and token_sha256 (hex; `printf %s TOKEN | sha256sum`).
    /// Beside an identity provider these are for emergencies, and the audit says who came by one.
    #[arg(long, env = "HITL_REVIEWERS", value_name = "FILE")]
    pub reviewers: Option<PathBuf>,

    /// Let anybody decide who reaches the admin port. For a lab on one machine
    #[arg(long, env = "HITL_INSECURE_NO_REVIEWER_AUTH", conflicts_with_all = ["reviewers", "oidc_issuer"])]
    pub insecure_no_reviewer_auth: bool,

    /// Identity provider whose tokens say who somebody is (OpenID Connect), exactly as they name it
    #[arg(long, env = "HITL_OIDC_ISSUER", hide_env_values = true, value_name = "URL", requires_all = ["oidc_audience", "oidc_reviewer_groups"])]
    pub oidc_issuer: Option<Issuer>,

    /// Whom tokens must be for (`aud`): the queue's client id, or a name of the gate's own
    #[arg(long, env = "HITL_OIDC_AUDIENCE", value_name = "NAME", requires = "oidc_issuer")]
    oidc_audience: Option<Name>,

    /// Groups whose members may decide; * is everybody whom the provider signs in
    #[arg(
        long,
        env = "HITL_OIDC_REVIEWER_GROUPS",
        value_delimiter = ',',
        value_name = "GROUP",
        requires = "oidc_issuer"
    )]
    oidc_reviewer_groups: Vec<Name>,

    /// Groups whose members may read, and decide nothing
    #[arg(long, env = "HITL_OIDC_VIEWER_GROUPS", value_name = "GROUP", requires = "oidc_issuer")]
    oidc_viewer_groups: Vec<given::List<Name>>,

    /// Claim with the name that stands in the audit. An e-mail address must be verified
    #[arg(long, env = "HITL_OIDC_NAME_CLAIM", default_value = "email", value_name = "CLAIM")]
    oidc_name_claim: Name,

    /// Claim with the groups; dots lead into members
    #[arg(long, env = "HITL_OIDC_GROUPS_CLAIM", default_value = "groups", value_name = "CLAIM")]
    oidc_groups_claim: Name,

    /// Claims with other names of the same person: nobody decides twice, or about their own requests, by
    /// another one
    #[arg(
        long,
        env = "HITL_OIDC_PERSON_CLAIMS",
        value_delimiter = ',',
        default_value = "sub,email,preferred_username",
        value_name = "CLAIM"
    )]
    oidc_person_claims: Vec<String>,

    /// Where the provider's keys are (a JWK set); the provider is asked unless it is given
    #[arg(
        long,
        env = "HITL_OIDC_JWKS",
        hide_env_values = true,
        value_name = "URL",
        requires = "oidc_issuer"
    )]
    oidc_jwks: Option<EndpointUrl>,

    /// Certificates (PEM) of those who vouch for the provider, in place of the system's
    #[arg(long, env = "HITL_OIDC_CA", value_name = "FILE", requires = "oidc_issuer")]
    oidc_ca: Option<PathBuf>,

    /// How much the provider's clock may differ, in seconds
    #[arg(long, env = "HITL_OIDC_LEEWAY", default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=MOST_LEEWAY))]
    oidc_leeway: u32,

    /// Who signs the tokens of programs that may read and nothing else: of ServiceAccounts of Kubernetes
    #[arg(
        long,
        env = "HITL_MACHINES_ISSUER",
        hide_env_values = true,
        value_name = "URL",
        requires = "machines_audience"
    )]
    machines_issuer: Option<Issuer>,

    /// Whom those tokens must be for (`aud`)
    #[arg(long, env = "HITL_MACHINES_AUDIENCE", value_name = "NAME", requires = "machines_issuer")]
    machines_audience: Option<Name>,

    /// Where the keys of those tokens are (a JWK set); their issuer is asked unless it is given
    #[arg(
        long,
        env = "HITL_MACHINES_JWKS",
        hide_env_values = true,
        value_name = "URL",
        requires = "machines_issuer"
    )]
    machines_jwks: Option<EndpointUrl>,

    /// Certificates (PEM) of those who vouch for that issuer, in place of the system's
    #[arg(long, env = "HITL_MACHINES_CA", value_name = "FILE", requires = "machines_issuer")]
    machines_ca: Option<PathBuf>,
}

/// Why nobody could be let in.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// Nobody is named.
    #[error(
        "nobody could decide: name the reviewers with --reviewers FILE or an identity provider with \
         --oidc-issuer URL, or let anybody decide on a machine of your own with \
         --insecure-no-reviewer-auth"
    )]
    Nobody,
    /// People and programs cannot be told apart.
    #[error(
        "--machines-issuer is --oidc-issuer: what it signs for programs could not be told from what it signs \
         for people"
    )]
    OneIssuer,
    /// The list cannot be used.
    #[error(transparent)]
    List(#[from] ListError),
    /// A provider cannot be used.
    #[error(transparent)]
    Provider(#[from] ProviderError),
}

impl PeopleArgs {
    /// Whoever may see and decide.
    ///
    /// # Errors
    /// See [`PeopleError`].
    pub fn people(&self) -> Result<People, PeopleError> {
        let list = self.reviewers.as_deref().map(List::open).transpose()?;
        let provider = self.provider().map(Provider::new).transpose()?;
        let machines = self.machines().map(Provider::new).transpose()?;
        if self.machines_issuer.is_some() && self.machines_issuer == self.oidc_issuer {
            return Err(PeopleError::OneIssuer);
        }
        if list.is_none() && provider.is_none() && !self.insecure_no_reviewer_auth {
            return Err(PeopleError::Nobody);
        }
        Ok(People { list, provider, machines, anybody: self.insecure_no_reviewer_auth })
    }

    fn provider(&self) -> Option<ProviderSettings> {
        Some(ProviderSettings {
            issuer: self.oidc_issuer.clone()?,
            jwks: self.oidc_jwks.clone().map(Into::into),
            audience: self.oidc_audience.clone()?.into(),
            name_claim: self.oidc_name_claim.clone().into(),
            groups_claim: self.oidc_groups_claim.clone().into(),
            person_claims: self.oidc_person_claims.clone(),
            reviewer_groups: texts(&self.oidc_reviewer_groups),
            viewer_groups: self.oidc_viewer_groups.iter().flat_map(|list| texts(&list.0)).collect(),
            leeway: self.oidc_leeway,
            ca: self.oidc_ca.clone(),
        })
    }

    fn machines(&self) -> Option<ProviderSettings> {
        Some(ProviderSettings {
            issuer: self.machines_issuer.clone()?,
            jwks: self.machines_jwks.clone().map(Into::into),
            audience: self.machines_audience.clone()?.into(),
            name_claim: "sub".to_owned(),
            groups_claim: "groups".to_owned(),
            person_claims: Vec::new(),
            // They may read, whoever they are; the audience is what lets them in.
            reviewer_groups: Vec::new(),
            viewer_groups: vec!["*".to_owned()],
            leeway: self.oidc_leeway,
            ca: self.machines_ca.clone(),
        })
    }
}

fn texts(names: &[Name]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}
