//! What global says about the connections of zones.

use std::collections::BTreeMap;

use graticule_model::kinds::zone::ZoneInsight;
use graticule_model::{Key, Kind};
use graticule_runtime::metrics::Measured;

use super::{GlobalServer, Shared};
use crate::core::{Held, Instance, PeerReport, Side, Sink, StreamKind, kinds_for_global};
use crate::net::measured::measured;
use crate::net::registry::ZoneReport;

impl GlobalServer {
    /// What is wrong between global and this zone; `None` = it never connected here.
    pub fn report(&self, zone: &str) -> Option<ZoneReport> {
        self.0.reported(zone)
    }

    /// Whether resources travel between this zone and this replica.
    pub fn serves(&self, zone: &str) -> bool {
        [StreamKind::GlobalToZone, StreamKind::ZoneToGlobal]
            .into_iter()
            .any(|kind| self.0.registry.has_stream(zone, kind))
    }

    /// All that is known about the connection of a zone; `None` = there is no such zone.
    pub fn peer_report(&self, zone: &str) -> Option<PeerReport> {
        let stores = self.0.deps.stores.held();
        let sink = Sink::new(Side::Global { zone: zone.into() }, true);
        self.report_with(zone, &stores, sink.holds(&stores))
    }

    fn report_with(
        &self,
        zone: &str,
        stores: &dyn Held,
        received: impl Iterator<Item = (Kind, usize)>,
    ) -> Option<PeerReport> {
        let shared = &self.0;
        let key = |kind| Key::new(kind, "", zone);
        stores.get(&key(Kind::Zone))?;
        let shown = shared.shown_status().snapshot().get(&key(Kind::ZoneInsight));
        let shown = shown.and_then(|shown| shown.spec_as::<ZoneInsight>().cloned());
        // What this replica remembers is old when the zone is connected to another one.
        let elsewhere = shown.clone().filter(ZoneInsight::is_online);
        let insight = elsewhere.or_else(|| shared.registry.insight(zone)).or(shown).unwrap_or_default();
        let open = || insight.subscriptions.iter().filter(|one| one.disconnect_time.is_none());
        let ZoneReport { mut peer, conflict } = shared.reported(zone).unwrap_or_default();
        peer.unoffered = shared.hub.faults();
        let head = shared.hub.catalog().head();
        let is_here = shared.registry.has_stream(zone, StreamKind::GlobalToZone);
        let (quarantine, quarantine_total) = peer.quarantine();
        Some(PeerReport {
            zone: zone.into(),
            reporter: "global",
            online: insight.is_online(),
            synced: None,
            connected_since: open().filter_map(|one| one.connect_time).min(),
            last_error: None,
            instances: open()
                .map(|one| Instance {
                    zone_instance: one.zone_instance_id.clone(),
                    global_instance: one.global_instance_id.clone(),
                })
                .collect(),
            revision: (is_here || !insight.is_online())
                .then(|| peer.revisions(shared.deps.stores.config.snapshot().revision(), head)),
            meshes: peer.meshes.names().map(str::to_owned).collect(),
            kinds: peer.kinds(received),
            quarantine,
            quarantine_total,
            protection: peer.protection(zone),
            global_revision: None,
            usage: peer.usage,
            global_revision_taken: None,
            conflict,
        })
    }

    /// The connections of all zones as numbers. How far a zone is, only the replica tells that sends to it.
    pub fn measured(&self) -> Vec<Measured> {
        let shared = &self.0;
        let stores = shared.deps.stores.held();
        let snapshot = shared.deps.stores.config.snapshot();
        let received = received_by_zone(&stores);
        let none = BTreeMap::new();
        let peers = snapshot.list(Kind::Zone, None).filter_map(|zone| {
            let zone = &zone.meta.name;
            let received = received.get(zone).unwrap_or(&none);
            let report =
                self.report_with(zone, &stores, received.iter().map(|(kind, count)| (*kind, *count)))?;
            Some((report, shared.registry.has_stream(zone, StreamKind::GlobalToZone)))
        });
        let mut numbers = measured(peers);
        let mut bytes = Measured::gauge(
            "graticule_kds_kind_bytes",
            "Bytes of all that is offered of a kind, as far as it was encoded; a stock Kuma zone takes it in one message",
        );
        for (kind, len) in shared.hub.catalog().sizes() {
            bytes.add([("kind", kind.name())], len as f64);
        }
        let mut limit =
            Measured::gauge("graticule_kds_message_limit_bytes", "Largest message that zones are sent");
        limit.add([] as [(&str, &str); 0], shared.options.message_len_max as f64);
        numbers.extend([bytes, limit]);
        numbers
    }
}

impl Shared {
    /// What the streams of a zone told, and who else asks for its name now.
    pub(super) fn reported(&self, zone: &str) -> Option<ZoneReport> {
        self.registry.report(zone, self.deps.clock.monotonic())
    }
}

/// Copies of each zone, by kind, in one pass.
fn received_by_zone(held: &dyn Held) -> BTreeMap<String, BTreeMap<Kind, usize>> {
    let mut received: BTreeMap<String, BTreeMap<Kind, usize>> = BTreeMap::new();
    for kind in kinds_for_global() {
        for copy in held.list(kind).iter().filter(|copy| !copy.meta.is_local_to_global()) {
            let Some(zone) = copy.meta.zone() else { continue };
            let of_zone = match received.get_mut(zone) {
                Some(of_zone) => of_zone,
                None => received.entry(zone.to_owned()).or_default(),
            };
            *of_zone.entry(kind).or_default() += 1;
        }
    }
    received
}
