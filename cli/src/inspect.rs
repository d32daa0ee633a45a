//! `grat inspect`: what control planes observe and compute (rest-api.md §5.5, §5.6, §8).

use anyhow::Result;
use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use graticule_model::Kind;
use serde_json::Value;

use crate::client::{Client, resource_path, segment, with_query};
use crate::describe::policy_lines;
use crate::get;
use crate::kinds;
use crate::output::{self, Output};
use crate::overview;
use crate::session::{Session, pair, usage};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// dataplanes, dataplane, zones, meshes, or a policy kind.
    #[arg(value_parser = Topics)]
    what: What,
    /// Name of the dataplane or policy.
    name: Option<String>,
    /// Mesh. [default: that of the context, or default]
    #[arg(short, long)]
    mesh: Option<String>,
    /// How to show it; wide has all columns of kumactl.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    /// dataplanes: only those with this tag or label, `key=value`; repeatable.
    #[arg(long, value_parser = pair, value_name = "KEY=VALUE")]
    tag: Vec<(String, String)>,
    /// dataplanes: only gateways.
    #[arg(long)]
    gateway: bool,
    /// Zone ingresses are dataplanes.
    #[arg(long, hide = true)]
    ingress: bool,
    /// dataplane: what of it.
    #[arg(long, value_enum, default_value = "policies")]
    r#type: Type,
    /// dataplane --type config-dump: with endpoints.
    #[arg(long)]
    include_eds: bool,
    /// dataplane --type config: as if policies with `kuma.io/effect: shadow` were in force.
    #[arg(long)]
    shadow: bool,
    /// dataplane --type config: `diff` adds what would change.
    #[arg(long, value_enum)]
    include: Vec<Include>,
    /// A policy: first proxy of the page.
    #[arg(long)]
    offset: Option<String>,
    /// A policy: pages of proxies with their labels.
    #[arg(long)]
    new_api: bool,
}

/// What of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Type {
    /// Policies that apply.
    Policies,
    /// What its Envoy runs.
    ConfigDump,
    /// Counters of its Envoy.
    Stats,
    /// Clusters of its Envoy.
    Clusters,
    /// What its control plane sends.
    Config,
}

/// Additions to --type config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Include {
    /// What would change.
    Diff,
}

/// What is inspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Dataplanes,
    Dataplane,
    Zones,
    Meshes,
    Policy(Kind),
}

#[derive(Debug, Clone, Copy)]
struct Topics;

