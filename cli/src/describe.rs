//! `grat describe`: everything about one resource, for people.

use anyhow::Result;
use clap::Args;
use graticule_model::{Kind, labels};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::age::{age, time};
use crate::client::{Client, resource_path};
use crate::get;
use crate::kinds;
use crate::output::origin;
use crate::overview::{Connection, count, refused};
use crate::screen::Style;
use crate::session::Session;
use crate::table::Table;

/// Subscriptions that are shown, newest first.
const SUBSCRIPTIONS_SHOWN: usize = 5;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Kind: singular, plural or short name.
    #[arg(value_parser = kinds::ANY, hide_possible_values = true)]
    kind: Kind,
    /// Name.
    name: String,
    /// Mesh. [default: that of the context, or default]
    #[arg(short, long)]
    mesh: Option<String>,
}

/// What is known besides the resource itself.
#[derive(Debug, Default)]
struct Facts {
    /// `dataplaneInsight` or `zoneInsight`.
    insight: Option<Value>,
    /// Policies that apply to a proxy, as `_policies` lists them.
    policies: Option<Vec<Value>>,
    /// What its Envoy refused, with the reason.
    refused: Vec<(String, String)>,
    /// Proxies that a policy applies to.
    proxies: Option<Vec<Value>>,
}

/// Shows the resource, and what else is known about it.
pub(crate) async fn run(session: &Session, arguments: Arguments) -> Result<()> {
    let client = session.checked_client().await?;
    let mesh = session.mesh(arguments.mesh.as_deref())?;
    let kind = arguments.kind;
    let item = get::existing(&client, kind, &mesh, &arguments.name).await?;
    let facts = facts(&client, kind, &mesh, &arguments.name).await;
    session.screen.print(&render(kind, &item, &facts, session.now, session.screen.style))
}

/// What cannot be asked is left out: the resource itself was found.
async fn facts(client: &Client, kind: Kind, mesh: &str, name: &str) -> Facts {
    let path = resource_path(kind, mesh, name);
    let mut facts = Facts::default();
    if kind.descriptor().capabilities.has_insight
        && let Ok(overview) = client.get(&format!("{path}/_overview")).await
    {
        let member = if kind == Kind::Zone { "zoneInsight" } else { "dataplaneInsight" };
        facts.insight = overview.get(member).cloned();
    }
    if kind == Kind::Dataplane {
        if let Ok(document) = client.get(&format!("{path}/_policies")).await {
            facts.policies = document["policies"].as_array().cloned();
        }
        let rejected = facts.insight.as_ref().map_or(0, |insight| Connection::of(insight).rejected);
        if rejected > 0
            && let Ok(dump) = client.get(&format!("{path}/xds")).await
        {
            facts.refused = refused(&dump);
        }
    }
    if kind.descriptor().is_policy()
        && let Ok(items) = client.list(&format!("{path}/_resources/dataplanes"), &[]).await
    {
        facts.proxies = Some(items);
    }
    facts
}

/// Lines of `Name: value`, with blocks below some.
struct Sheet {
    text: String,
    style: Style,
}

const INDENT: usize = 14;

impl Sheet {
    fn line(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        let head = format!("{name}:");
        let padding = " ".repeat(INDENT.saturating_sub(head.len()).max(1));
        let mut lines = value.lines();
        let first = lines.next().unwrap_or_default();
        self.text.push_str(&format!("{}{padding}{first}\n", self.style.strong(&head)));
        for line in lines {
            self.text.push_str(&format!("{}{line}\n", " ".repeat(INDENT)));
        }
    }

