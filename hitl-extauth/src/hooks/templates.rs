//! The forms in which messages are sent.
//!
//! Owns what each receiver expects. What callers and reviewers have written is text in all of them, never
//! markup. Must never send a link that is not ours.

use hitl_api::reveal::reveal;
use reqwest::{Client, RequestBuilder, Url, header};
use serde_json::{Value, json};

use super::{
    NotSent,
    file::{Hook, Template},
    message::{Event, Message},
    sign::signatures,
    taken,
};

/// Longest text of a caller's in a message, in characters.
const LONGEST: usize = 200;

/// Longest texts of a change request, in characters.
const SHORT: usize = 160;
const LONG: usize = 4000;

/// Sends a message in its webhook's form.
pub(super) async fn send(http: &Client, hook: &Hook, message: &Message) -> Result<(), NotSent> {
    match hook.template {
        Template::Standard => standard(http, hook, message).await,
        Template::Slack => posted(http.post(hook.url.clone()).json(&slack(message))).await,
        Template::Backstage => {
            let url = below(&hook.url, "api/notifications/notifications")?;
            let request = authorized(http.post(url), hook).json(&backstage(message));
            let body = taken(request.send().await).await?;
            // An empty list: nobody was reached, and nobody will be.
            match hitl_core::json::read::<Value>(&body) {
                Ok(Value::Array(reached)) if reached.is_empty() => {
                    Err(NotSent::Never("it was taken, and reaches nobody".to_owned()))
                }
                _ => Ok(()),
            }
        }
        Template::ServiceNow => servicenow(http, hook, message).await,
    }
}

async fn posted(request: RequestBuilder) -> Result<(), NotSent> {
    taken(request.send().await).await.map(drop)
}

fn authorized(request: RequestBuilder, hook: &Hook) -> RequestBuilder {
    match &hook.authorization {
        Some(text) => request.header(header::AUTHORIZATION, text),
        None => request,
    }
}

/// An address below another one.
fn below(url: &Url, path: &str) -> Result<Url, NotSent> {
    let base = format!("{}/", url.as_str().trim_end_matches('/'));
    let url = Url::parse(&base).and_then(|base| base.join(path));
    url.map_err(|error| NotSent::Never(error.to_string()))
}

/// Text of somebody else: short, and with nothing hidden in it.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(LONGEST).collect();
    let more = if short.len() < text.len() { " …" } else { "" };
    format!("{}{more}", reveal(&short))
}

/// Standard Webhooks 1.0: signed over id, moment and body.
async fn standard(http: &Client, hook: &Hook, message: &Message) -> Result<(), NotSent> {
    let body = serde_json::to_vec(message).map_err(|error| NotSent::Never(error.to_string()))?;
    // Signed anew each time: receivers take what is a few minutes old.
    let moment = jiff::Timestamp::now().as_second();
    let request = http
        .post(hook.url.clone())
        .header(header::CONTENT_TYPE, "application/json")
        .header("webhook-id", &message.id)
        .header("webhook-timestamp", moment.to_string())
        .header("webhook-signature", signatures(&hook.secrets, &message.id, moment, &body));
    posted(authorized(request, hook).body(body)).await
}

/// Lines of what a request is about.
fn lines(message: &Message) -> Vec<(&'static str, String)> {
    let about = &message.data;
    let mut lines = vec![
        ("Tool", shown(&about.tool)),
        ("Server", shown(&about.server)),
        ("Requester", format!("{} ({})", shown(&about.requester), about.assurance)),
    ];
    if let Some(risk) = about.risk {
        lines.push(("Risk", risk.to_owned()));
    }
    if !about.missing.is_empty() {
        lines.push(("Needs", shown(&about.missing.join(" and "))));
    }
    for vote in &about.votes {
        let said = match (vote.approved, &vote.preapproval) {
            (true, Some(_)) => "Approved beforehand",
            (true, None) => "Approved",
            (false, _) => "Rejected",
        };
        let reason = if vote.reason.is_empty() {
            String::new()
        } else {
            format!(": {}", shown(&vote.reason))
        };
        lines.push((said, format!("{}{reason}", shown(&vote.reviewer))));
    }
    if let Some(reason) = &about.denied {
        lines.push(("Denied by rule", shown(reason)));
    }
    if let Some(arguments) = &about.arguments {
        lines.push(("Arguments", shown(&Value::Object(arguments.clone()).to_string())));
    }
    lines
}

