//! The numbers of connections between control planes.

use graticule_runtime::metrics::Measured;

use crate::core::{Flow, PeerReport};

/// One report for each peer, as numbers: whether it is connected, how far it is, what does not cross. With each report whether
/// this replica sends to the peer: others do not know how far it is.
pub fn measured(peers: impl IntoIterator<Item = (PeerReport, bool)>) -> Vec<Measured> {
    let mut connected =
        Measured::gauge("graticule_kds_connected", "1 when the zone and global are connected");
    let mut lag = Measured::gauge(
        "graticule_kds_lag_revisions",
        "Revisions of the store of this side that the peer does not have",
    );
    let mut pending =
        Measured::gauge("graticule_kds_pending_resources", "Resources on their way to the peer");
    let mut in_sync = Measured::gauge("graticule_kds_in_sync_resources", "Resources that both sides have");
    let mut quarantined =
        Measured::gauge("graticule_kds_quarantined_resources", "Resources that one side refused");
    let mut held_back = Measured::gauge(
        "graticule_kds_held_back_deletions",
        "Deletions that wait for a decision of an operator, here or at the peer",
    );
    let mut conflict =
        Measured::gauge("graticule_kds_name_conflict", "1 when another control plane wanted the zone's name");
    let mut instances =
        Measured::gauge("graticule_kds_connected_instances", "Connected processes of the zone");
    for (report, is_here) in peers {
        let zone = report.zone.as_str();
        let flag = |holds: bool| f64::from(u8::from(holds));
        connected.add([("zone", zone)], flag(report.online));
        if report.reporter == "global" {
            conflict.add([("zone", zone)], flag(report.conflict.is_some()));
            instances.add([("zone", zone)], report.instances.len() as f64);
        }
        if report.online && !is_here {
            continue;
        }
        if let Some(revision) = report.revision.filter(|_| is_here) {
            lag.add([("zone", zone)], revision.lag as f64);
        }
        for (direction, flow) in [("sent", Flow::Sent), ("received", Flow::Received)] {
            let of = |count: fn(&crate::core::KindStatus) -> usize| {
                report.kinds.iter().filter(|kind| kind.direction == flow).map(count).sum::<usize>() as f64
            };
            let labels = [("zone", zone), ("direction", direction)];
            in_sync.add(labels, of(|kind| kind.in_sync));
            quarantined.add(labels, of(|kind| kind.quarantined));
            if flow == Flow::Sent && is_here {
                pending.add([("zone", zone)], of(|kind| kind.pending));
            }
        }
        let protection = &report.protection;
        held_back.add([("zone", zone), ("at", "here")], protection.held_back as f64);
        held_back.add([("zone", zone), ("at", "peer")], protection.held_back_by_peer as f64);
    }
    vec![connected, instances, lag, in_sync, pending, quarantined, held_back, conflict]
}

#[cfg(test)]
mod tests {
    use graticule_model::{Kind, Timestamp};
    use graticule_runtime::metrics::Metrics;

    use super::*;
    use crate::core::{KindCounts, PeerState, Protection, Revisions};

    fn report(zone: &str, state: &PeerState) -> PeerReport {
        let (quarantine, quarantine_total) = state.quarantine();
        PeerReport {
            zone: zone.into(),
            reporter: "global",
            online: true,
            synced: None,
            connected_since: None,
            last_error: None,
            instances: Vec::new(),
            revision: Some(Revisions { current: 9, acknowledged: 6, lag: 3, behind_since: None }),
            meshes: Vec::new(),
            kinds: state.kinds([(Kind::Dataplane, 5)].into_iter()),
            quarantine,
            quarantine_total,
            protection: Protection { held_back: 2, ..state.protection(zone) },
            global_revision: None,
            usage: None,
            global_revision_taken: None,
            conflict: None,
        }
    }

    #[test]
    fn a_line_for_each_zone() {
        let sent =
            KindCounts { kind: Kind::MeshTimeout, in_sync: 4, pending: 1, quarantined: 2, held_back: 7 };
        let mut state = PeerState { sent: vec![sent], ..PeerState::default() };
        let refused = [(Kind::Dataplane, "a.default", "bad")];
        state.refused_here.update(refused.into_iter(), Timestamp::UNIX_EPOCH);
        let metrics = Metrics::new();
        metrics.look_up(move || {
            let quiet = |zone| report(zone, &PeerState::default());
            let gone = PeerReport { online: false, ..quiet("south") };
            measured([
                (report("east", &state), true),
                (quiet("west"), true),
                (quiet("north"), false),
                (gone, false),
            ])
        });
        let text = metrics.text().expect("text");
        for line in [
            "graticule_kds_connected{zone=\"east\"} 1.0",
            "graticule_kds_lag_revisions{zone=\"east\"} 3.0",
            "graticule_kds_in_sync_resources{zone=\"east\",direction=\"sent\"} 4.0",
            "graticule_kds_in_sync_resources{zone=\"east\",direction=\"received\"} 5.0",
            "graticule_kds_pending_resources{zone=\"east\"} 1.0",
            "graticule_kds_quarantined_resources{zone=\"east\",direction=\"sent\"} 2.0",
            "graticule_kds_quarantined_resources{zone=\"east\",direction=\"received\"} 1.0",
            "graticule_kds_quarantined_resources{zone=\"west\",direction=\"sent\"} 0.0",
            "graticule_kds_held_back_deletions{zone=\"east\",at=\"here\"} 2.0",
            "graticule_kds_held_back_deletions{zone=\"east\",at=\"peer\"} 7.0",
            "graticule_kds_name_conflict{zone=\"east\"} 0.0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
        // Another replica sends to one of them, nobody to the other.
        let of = |zone: &str| {
            let label = format!("zone=\"{zone}\"");
            text.lines().filter(|line| line.contains(&label)).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(of("north").len(), 3, "{:?}", of("north"));
        assert!(
            !of("south").iter().any(|line| line.contains("lag") || line.contains("pending")),
            "{:?}",
            of("south")
        );
    }
}
