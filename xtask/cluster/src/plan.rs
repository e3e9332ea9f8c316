//! What is done, and what waits for what. Pure.
//!
//! Must never leave a part out without a word: what is not done is named, with the reason.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::options::{GatewayKind, Part};

/// A step of `up`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Step {
    /// Images of our services
    Images,
    /// The kind cluster
    Cluster,
    /// Archives of images into the nodes
    Preload,
    /// Our images into the nodes
    Load,
    /// Namespaces and secrets
    Namespaces,
    /// MetalLB and its pool of addresses
    Metallb,
    /// Resource types of Gateway API
    GatewayApi,
    /// agentgateway
    Agentgateway,
    /// The gateway itself
    Gateway,
    /// kagent
    Kagent,
    /// Gate and queue
    Hitl,
    /// Tool server and routes
    OpsTools,
    /// Agents
    Agents,
    /// A look from outside
    Check,
}

impl Step {
    /// What a person reads.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Images => "images of the services",
            Self::Cluster => "kind cluster",
            Self::Preload => "archives of images into the nodes",
            Self::Load => "images into the nodes",
            Self::Namespaces => "namespaces and secrets",
            Self::Metallb => "MetalLB",
            Self::GatewayApi => "Gateway API",
            Self::Agentgateway => "agentgateway",
            Self::Gateway => "gateway",
            Self::Kagent => "kagent",
            Self::Hitl => "gate and queue",
            Self::OpsTools => "tool server and routes",
            Self::Agents => "agents",
            Self::Check => "check from outside",
        }
    }
}

/// What is done, and what is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Plan {
    /// Every step with those that must be done before, in an order in which they could be done one
    /// after the other.
    pub(crate) steps: Vec<(Step, Vec<Step>)>,
    /// Parts that are left out, and why.
    pub(crate) left_out: Vec<(Part, String)>,
}

impl Plan {
    /// The plan for a gateway, without some parts, and with archives to load or without.
    pub(crate) fn of(gateway: GatewayKind, skip: &[Part], preload: bool) -> Self {
        let mut left_out: Vec<(Part, String)> = Vec::new();
        let skipped =
            |part, left_out: &[(Part, String)]| left_out.iter().any(|(out, _)| *out == part);
        for part in skip.iter().copied().collect::<BTreeSet<_>>() {
            left_out.push((part, "as asked for".to_owned()));
        }
        // The other gateway is nobody's wish that has to be named.
        let other = match gateway {
            GatewayKind::Agentgateway => vec![Part::Envoy],
            GatewayKind::Envoy => vec![Part::Agentgateway, Part::GatewayApi],
        };
        for part in [Part::Agentgateway, Part::OpsTools, Part::Agents, Part::Langgraph] {
            for need in needs(part, gateway) {
                if skipped(*need, &left_out) && !skipped(part, &left_out) && !other.contains(&part)
                {
                    left_out.push((part, format!("it needs {need}")));
                }
            }
        }
        let has =
            |part: Part| !other.contains(&part) && !left_out.iter().any(|(out, _)| *out == part);
        let ours = has(Part::Hitl) || has(Part::OpsTools) || has(Part::Agents);
        let has_gateway = has(Part::Agentgateway) || has(Part::Envoy);

        let mut steps: Vec<(Step, Vec<Step>)> = Vec::new();
        let mut add = |step: Step, wanted: bool, after: &[Step]| {
            if wanted {
                let there = |before: &&Step| steps.iter().any(|(step, _)| step == *before);
                let after = after.iter().filter(there).copied().collect();
                steps.push((step, after));
            }
        };
        add(Step::Images, ours, &[]);
        add(Step::Cluster, true, &[]);
        add(Step::Preload, preload, &[Step::Cluster]);
        // What archives bring is there already then.
        add(Step::Load, ours, &[Step::Images, Step::Cluster, Step::Preload]);
        add(Step::Namespaces, true, &[Step::Cluster]);
        let ready = [Step::Namespaces, Step::Preload];
        add(Step::Metallb, has(Part::Metallb), &ready);
        add(Step::GatewayApi, has(Part::GatewayApi), &ready);
        add(
            Step::Agentgateway,
            has(Part::Agentgateway),
            &[Step::GatewayApi, Step::Namespaces, Step::Preload],
        );
        add(
            Step::Gateway,
            has_gateway,
            // The plain Envoy's test asks with an image of ours.
            &[Step::Agentgateway, Step::Metallb, Step::Namespaces, Step::Preload, Step::Images],
        );
        add(Step::Kagent, has(Part::Kagent), &ready);
        add(Step::Hitl, has(Part::Hitl), &[Step::Load, Step::Namespaces, Step::Agentgateway]);
        add(Step::OpsTools, has(Part::OpsTools), &[Step::Load, Step::Hitl, Step::Gateway]);
        add(
            Step::Agents,
            has(Part::Agents),
            &[Step::Load, Step::OpsTools, Step::Gateway, Step::Kagent],
        );
        add(
            Step::Check,
            has(Part::OpsTools),
            &[Step::OpsTools, Step::Hitl, Step::Gateway, Step::Agents],
        );
        Self { steps, left_out }
    }

