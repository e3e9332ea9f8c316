//! What differs between agents, as the documentation shows it.

use std::collections::HashSet;

use crate::{
    agents::Kind,
    script::{Conversation, Difference},
};

/// Every known difference as a row of a table.
pub fn differences(conversations: &[Conversation]) -> String {
    let mut table = "| conversation | agent | what it does instead | known upstream |\n\
                     |---|---|---|---|\n"
        .to_owned();
    for conversation in conversations {
        let of_steps = conversation.steps.iter().flat_map(|step| step.differs.iter().map(told));
        let of_end = conversation.differs.iter().map(told);
        let without = conversation
            .without
            .iter()
            .map(|without| row(&without.agents, &without.because, without.upstream.as_deref()));
        let mut rows: Vec<_> = of_steps.chain(of_end).chain(without).collect();
        // The same may show in several steps.
        let mut seen = HashSet::new();
        rows.retain(|row| seen.insert(row.clone()));
        for (agents, because, upstream) in rows {
            let title = &conversation.title;
            let row = ["", title, &agents, &because, &upstream, ""].join(" | ");
            table.push_str(row.trim());
            table.push('\n');
        }
    }
    table
}

fn told<T>(difference: &Difference<T>) -> (String, String, String) {
    row(&difference.agents, &difference.because, difference.upstream.as_deref())
}

fn row(agents: &[Kind], because: &str, upstream: Option<&str>) -> (String, String, String) {
    let agents: Vec<_> = agents.iter().copied().map(Kind::name).collect();
    let upstream = match upstream {
        None => "not filed, as far as we saw".to_owned(),
        Some(url) => {
            let number = url.rsplit('/').next().unwrap_or(url);
            format!("[#{number}]({url})")
        }
    };
    (agents.join(", "), because.to_owned(), upstream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script;

    #[test]
    fn the_documentation_lists_every_difference() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/agents.md");
        let table = differences(&script::all().unwrap());
        hitl_service::settings::check_part(page.as_ref(), "differences", &table).unwrap();
    }
}
