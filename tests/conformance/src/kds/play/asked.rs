//! `09-envoy-admin` the other way round: a played global asks our zone about a real proxy, and about one without Envoy.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use graticule_proto::kuma::mesh::v1alpha1 as pb;
use graticule_testkit::wait;
use serde_json::{Value, json};

use super::super::peer::Peer;
use super::super::recording::{self, Recording, Rest};
use super::super::transport::Questions;
use super::proxies::recorded_dataplane;
use super::questions::{Exchange, exchanges};
use super::{Check, Play, QUESTIONS, Role, ZONE};
use crate::compare::{Bindings, Difference, compare};

/// The recording that shows the Dataplane of the proxy.
const WITH_PROXY: &str = "03-zone-resources";
/// Name of the proxy.
const PROXY: &str = "backend-1";
/// Its address: on `127.0.0.1`, which the recording has, there is no listener in front of a socket of Envoy's admin interface.
const ADDRESS: &str = "127.0.0.9";
/// How long our zone may take to answer.
const LIMIT: Duration = Duration::from_secs(10);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes at the beginning of an answer that name its form, before anything that is another one in every run.
const HEAD_LEN: usize = 33;
/// A counter that nothing has counted in yet.
const UNUSED: &str = "assignment_timeout_received";

impl Play<'_> {
    /// Plays the recording; gives what was checked.
    pub(in super::super) async fn asked(&mut self, folder: &Path) -> Result<Vec<Check>> {
        ensure!(self.role == Role::Global, "only a zone is asked");
        let exchanges = exchanges(&recording::events(folder, QUESTIONS)?)?;
        let with_proxy = Recording::open(folder, WITH_PROXY)?;
        let mut dataplane = recorded_dataplane(&with_proxy, PROXY).context("no Dataplane of the proxy")?;
        dataplane["networking"]["address"] = ADDRESS.into();
        let join = self.join;
        self.join(join, &(ZONE.into(), 1)).await?;
        self.start_proxy(&dataplane).await?;
        self.site.call(&without_envoy(&exchanges)?).await?;
        let opened = || {
            let questions = self.global.as_ref().and_then(|global| global.questions());
            std::future::ready(questions.ok_or_else(|| "not opened".to_owned()))
        };
        let (questions, _) = wait::until("the streams of questions", LIMIT, opened).await?;
        for exchange in &exchanges {
            let (Some((rpc, asked)), Some(answered)) = (&exchange.asked, &exchange.answered) else {
                continue;
            };
            // The admin listener opens a moment after the others.
            let (start, mut attempts) = (wait::now(), 0u32..);
            let found = loop {
                let id = format!("{}-{}", exchange.index, attempts.next().unwrap_or_default());
                let found = ask(&questions, rpc, id, asked, answered).await;
                if start.elapsed() > LIMIT || found.as_ref().is_ok_and(Vec::is_empty) {
                    break found;
                }
                tokio::time::sleep(PAUSE).await;
            };
            self.check(exchange.index, format!("{rpc} about {}", asked["resource_name"]), found);
        }
        self.stop_proxies().await?;
        Ok(std::mem::take(&mut self.checks))
    }
}

/// The write of the Dataplane whose admin port nobody serves, as the recorded errors name it.
fn without_envoy(exchanges: &[Exchange]) -> Result<Rest> {
    let failed = exchanges.iter().find_map(|exchange| {
        let error = exchange.answered.as_ref()?["error"].as_str()?;
        Some((exchange.asked.as_ref()?.1["resource_name"].as_str()?, port_in(error)?))
    });
    let (name, port) = failed.context("no recorded failure")?;
    Ok(Rest {
        at: ZONE.into(),
        method: "PUT".into(),
        path: format!("/meshes/default/dataplanes/{name}"),
        status: 201,
        body: Some(json!({
            "type": "Dataplane",
            "mesh": "default",
            "name": name,
            "networking": {
                "address": "127.0.0.1",
                "admin": {"port": port},
                "inbound": [{"port": 17111, "name": "http", "protocol": "http"}],
            },
        })),
        response: None,
    })
}

