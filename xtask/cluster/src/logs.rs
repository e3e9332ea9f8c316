//! What a part of the lab logs.

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, LogParams},
};

use crate::{
    lab::{Place, Record, written_down},
    objects::GATEWAY,
    options::{LogPart, LogsArgs},
};

/// Where a part's pods are, and their labels.
fn pods(part: LogPart, lab: &Record) -> (&'static str, String) {
    let ours = |name: &str, component: &str| {
        format!("app.kubernetes.io/name={name},app.kubernetes.io/component={component}")
    };
    match part {
        LogPart::Gate => ("hitl", ours("hitl", "gate")),
        LogPart::Queue => ("hitl", ours("hitl", "queue")),
        LogPart::Tools => ("ops-tools", "app.kubernetes.io/name=mcp-ops-tools".to_owned()),
        LogPart::Gateway => {
            (lab.gateway.namespace(), format!("gateway.networking.k8s.io/gateway-name={GATEWAY}"))
        }
        LogPart::Controller => {
            ("agentgateway-system", "app.kubernetes.io/instance=agentgateway".to_owned())
        }
        // kagent labels the pods of its agents so.
        LogPart::Agents if lab.has(crate::options::Part::Kagent) => {
            ("kagent", "app=kagent".to_owned())
        }
        LogPart::Agents => ("dba-assistant", ours("dba-assistant", "agent")),
        LogPart::Model => (lab.agents(), ours("dba-assistant", "model")),
        LogPart::Kagent => ("kagent", "app.kubernetes.io/instance=kagent".to_owned()),
        LogPart::Metallb => ("metallb-system", "app=metallb".to_owned()),
    }
}

/// Prints what a part logs, every line with its pod where there are several.
///
/// # Errors
/// When it has no pods, or they cannot be asked.
pub(crate) async fn print(place: &Place, args: &LogsArgs) -> anyhow::Result<()> {
    let lab = written_down(place)?;
    let cluster = lab.cluster(place).await?;
    let (namespace, labels) = pods(args.part, &lab);
    let api: Api<Pod> = Api::namespaced(cluster.client().clone(), namespace);
    let list = api.list(&ListParams::default().labels(&labels)).await?;
    if list.items.is_empty() {
        anyhow::bail!(
            "no pods with {labels} are in {namespace}; `cargo xtask status` shows what there is"
        );
    }
    let several = list.items.len() > 1;
    let printing = list.items.iter().map(|pod| {
        let (cluster, name) = (&cluster, pod.name_any());
        let params =
            LogParams { follow: args.follow, tail_lines: Some(args.tail), ..LogParams::default() };
        async move {
            let from = if several { format!("{name}  ") } else { String::new() };
            let logged =
                cluster.log(namespace, &name, &params, |line| println!("{from}{line}")).await;
            if let Err(error) = logged {
                // One that has not begun, beside others that have.
                eprintln!("{name}: {error:#}");
            }
        }
    });
    join_all(printing).await;
    Ok(())
}