/// An incoming webhook of Slack: texts of others are plain, which nothing in them can leave.
fn slack(message: &Message) -> Value {
    let plain = |text: String| json!({"type": "plain_text", "text": text, "emoji": false});
    let fields: Vec<_> = lines(message)
        .into_iter()
        .take(10)
        .map(|(name, text)| plain(format!("{name}: {text}")))
        .collect();
    // Ours, and encoded: nothing in it ends the link.
    let link = message.data.link.replace('&', "&amp;").replace(['<', '>', '|'], "");
    json!({
        "text": format!("{} ({})", message.headline(), message.request),
        "unfurl_links": false,
        "unfurl_media": false,
        "blocks": [
            {"type": "header", "text": plain(message.headline().to_owned())},
            {"type": "section", "fields": fields},
            {"type": "section", "text": {"type": "mrkdwn", "text": format!("<{link}|Open it in the queue>")}},
        ],
    })
}

/// A notification of Backstage: of one request there is one, which changes.
fn backstage(message: &Message) -> Value {
    let severity = match (message.event, message.data.risk) {
        (Event::Requested | Event::Reminder, Some("critical")) => "critical",
        (Event::Requested | Event::Reminder, Some("high")) => "high",
        (Event::Requested | Event::Reminder, _) => "normal",
        _ => "low",
    };
    let lines: Vec<_> =
        lines(message).into_iter().map(|(name, text)| format!("{name}: {text}")).collect();
    json!({
        "recipients": {"type": "broadcast"},
        "payload": {
            "title": message.headline(),
            "description": lines.join("\n"),
            "link": message.data.link,
            "severity": severity,
            "topic": "approvals",
            "scope": format!("hitl-{}", message.request),
        },
    })
}

/// Text for `ServiceNow`, whose journals take what stands between `[code]` and `[/code]` for HTML.
fn without_code(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        plain.push_str(before);
        plain.push('[');
        let tag = after.trim_start_matches('/').get(..4);
        if tag.is_some_and(|tag| tag.eq_ignore_ascii_case("code")) {
            plain.push(' ');
        }
        rest = after;
    }
    plain.push_str(rest);
    plain
}

/// A change request of `ServiceNow`: one for each request, with what happens to it as work notes.
async fn servicenow(http: &Client, hook: &Hook, message: &Message) -> Result<(), NotSent> {
    let table = below(&hook.url, "api/now/table/change_request")?;
    let id = message.request.to_string();
    let mut look = table.clone();
    look.query_pairs_mut().extend_pairs([
        ("sysparm_query", format!("correlation_id={id}").as_str()),
        ("sysparm_fields", "sys_id,correlation_id"),
        ("sysparm_limit", "1"),
    ]);
    let ask = |request: RequestBuilder| {
        authorized(request, hook).header(header::ACCEPT, "application/json")
    };
    let body = taken(ask(http.get(look)).send().await).await?;
    let found: Value = hitl_core::json::read(&body)
        .map_err(|_| NotSent::Again("it answers something else than JSON".to_owned()))?;
    // A query that is not understood gives any row: it must be ours.
    let ours = found
        .get("result")
        .and_then(|rows| rows.get(0))
        .filter(|row| row.get("correlation_id").and_then(Value::as_str) == Some(&id));
    let known = ours
        .and_then(|row| row.get("sys_id")?.as_str())
        .filter(|id| id.len() == 32 && id.bytes().all(|digit| digit.is_ascii_hexdigit()));
    let lines: Vec<_> =
        lines(message).into_iter().map(|(name, text)| format!("{name}: {text}")).collect();
    let text =
        |text: String, most: usize| without_code(&text).chars().take(most).collect::<String>();
    let note = format!("{}\n{}\n{}", message.headline(), lines.join("\n"), message.data.link);
    if let Some(sys_id) = known {
        let url = below(&table, sys_id)?;
        return posted(ask(http.patch(url)).json(&json!({"work_notes": text(note, LONG)}))).await;
    }
    let (tool, requester) = (shown(&message.data.tool), shown(&message.data.requester));
    let body = json!({
        "type": "normal",
        "short_description": text(format!("Approve {tool} of {requester}"), SHORT),
        "description": text(note, LONG),
        "correlation_id": id,
        "correlation_display": "Approval of an AI agent's call",
    });
    posted(ask(http.post(table)).json(&body)).await
}

#[cfg(test)]
mod tests {
    use super::without_code;

    #[test]
    fn what_servicenow_would_take_for_html_is_text() {
        for (text, plain) in [
            ("[code]<b>[/code]", "[ code]<b>[ /code]"),
            ("[[CoDe] [code", "[[ CoDe] [ code"),
            ("a[0] [coda] [ć", "a[0] [coda] [ć"),
            ("", ""),
        ] {
            assert_eq!(without_code(text), plain);
        }
    }
}
