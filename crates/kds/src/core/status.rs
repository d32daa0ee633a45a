//! What is known about the connections of one zone: the state behind its `ZoneInsight` (federation.md §4.2).

use graticule_model::kinds::zone::{
    ControlPlaneVersion, ControlPlaneVersions, EnvoyAdminStreams, HealthCheck, KdsStats, KdsStream,
    KdsStreams, KdsSubscription, ZoneInsight,
};
use graticule_model::{Kind, Timestamp};
use graticule_proto::discovery::Node;
use graticule_proto::google::protobuf::value::Kind as ValueKind;
use graticule_proto::google::protobuf::{Struct, Value};
use graticule_runtime::version::{KUMA_COMPATIBLE, is_compatible};
use prost::Message as _;

use super::quarantine::beginning;

/// The five streams of a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamKind {
    /// Sync down.
    GlobalToZone,
    /// Sync up.
    ZoneToGlobal,
    /// Configuration dumps.
    ConfigDump,
    /// Statistics.
    Stats,
    /// Clusters.
    Clusters,
}

impl StreamKind {
    /// Resources travel on it, in one direction or the other.
    pub fn is_sync(self) -> bool {
        matches!(self, StreamKind::GlobalToZone | StreamKind::ZoneToGlobal)
    }
}

/// Bytes of a zone's own configuration that are kept with a subscription: all of it, or a note.
const CONFIG_LEN_MAX: usize = 64 * 1024;
/// Bytes of any other thing that a zone says about itself.
const TEXT_LEN_MAX: usize = 256;
/// Members of the metadata of a node that say something about the peer; what else it says is not kept.
const DESCRIPTION: [&str; 2] = ["control-plane-id", "version"];

/// What is kept of the node of a peer.
pub(super) fn bounded(node: &Node) -> Node {
    let mut metadata = Struct::default();
    let theirs = node.metadata.as_ref();
    for key in DESCRIPTION {
        let Some(value) = theirs.and_then(|members| members.fields.get(key)) else { continue };
        // Texts that are too long are cut where they are used; a whole that is too long says nothing useful.
        if value.encoded_len() <= 8 * TEXT_LEN_MAX {
            metadata.fields.insert(key.into(), value.clone());
        }
    }
    if let Some(config) = theirs.and_then(|members| text(members, "config")) {
        let kind = Some(ValueKind::StringValue(kept_config(config)));
        metadata.fields.insert("config".into(), Value { kind });
    }
    Node { id: beginning(&node.id, TEXT_LEN_MAX).into(), metadata: Some(metadata), ..Default::default() }
}

/// A zone's own configuration, a JSON document; when it is too long, a note in its place.
fn kept_config(config: &str) -> String {
    if config.len() <= CONFIG_LEN_MAX {
        return config.to_owned();
    }
    let note = format!("{} bytes; a configuration of up to {CONFIG_LEN_MAX} bytes is kept", config.len());
    serde_json::json!({ "omitted": note }).to_string()
}

/// Facts about the connections of one zone.
#[derive(Debug, Clone)]
pub struct ZoneStatus {
    instance_id: String,
    subscriptions_max: usize,
    insight: ZoneInsight,
}

impl ZoneStatus {
    /// Nothing known yet. `instance_id` is this control plane's; `subscriptions_max` limits the history.
    pub fn new(instance_id: &str, subscriptions_max: usize) -> ZoneStatus {
        ZoneStatus { instance_id: instance_id.into(), subscriptions_max, insight: ZoneInsight::default() }
    }

    /// The resource's spec.
    pub fn insight(&self) -> &ZoneInsight {
        &self.insight
    }

    /// What another replica of global knew of earlier connections, which are over. Nothing new once the zone is here.
    pub fn remember(&mut self, known: &ZoneInsight, at: Timestamp) {
        let newest = known.subscriptions.last();
        if !self.insight.is_online()
            && newest.is_some_and(|newest| newest.global_instance_id != self.instance_id)
        {
            self.insight.subscriptions.clone_from(&known.subscriptions);
            for earlier in &mut self.insight.subscriptions {
                earlier.disconnect_time.get_or_insert(at);
            }
        }
    }