/// The port of the first `127.0.0.1:<port>` of a text.
fn port_in(text: &str) -> Option<u16> {
    let behind = text.split_once("127.0.0.1:")?.1;
    let end = behind.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(behind.len());
    behind[..end].parse().ok()
}

/// Asks as recorded; where the answer differs in form.
async fn ask(
    questions: &Questions,
    rpc: &str,
    request_id: String,
    asked: &Value,
    answered: &Value,
) -> Result<Vec<Difference>> {
    let text = |key: &str| asked[key].as_str().unwrap_or_default().to_owned();
    let (resource_type, resource_name, resource_mesh) =
        (text("resource_type"), text("resource_name"), text("resource_mesh"));
    let format = match asked["format"].as_str() {
        Some("JSON") => pb::AdminOutputFormat::Json,
        _ => pb::AdminOutputFormat::default(),
    };
    let used_only = asked["used_only"] == true;
    let include_eds = asked["include_eds"] == true;
    let answer = match rpc {
        "StreamXDSConfigs" => {
            let request = pb::XdsConfigRequest {
                request_id: request_id.clone(),
                resource_type,
                resource_name,
                resource_mesh,
                include_eds,
            };
            let answer =
                answer(&questions.configs, request, |answer| answer.request_id == request_id).await?;
            match answer.result.context("no result")? {
                pb::xds_config_response::Result::Config(bytes) => Ok(bytes),
                pb::xds_config_response::Result::Error(error) => Err(error),
            }
        }
        "StreamStats" => {
            let request = pb::StatsRequest {
                request_id: request_id.clone(),
                resource_type,
                resource_name,
                resource_mesh,
                format: format.into(),
                used_only,
            };
            let answer = answer(&questions.stats, request, |answer| answer.request_id == request_id).await?;
            match answer.result.context("no result")? {
                pb::stats_response::Result::Stats(bytes) => Ok(bytes),
                pb::stats_response::Result::Error(error) => Err(error),
            }
        }
        _ => {
            let request = pb::ClustersRequest {
                request_id: request_id.clone(),
                resource_type,
                resource_name,
                resource_mesh,
                format: format.into(),
            };
            let answer =
                answer(&questions.clusters, request, |answer| answer.request_id == request_id).await?;
            match answer.result.context("no result")? {
                pb::clusters_response::Result::Clusters(bytes) => Ok(bytes),
                pb::clusters_response::Result::Error(error) => Err(error),
            }
        }
    };
    let mut recorded = shape(recorded_answer(answered));
    // Only the beginning of a dump was kept, which does not reach this.
    recorded["endpoints"] = include_eds.into();
    let ours = shape(answer.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
    Ok(compare(&recorded, &ours, &mut Bindings::shared()))
}

async fn answer<Out, In>(peer: &Peer<Out, In>, question: Out, is_it: impl Fn(&In) -> bool) -> Result<In>
where
    Out: Send + 'static,
    In: Clone + Send + 'static,
{
    peer.send(question).await?;
    let heard = || {
        std::future::ready(peer.heard(0).into_iter().find(|answer| is_it(answer)).ok_or("nothing".to_owned()))
    };
    Ok(wait::until("the answer of our zone", LIMIT, heard).await?.0)
}

fn recorded_answer(answered: &Value) -> Result<String, String> {
    if let Some(error) = answered["error"].as_str() {
        return Err(error.into());
    }
    let head = |key: &str| answered[key]["text_head"].as_str();
    let text = head("config").or_else(|| head("stats")).or_else(|| head("clusters"));
    Ok(text.unwrap_or_default().into())
}

/// What is compared of an answer.
fn shape(answer: Result<String, String>) -> Value {
    match answer {
        Ok(text) => json!({
            "head": text.chars().filter(|letter| !letter.is_whitespace()).take(HEAD_LEN).collect::<String>(),
            "counts what is unused": text.contains(UNUSED),
            "endpoints": text.contains("EndpointsConfigDump"),
        }),
        // Whom nobody could reach; the words are each side's own.
        Err(error) => json!({"failed at port": port_in(&error), "endpoints": false}),
    }
}
