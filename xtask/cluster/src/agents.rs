//! The agents of the lab: their names, their chats, and where programs talk to them.
//!
//! Invariant: an agent is in the list exactly when `up` installs it.

use anyhow::bail;

use crate::{
    lab::Record,
    options::{Part, Ports},
};

/// The agent that a person is led to.
const FIRST: &str = "dba-assistant";

/// What there is to know of kagent's page before the first word is sent.
pub(crate) const HINT: &str =
    "in a new browser press Skip wizard; press Send, since Enter does not send there";

/// An agent of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agent {
    /// Its name, in kagent also that of its resource.
    pub(crate) name: &'static str,
    /// What it is, as the conversations call it.
    pub(crate) kind: &'static str,
}

/// Returns the agents of a lab, the first for people first.
pub(crate) fn of(lab: &Record) -> Vec<Agent> {
    let agent = |name, kind| Agent { name, kind };
    if !lab.has(Part::Kagent) {
        return vec![agent(FIRST, "rust")];
    }
    let langgraph = agent("dba-assistant-langgraph", "langgraph");
    let all = [agent(FIRST, "adk-go"), agent("dba-assistant-rs", "rust")];
    all.into_iter().chain(lab.has(Part::Langgraph).then_some(langgraph)).collect()
}

/// Returns the agent of this name alone, or all where none is named.
///
/// # Errors
/// When the lab has no agent of that name.
pub(crate) fn chosen(lab: &Record, name: Option<&str>) -> anyhow::Result<Vec<Agent>> {
    let mut all = of(lab);
    let Some(name) = name else { return Ok(all) };
    let names: Vec<_> = all.iter().map(|agent| agent.name).collect();
    all.retain(|agent| agent.name == name);
    if all.is_empty() {
        bail!("no agent {name:?} is in this lab; there is {}", names.join(", "));
    }
    Ok(all)
}

/// Returns the page where a person chats with the first agent.
pub(crate) fn chat(lab: &Record) -> String {
    let first = Agent { name: FIRST, kind: "" };
    first.chat(lab)
}

impl Agent {
    /// Returns the page where a person chats with it.
    pub(crate) fn chat(&self, lab: &Record) -> String {
        if lab.has(Part::Kagent) && lab.has(Part::Agents) {
            format!("{}/agents/kagent/{}/chat", base(&lab.ports), self.name)
        } else {
            base(&lab.ports)
        }
    }

    /// Returns its A2A endpoint.
    pub(crate) fn endpoint(&self, lab: &Record) -> String {
        if lab.has(Part::Kagent) {
            format!("{}/api/a2a/kagent/{}/", base(&lab.ports), self.name)
        } else {
            base(&lab.ports)
        }
    }
}

/// Where the chat is on this machine: kagent's page with its controller behind it, or the agent's own.
pub(crate) fn base(ports: &Ports) -> String {
    format!("http://localhost:{}", ports.chat)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::GatewayKind;

    fn lab(left_out: &[Part]) -> Record {
        let ports = Ports { chat: 8080, queue: 8090, tools: 8081, gateway: 8088 };
        let left_out = left_out.iter().map(|part| (*part, String::new())).collect();
        let gateway = GatewayKind::Agentgateway;
        Record { name: "hitl".into(), gateway, ports, hold: 240, left_out, scripted: true }
    }

    #[test]
    fn all_agents_are_played_unless_one_is_named() {
        let names = |lab: &Record, name| -> Vec<_> {
            chosen(lab, name).unwrap().iter().map(|agent| agent.name).collect()
        };
        let whole = lab(&[]);
        let all = ["dba-assistant", "dba-assistant-rs", "dba-assistant-langgraph"];
        assert_eq!(names(&whole, None), all);
        assert_eq!(names(&whole, Some("dba-assistant-rs")), ["dba-assistant-rs"]);
        assert_eq!(names(&lab(&[Part::Langgraph]), None), all[..2]);
        assert_eq!(names(&lab(&[Part::Kagent]), None), ["dba-assistant"]);
        let error = chosen(&whole, Some("x")).unwrap_err().to_string();
        assert!(error.contains("dba-assistant-langgraph"), "{error}");
    }

    #[test]
    fn a_person_is_led_to_the_agent_s_chat_and_not_to_kagent_s_first_page() {
        assert_eq!(chat(&lab(&[])), "http://localhost:8080/agents/kagent/dba-assistant/chat");
        assert_eq!(chat(&lab(&[Part::Kagent])), "http://localhost:8080");
        // Without agents of ours there is only kagent's page.
        assert_eq!(chat(&lab(&[Part::Agents])), "http://localhost:8080");
        let endpoint = of(&lab(&[]))[1].endpoint(&lab(&[]));
        assert_eq!(endpoint, "http://localhost:8080/api/a2a/kagent/dba-assistant-rs/");
    }
}
