//! Properties of matching and merging (policy-engine.md §10).

use std::collections::BTreeSet;
use std::sync::Arc;

use graticule_model::{Kind, Resource};
use graticule_policy::merge::merge;
use graticule_policy::{Destinations, Effective, MatchOptions, Memo, PolicySet, effective};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn mk(document: Value) -> Arc<Resource> {
    let kind = Kind::from_name(document["type"].as_str().expect("a type")).expect("known");
    Arc::new(Resource::from_rest(kind, &document).expect("valid"))
}

fn dataplane() -> Arc<Resource> {
    mk(
        json!({"type": "Dataplane", "mesh": "default", "name": "dp", "labels": {"app": "a", "kuma.io/origin": "zone"},
        "networking": {"address": "10.0.0.1", "inbound": [{"port": 80, "name": "main"}, {"port": 90}]}}),
    )
}

fn destinations() -> Destinations {
    Destinations::new(["kv", "db"].map(|name| {
        mk(json!({"type": "MeshService", "mesh": "default", "name": name, "labels": {"kuma.io/display-name": name},
            "spec": {"ports": [{"port": 80, "name": "http", "appProtocol": "http"}, {"port": 81}]}}))
    }))
}

fn compute(policies: &PolicySet) -> Effective {
    let mesh = mk(json!({"type": "Mesh", "name": "default"}));
    effective(policies, &destinations(), Some(&mesh), &dataplane(), MatchOptions::default())
}

fn object(pairs: Vec<(&'static str, Option<Value>)>) -> Value {
    let pairs = pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(pairs.collect::<Map<String, Value>>())
}

fn seconds() -> impl Strategy<Value = Option<Value>> {
    prop::option::of((0..4u8).prop_map(|s| json!(format!("{s}s"))))
}

fn conf() -> impl Strategy<Value = Value> {
    let http = (seconds(), seconds())
        .prop_map(|(request, idle)| object(vec![("requestTimeout", request), ("streamIdleTimeout", idle)]));
    (seconds(), seconds(), prop::option::of(http)).prop_map(|(connect, idle, http)| {
        object(vec![("connectionTimeout", connect), ("idleTimeout", idle), ("http", http)])
    })
}

fn to_target() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"kind": "Mesh"})),
        Just(json!({"kind": "MeshService", "labels": {"kuma.io/display-name": "kv"}})),
        Just(json!({"kind": "MeshService", "labels": {"kuma.io/display-name": "kv"}, "sectionName": "http"})),
        Just(json!({"kind": "MeshService", "labels": {"kuma.io/display-name": "db"}, "sectionName": "81"})),
        Just(json!({"kind": "MeshService", "labels": {"kuma.io/display-name": "gone"}})),
    ]
}

fn top_level() -> impl Strategy<Value = Option<Value>> {
    prop::option::of(prop_oneof![
        Just(json!({"kind": "Mesh"})),
        Just(json!({"kind": "Dataplane"})),
        Just(json!({"kind": "Dataplane", "labels": {"app": "a"}})),
        Just(json!({"kind": "Dataplane", "labels": {"app": "b"}})),
        Just(json!({"kind": "Dataplane", "sectionName": "main"})),
    ])
}

fn labels() -> impl Strategy<Value = Value> {
    let origin = prop::option::of(prop::sample::select(vec!["zone", "global"]));
    let role = prop::option::of(prop::sample::select(vec!["system", "producer", "consumer"]));
    (origin, role).prop_map(|(origin, role)| {
        object(vec![
            ("kuma.io/origin", origin.map(Value::from)),
            ("kuma.io/policy-role", role.map(Value::from)),
        ])
    })
}

/// A MeshTimeout named `p-<n>`; half of them outbound, half inbound.
fn policy() -> impl Strategy<Value = Arc<Resource>> {
    let to = prop::collection::vec((to_target(), conf()), 0..4);
    (0..8u8, labels(), top_level(), to, any::<bool>()).prop_map(|(name, labels, target, items, outbound)| {
        let items: Vec<Value> = items
            .into_iter()
            .map(|(target, conf)| match outbound {
                true => json!({"targetRef": target, "default": conf}),
                false => json!({"default": conf}),
            })
            .collect();
        let member = if outbound { "to" } else { "rules" };
        let spec = object(vec![("targetRef", target), (member, Some(items.into()))]);
        mk(json!({"type": "MeshTimeout", "mesh": "default", "name": format!("p-{name}"), "labels": labels, "spec": spec}))
    })
}

/// Policies with different names.
fn policies() -> impl Strategy<Value = Vec<Arc<Resource>>> {
    prop::collection::vec(policy(), 0..7).prop_map(|policies| {
        let mut names = BTreeSet::new();
        policies.into_iter().filter(|policy| names.insert(policy.meta.name.clone())).collect()
    })
}

fn permission() -> impl Strategy<Value = Value> {
    let matches = || {
        prop::option::of(prop::collection::vec(0..4u8, 0..3).prop_map(|ids| {
            let ids = ids
                .into_iter()
                .map(|id| json!({"spiffeID": {"type": "Exact", "value": format!("spiffe://td/{id}")}}));
            Value::from(ids.collect::<Vec<_>>())
        }))
    };
    (matches(), matches(), matches()).prop_map(|(deny, allow, shadow)| {
        object(vec![("deny", deny), ("allow", allow), ("allowWithShadowDeny", shadow)])
    })
}