    fn block(&mut self, name: &str, body: &str) {
        if body.trim().is_empty() {
            return;
        }
        self.text.push_str(&format!("{}\n", self.style.strong(&format!("{name}:"))));
        for line in body.lines() {
            self.text.push_str(format!("  {line}").trim_end());
            self.text.push('\n');
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn moment(value: &Value, now: Timestamp) -> String {
    match time(value) {
        None => String::new(),
        Some(then) => format!("{} ({} ago)", then.strftime("%Y-%m-%dT%H:%M:%SZ"), age(Some(then), now)),
    }
}

fn render(kind: Kind, item: &Value, facts: &Facts, now: Timestamp, style: Style) -> String {
    let mut sheet = Sheet { text: String::new(), style };
    sheet.line("Name", text(&item["name"]));
    sheet.line("Kind", kind.name());
    sheet.line("Mesh", text(&item["mesh"]));
    sheet.line("KRI", text(&item["kri"]));
    sheet.line("Origin", &origin(item));
    sheet.line("Owner", &owner(item));
    sheet.line("Created", &moment(&item["creationTime"], now));
    sheet.line("Modified", &moment(&item["modificationTime"], now));
    sheet.line("Labels", &label_lines(item));
    sheet.line("Effect", effect(item));
    if let Some(insight) = &facts.insight {
        connection(&mut sheet, kind, insight, now);
    } else if kind.descriptor().capabilities.has_insight {
        sheet.line("Connection", "nothing is known: it never connected");
    }
    for (name, reason) in &facts.refused {
        sheet.line("Refused", &style.bad(&format!("{name}: {reason}")));
    }
    conditions(&mut sheet, item, style);
    if let Some(policies) = &facts.policies {
        sheet.block("Policies", &policy_lines(policies));
    }
    if let Some(proxies) = &facts.proxies {
        let names: Vec<&str> = proxies.iter().map(|proxy| text(&proxy["name"])).collect();
        sheet.line("Applies to", if names.is_empty() { "no proxy" } else { "" });
        sheet.block("Applies to", &names.join("\n"));
    }
    sheet.block("Spec", &spec(item));
    sheet.text
}

/// Who made it, where a generator did.
fn owner(item: &Value) -> String {
    match item["labels"][labels::MANAGED_BY].as_str() {
        Some(owner) => format!("{owner} (generated; changes by hand are undone)"),
        None => item["mesh"].as_str().map(|mesh| format!("mesh {mesh}")).unwrap_or_default(),
    }
}

fn effect(item: &Value) -> &str {
    match item["labels"][labels::EFFECT].as_str() {
        Some("shadow") => "shadow: seen in what-if answers only",
        _ => "",
    }
}

fn label_lines(item: &Value) -> String {
    let labels = item["labels"].as_object().into_iter().flatten();
    let mut lines: Vec<String> = labels.map(|(key, value)| format!("{key}={}", text(value))).collect();
    lines.sort();
    lines.join("\n")
}

fn connection(sheet: &mut Sheet, kind: Kind, insight: &Value, now: Timestamp) {
    let connection = Connection::of(insight);
    let style = sheet.style;
    let since = if connection.is_online { "connected" } else { "last connected" };
    let ago = match connection.connected {
        Some(_) => format!("{since} {} ago", age(connection.connected, now)),
        None => "never connected".into(),
    };
    sheet.line("Status", &format!("{}, {ago}", connection.status(style)));
    if kind == Kind::Dataplane {
        sheet.line("Envoy", text(&connection.version["envoy"]["version"]));
        sheet.line("Agent", text(&connection.version["kumaDp"]["version"]));
        let tls = &insight["mTLS"];
        let expires = text(&tls["certificateExpirationTime"]);
        let issued = count(&tls["certificateRegenerations"]);
        if !expires.is_empty() {
            sheet.line("Certificate", &format!("until {expires}, issued {issued} times"));
        }
    } else {
        sheet.line("Version", text(&connection.version["kumaCp"]["version"]));
    }
    let mut answers = format!("{} sent, {} acknowledged", connection.sent, connection.acknowledged);
    if connection.rejected > 0 {
        answers.push_str(&style.bad(&format!(", {} rejected", connection.rejected)));
        answers.push_str(match kind {
            Kind::Dataplane => "\n(the reason is in the log of its zone control plane: \"rejected\")",
            _ => "",
        });
    }
    sheet.line("Answers", &answers);
    let mut table = Table::new(&["CONNECTED", "ENDED", "CONTROL PLANE", "SENT", "ACKNOWLEDGED", "REJECTED"]);
    let subscriptions = insight["subscriptions"].as_array().map(Vec::as_slice).unwrap_or_default();
    for subscription in subscriptions.iter().rev().take(SUBSCRIPTIONS_SHOWN) {
        let instance = ["controlPlaneInstanceId", "globalInstanceId"];
        let instance = instance.iter().find_map(|key| subscription[*key].as_str()).unwrap_or("-");
        let total = &subscription["status"]["total"];
        let end = time(&subscription["disconnectTime"]);
        table.row(vec![
            format!("{} ago", age(time(&subscription["connectTime"]), now)),
            end.map_or("-".into(), |end| format!("{} ago", age(Some(end), now))),
            instance.to_owned(),
            count(&total["responsesSent"]).to_string(),
            count(&total["responsesAcknowledged"]).to_string(),
            count(&total["responsesRejected"]).to_string(),
        ]);
    }
    if !subscriptions.is_empty() {
        let shown = subscriptions.len().min(SUBSCRIPTIONS_SHOWN);
        let head = match subscriptions.len() {
            all if all == shown => "Subscriptions".to_owned(),
            all => format!("Subscriptions ({shown} of {all})"),
        };
        sheet.block(&head, &table.render());
    }
}

/// Conditions of the status in a table, the rest of it as YAML.
fn conditions(sheet: &mut Sheet, item: &Value, style: Style) {
    let mut status = item["status"].clone();
    let mut table = Table::new(&["CONDITION", "STATUS", "REASON", "MESSAGE"]);
    let mut rows = 0;
    if let Value::Object(members) = &mut status
        && let Some(Value::Array(conditions)) = members.remove("conditions")
    {
        for condition in &conditions {
            rows += 1;
            let state = text(&condition["status"]);
            let state = if state == "True" { style.good(state) } else { style.careful(state) };
            table.row(vec![
                text(&condition["type"]).into(),
                state,
                text(&condition["reason"]).into(),
                text(&condition["message"]).into(),
            ]);
        }
    }
    if rows > 0 {
        sheet.block("Conditions", &table.render());
    }
    if status.as_object().is_some_and(|members| !members.is_empty()) {
        sheet.block("Status", &graticule_model::yaml::to_string(&status).unwrap_or_default());
    }
}

/// Kind and origins of the policies of a proxy.
pub(crate) fn policy_lines(policies: &[Value]) -> String {
    let mut table = Table::new(&["Kind", "Origins"]);
    for policy in policies {
        let origins = policy["origins"].as_array().into_iter().flatten();
        let origins: Vec<&str> = origins.map(|origin| text(&origin["kri"])).collect();
        table.row(vec![text(&policy["kind"]).into(), origins.join(", ")]);
    }
    table.render()
}

fn spec(item: &Value) -> String {
    let spec = match item.get("spec") {
        Some(spec) => spec.clone(),
        None => {
            let mut members = item.as_object().cloned().unwrap_or_default();
            for key in ["type", "mesh", "name", "labels", "kri", "snis", "creationTime", "modificationTime"] {
                members.remove(key);
            }
            if members.contains_key("data") {
                members.insert("data".into(), json!("(hidden; `grat get … -o yaml` shows it)"));
            }
            Value::Object(members)
        }
    };
    if spec.as_object().is_some_and(serde_json::Map::is_empty) {
        return String::new();
    }
    graticule_model::yaml::to_string(&spec).unwrap_or_default()
}

#[cfg(test)]
mod tests;
