//! Real proxies where the recorded zone had some.

use std::time::Duration;

use anyhow::{Context as _, Result};
use graticule_testkit::wait;
use serde_json::{Value, json};

use super::super::recording::Recording;
use super::{JOIN_LIMIT, Play};

/// What the recordings call the start of a proxy.
pub(in super::super) const PROXY_STARTS: &str = "start kuma-dp";
/// How the note begins that says that proxies end.
pub(in super::super) const PROXY_STOPS: &str = "the proxy stops";

/// How long a proxy may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(20);

impl Play<'_> {
    /// Starts a proxy with the Dataplane that the zone sends up next under its name.
    pub(super) async fn start_recorded_proxy(
        &mut self,
        recording: &Recording,
        index: usize,
        name: &str,
    ) -> Result<()> {
        let dataplane = recorded_dataplane(recording, name).context("the recording shows no Dataplane")?;
        self.start_proxy(&dataplane).await?;
        self.check(index, format!("proxy {name} connects"), Ok(Vec::new()));
        Ok(())
    }

    /// Starts a proxy of our zone and waits until it has its configuration.
    pub(super) async fn start_proxy(&mut self, dataplane: &Value) -> Result<()> {
        self.proxies.push(self.site.start_proxy(dataplane).await?);
        let name = dataplane["name"].as_str().unwrap_or_default();
        let path = format!("/meshes/default/dataplane-insights/{name}");
        let is_served = || async {
            let answer = self.site.get(&path).await.map_err(|error| format!("{error:#}"))?;
            let insight: Value = serde_json::from_str(&answer.body).unwrap_or_default();
            let listeners = &insight["subscriptions"][0]["status"]["lds"]["responsesAcknowledged"];
            if listeners.is_null() { Err(answer.body) } else { Ok(()) }
        };
        wait::until("the proxy has its listeners", JOIN_LIMIT, is_served).await?;
        Ok(())
    }

    /// Ends all proxies of our zone.
    pub(super) async fn stop_proxies(&mut self) -> Result<()> {
        for mut proxy in std::mem::take(&mut self.proxies) {
            proxy.terminate(STOP_LIMIT).await?;
        }
        Ok(())
    }
}

/// The Dataplane of a proxy as its agent brought it: without the labels that the control plane adds.
pub(super) fn recorded_dataplane(recording: &Recording, name: &str) -> Option<Value> {
    let ups = recording.messages().filter(|message| message.is_response() && message.kind() == "Dataplane");
    let items = ups.flat_map(|message| message.decoded["resources"].as_array().into_iter().flatten());
    let is_it = |item: &&Value| item["resource"]["meta"]["labels"]["kuma.io/display-name"] == name;
    let resource = &items.into_iter().find(is_it)?["resource"];
    let labels = resource["meta"]["labels"].as_object()?.iter();
    let own = labels.filter(|(key, _)| !key.starts_with("kuma.io/") || *key == "kuma.io/workload");
    Some(json!({
        "type": "Dataplane",
        "mesh": resource["meta"]["mesh"],
        "name": name,
        "labels": own.map(|(key, value)| (key.clone(), value.clone())).collect::<serde_json::Map<_, _>>(),
        "networking": resource["spec"]["networking"],
    }))
}