/// Which of the clients `spiffe://td/0..4` get in (policy-engine.md §6).
fn admitted(effective: &Effective) -> Vec<bool> {
    let permissions = effective.permissions("10.0.0.1", 80);
    let verdict = |id: u8| {
        let names = |matches: &Option<Vec<graticule_model::targetref::Match>>| {
            matches.iter().flatten().any(|m| {
                m.spiffe_id.as_ref().is_some_and(|spiffe| spiffe.value == format!("spiffe://td/{id}"))
            })
        };
        let is_denied = permissions.iter().any(|p| names(&p.conf.deny));
        let is_allowed =
            permissions.iter().any(|p| names(&p.conf.allow) || names(&p.conf.allow_with_shadow_deny));
        !is_denied && is_allowed
    };
    (0..4).map(verdict).collect()
}

proptest! {
    #[test]
    fn merge_is_a_left_fold(confs in prop::collection::vec(conf(), 1..6)) {
        let mut folded = confs[0].clone();
        for conf in &confs[1..] {
            folded = merge("MeshTimeout", [&folded, conf]).remove(0);
        }
        prop_assert_eq!(merge("MeshTimeout", &confs), vec![folded]);
    }

    #[test]
    fn rules_are_folds_of_their_origins(policies in policies()) {
        let effective = compute(&PolicySet::new(policies));
        prop_assert_eq!(effective.warnings(), &[] as &[String]);
        for rule in effective.of(Kind::MeshTimeout).iter().flat_map(|result| result.outbound.rules.values()) {
            let contributions = rule.origins.iter().map(|origin| &*origin.policy.body.to[origin.rule_index].conf);
            prop_assert_eq!(&rule.conf, &merge("MeshTimeout", contributions));
        }
    }

    #[test]
    fn a_policy_that_selects_nothing_changes_nothing(policies in policies(), position in 0..7usize) {
        let before = compute(&PolicySet::new(policies.clone()));
        let other = mk(json!({"type": "MeshTimeout", "mesh": "default", "name": "other", "spec": {
            "targetRef": {"kind": "Dataplane", "labels": {"app": "other"}},
            "to": [{"targetRef": {"kind": "Mesh"}, "default": {"idleTimeout": "99s"}}]}}));
        let mut more = policies;
        more.insert(position.min(more.len()), other);
        let after = compute(&PolicySet::new(more.clone()));
        if more.len() > 1 {
            prop_assert_eq!(before, after);
        } else {
            prop_assert!(after.of(Kind::MeshTimeout).is_some_and(|result| result.matched.is_empty()));
        }
    }

    #[test]
    fn order_of_arrival_does_not_matter(policies in policies(), seed in any::<u64>()) {
        let mut shuffled = policies.clone();
        shuffled.sort_by_key(|policy| policy.meta.name.bytes().map(u64::from).sum::<u64>().wrapping_mul(seed | 1));
        prop_assert_eq!(compute(&PolicySet::new(policies)), compute(&PolicySet::new(shuffled)));
    }

    #[test]
    fn increments_and_memory_equal_a_fresh_start(steps in prop::collection::vec((policy(), any::<bool>()), 1..12)) {
        let (mesh, dataplane, destinations) = (mk(json!({"type": "Mesh", "name": "default"})), dataplane(), destinations());
        let (mut set, mut memo) = (PolicySet::default(), Memo::default());
        for (policy, remove) in steps {
            if remove {
                set.remove(&policy.key());
            } else {
                set.insert(policy);
            }
            let fresh = PolicySet::new(set.of(Kind::MeshTimeout).iter().rev().map(|policy| policy.resource.clone()));
            let remembered = memo.effective(&set, &destinations, Some(&mesh), &dataplane, MatchOptions::default());
            prop_assert_eq!(remembered, compute(&fresh));
        }
    }

    #[test]
    fn permission_verdicts_do_not_depend_on_priority(
        confs in prop::collection::vec((permission(), labels(), top_level()), 0..5),
    ) {
        // Only the policies' order changes: names, origins and roles.
        let set = |rename: fn(usize) -> String, with_labels: bool| {
            PolicySet::new(confs.iter().enumerate().filter(|(_, (_, labels, _))| labels["kuma.io/policy-role"] != "consumer").map(|(index, (conf, labels, target))| {
                let labels = if with_labels { labels.clone() } else { json!({}) };
                let spec = object(vec![("targetRef", target.clone()), ("rules", Some(json!([{"default": conf}])))]);
                mk(json!({"type": "MeshTrafficPermission", "mesh": "default", "name": rename(index), "labels": labels, "spec": spec}))
            }))
        };
        let one = compute(&set(|index| format!("p-{index}"), true));
        let other = compute(&set(|index| format!("p-{}", 9 - index), false));
        prop_assert_eq!(admitted(&one), admitted(&other));
    }
}
