//! What an agent could do that is made over kagent's API, in the namespace that kagent's controller may write to:
//! open the node's files, or run under the controller's account.
//!
//! Invariant: every request is a dry run.

use kube::{
    Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{Finding, kagent::Kagent};

/// The label by which a namespace says what its pods may do.
const POD_SECURITY: &str = "pod-security.kubernetes.io/enforce";

/// What the API server says to a dry run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DryRun {
    Accepted,
    Refused,
}

/// What an agent could do that is made in kagent's namespace, and what it could do under the controller's account.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DryRuns {
    /// A pod opens the node's files.
    files: DryRun,
    /// The account takes off what keeps pods from them.
    label: DryRun,
    /// A workload that the controller makes runs under its own account.
    account: DryRun,
}

impl DryRuns {
    /// Tries all of it at one kagent.
    ///
    /// # Errors
    /// When the API server gives neither consent nor refusal.
    pub(super) async fn at(client: &Client, kagent: &Kagent) -> anyhow::Result<Self> {
        let namespace = &kagent.account.namespace;
        let user = kagent.account.user();
        let pods = format!("/api/v1/namespaces/{namespace}/pods");
        let deployments = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
        Ok(Self {
            files: node_files(client, &pods).await?,
            label: relabel(client, namespace, &user).await?,
            account: create(client, &deployments, Some(&user), &under(&kagent.account.name))
                .await?,
        })
    }

    /// What it means.
    pub(super) fn finding(&self, kagent: &Kagent) -> Option<Finding> {
        use DryRun::{Accepted, Refused};
        let namespace = &kagent.account.namespace;
        let policy = "a ValidatingAdmissionPolicy as in charts/dba-assistant (kagent-admission.yaml) refuses it";
        let about = format!("namespace {namespace}");
        match (self.files, self.label, self.account) {
            (Accepted, ..) => Some(Finding::wrong(
                about,
                format!(
                    "pods there may open the node's files, and kagent's API makes pods: an agent that is made there reads the Secrets of \
                         every pod of its node, the gate's among them. Label the namespace {POD_SECURITY}=baseline"
                ),
            )),
            (Refused, Accepted, Accepted) => Some(Finding::wrong(
                about,
                format!(
                    "an agent that is made there may run under the account of kagent's controller, and that account may take {POD_SECURITY} \
                         off the namespace: then pods open the node's files, and with them the gate's Secrets; {policy}"
                ),
            )),
            (Refused, Refused, Accepted) => Some(Finding::weak(
                about,
                format!(
                    "an agent that is made there may run under the account of kagent's controller; {policy}"
                ),
            )),
            (Refused, Accepted, Refused) => Some(Finding::weak(
                about,
                format!(
                    "the account of kagent's controller may take {POD_SECURITY} off the namespace; {policy}"
                ),
            )),
            (Refused, Refused, Refused) => None,
        }
    }
}

/// Whether a pod gets to the node's files: as a volume, or with every privilege. Kubernetes' own controllers,
/// which make the pods of Deployments, may do what the operator may who asks here.
async fn node_files(client: &Client, pods: &str) -> anyhow::Result<DryRun> {
    let volume = json!({"containers": [{"name": "none", "image": "none"}],
        "volumes": [{"name": "node", "hostPath": {"path": "/"}}]});
    let privileged = json!({"containers": [{"name": "none", "image": "none", "securityContext": {"privileged": true}}]});
    for spec in [volume, privileged] {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hitl-doctor-dry-run"}, "spec": spec});
        if create(client, pods, None, &pod).await? == DryRun::Accepted {
            return Ok(DryRun::Accepted);
        }
    }
    Ok(DryRun::Refused)
}

/// A Deployment as kagent's controller makes one for an agent, under an account.
fn under(account: &str) -> Value {
    let labels = json!({"app": "kagent", "kagent": "hitl-doctor-dry-run"});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "hitl-doctor-dry-run"},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"serviceAccountName": account, "containers": [{"name": "none", "image": "none"}]}}}})
}

