//! Waiting for objects to be as they should, and saying why they are not when time runs out.
//!
//! Must never sleep and look again: it watches, and looks at what the watch brings.

use std::{future::ready, time::Duration};

use anyhow::bail;
use futures_util::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    Api,
    api::{DynamicObject, ListParams, LogParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::Value;

use crate::{
    cluster::{Cluster, Named, named, unspaced},
    conditions::{self, Verdict},
    json::text,
};

/// Last lines of a container that an explanation shows.
const LAST_LINES: i64 = 8;

/// How long a pod has to be lost before nothing is expected of it any more.
const LOST: Duration = Duration::from_secs(10);

/// Most events and pods that an explanation shows.
const MOST: usize = 6;

impl Cluster {
    /// Waits until one object is as it should be.
    ///
    /// # Errors
    /// When `patience` runs out: with what is wrong, what its pods say, and how to look further.
    pub(crate) async fn until(
        &self,
        of: &Named<'_>,
        name: &str,
        patience: Duration,
        judge: impl Fn(&Value) -> Verdict + Send + Sync,
    ) -> anyhow::Result<()> {
        let mut last = "it is not there".to_owned();
        let waiting = async {
            let api = self.known(of).await?;
            let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
            let stream = watcher(api, config).default_backoff().applied_objects();
            // What the watcher cannot do now it does again; only time ends this.
            let mut stream = std::pin::pin!(stream.filter_map(|object| ready(object.ok())));
            while let Some(object) = stream.next().await {
                let object: DynamicObject = object;
                match judge(&serde_json::to_value(object)?) {
                    Ok(()) => return Ok(()),
                    Err(why) => last = why,
                }
            }
            bail!("the watch has ended")
        };
        // On the heap: both are large, and live in every step.
        let (waiting, hopeless) = (Box::pin(waiting), Box::pin(self.hopeless(of, name)));
        tokio::select! {
            outcome = waiting => return outcome,
            why = hopeless => {
                let seen = self.explain(of, name).await;
                bail!("{} {name} will not be ready: {why}\n{seen}", of.kind)
            }
            () = tokio::time::sleep(patience) => {}
        }
        let why = self.explain(of, name).await;
        bail!("{} {name} is not ready after {} s: {last}\n{why}", of.kind, patience.as_secs())
    }

    /// Waits for what no waiting mends: an image that cannot be had, or a container that cannot be
    /// made. Never ends where there is nothing of the kind.
    async fn hopeless(&self, of: &Named<'_>, name: &str) -> String {
        let (true, Some(namespace)) = (matches!(of.kind, "Deployment" | "DaemonSet"), of.namespace)
        else {
            return std::future::pending().await;
        };
        let pods: Api<Pod> = Api::namespaced(self.client().clone(), namespace);
        let stream = watcher(pods, watcher::Config::default()).default_backoff().applied_objects();
        let mut stream = std::pin::pin!(stream.filter_map(|pod| ready(pod.ok())));
        let prefix = format!("{name}-");
        while let Some(pod) = stream.next().await {
            if !pod.metadata.name.as_ref().is_some_and(|pod| pod.starts_with(&prefix)) {
                continue;
            }
            let name = pod.metadata.name.clone().unwrap_or_default();
            if serde_json::to_value(&pod).ok().as_ref().and_then(lost).is_none() {
                continue;
            }
            // One of an earlier attempt is there for a moment, too, until it is taken away.
            tokio::time::sleep(LOST).await;
            let again = self.get(&named("v1", "Pod", namespace), &name).await;
            if let Some(why) = again.ok().flatten().as_ref().and_then(lost) {
                return why;
            }
        }
        std::future::pending().await
    }

    /// The objects of a kind, once the cluster knows the kind.
    async fn known(&self, of: &Named<'_>) -> anyhow::Result<Api<DynamicObject>> {
        if let Ok(api) = self.api(of).await {
            return Ok(api);
        }
        // A kind that a definition of a moment ago brings.
        let definitions = unspaced("apiextensions.k8s.io/v1", "CustomResourceDefinition");
        let watched = watcher(self.api(&definitions).await?, watcher::Config::default());
        let stream = watched.default_backoff().applied_objects();
        let mut stream = std::pin::pin!(stream.filter_map(|object| ready(object.ok())));
        while let Some(object) = stream.next().await {
            let definition = serde_json::to_value(&object)?;
            let group = of.api.split_once('/').map_or("", |(group, _)| group);
            if text(&definition, "/spec/names/kind") == of.kind
                && text(&definition, "/spec/group") == group
                && conditions::established(&definition).is_ok()
            {
                break;
            }
        }
        self.api(of).await
    }

    /// What there is to see around an object that is not as it should be.
    pub(crate) async fn explain(&self, of: &Named<'_>, name: &str) -> String {
        let namespace = of.namespace.unwrap_or("default");
        let mut said = Vec::new();
        if matches!(of.kind, "Deployment" | "DaemonSet") {
            said.extend(self.pods_of(of, name, namespace).await);
        }
        said.extend(self.events_of(namespace, name).await);
        let space = of.namespace.map(|space| format!(" --namespace {space}")).unwrap_or_default();
        let file = self.kubeconfig().display();
        said.push(format!(
            "  look further: kubectl --kubeconfig {file}{space} describe {} {name}",
            of.kind.to_lowercase()
        ));
        said.join("\n")
    }

    async fn pods_of(&self, of: &Named<'_>, name: &str, namespace: &str) -> Vec<String> {
        let object = self.get(of, name).await.ok().flatten().unwrap_or_default();
        let labels = object.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
        let labels: Vec<_> = labels
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
            .collect();
        if labels.is_empty() {
            return Vec::new();
        }
        let pods: Api<Pod> = Api::namespaced(self.client().clone(), namespace);
        let Ok(list) = pods.list(&ListParams::default().labels(&labels.join(","))).await else {
            return Vec::new();
        };
        if list.items.is_empty() {
            return vec!["  it has no pods".to_owned()];
        }
        let mut said = Vec::new();
        for pod in list.items.into_iter().take(MOST) {
            let pod_name = pod.metadata.name.clone().unwrap_or_default();
            let value = serde_json::to_value(&pod).unwrap_or_default();
            if conditions::ready(&value).is_ok() {
                continue;
            }
            for state in states(&value) {
                said.push(format!("  pod {pod_name}: {state}"));
            }
            said.extend(self.events_of(namespace, &pod_name).await);
            for previous in [false, true] {
                let params =
                    LogParams { tail_lines: Some(LAST_LINES), previous, ..LogParams::default() };
                if let Ok(log) = pods.logs(&pod_name, &params).await
                    && !log.trim().is_empty()
                {
                    let which = if previous { " before its restart" } else { "" };
                    said.push(format!("  it logged{which}:"));
                    said.extend(log.lines().map(|line| format!("    {line}")));
                }
            }
        }
        said
    }

    async fn events_of(&self, namespace: &str, name: &str) -> Vec<String> {
        let events: Api<Event> = Api::namespaced(self.client().clone(), namespace);
        let params = ListParams::default().fields(&format!("involvedObject.name={name}"));
        let Ok(list) = events.list(&params).await else { return Vec::new() };
        let mut items = list.items;
        items.sort_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0));
        let from = items.len().saturating_sub(MOST);
        items
            .split_off(from)
            .into_iter()
            .map(|event| {
                let (reason, message) =
                    (event.reason.unwrap_or_default(), event.message.unwrap_or_default());
                format!("  event of {name}: {reason}: {}", message.trim())
            })
            .collect()
    }

    /// Lines of a pod's log, as they come.
    pub(crate) async fn log(
        &self,
        namespace: &str,
        pod: &str,
        params: &LogParams,
        mut line: impl FnMut(&str),
    ) -> anyhow::Result<()> {
        use futures_util::AsyncBufReadExt as _;
        let pods: Api<Pod> = Api::namespaced(self.client().clone(), namespace);
        let mut lines = pods.log_stream(pod, params).await?.lines();
        while let Some(text) = lines.try_next().await? {
            line(&text);
        }
        Ok(())
    }
}