    /// Whether a step is done.
    pub(crate) fn has(&self, step: Step) -> bool {
        self.steps.iter().any(|(there, _)| *there == step)
    }
}

/// What a part is nothing without.
fn needs(part: Part, gateway: GatewayKind) -> &'static [Part] {
    match (part, gateway) {
        (Part::Agentgateway, _) => &[Part::GatewayApi],
        (Part::OpsTools, GatewayKind::Agentgateway) => &[Part::Agentgateway, Part::Hitl],
        (Part::OpsTools, GatewayKind::Envoy) => &[Part::Envoy, Part::Hitl],
        (Part::Agents, _) => &[Part::OpsTools],
        (Part::Langgraph, _) => &[Part::Kagent, Part::Agents],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(plan: &Plan) -> String {
        let steps = plan.steps.iter().map(|(step, after)| {
            let after: Vec<_> = after.iter().map(|step| step.title()).collect();
            format!("{:<34} after: {}\n", step.title(), after.join(", "))
        });
        let out = plan.left_out.iter().map(|(part, why)| format!("left out: {part}, {why}\n"));
        steps.chain(out).collect()
    }

    #[test]
    fn the_plan_of_the_whole_lab() {
        insta::assert_snapshot!(shown(&Plan::of(GatewayKind::Agentgateway, &[], false)));
    }

    #[test]
    fn the_plan_with_envoy_and_without_kagent() {
        insta::assert_snapshot!(shown(&Plan::of(GatewayKind::Envoy, &[Part::Kagent], true)));
    }

    #[test]
    fn what_needs_a_part_that_is_left_out_is_left_out_with_it_and_named() {
        insta::assert_snapshot!(shown(&Plan::of(
            GatewayKind::Agentgateway,
            &[Part::GatewayApi],
            false
        )));
        insta::assert_snapshot!(shown(&Plan::of(
            GatewayKind::Envoy,
            &[Part::Hitl, Part::Metallb],
            false
        )));
    }

    #[test]
    fn every_step_comes_after_those_it_waits_for_whatever_is_left_out() {
        let parts = [
            Part::Metallb,
            Part::GatewayApi,
            Part::Agentgateway,
            Part::Envoy,
            Part::Kagent,
            Part::Hitl,
            Part::OpsTools,
            Part::Agents,
            Part::Langgraph,
        ];
        for gateway in [GatewayKind::Agentgateway, GatewayKind::Envoy] {
            for bits in 0_u32..512 {
                let skip: Vec<_> = parts
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| bits >> at & 1 == 1)
                    .map(|(_, part)| *part)
                    .collect();
                let plan = Plan::of(gateway, &skip, bits % 2 == 0);
                let mut done = BTreeSet::new();
                for (step, after) in &plan.steps {
                    assert!(
                        after.iter().all(|before| done.contains(before)),
                        "{gateway:?} {skip:?} {step:?}"
                    );
                    assert!(done.insert(*step), "{step:?} twice");
                }
                for part in &skip {
                    assert!(
                        plan.left_out.iter().any(|(out, _)| out == part),
                        "{part} went silently"
                    );
                }
            }
        }
    }
}