async fn create(
    client: &Client,
    path: &str,
    user: Option<&str>,
    object: &Value,
) -> anyhow::Result<DryRun> {
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let mut request =
        kube::core::Request::new(path).create(&params, object.to_string().into_bytes())?;
    if let Some(user) = user {
        request.headers_mut().insert("impersonate-user", user.parse()?);
    }
    judged(client.request::<Value>(request).await)
}

async fn relabel(client: &Client, namespace: &str, user: &str) -> anyhow::Result<DryRun> {
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    let patch = json!({"metadata": {"labels": {POD_SECURITY: "privileged"}}});
    let mut request = kube::core::Request::new("/api/v1/namespaces").patch(
        namespace,
        &params,
        &Patch::Merge(patch),
    )?;
    request.headers_mut().insert("impersonate-user", user.parse()?);
    judged(client.request::<Value>(request).await)
}

/// An admission policy refuses with 403 or 422; roles do with 403.
fn judged(outcome: Result<Value, kube::Error>) -> anyhow::Result<DryRun> {
    match outcome {
        Ok(_) => Ok(DryRun::Accepted),
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 422) => Ok(DryRun::Refused),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::doctor::{Weight, fake::serve, kagent};

    fn a_kagent() -> Kagent {
        kagent::all(&kagent::tests::seen(true)).remove(0)
    }

    /// An API server that refuses what it is told to, and how it was asked.
    fn api_server(refused: &'static [&str]) -> (Client, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let url = serve(move |came| {
            seen.lock().unwrap().push(came.head.clone());
            let part = [
                ("hostpath", "volume"),
                ("\"privileged\":true", "privileged"),
                ("kind\":\"deployment", "account"),
            ];
            let body = came.body.to_ascii_lowercase();
            let part = part
                .iter()
                .find(|(sign, _)| body.contains(sign))
                .map_or("label", |(_, part)| *part);
            if refused.contains(&part) {
                let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "message": part, "reason": "Invalid", "code": 422});
                return (422, status.to_string());
            }
            (201, came.body.clone())
        });
        // Another test may have set it up.
        let _ = rustls::crypto::ring::default_provider().install_default();
        (Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap(), asked)
    }

    #[tokio::test]
    async fn what_agents_could_do_in_kagents_namespace_is_tried_as_dry_runs_alone() {
        let weight = async |refused| {
            let (client, asked) = api_server(refused);
            let tried = DryRuns::at(&client, &a_kagent()).await.unwrap();
            for head in asked.lock().unwrap().iter() {
                assert!(head.lines().next().unwrap().contains("dryrun=all"), "{head}");
                // Pods are made by others than the controller.
                let user =
                    "\r\nimpersonate-user: system:serviceaccount:kagent:kagent-controller\r\n";
                assert_eq!(
                    head.contains(user),
                    !head.starts_with("post /api/v1/namespaces/kagent/pods"),
                    "{head}"
                );
            }
            tried.finding(&a_kagent()).map(|finding| finding.weight)
        };
        let (wrong, weak) = (Some(Weight::Wrong), Some(Weight::Weak));
        assert_eq!(weight(&[]).await, wrong);
        assert_eq!(weight(&["volume", "label", "account"]).await, wrong, "privileged pods");
        assert_eq!(
            weight(&["privileged", "label", "account"]).await,
            wrong,
            "the node's files as a volume"
        );
        assert_eq!(weight(&["volume", "privileged"]).await, wrong, "the label can be taken off");
        assert_eq!(weight(&["volume", "privileged", "label"]).await, weak);
        assert_eq!(weight(&["volume", "privileged", "account"]).await, weak);
        assert_eq!(weight(&["volume", "privileged", "label", "account"]).await, None);
    }

    #[tokio::test]
    async fn an_api_server_that_cannot_be_asked_is_no_refusal() {
        let url = serve(|_| (500, "{}".to_owned()));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
        DryRuns::at(&client, &a_kagent()).await.unwrap_err();
    }
}
