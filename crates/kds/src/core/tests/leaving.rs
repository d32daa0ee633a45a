//! Zones that leave their global, and come back.

use super::*;

/// A zone leaves: what global wrote is the zone's own, other zones' resources go, nothing that proxies are told by changes
/// its name or its rank. When the zone joins again, global's copies take the place of what they were.
#[test]
fn a_zone_leaves_and_joins_again() {
    let mut all = Federation::default();
    all.global.put(mk("{type: Mesh, name: default}"));
    for name in ["shared", "taken", "gone-meanwhile", "edited"] {
        all.global.put(mk_timeout(name, "", "20s"));
    }
    all.global.put(mk("{type: Secret, mesh: default, name: key, data: Z2xvYmFs}"));
    all.global.put(mk(
        "{type: MeshMultiZoneService, mesh: default, name: many, labels: {kuma.io/display-name: many},
          spec: {selector: {meshService: {matchLabels: {a: b}}}, ports: [{port: 80, appProtocol: http}]}}",
    ));
    all.global
        .put(mk("{type: HostnameGenerator, name: names, spec: {template: '{{ .DisplayName }}.x', selector:
          {meshMultiZoneService: {matchLabels: {kuma.io/origin: global}}}}}"));
    all.global.put(mk(
        "{type: MeshIdentity, mesh: default, name: ident, spec: {selector: {dataplane: {matchLabels: {}}},
          provider: {type: Bundled, bundled: {insecureAllowSelfSigned: true, autogenerate: {enabled: true}}}}}",
    ));
    all.zones.insert("east", Site::default());
    all.zones.insert("west", Site::default());
    all.zones.get_mut("west").unwrap().put(mk_service("backend", "west"));
    all.zones.get_mut("west").unwrap().put(mk_trust("of-west", "default.west.mesh.local"));
    let east = all.zones.get_mut("east").unwrap();
    east.put(mk_timeout("taken", "kuma.io/origin: zone", "7s"));
    east.put(mk_service("own", "east"));
    all.sync();
    all.sync();
    let before = all.zones["east"].resources.clone();
    assert_eq!(before.values().filter(|r| r.kind() == Kind::MeshService).count(), 2, "west's is there");

    let east = all.zones.get_mut("east").unwrap();
    let steps = steps_of_leaving("east", east);
    let gone: Vec<_> =
        steps.iter().filter_map(|step| Some((step.fate.kind, step.fate.of_zone.clone()?))).collect();
    assert_eq!(gone, [("MeshService", "west".to_owned()), ("MeshTrust", "west".to_owned())]);
    for step in &steps {
        east.write(&step.writes);
    }
    assert!(steps_of_leaving("east", east).is_empty(), "done once");
    let mut timeouts = east.names(Kind::MeshTimeout);
    timeouts.retain(|name| !name.starts_with("taken-"));
    assert_eq!(timeouts, ["edited", "gone-meanwhile", "shared", "taken"]);
    let taken = east.list(Kind::MeshTimeout).into_iter().find(|r| r.meta.name.starts_with("taken-")).unwrap();
    assert_eq!(taken.meta.display_name(), "taken", "the zone has one of this name: the copy keeps its own");
    for (key, resource) in &east.resources {
        assert!(resource.meta.is_local_to_zone(), "{key}");
    }
    let shared = east.one(Kind::MeshTimeout, "shared");
    assert_eq!(shared.meta.label("kuma.io/origin"), None, "less than what the zone wrote, more than nothing");
    assert_eq!(shared.meta.owner, Some(Key::new(Kind::Mesh, "", "default")));
    let old = before.values().find(|r| r.meta.display_name() == "shared").unwrap();
    assert_eq!(shared.kri(), old.kri());
    assert_eq!(east.names(Kind::MeshMultiZoneService), ["many"]);
    let identity = east.list(Kind::MeshIdentity).pop().unwrap();
    assert!(identity.meta.name.starts_with("ident-"), "its trust and its authority belong to the name");
    let generator = east.one(Kind::HostnameGenerator, "names").spec.to_json().to_string();
    assert!(generator.contains(r#""kuma.io/origin":"zone""#), "{generator}");

    // Somebody changes one of them; global loses one.
    let mut edited = Resource::clone(east.one(Kind::MeshTimeout, "edited"));
    edited.meta.labels.remove(graticule_model::labels::FROM_GLOBAL);
    edited.meta.labels.insert("kuma.io/origin".into(), "zone".into());
    east.put(edited);
    let lost = Key::new(Kind::MeshTimeout, "default", "gone-meanwhile");
    all.global.delete(&lost);
    all.sync();
    all.sync();
    let east = &all.zones["east"];
    let timeouts: Vec<&str> = east
        .names(Kind::MeshTimeout)
        .into_iter()
        .map(|name| name.split_once("-2").map_or(name, |(a, _)| a))
        .collect();
    let of = |prefix: &str| timeouts.iter().filter(|name| name.starts_with(prefix)).count();
    assert_eq!((of("shared"), of("taken"), of("edited"), of("gone-meanwhile")), (1, 2, 2, 1), "{timeouts:?}");
    for kind in
        [Kind::Mesh, Kind::Secret, Kind::MeshMultiZoneService, Kind::MeshIdentity, Kind::HostnameGenerator]
    {
        let list = east.list(kind);
        assert_eq!(list.len(), 1, "{kind}: {:?}", east.names(kind));
        assert_eq!(list[0].meta.label("kuma.io/origin"), Some("global"), "{kind}");
        assert_eq!(list[0].spec, before[&list[0].key()].spec, "{kind}");
    }
    assert_eq!(east.names(Kind::MeshService).len(), 2, "west's is back");
}

/// A zone that stood alone has an id of its own, and takes that of its federation: else it would follow any global.
#[test]
fn a_zone_that_stood_alone_takes_the_id_of_its_federation() {
    let id = |text: &str| {
        let config = graticule_model::kinds::config::Config { config: text.into() };
        Resource::new(graticule_model::Meta::new("", "kuma-cluster-id"), config)
    };
    let (mut global, mut zone) = (Site::default(), Site::default());
    global.put(id("of-global"));
    zone.put(id("own"));
    let offers = catalog(to_zones(), &global);
    let mut wire = Wire::down("east", None, &offers, &zone);
    wire.settle(&offers, &mut zone);
    assert_eq!(wire.nacks, [""; 0]);
    assert_eq!(zone.one(Kind::Config, "kuma-cluster-id").spec, id("of-global").spec);
    // Another one is not followed now.
    let mut other = Site::default();
    other.put(id("of-another"));
    let offers = catalog(to_zones(), &other);
    let mut wire = Wire::down("east", Some(wire.sink), &offers, &zone);
    wire.settle(&offers, &mut zone);
    assert!(matches!(wire.sink.global(), GlobalSeen::Other { .. }));
}