impl TypedValueParser for Topics {
    type Value = What;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<What, clap::Error> {
        let text = StringValueParser::new().parse_ref(command, argument, value)?;
        match text.to_ascii_lowercase().as_str() {
            "dataplanes" => Ok(What::Dataplanes),
            "dataplane" | "dp" => Ok(What::Dataplane),
            "zones" | "zone" => Ok(What::Zones),
            "meshes" | "mesh" => Ok(What::Meshes),
            _ => {
                kinds::Argument { only_policies: true }.parse_ref(command, argument, value).map(What::Policy)
            }
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let topics = ["dataplanes", "dataplane", "zones", "meshes"].map(PossibleValue::new);
        let policies = kinds::served().filter(|kind| kind.descriptor().is_policy());
        Some(Box::new(
            topics.into_iter().chain(policies.map(|kind| PossibleValue::new(kinds::singular(kind)))),
        ))
    }
}

/// Shows what was asked for.
pub(crate) async fn run(session: &Session, arguments: Arguments) -> Result<()> {
    let mesh = session.mesh(arguments.mesh.as_deref())?;
    match (arguments.what, arguments.name.as_deref()) {
        (What::Dataplane, None) => {
            Err(usage("which one? `grat inspect dataplane NAME`; `grat inspect dataplanes` shows all"))
        }
        (What::Policy(kind), None) => {
            Err(usage(format!("which one? `grat inspect {} NAME`", kinds::singular(kind))))
        }
        (What::Zones | What::Meshes | What::Dataplanes, Some(name)) => {
            Err(usage(format!("\"{name}\" is too much: this shows all; `grat describe KIND NAME` shows one")))
        }
        (What::Dataplane, Some(name)) => {
            let client = session.checked_client().await?;
            dataplane(session, &client, &mesh, name, &arguments).await
        }
        (What::Policy(kind), Some(name)) => {
            let client = session.checked_client().await?;
            policy(session, &client, kind, &mesh, name, &arguments).await
        }
        (what, None) => {
            let client = session.checked_client().await?;
            all(session, &client, what, &mesh, &arguments).await
        }
    }
}

async fn all(
    session: &Session,
    client: &Client,
    what: What,
    mesh: &str,
    arguments: &Arguments,
) -> Result<()> {
    let mut query = Vec::new();
    let path = match what {
        What::Zones => "/zones/_overview".to_owned(),
        What::Meshes => "/mesh-insights".to_owned(),
        _ => {
            if arguments.ingress {
                session
                    .screen
                    .warn("--ingress has no meaning: zone ingresses are dataplanes and are shown with them");
            }
            if arguments.gateway {
                query.push(("gateway".to_owned(), "true".to_owned()));
            }
            query.extend(
                arguments.tag.iter().map(|(key, value)| ("tag".to_owned(), format!("{key}:{value}"))),
            );
            format!("/meshes/{}/dataplanes/_overview", segment(mesh))
        }
    };
    let items = client.list(&path, &query).await?;
    let (now, style) = (session.now, session.screen.style);
    let text = match (arguments.output, what) {
        (Output::Yaml | Output::Json, _) => output::list(&items, items.len() as u64, arguments.output)?,
        (Output::Name, _) => {
            let kind = match what {
                What::Zones => Kind::Zone,
                What::Meshes => Kind::Mesh,
                _ => Kind::Dataplane,
            };
            items.iter().map(|item| format!("{}\n", output::name(kind, item))).collect()
        }
        (_, What::Zones) => overview::zones(&items, now, style).render(),
        (_, What::Meshes) => overview::meshes(&items).render(),
        (Output::Wide, _) => overview::dataplanes_wide(&items, now).render(),
        (Output::Table, _) => overview::dataplanes(&items, now, style).render(),
    };
    session.screen.print(&text)
}

async fn dataplane(
    session: &Session,
    client: &Client,
    mesh: &str,
    name: &str,
    arguments: &Arguments,
) -> Result<()> {
    let base = resource_path(Kind::Dataplane, mesh, name);
    let flag = |name: &str, value: bool| (name.to_owned(), value.to_string());
    let path = match arguments.r#type {
        Type::Policies => format!("{base}/_policies"),
        Type::ConfigDump => with_query(&format!("{base}/xds"), &[flag("include_eds", arguments.include_eds)]),
        Type::Stats => format!("{base}/stats"),
        Type::Clusters => format!("{base}/clusters"),
        Type::Config => {
            let mut query = vec![flag("shadow", arguments.shadow)];
            if arguments.include.contains(&Include::Diff) {
                query.push(("include".into(), "diff".into()));
            }
            with_query(&format!("{base}/_config"), &query)
        }
    };
    let answer = match client.text(&path).await {
        Err(error) if crate::client::is_status(&error, reqwest::StatusCode::NOT_FOUND) => {
            // A name that does not exist is the usual reason, and has a better answer.
            get::existing(client, Kind::Dataplane, mesh, name).await?;
            return Err(error);
        }
        other => other?,
    };
    if arguments.r#type != Type::Policies {
        return session.screen.line(answer.trim_end());
    }
    let document: Value = serde_json::from_str(&answer)?;
    session.screen.print(&match arguments.output {
        Output::Yaml | Output::Json => output::document(&document, arguments.output)?,
        _ => policy_lines(document["policies"].as_array().map(Vec::as_slice).unwrap_or_default()),
    })
}

async fn policy(
    session: &Session,
    client: &Client,
    kind: Kind,
    mesh: &str,
    name: &str,
    arguments: &Arguments,
) -> Result<()> {
    let base = resource_path(kind, mesh, name);
    let names: Vec<String> = if arguments.new_api || arguments.offset.is_some() {
        let path = format!("{base}/_resources/dataplanes");
        let items = match &arguments.offset {
            Some(offset) => client.page(&path, &[("offset".into(), offset.clone())]).await?.items,
            None => client.list(&path, &[]).await?,
        };
        items.iter().filter_map(|item| item["name"].as_str()).map(str::to_owned).collect()
    } else {
        let document = client.get(&format!("{base}/dataplanes")).await?;
        let items = document["items"].as_array().into_iter().flatten();
        items.filter_map(|item| item["dataplane"]["name"].as_str()).map(str::to_owned).collect()
    };
    if names.is_empty() {
        // Nothing is affected by what does not exist; that is worth an error of its own.
        get::existing(client, kind, mesh, name).await?;
    }
    let value = || names.iter().cloned().map(Value::from).collect::<Value>();
    session.screen.print(&match arguments.output {
        Output::Yaml | Output::Json => output::document(&value(), arguments.output)?,
        Output::Name => names.iter().map(|name| format!("dataplane/{name}\n")).collect(),
        _ => format!(
            "Affected data plane proxies:\n\n{}",
            names.iter().map(|name| format!("  {name}\n")).collect::<String>()
        ),
    })
}