    /// A stream was opened.
    pub fn stream_opened(&mut self, kind: StreamKind, at: Timestamp) {
        let stream = Some(KdsStream { global_instance_id: self.instance_id.clone(), connect_time: Some(at) });
        let streams = self.insight.kds_streams.get_or_insert_with(KdsStreams::default);
        let legacy = self.insight.envoy_admin_streams.get_or_insert_with(EnvoyAdminStreams::default);
        match kind {
            StreamKind::GlobalToZone => streams.global_to_zone = stream,
            StreamKind::ZoneToGlobal => streams.zone_to_global = stream,
            StreamKind::ConfigDump => {
                streams.config_dump = stream;
                legacy.config_dump_global_instance_id.clone_from(&self.instance_id);
            }
            StreamKind::Stats => {
                streams.stats = stream;
                legacy.stats_global_instance_id.clone_from(&self.instance_id);
            }
            StreamKind::Clusters => {
                streams.clusters = stream;
                legacy.clusters_global_instance_id.clone_from(&self.instance_id);
            }
        }
    }

    /// A sync stream was opened: a new subscription, which ends all older ones.
    pub fn subscribed(&mut self, id: String, at: Timestamp, token_provided: bool) {
        for older in self.insight.subscriptions.iter_mut().filter(|older| older.disconnect_time.is_none()) {
            older.disconnect_time = Some(at);
        }
        self.insight.subscriptions.push(KdsSubscription {
            id,
            global_instance_id: self.instance_id.clone(),
            connect_time: Some(at),
            auth_token_provided: token_provided,
            ..Default::default()
        });
        let surplus = self.insight.subscriptions.len().saturating_sub(self.subscriptions_max);
        self.insight.subscriptions.drain(..surplus);
    }

    /// The peer described itself.
    pub fn described(&mut self, id: &str, node: &Node) {
        let Some(subscription) = self.subscription(id) else { return };
        let Some(metadata) = &node.metadata else { return };
        let short = |text: Option<&str>| beginning(text.unwrap_or_default(), TEXT_LEN_MAX).to_owned();
        subscription.zone_instance_id = short(text(metadata, "control-plane-id"));
        subscription.config = kept_config(text(metadata, "config").unwrap_or_default());
        let version = member(metadata, "version").and_then(|version| member(version, "kumaCp"));
        subscription.version = version.map(|version| {
            let part = |key| short(text(version, key));
            let fits = is_compatible(KUMA_COMPATIBLE, &part("version"));
            ControlPlaneVersions {
                kuma_cp: Some(ControlPlaneVersion {
                    version: part("version"),
                    git_tag: part("gitTag"),
                    git_commit: part("gitCommit"),
                    build_date: part("buildDate"),
                    // Said, and nothing else: every zone that speaks this protocol is served.
                    kuma_cp_global_compatible: fits,
                }),
            }
        });
    }

    /// Counts a response or an answer to one; by kind only where it is one.
    pub fn counted(&mut self, id: &str, type_url: &str, at: Timestamp, count: impl Fn(&mut KdsStats)) {
        let Some(subscription) = self.subscription(id) else { return };
        let status = subscription.status.get_or_insert_with(Default::default);
        status.last_update_time = Some(at);
        count(&mut status.total);
        if Kind::from_name(type_url).is_ok() {
            count(status.stat.entry(type_url.to_owned()).or_default());
        }
    }

    /// A sync stream ended.
    pub fn unsubscribed(&mut self, id: &str, at: Timestamp) {
        if let Some(subscription) = self.subscription(id) {
            subscription.disconnect_time.get_or_insert(at);
        }
    }

    /// The zone called the health check.
    pub fn health_checked(&mut self, at: Timestamp) {
        self.insight.health_check = Some(HealthCheck { time: Some(at) });
    }

    fn subscription(&mut self, id: &str) -> Option<&mut KdsSubscription> {
        self.insight.subscriptions.iter_mut().find(|subscription| subscription.id == id)
    }
}

fn text<'a>(members: &'a Struct, key: &str) -> Option<&'a str> {
    match members.fields.get(key)?.kind.as_ref()? {
        ValueKind::StringValue(text) => Some(text),
        _ => None,
    }
}

