//! Equal inputs give equal versions and the same resources; a change touches only what it is about.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::{OWN, parse};
use graticule_envoygen::{LeafSecret, Resources, Secrets, SharedCache, Snapshot, snapshot};
use graticule_policy::ProxyInputs;
use graticule_policy::inputs::{Endpoints, Routing, Trust};
use serde_json::json;

fn mk_secrets(chain: &str) -> Secrets {
    let identity = LeafSecret { chain_pem: chain.into(), key_pem: "key".into() };
    Secrets { identity: Some(identity), admin: None }
}

fn types(snapshot: &Snapshot) -> [(&'static str, &Resources); 4] {
    [
        ("cds", &snapshot.clusters),
        ("eds", &snapshot.endpoints),
        ("lds", &snapshot.listeners),
        ("sds", &snapshot.secrets),
    ]
}

/// Names of the resources that are not the very same in both.
fn changed(before: &Snapshot, after: &Snapshot) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for ((kind, before), (_, after)) in types(before).into_iter().zip(types(after)) {
        for name in before.keys().chain(after.keys()) {
            let same = match (before.get(name), after.get(name)) {
                (Some(before), Some(after)) => Arc::ptr_eq(before, after),
                _ => false,
            };
            if !same {
                names.insert(format!("{kind} {name}"));
            }
        }
    }
    names
}

/// The same values at other addresses.
fn deep_copy(inputs: &ProxyInputs) -> ProxyInputs {
    let mut copy = inputs.clone();
    copy.trust = Arc::new((*copy.trust).clone());
    copy.internal_cidrs = Arc::new((*copy.internal_cidrs).clone());
    copy.outbounds.iter_mut().for_each(|outbound| *outbound = Arc::new((**outbound).clone()));
    for cluster in copy.clusters.values_mut() {
        let mut own = (**cluster).clone();
        own.endpoints = Arc::new((*own.endpoints).clone());
        *cluster = Arc::new(own);
    }
    copy
}

#[test]
fn equal_inputs_share_everything() {
    let cache = SharedCache::default();
    let first = snapshot(&OWN.everything(), &mk_secrets("a"), None, &cache);
    let again = snapshot(&deep_copy(&OWN.everything()), &mk_secrets("a"), Some(&first), &cache);
    assert_eq!(changed(&first, &again), BTreeSet::new());
    assert_eq!(first, again);
    let restarted = snapshot(&OWN.everything(), &mk_secrets("a"), None, &SharedCache::default());
    for ((_, before), (_, after)) in types(&first).into_iter().zip(types(&restarted)) {
        let versions = |resources: &Resources| -> Vec<_> {
            resources.values().map(|r| (Arc::clone(&r.name), Arc::clone(&r.version))).collect()
        };
        assert_eq!(versions(before), versions(after));
    }
}

#[test]
fn proxies_share_what_they_have_in_common() {
    let cache = SharedCache::default();
    let (first, mut inputs) =
        (snapshot(&OWN.client(), &mk_secrets("a"), None, &cache), deep_copy(&OWN.client()));
    inputs.name = "web-2".into();
    inputs.address = "10.1.0.2".into();
    inputs.inbounds[0].address = "10.1.0.2".into();
    let second = snapshot(&inputs, &mk_secrets("b"), None, &cache);
    let own = changed(&first, &second);
    for shared in [
        "cds kri_msvc_shop_south__cart_8080",
        "eds kri_msvc_shop_south__cart_8080",
        "lds kri_msvc_shop_south__cart_8080",
        "sds system_trust_bundle",
    ] {
        assert!(!own.contains(shared), "{shared}");
    }
    assert!(own.contains("sds kri_mid_shop___workloads_") && own.contains("lds self_inbound_dp_ui"));
}

type Change = fn(&mut ProxyInputs);

/// Changes, each with all resources that it touches.
fn changes() -> Vec<(Change, Vec<&'static str>)> {
    vec![
        (|_| (), vec![]),
        (
            |inputs| {
                let cluster = inputs.clusters.get_mut("kri_msvc_shop_south__cart_8080").expect("there");
                let mut own = (**cluster).clone();
                own.endpoints = Arc::new(Endpoints { localities: parse_localities() });
                *cluster = Arc::new(own);
            },
            vec!["eds kri_msvc_shop_south__cart_8080"],
        ),
        (
            |inputs| {
                let cluster = inputs.clusters.get_mut("kri_msvc_shop_south__cart_grpc").expect("there");
                let mut own = (**cluster).clone();
                own.circuit_breaker = None;
                *cluster = Arc::new(own);
            },
            vec!["cds kri_msvc_shop_south__cart_grpc"],
        ),
        (
            |inputs| {
                let mut own = (*inputs.outbounds[1]).clone();
                own.timeout = Some(parse(json!({"idleTimeout": "9s"})));
                inputs.outbounds[1] = Arc::new(own);
            },
            vec!["lds kri_msvc_shop_south__cart_db"],
        ),
        (
            |inputs| {
                let mut own = (*inputs.outbounds[0]).clone();
                own.routing = Routing::Http(Vec::new());
                inputs.outbounds[0] = Arc::new(own);
            },
            vec!["lds kri_msvc_shop_south__cart_8080"],
        ),
        (|inputs| inputs.inbounds[0].permissions.clear(), vec!["lds self_inbound_dp_ui"]),
        (|inputs| inputs.inbounds[2].circuit_breaker = None, vec!["cds self_inbound_dp_db"]),
        (
            |inputs| {
                let mut trust = Trust::clone(&inputs.trust);
                trust.domains.get_mut("shop.north.mesh.local").expect("there").push("pem".into());
                inputs.trust = Arc::new(trust);
            },
            vec!["sds system_trust_bundle"],
        ),
        (|inputs| inputs.dns = None, vec!["lds system_dynamicconfig"]),
    ]
}

fn parse_localities() -> Vec<graticule_policy::inputs::Locality> {
    vec![graticule_policy::inputs::Locality { zone: None, priority: 0, endpoints: Vec::new() }]
}

#[test]
fn a_change_touches_only_its_resources() {
    for (one, (first_change, first_names)) in changes().into_iter().enumerate() {
        for (other, (second_change, second_names)) in changes().into_iter().enumerate() {
            let cache = SharedCache::default();
            let mut inputs = OWN.everything();
            let before = snapshot(&inputs, &mk_secrets("a"), None, &cache);
            first_change(&mut inputs);
            second_change(&mut inputs);
            let after = snapshot(&inputs, &mk_secrets("a"), Some(&before), &cache);
            let want: BTreeSet<_> =
                first_names.iter().chain(&second_names).map(|name| (*name).to_owned()).collect();
            assert_eq!(changed(&before, &after), want, "changes {one} and {other}");
        }
    }
}

#[test]
fn a_new_certificate_replaces_only_the_secret() {
    let cache = SharedCache::default();
    let before = snapshot(&OWN.client(), &mk_secrets("a"), None, &cache);
    let after = snapshot(&OWN.client(), &mk_secrets("b"), Some(&before), &cache);
    assert_eq!(changed(&before, &after), ["sds kri_mid_shop___workloads_".to_owned()].into());
    assert!(!format!("{:?}{after:?}", mk_secrets("b")).contains("key\""));
}

#[test]
fn every_eds_cluster_has_a_load_assignment() {
    let built = snapshot(&OWN.everything(), &Secrets::default(), None, &SharedCache::default());
    for name in OWN.everything().clusters.keys() {
        assert!(built.endpoints.contains_key(name.as_str()), "{name}");
    }
    assert_eq!(built.endpoints.len(), OWN.everything().clusters.len());
}
