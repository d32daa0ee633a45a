//! What is kept until somebody decides, and what is said about it.

use std::time::Duration;

use super::*;

/// A zone that stood alone has meshes that global never heard of: they are kept until global has them, or an operator
/// gives them up.
#[test]
fn a_zone_that_stood_alone_loses_nothing() {
    let (mut global, mut zone) = (Site::default(), Site::default());
    let both = "{type: Mesh, name: both}";
    global.put(mk(both));
    zone.put(mk(both));
    zone.put(mk("{type: Mesh, name: only-here}"));
    zone.put(mk("{type: Mesh, name: given-up}"));
    let mut offers = catalog(to_zones(), &global);
    let mut wire = Wire::down("east", None, &offers, &zone);
    wire.settle(&offers, &mut zone);
    assert_eq!(zone.names(Kind::Mesh), ["both", "given-up", "only-here"]);
    let held = |sink: &Sink| sink.held_back().map(|(_, name)| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(held(&wire.sink), ["given-up.", "only-here."]);
    let counts = wire.source.counts().find(|counts| counts.kind == Kind::Mesh).unwrap();
    assert_eq!((counts.in_sync, counts.held_back), (1, 2), "global is told");

    // Global gets one: it is a copy from now on.
    offers.apply(Plane::Config, &global.put(mk("{type: Mesh, name: only-here}")));
    wire.settle(&offers, &mut zone);
    assert_eq!(held(&wire.sink), ["given-up."]);
    let copy = zone.list(Kind::Mesh).into_iter().find(|mesh| mesh.meta.name == "only-here").unwrap();
    assert_eq!(copy.meta.label("kuma.io/origin"), Some("global"));

    // The other one is given up; copies are deleted as ever.
    wire.sink.accept_deletions();
    offers.apply(Plane::Config, &global.delete(&Key::new(Kind::Mesh, "", "only-here")));
    let mut again = Wire::down("east", Some(wire.sink), &offers, &zone);
    again.settle(&offers, &mut zone);
    assert_eq!(zone.names(Kind::Mesh), ["both"]);
    assert!(held(&again.sink).is_empty());
}

/// What changed again while it was on its way is pending once, and not in sync meanwhile.
#[test]
fn pending_is_not_in_sync() {
    let (mut global, mut zone) = (Site::default(), Site::default());
    for name in ["a", "b", "c"] {
        global.put(mk(&format!("{{type: Mesh, name: {name}}}")));
    }
    let mut offers = catalog(to_zones(), &global);
    let mut wire = Wire::down("east", None, &offers, &zone);
    wire.settle(&offers, &mut zone);
    let counts = |source: &Source| {
        let counts = source.counts().find(|counts| counts.kind == Kind::Mesh).unwrap();
        (counts.in_sync, counts.pending)
    };
    assert_eq!(counts(&wire.source), (3, 0));
    let mut put = |wire: &mut Wire, text: &str| {
        offers.apply(Plane::Config, &global.put(mk(text)));
        wire.source.poll(&offers).len()
    };
    let labelled =
        |name: &str, value: &str| format!("{{type: Mesh, name: {name}, labels: {{team: {value}}}}}");
    assert_eq!(put(&mut wire, &labelled("a", "one")), 1);
    assert_eq!(counts(&wire.source), (2, 1), "one is on its way");
    assert_eq!(put(&mut wire, &labelled("a", "two")), 0, "until it is acknowledged");
    assert_eq!(put(&mut wire, &labelled("b", "one")), 0);
    assert_eq!(put(&mut wire, "{type: Mesh, name: d}"), 0);
    assert_eq!(counts(&wire.source), (1, 3));
}

/// A Mesh takes everything in it along: one that is missing when a connection begins is kept while the zone has proxies or
/// policies of its own in it. What comes with the Mesh by itself keeps nothing.
#[test]
fn a_mesh_that_a_zone_uses_is_kept() {
    for (own, is_kept) in [
        ("", false),
        ("{type: Secret, mesh: used, name: s, data: Z2xvYmFs}", false),
        (
            "{type: MeshTimeout, mesh: other, name: t, spec: {targetRef: {kind: Mesh}, to: [{targetRef: {kind: Mesh}, default: {idleTimeout: 2s}}]}}",
            false,
        ),
        (
            "{type: MeshTimeout, mesh: used, name: t, spec: {targetRef: {kind: Mesh}, to: [{targetRef: {kind: Mesh}, default: {idleTimeout: 2s}}]}}",
            true,
        ),
        ("{type: Dataplane, mesh: used, name: p, networking: {address: 127.0.0.1}}", true),
    ] {
        let (mut global, mut zone) = (Site::default(), Site::default());
        for mesh in ["used", "other", "third"] {
            global.put(mk(&format!("{{type: Mesh, name: {mesh}}}")));
        }
        if !own.is_empty() {
            zone.put(mk(own));
        }
        let offers = catalog(to_zones(), &global);
        let mut wire = Wire::down("east", None, &offers, &zone);
        wire.settle(&offers, &mut zone);

        global.delete(&Key::new(Kind::Mesh, "", "used"));
        let offers = catalog(to_zones(), &global);
        let mut again = Wire::down("east", Some(wire.sink), &offers, &zone);
        again.settle(&offers, &mut zone);
        let held: Vec<_> = again.sink.held_back().map(|(_, name)| name.to_owned()).collect();
        assert_eq!(zone.names(Kind::Mesh).contains(&"used"), is_kept, "{own}");
        assert_eq!(held, if is_kept { vec!["used."] } else { vec![] }, "{own}");
        if is_kept {
            again.sink.accept_deletions();
            let mut decided = Wire::down("east", Some(again.sink), &offers, &zone);
            decided.settle(&offers, &mut zone);
            assert!(!zone.names(Kind::Mesh).contains(&"used"), "{own}: given up");
        }
        // What is deleted while both are connected was decided.
        let mut offers = catalog(to_zones(), &global);
        let mut open = Wire::down("east", None, &offers, &zone);
        open.settle(&offers, &mut zone);
        offers.apply(Plane::Config, &global.delete(&Key::new(Kind::Mesh, "", "other")));
        open.settle(&offers, &mut zone);
        assert!(!zone.names(Kind::Mesh).contains(&"other"), "{own}");
    }
}

/// A replica that held nothing back itself removes as much as the operator was shown, and no more.
#[test]
fn a_decision_of_another_replica_has_a_limit() {
    for (agreed, is_removed) in [(19, false), (20, true), (30, true)] {
        let mut global = Site::default();
        for n in 10..30 {
            let labels = "kuma.io/origin: zone, kuma.io/zone: east, kuma.io/display-name: x";
            global.put(mk_timeout(&format!("t{n}"), labels, "20s"));
        }
        let zone = Site::default();
        let offers = catalog(Direction::ToGlobal { zone: "east".into() }, &zone);
        let mut sink = Sink::new(Side::Global { zone: "east".into() }, true);
        sink.set_estranged(true);
        sink.set_decision([(Kind::MeshTimeout, agreed)].into());
        let mut wire = Wire::up("east", Some(sink), &offers, &global);
        wire.settle(&offers, &mut global);
        let left = if is_removed { 0 } else { 20 };
        assert_eq!(global.names(Kind::MeshTimeout).len(), left, "{agreed}");
        assert_eq!(wire.sink.held_back().count(), left, "{agreed}");

        // It was about this loss.
        let mut later = Site::default();
        later.resources.clone_from(&global.resources);
        for n in 40..70 {
            let labels = "kuma.io/origin: zone, kuma.io/zone: east, kuma.io/display-name: x";
            later.put(mk_timeout(&format!("t{n}"), labels, "20s"));
        }
        let mut again = Wire::up("east", Some(wire.sink), &offers, &later);
        again.settle(&offers, &mut later);
        assert_eq!(again.sink.held_back().count(), 30 + left, "{agreed}");
    }
}

/// What a zone gave to global.
fn mk_given(names: impl IntoIterator<Item = u32>) -> Site {
    let mut global = Site::default();
    for n in names {
        let labels = "kuma.io/origin: zone, kuma.io/zone: east, kuma.io/display-name: x";
        global.put(mk_timeout(&format!("t{n}"), labels, "20s"));
    }
    global
}

/// What a zone offers that has nothing, and the stream over which global has heard so.
fn empty_zone(global: &mut Site, estranged: bool) -> (Catalog, Wire) {
    let offers = catalog(Direction::ToGlobal { zone: "east".into() }, &Site::default());
    let mut sink = Sink::new(Side::Global { zone: "east".into() }, true);
    sink.set_estranged(estranged);
    let mut wire = Wire::up("east", Some(sink), &offers, global);
    wire.settle(&offers, global);
    (offers, wire)
}

/// A decision that was carried out by another replica, while the stream here broke before it could, counts no more here: the
/// zone may lose its disk once more. And what went meanwhile is not held back any more.
#[test]
fn a_decision_that_was_carried_out_elsewhere_is_over() {
    let mut global = mk_given(10..20);
    let (offers, wire) = empty_zone(&mut global, true);
    assert_eq!(wire.sink.held_back().count(), 10);

    let mut sink = wire.sink;
    sink.set_decision([(Kind::MeshTimeout, 12)].into());
    let mut broken = Wire::up("east", Some(sink), &offers, &global);
    assert!(!broken.source.poll(&offers).is_empty());

    // The other replica removed them; the zone made some of them again, and lost them again.
    let mut later = mk_given(14..16);
    let mut sink = broken.sink;
    sink.set_estranged(true);
    sink.set_decision(BTreeMap::new());
    let mut again = Wire::up("east", Some(sink), &offers, &later);
    again.settle(&offers, &mut later);
    assert_eq!(later.names(Kind::MeshTimeout), ["t14", "t15"]);
    let held: Vec<_> = again.sink.held_back().map(|(_, name)| name.to_owned()).collect();
    assert_eq!(held, ["t14.default", "t15.default"]);
}

/// A replica that remembers more than the operator was shown gives up none of it by name.
#[test]
fn what_an_operator_was_not_shown_is_not_given_up() {
    for (agreed, left) in [(9, 10), (10, 0)] {
        let mut global = mk_given(10..20);
        let (offers, mut wire) = empty_zone(&mut global, true);
        wire.sink.set_estranged(true);
        wire.sink.set_decision([(Kind::MeshTimeout, agreed)].into());
        let mut decided = Wire::up("east", Some(wire.sink), &offers, &global);
        decided.settle(&offers, &mut global);
        assert_eq!(global.names(Kind::MeshTimeout).len(), left, "{agreed}");
        assert_eq!(decided.sink.held_back().count(), left, "{agreed}");
    }
}

/// What is held back and goes by another hand, as with its mesh, is not held back any more: also while the stream lives.
#[test]
fn what_went_is_not_held_back() {
    let mut global = mk_given(10..20);
    let (_, mut wire) = empty_zone(&mut global, true);
    assert_eq!(wire.sink.held_back().count(), 10);
    let gone: Vec<Key> = global.list(Kind::MeshTimeout).iter().skip(3).map(|copy| copy.key()).collect();
    for key in gone {
        global.delete(&key);
    }
    assert!(wire.sink.audit(&global, Duration::from_secs(1)).is_empty());
    assert_eq!(wire.sink.held_back().count(), 3);
}

/// What the former control plane of a zone gave is stored late, by another replica, when the one that lost its disk is
/// connected already: it is kept like the rest, until somebody decides.
#[test]
fn what_comes_late_of_a_lost_disk_is_held_back() {
    for estranged in [true, false] {
        let mut global = mk_given(10..12);
        let (offers, mut wire) = empty_zone(&mut global, estranged);
        let before = wire.sink.held_back().count();
        assert_eq!(before, if estranged { 2 } else { 0 });
        global.resources.extend(mk_given(20..21).resources);
        let now = Duration::from_secs(1);
        assert_eq!(wire.sink.audit(&global, now).len(), 1);
        let Repair::Ask(requests) = wire.sink.repair(&wire.node, &global, now) else { panic!("it is ours") };
        requests.into_iter().for_each(|request| drop(wire.source.on_request(request).unwrap()));
        wire.settle(&offers, &mut global);
        let kept = usize::from(estranged) * 3;
        assert_eq!((global.names(Kind::MeshTimeout).len(), wire.sink.held_back().count()), (kept, kept));
    }
}

/// The peer hears that less is held back, although nothing of the kind changes at its side.
#[test]
fn that_nothing_is_held_back_any_more_is_told() {
    let (mut global, mut zone) = (Site::default(), Site::default());
    global.put(mk("{type: Mesh, name: both}"));
    for name in ["both", "one", "two"] {
        zone.put(mk(&format!("{{type: Mesh, name: {name}}}")));
    }
    let offers = catalog(to_zones(), &global);
    let mut wire = Wire::down("east", None, &offers, &zone);
    wire.settle(&offers, &mut zone);
    let held = |wire: &Wire| {
        let counts = wire.source.counts().find(|counts| counts.kind == Kind::Mesh).unwrap();
        (wire.sink.held_back().count(), counts.held_back)
    };
    assert_eq!(held(&wire), (2, 2));
    zone.delete(&Key::new(Kind::Mesh, "", "one"));
    let now = Duration::from_secs(1);
    assert_eq!(wire.sink.audit(&zone, now), []);
    let Repair::Ask(requests) = wire.sink.repair(&wire.node, &zone, now) else { panic!("it is ours") };
    requests.into_iter().for_each(|request| drop(wire.source.on_request(request).unwrap()));
    wire.settle(&offers, &mut zone);
    assert_eq!(held(&wire), (1, 1));
}
