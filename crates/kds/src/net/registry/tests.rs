use super::*;

fn mk_registry() -> Arc<Registry> {
    let protection = DeletionProtection::default();
    Arc::new(Registry::new(
        "global-1",
        10,
        Duration::ZERO,
        Duration::ZERO,
        protection,
        1 << 20,
        ZoneLimit::default(),
    ))
}

fn open_as(registry: &Arc<Registry>, zone: &str) -> OpenStream {
    let asking = Asking {
        zone,
        kind: StreamKind::GlobalToZone,
        claimant: &Claimant::default(),
        grant: None,
        bound: None,
        elsewhere: None,
        at: Timestamp::UNIX_EPOCH,
        now: Duration::ZERO,
    };
    registry.open(&asking, &Clock::manual(Timestamp::UNIX_EPOCH).0).expect("the name is free")
}

/// While one zone's report is worked on, for however long, everything goes on for the others.
#[test]
fn a_zone_waits_for_no_other() {
    let registry = mk_registry();
    let (_liar, _east) = (open_as(&registry, "liar"), open_as(&registry, "east"));
    let mut was_there = false;
    registry.set_report("liar", |_| {
        registry.subscribed("east", "s".into(), Timestamp::UNIX_EPOCH, true);
        registry.counted("east", "s", "Mesh", Timestamp::UNIX_EPOCH, |stats| stats.responses_sent += 1);
        registry.set_report("east", |report| report.peer.acknowledged = graticule_store::Revision(7));
        let _west = open_as(&registry, "west");
        was_there =
            registry.report("east", Duration::ZERO).is_some_and(|report| report.peer.acknowledged.0 == 7)
                && registry.has_stream("west", StreamKind::GlobalToZone);
    });
    assert!(was_there);
}

/// A rival that was renamed or stopped never says so.
#[test]
fn who_no_longer_asks_for_a_name_is_no_rival() {
    let registry = mk_registry();
    let _east = open_as(&registry, "east");
    let at = Duration::from_secs;
    let day = |seconds| Timestamp::UNIX_EPOCH + at(seconds);
    let refuse = |instance: &str, seconds| {
        let rival = Claimant { instance: instance.into(), ..Claimant::default() };
        registry.note_conflict("east", &rival, "held", day(seconds), at(seconds));
    };
    let shown = |seconds| {
        let conflict = registry.report("east", at(seconds)).expect("it connected").conflict;
        conflict.map(|one| (one.instance, one.since, one.last))
    };
    assert_eq!(shown(0), None);
    refuse("east-b", 100);
    refuse("east-b", 120);
    let last = 120 + CONFLICT_SHOWN_FOR.as_secs();
    assert_eq!(shown(last - 1), Some(("east-b".into(), day(100), day(120))));
    assert_eq!(shown(last), None, "it asks no more");
    refuse("east-b", last + 10);
    let again = day(last + 10);
    assert_eq!(shown(last + 10), Some(("east-b".into(), again, again)), "that is another time");
    // It began anew, as another process.
    refuse("east-c", last + 20);
    assert_eq!(shown(last + 20), Some(("east-c".into(), day(last + 20), day(last + 20))));
}

#[test]
fn a_deleted_zone_s_stream_hears_of_it() {
    let registry = mk_registry();
    let stream = open_as(&registry, "east");
    registry.evict("east");
    assert!(futures::FutureExt::now_or_never(stream.ending.told()).is_some());
    assert!(registry.take_dirty().is_empty() && registry.report("east", Duration::ZERO).is_none());
    let again = open_as(&registry, "east");
    drop(stream);
    assert!(
        registry.has_stream("east", StreamKind::GlobalToZone),
        "the late end of the old one is nothing to it"
    );
    drop(again);
    assert!(!registry.has_stream("east", StreamKind::GlobalToZone));
}
