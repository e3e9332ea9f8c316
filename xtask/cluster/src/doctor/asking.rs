//! Attempts to have kagent's controller make something beside the gate, over its API and from an agent's place.
//!
//! Invariant: nothing is made. The API is asked for a ConfigMap that is there already, which the API server refuses
//! after it has looked at the controller's rights.

use futures_util::future::join;
use serde_json::{Value, json};

use super::{
    Finding,
    dry_runs::DryRuns,
    kagent::Kagent,
    trying::{Asker, Reach, reach},
};
use crate::cluster::{Cluster, named};

/// The ConfigMap that the API is asked to make. Kubernetes keeps it in every namespace.
const THERE: &str = "kube-root-ca.crt";

/// The namespace of the gate, where it is to be made.
const GATE: &str = "hitl";

/// Tries everything at every kagent; says what was tried, and what was found.
pub(super) async fn everything(
    cluster: &Cluster,
    kagents: &[Kagent],
) -> anyhow::Result<(Vec<String>, Vec<Finding>)> {
    let mut found = Vec::new();
    for (at, kagent) in kagents.iter().enumerate() {
        found.extend(over_api(cluster, kagent, at).await?);
        found.extend(DryRuns::at(cluster.client(), kagent).await?.finding(kagent));
    }
    let said = [
        "kagent's API, from an agent's pod: to make an object in the gate's namespace",
        "kagent's API, from a pod that is no agent's",
        "as dry runs, what an agent that is made there could do: open the node's files, and run under the account of \
         kagent's controller",
    ];
    Ok((said.map(str::to_owned).to_vec(), found))
}

/// Asks the API from the place of an agent, and from one of no agent.
async fn over_api(cluster: &Cluster, kagent: &Kagent, at: usize) -> anyhow::Result<Vec<Finding>> {
    let there = cluster.get(&named("v1", "ConfigMap", GATE), THERE).await?;
    let Some(there) = there else {
        return Ok(vec![Finding::weak(
            kagent.about(),
            format!(
                "whether its API makes objects in {GATE} was not tried: the ConfigMap {THERE} is not there"
            ),
        )]);
    };
    let namespace = kagent.account.namespace.as_str();
    let (agent, other) = (format!("hitl-doctor-agent-{at}"), format!("hitl-doctor-other-{at}"));
    let url = format!("{}/api/prompttemplates", kagent.url);
    let body = body(&there).to_string();
    let health = format!("{}/health", kagent.url);
    let as_agent = Asker {
        namespace,
        name: &agent,
        // As kagent labels every agent's pod.
        labels: json!({"app": "kagent", "kagent": agent, "app.kubernetes.io/part-of": "kagent"}),
        args: vec!["--healthcheck", &url, "--healthcheck-post", &body],
    };
    let as_other = Asker {
        namespace,
        name: &other,
        labels: json!({"app.kubernetes.io/part-of": "hitl"}),
        args: vec!["--healthcheck", &health],
    };
    // Both to their end, which takes their pods away.
    let (as_agent, as_other) = join(as_agent.ask(cluster), as_other.ask(cluster)).await;
    let from_agent = Made::read(&as_agent?).finding(kagent);
    let from_other = from_elsewhere(kagent, &reach(&as_other?));
    Ok(from_agent.into_iter().chain(from_other).collect())
}