fn member<'a>(members: &'a Struct, key: &str) -> Option<&'a Struct> {
    match members.fields.get(key)?.kind.as_ref()? {
        ValueKind::StructValue(inner) => Some(inner),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn seen(status: &ZoneStatus) -> Vec<(&str, bool)> {
        let all = status.insight().subscriptions.iter();
        all.map(|one| (one.id.as_str(), one.disconnect_time.is_none())).collect()
    }

    #[test]
    fn a_zone_that_comes_from_another_replica_keeps_its_history() {
        let mut a = ZoneStatus::new("a", 10);
        a.subscribed("one".into(), at(1), true);
        let mut b = ZoneStatus::new("b", 10);
        // One stream of the zone may be here before the other, and each brings what the other replica knew.
        b.remember(a.insight(), at(2));
        assert_eq!((seen(&b), b.insight().is_online()), (vec![("one", false)], false));
        b.subscribed("two".into(), at(3), true);
        b.remember(a.insight(), at(4));
        assert_eq!(seen(&b), [("one", false), ("two", true)]);
        a.unsubscribed("one", at(5));
        b.unsubscribed("two", at(6));
        a.remember(b.insight(), at(7));
        a.subscribed("three".into(), at(8), true);
        assert_eq!(seen(&a), [("one", false), ("two", false), ("three", true)]);
        // Its own history is not replaced by itself.
        let known = a.insight().clone();
        a.unsubscribed("three", at(9));
        a.remember(&known, at(10));
        assert_eq!(a.insight().subscriptions[2].disconnect_time, Some(at(9)));
    }

    #[test]
    fn what_a_zone_says_about_itself_is_bounded() {
        let text = |text: String| Value { kind: Some(ValueKind::StringValue(text)) };
        let node_of = |config: usize, id: usize| Node {
            id: "e".repeat(id),
            metadata: Some(Struct {
                fields: [
                    ("config".to_owned(), text("c".repeat(config))),
                    ("control-plane-id".to_owned(), text("i".repeat(id))),
                    ("anything".to_owned(), text("x".repeat(config))),
                ]
                .into_iter()
                .collect(),
            }),
            ..Default::default()
        };
        for (config, id, is_kept) in
            [(100, 10, true), (CONFIG_LEN_MAX, 256, true), (CONFIG_LEN_MAX + 1, 1_000, false)]
        {
            let node = node_of(config, id);
            let kept = bounded(&node);
            assert!(kept.encoded_len() < CONFIG_LEN_MAX + 4_096, "{}", kept.encoded_len());
            for node in [&node, &kept] {
                let mut status = ZoneStatus::new("a", 10);
                status.subscribed("one".into(), at(1), true);
                status.described("one", node);
                let subscription = &status.insight().subscriptions[0];
                assert_eq!(subscription.zone_instance_id, "i".repeat(id.min(256)));
                assert_eq!(subscription.config == "c".repeat(config), is_kept);
                assert!(
                    is_kept || subscription.config.contains(&format!("{config} bytes")),
                    "{}",
                    subscription.config
                );
            }
        }
    }

    #[test]
    fn whether_the_version_of_a_zone_fits_is_said() {
        let value = |kind| Value { kind: Some(kind) };
        let object = |name: &str, inner| {
            ValueKind::StructValue(Struct { fields: [(name.to_owned(), value(inner))].into() })
        };
        for (says, fits) in [("3.2.1", true), ("3.3.0", false), ("2.13.0", false), ("preview", true)] {
            let version = object("kumaCp", object("version", ValueKind::StringValue(says.into())));
            let metadata = Struct { fields: [("version".to_owned(), value(version))].into() };
            let mut status = ZoneStatus::new("a", 10);
            status.subscribed("one".into(), at(1), true);
            status.described("one", &Node { metadata: Some(metadata), ..Default::default() });
            let versions = status.insight().subscriptions[0].version.as_ref().expect("said");
            let own = versions.kuma_cp.as_ref().expect("said");
            assert_eq!((own.version.as_str(), own.kuma_cp_global_compatible), (says, fits));
        }
    }

    #[test]
    fn only_kinds_are_counted_by_name() {
        let mut status = ZoneStatus::new("a", 10);
        status.subscribed("one".into(), at(1), true);
        for name in ["Mesh", "Mesh", "Nonsense", ""] {
            status.counted("one", name, at(2), |stats| stats.responses_sent += 1);
        }
        let counted = status.insight().subscriptions[0].status.as_ref().expect("counted");
        assert_eq!(counted.total.responses_sent, 4);
        assert_eq!(counted.stat.keys().collect::<Vec<_>>(), ["Mesh"]);
    }
}
