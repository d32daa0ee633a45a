//! What is recorded of a proxy's streams: the `DataplaneInsight` of one proxy as a small state machine
//! (xds.md §1.8, dataplane-agent.md §5.3).

use std::collections::BTreeMap;

use graticule_model::Timestamp;
use graticule_model::kinds::dataplane_insight::{
    DataplaneInsight, DiscoveryStats, DiscoverySubscription, DiscoverySubscriptionStatus, MTls, Versions,
};
use graticule_runtime::version;
use serde_json::{Map, Value};

use super::kind::ResourceType;
use super::stream::Event;

/// Metadata keys of this form move into `version.dependencies`.
const DEPENDENCY_PREFIX: &str = "version.dependencies.";

/// Observations of one proxy over its streams.
#[derive(Debug, Clone)]
pub struct SubscriptionTracker {
    insight: DataplaneInsight,
    limit: usize,
    has_changed: bool,
}

impl SubscriptionTracker {
    /// Keeps the last `limit` subscriptions (`metrics.dataplane.subscriptionLimit`), going on from what is known.
    pub fn new(limit: usize, known: DataplaneInsight) -> SubscriptionTracker {
        SubscriptionTracker { insight: known, limit, has_changed: false }
    }

    /// Whether this stream is among those that are kept.
    pub fn knows(&self, stream: &str) -> bool {
        self.insight.subscriptions.iter().any(|subscription| subscription.id == stream)
    }

    /// A stream was authenticated. Earlier streams are over from now on.
    pub fn open(
        &mut self,
        stream: &str,
        instance: &str,
        metadata: Map<String, Value>,
        kuma_version: &str,
        now: Timestamp,
    ) {
        self.finish(now);
        self.insight.subscriptions.push(DiscoverySubscription {
            id: stream.into(),
            control_plane_instance_id: instance.into(),
            connect_time: Some(now),
            status: Some(DiscoverySubscriptionStatus { last_update_time: Some(now), ..Default::default() }),
            version: versions(&metadata, kuma_version),
            ..DiscoverySubscription::default()
        });
        let surplus = self.insight.subscriptions.len().saturating_sub(self.limit);
        self.insight.subscriptions.drain(..surplus);
        self.insight.metadata = Some(metadata);
        self.has_changed = true;
    }

    /// Counts what happened on a stream.
    pub fn on_event(&mut self, stream: &str, event: &Event, now: Timestamp) {
        let (kind, count): (ResourceType, fn(&mut DiscoveryStats) -> &mut u64) = match event {
            Event::Sent { kind, .. } => (*kind, |stats| &mut stats.responses_sent),
            Event::Acked { kind, .. } => (*kind, |stats| &mut stats.responses_acknowledged),
            Event::Nacked { kind, .. } => (*kind, |stats| &mut stats.responses_rejected),
            Event::Synced { .. } | Event::Serving => return,
        };
        let Some(subscription) = self.subscription(stream) else { return };
        let status = subscription.status.get_or_insert_default();
        *count(&mut status.total) += 1;
        match kind {
            ResourceType::Cluster => *count(&mut status.cds) += 1,
            ResourceType::Endpoint => *count(&mut status.eds) += 1,
            ResourceType::Listener => *count(&mut status.lds) += 1,
            // Counts in the total alone.
            ResourceType::Secret => {}
        }
        status.last_update_time = Some(now);
        self.has_changed = true;
    }

    /// A stream ended.
    pub fn close(&mut self, stream: &str, now: Timestamp) {
        if let Some(subscription) = self.subscription(stream)
            && subscription.disconnect_time.is_none()
        {
            subscription.disconnect_time = Some(now);
            self.has_changed = true;
        }
    }

    /// Ends every stream, for example of an instance that is gone.
    pub fn finish(&mut self, now: Timestamp) {
        for subscription in self.insight.subscriptions.iter_mut().filter(|s| s.disconnect_time.is_none()) {
            subscription.disconnect_time = Some(now);
            self.has_changed = true;
        }
    }

    /// Marks open streams as alive; to be called every half idle timeout.
    pub fn tick(&mut self) {
        for subscription in self.insight.subscriptions.iter_mut().filter(|s| s.disconnect_time.is_none()) {
            subscription.generation = subscription.generation.wrapping_add(1);
            self.has_changed = true;
        }
    }

    /// The proxy's certificate changed; `None` = it has no identity.
    pub fn set_mtls(&mut self, mtls: Option<MTls>) {
        self.has_changed |= self.insight.mtls != mtls;
        self.insight.mtls = mtls;
    }

    /// The observations.
    pub fn insight(&self) -> &DataplaneInsight {
        &self.insight
    }