/// What is asked for: what is there, with the same contents, so that nothing would be lost even if the
/// object went away in this moment.
fn body(there: &Value) -> Value {
    json!({"namespace": GATE, "name": THERE, "data": there.get("data").cloned().unwrap_or_default()})
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
enum Made {
    /// The controller may make it: only that it is there stood in the way, or not even that.
    Allowed,
    /// The API server refused the controller.
    Refused,
    /// The API wants to know who asks, or is not reached.
    Closed,
    /// It cannot be told.
    Unclear(String),
}

impl Made {
    /// Reads what the pod has said that asked.
    fn read(said: &str) -> Self {
        if said.is_empty() {
            return Self::Allowed;
        }
        let Some((_, answer)) = said.split_once(" answers ") else {
            return match reach(said) {
                Reach::NotMade => Self::Closed,
                Reach::Made | Reach::Unclear(_) => Self::Unclear(said.trim().to_owned()),
            };
        };
        match answer.split(' ').nth(1).unwrap_or_default() {
            "400" | "409" if answer.contains("already exists") => Self::Allowed,
            "500" if answer.contains("Failed to create ConfigMap") => Self::Refused,
            "401" | "403" => Self::Closed,
            _ => Self::Unclear(answer.trim().to_owned()),
        }
    }

    fn finding(&self, kagent: &Kagent) -> Option<Finding> {
        match self {
            Self::Allowed => Some(Finding::wrong(
                kagent.about(),
                format!(
                    "from an agent's pod, and without a token, {}/api/prompttemplates would have made an object in {GATE}: an agent \
                         can have pods there, with the reviewers' tokens. Install kagent with rbac.namespaces set to its own ({})",
                    kagent.url, kagent.account.namespace
                ),
            )),
            Self::Refused | Self::Closed => None,
            Self::Unclear(why) => Some(Finding::weak(
                kagent.about(),
                format!(
                    "whether its API makes objects in {GATE} for an agent could not be tried: {why}"
                ),
            )),
        }
    }
}

/// What it means that a pod that is no agent's gets so far.
fn from_elsewhere(kagent: &Kagent, reach: &Reach) -> Option<Finding> {
    let text = match reach {
        Reach::NotMade => return None,
        Reach::Made => format!(
            "a pod that is no agent's reaches its API at {}: this cluster's network does not enforce NetworkPolicies, or one lets it through",
            kagent.url
        ),
        Reach::Unclear(why) => {
            format!("whether a pod that is no agent's reaches its API could not be tried: {why}")
        }
    };
    Some(Finding::weak(kagent.about(), text))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        net::TcpListener,
        sync::{Arc, Mutex},
    };

    use super::*;
    use crate::doctor::{Weight, fake::serve, kagent};

    type Objects = Arc<Mutex<BTreeSet<(String, String)>>>;

    /// What kagent's controller (0.10) does with a POST of a prompt library, in its order: who asks, where its
    /// settings want to know; the body; the API server, whose reasons it does not pass on but for one.
    fn controller(may_write: &'static [&str], asks_who: bool, objects: &Objects) -> String {
        let objects = Arc::clone(objects);
        serve(move |came| {
            let error = |status, text: &str| (status, json!({"error": text}).to_string());
            if asks_who && !came.head.contains("\r\nauthorization: bearer ") {
                return error(401, "unauthenticated");
            }
            if !came.head.starts_with("post /api/prompttemplates http/1.1\r\n") {
                return (404, "404 page not found\n".to_owned());
            }
            let body: Value = serde_json::from_str(&came.body).unwrap();
            let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
            let (namespace, name) = (text("namespace"), text("name"));
            if namespace.is_empty()
                || name.is_empty()
                || body["data"].as_object().is_none_or(serde_json::Map::is_empty)
            {
                return error(400, "at least one template key is required");
            }
            if !may_write.contains(&namespace.as_str()) {
                return error(500, "Failed to create ConfigMap");
            }
            if !objects.lock().unwrap().insert((namespace, name.clone())) {
                let there = format!("configmaps \"{name}\" already exists");
                return error(
                    400,
                    &format!("A ConfigMap with this name already exists in the namespace: {there}"),
                );
            }
            (201, json!({"error": false}).to_string())
        })
    }

    /// What a pod says that asks there, as the pods of `doctor` do.
    fn asked(url: &str) -> String {
        let there = json!({"data": {"ca.crt": "-----BEGIN CERTIFICATE-----\n"}});
        let uri = format!("{url}/api/prompttemplates").parse().unwrap();
        match hitl_service::healthcheck::ask(&uri, Some(&body(&there).to_string())) {
            Ok(()) => String::new(),
            Err(error) => format!("hitl-extauth: {error}\n"),
        }
    }

    fn a_kagent() -> Kagent {
        kagent::all(&kagent::tests::seen(true)).remove(0)
    }

    #[test]
    fn a_controller_that_makes_objects_beside_the_gate_for_an_agent_is_wrong_and_nothing_is_made() {
        let there = BTreeSet::from([(GATE.to_owned(), THERE.to_owned())]);
        let weight = |may_write, asks_who| {
            let objects = Arc::new(Mutex::new(there.clone()));
            let made = Made::read(&asked(&controller(may_write, asks_who, &objects)));
            assert_eq!(*objects.lock().unwrap(), there, "{made:?}");
            let finding = made.finding(&a_kagent());
            (made, finding.map(|finding| finding.weight))
        };
        assert_eq!(weight(&["kagent", GATE], false), (Made::Allowed, Some(Weight::Wrong)));
        assert_eq!(weight(&["kagent"], false), (Made::Refused, None));
        assert_eq!(weight(&["kagent", GATE], true), (Made::Closed, None));
    }

    #[test]
    fn an_answer_that_says_nothing_of_rights_is_neither_good_nor_bad() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(Made::read(&asked(&format!("http://{closed}"))), Made::Closed);
        for (status, said) in
            [(404, "404 page not found"), (500, "Internal server error"), (400, "name is required")]
        {
            let url = serve(move |_| (status, said.to_owned()));
            let made = Made::read(&asked(&url));
            assert!(matches!(made, Made::Unclear(_)), "{made:?}");
            assert_eq!(made.finding(&a_kagent()).unwrap().weight, Weight::Weak);
        }
        // One that is there after all was made: the rights were there.
        assert_eq!(Made::read(&asked(&serve(|_| (201, "{}".to_owned())))), Made::Allowed);
        let old = "error: unexpected argument '--healthcheck-post' found";
        assert!(matches!(Made::read(old), Made::Unclear(_)));
    }

    #[test]
    fn a_pod_that_is_no_agents_must_not_reach_the_api() {
        let weight = |reach| from_elsewhere(&a_kagent(), &reach).map(|finding| finding.weight);
        assert_eq!(weight(Reach::NotMade), None);
        assert_eq!(weight(Reach::Made), Some(Weight::Weak));
        assert_eq!(weight(Reach::Unclear("no such name".into())), Some(Weight::Weak));
    }
}