/// Why a pod will never run, where it will not. An image that could not be had once is tried again;
/// only from the second time on it is backed off from.
fn lost(pod: &Value) -> Option<String> {
    if pod.pointer("/metadata/deletionTimestamp").is_some() {
        return None;
    }
    let reasons =
        ["ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"];
    let containers = ["/status/initContainerStatuses", "/status/containerStatuses"];
    let containers =
        containers.iter().filter_map(|pointer| pod.pointer(pointer)?.as_array()).flatten();
    let mut waiting =
        containers.filter(|one| reasons.contains(&text(one, "/state/waiting/reason")));
    waiting.next().map(|one| {
        let (reason, message) =
            (text(one, "/state/waiting/reason"), text(one, "/state/waiting/message"));
        format!("{reason} {message}").trim_end().to_owned()
    })
}

/// In which states a pod's containers are, in words.
fn states(pod: &Value) -> Vec<String> {
    let containers = ["/status/initContainerStatuses", "/status/containerStatuses"];
    let containers: Vec<_> = containers
        .iter()
        .filter_map(|pointer| pod.pointer(pointer)?.as_array())
        .flatten()
        .collect();
    if containers.is_empty() {
        let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
        let unscheduled =
            conditions.into_iter().flatten().find(|one| text(one, "/status") == "False");
        let why = unscheduled.map(|one| text(one, "/message")).unwrap_or_default();
        return vec![format!("{} {why}", text(pod, "/status/phase")).trim().to_owned()];
    }
    let state = |container: &&Value| {
        let container = *container;
        let name = text(container, "/name");
        let waiting = text(container, "/state/waiting/reason");
        let ended = text(container, "/state/terminated/reason");
        let restarts =
            container.pointer("/restartCount").and_then(Value::as_i64).unwrap_or_default();
        let ready = container.pointer("/ready").and_then(Value::as_bool).unwrap_or_default();
        let state = match (waiting.is_empty(), ended.is_empty(), ready) {
            (false, _, _) => format!("{waiting} {}", text(container, "/state/waiting/message")),
            (_, false, _) => format!("{ended} {}", text(container, "/state/terminated/message")),
            (_, _, true) => "ready".to_owned(),
            (_, _, false) => "running, not ready".to_owned(),
        };
        format!("{name} is {}, restarted {restarts} times", state.trim())
    };
    containers.iter().map(state).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_lost_when_its_image_cannot_be_had_and_not_while_it_starts_or_restarts() {
        let with = |reason: &str| json!({"status": {"containerStatuses": [{"state": {"waiting": {"reason": reason, "message": "why"}}}]}});
        assert_eq!(lost(&with("ImagePullBackOff")).unwrap(), "ImagePullBackOff why");
        for hopeful in ["ContainerCreating", "ErrImagePull", "CrashLoopBackOff", "PodInitializing"]
        {
            assert_eq!(lost(&with(hopeful)), None, "{hopeful}");
        }
        assert_eq!(lost(&json!({})), None);
    }

    #[test]
    fn a_pod_s_state_is_said_in_words() {
        let pulling = json!({"status": {"containerStatuses": [{"name": "gate", "restartCount": 2, "ready": false,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"x\""}}}]}});
        assert_eq!(
            states(&pulling),
            ["gate is ImagePullBackOff Back-off pulling image \"x\", restarted 2 times"]
        );
        let unscheduled = json!({"status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "message": "0/1 nodes are available: 1 Insufficient memory."}]}});
        assert_eq!(
            states(&unscheduled),
            ["Pending 0/1 nodes are available: 1 Insufficient memory."]
        );
    }
}
