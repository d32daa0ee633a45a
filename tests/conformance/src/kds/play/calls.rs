//! Recorded calls of the API of our side.

use std::time::Duration;

use anyhow::Result;
use graticule_testkit::wait;
use serde_json::{Value, json};

use super::super::case;
use super::super::differences::Meant;
use super::super::recording::{Recording, Rest};
use super::super::state::blur;
use super::{Play, READ_LIMIT, Role, ZONE};
use crate::compare::{Bindings, Difference, compare};

/// Reads that show counters, addresses and times: compared by the suite of REST recordings.
const NOT_COMPARED: [&str; 4] = ["_overview", "zone-insights", "dataplane-insights", "/zoneinsights"];

impl Play<'_> {
    /// Makes a recorded call, if it was made at our side.
    pub(super) async fn rest(&mut self, recording: &Recording, index: usize, rest: &Rest) -> Result<()> {
        let ours = match self.role {
            Role::Zones => "global",
            Role::Global => ZONE,
        };
        if rest.at != ours || !self.site.is_running() {
            return Ok(());
        }
        let is_read = rest.method == "GET";
        // What a zone derives passes through states between two writes that depend on who is faster.
        if is_read || self.role == Role::Zones {
            self.settle(recording, index).await;
        }
        if is_read && NOT_COMPARED.iter().any(|part| rest.path.contains(part)) {
            return Ok(());
        }
        let what = format!("{} {}", rest.method, rest.path);
        let meant = Meant::at(case(self.role, &recording.name, index, ""));
        let recorded = recorded_answer(rest, is_read);
        // What arrives is seen a moment later.
        let attempt = async || -> Result<Vec<Difference>> {
            let answer = self.site.call(rest).await?;
            let mut ours = json!({"status": u64::from(answer.status)});
            if recorded.get("body").is_some() {
                ours["body"] = serde_json::from_str(&answer.body).unwrap_or(Value::String(answer.body));
            }
            blur(&mut ours);
            Ok(compare(&recorded, &ours, &mut Bindings::shared()))
        };
        let start = wait::now();
        let found = loop {
            let found = attempt().await;
            let is_final = !is_read || start.elapsed() > READ_LIMIT;
            if is_final || found.as_ref().is_ok_and(|differences| meant.covers(&what, differences)) {
                break found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        self.check(index, what, found);
        Ok(())
    }
}

fn recorded_answer(rest: &Rest, is_read: bool) -> Value {
    let mut recorded = json!({"status": rest.status});
    if let Some(response) = rest.response.as_ref().filter(|_| is_read || rest.status >= 400) {
        recorded["body"] = response.clone();
    }
    blur(&mut recorded);
    recorded
}