    /// The observations, if they changed since the last call.
    pub fn take_changed(&mut self) -> Option<DataplaneInsight> {
        std::mem::take(&mut self.has_changed).then(|| self.insight.clone())
    }

    fn subscription(&mut self, stream: &str) -> Option<&mut DiscoverySubscription> {
        self.insight.subscriptions.iter_mut().rev().find(|subscription| subscription.id == stream)
    }
}

/// Versions from node metadata; nothing where the proxy reports none, or something else.
fn versions(metadata: &Map<String, Value>, kuma_version: &str) -> Option<Versions> {
    let mut versions: Versions = serde_json::from_value(metadata.get("version")?.clone()).ok()?;
    if let Some(agent) = &mut versions.kuma_dp {
        agent.kuma_cp_compatible = version::is_compatible(kuma_version, &agent.version);
    }
    let dynamic = metadata.get("dynamicMetadata").and_then(Value::as_object).into_iter().flatten();
    let dependencies: BTreeMap<String, String> = dynamic
        .filter_map(|(key, value)| {
            Some((key.strip_prefix(DEPENDENCY_PREFIX)?.to_owned(), value.as_str()?.to_owned()))
        })
        .collect();
    versions.dependencies.extend(dependencies);
    Some(versions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn metadata() -> Map<String, Value> {
        let value = serde_json::json!({
            "version": {"kumaDp": {"version": "3.1.0", "gitTag": "v3.1.0"}, "envoy": {"version": "1.39.3", "kumaDpCompatible": true}},
            "dynamicMetadata": {"version.dependencies.app": "7", "HOST_IP": "10.0.0.1"},
        });
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn counts_per_type_and_in_total() {
        let mut tracker = SubscriptionTracker::new(2, DataplaneInsight::default());
        tracker.open("s1", "cp-1", metadata(), "3.0.0", at(1));
        for kind in ResourceType::ALL {
            tracker.on_event("s1", &Event::Sent { kind, resources: 2, removed: 0 }, at(2));
        }
        tracker.on_event("s1", &Event::Acked { kind: ResourceType::Secret, revision: 1 }, at(3));
        let rejected =
            Event::Nacked { kind: ResourceType::Listener, revision: 1, names: vec![], message: "no".into() };
        tracker.on_event("s1", &rejected, at(4));
        tracker.on_event("other", &rejected, at(5));
        let insight = tracker.take_changed().expect("changed");
        assert!(tracker.take_changed().is_none() && insight.is_online());
        expect_test::expect![[r#"
            {
              "subscriptions": [
                {
                  "id": "s1",
                  "controlPlaneInstanceId": "cp-1",
                  "connectTime": "1970-01-01T00:00:01Z",
                  "status": {
                    "lastUpdateTime": "1970-01-01T00:00:04Z",
                    "total": {
                      "responsesSent": "4",
                      "responsesAcknowledged": "1",
                      "responsesRejected": "1"
                    },
                    "cds": {
                      "responsesSent": "1"
                    },
                    "eds": {
                      "responsesSent": "1"
                    },
                    "lds": {
                      "responsesSent": "1",
                      "responsesRejected": "1"
                    },
                    "rds": {}
                  },
                  "version": {
                    "kumaDp": {
                      "version": "3.1.0",
                      "gitTag": "v3.1.0",
                      "kumaCpCompatible": true
                    },
                    "envoy": {
                      "version": "1.39.3",
                      "kumaDpCompatible": true
                    },
                    "dependencies": {
                      "app": "7"
                    }
                  }
                }
              ]
            }"#]]
        .assert_eq(
            &serde_json::to_string_pretty(&DataplaneInsight { metadata: None, ..insight }).expect("JSON"),
        );
    }

    #[test]
    fn a_new_stream_ends_the_earlier_ones() {
        let mut tracker = SubscriptionTracker::new(2, DataplaneInsight::default());
        for (stream, second) in [("s1", 1), ("s2", 2), ("s3", 3)] {
            tracker.open(stream, "cp", metadata(), "3.0.0", at(second));
        }
        tracker.tick();
        let seen: Vec<_> = tracker
            .insight()
            .subscriptions
            .iter()
            .map(|s| (s.id.as_str(), s.disconnect_time, s.generation))
            .collect();
        assert_eq!(seen, [("s2", Some(at(3)), 0), ("s3", None, 1)]);
        tracker.close("s3", at(9));
        tracker.close("s3", at(10));
        assert_eq!(tracker.insight().subscriptions[1].disconnect_time, Some(at(9)));
        assert!(!tracker.insight().is_online());
        let mut none = SubscriptionTracker::new(0, DataplaneInsight::default());
        none.open("s1", "cp", Map::new(), "3.0.0", at(1));
        assert!(none.insight().subscriptions.is_empty() && none.insight().metadata.is_some());
    }
}
