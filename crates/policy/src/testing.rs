//! Builders and printers for tests.

use std::fmt::Write;
use std::sync::Arc;

use graticule_model::{Kind, Resource, labels, yaml};

use crate::effective::{Effective, MatchOptions, effective};
use crate::outbound::ResourceRules;
use crate::{Destinations, PolicySet};

/// Resources from a stream of documents in REST form. Mesh-scoped ones without mesh are in `default`, and
/// everything but proxies and meshes gets its display name label, as it has after a write.
pub(crate) fn mk_resources(text: &str) -> Vec<Arc<Resource>> {
    yaml::parse_all(text)
        .expect("YAML")
        .into_iter()
        .map(|mut document| {
            let kind = Kind::from_name(document["type"].as_str().expect("a type")).expect("a known kind");
            let members = document.as_object_mut().expect("an object");
            if !kind.descriptor().is_global_scoped() {
                members.entry("mesh").or_insert_with(|| "default".into());
            }
            let mut resource = Resource::from_stored(kind, &document).expect("a valid resource");
            if !matches!(kind, Kind::Dataplane | Kind::Mesh) {
                let name = resource.meta.name.clone();
                resource.meta.labels.entry(labels::DISPLAY_NAME.into()).or_insert(name);
            }
            Arc::new(resource)
        })
        .collect()
}

/// The first resource of a stream.
pub(crate) fn mk_resource(text: &str) -> Arc<Resource> {
    mk_resources(text).remove(0)
}

/// Everything that decides about one proxy.
pub(crate) struct World {
    pub(crate) policies: PolicySet,
    pub(crate) destinations: Destinations,
    pub(crate) mesh: Arc<Resource>,
    pub(crate) dataplane: Arc<Resource>,
}

const MESH: &str = "{type: Mesh, name: default}";
const DATAPLANE: &str = "{type: Dataplane, name: dp, labels: {app: demo}, networking: {address: 10.0.0.1, inbound: [{port: 8080, name: main}, {port: 9090, name: admin}]}}";

/// A world from documents; mesh and Dataplane are added where they are missing.
pub(crate) fn mk_world(text: &str) -> World {
    let resources = mk_resources(text);
    let first = |kind: Kind, default: &str| {
        resources
            .iter()
            .find(|resource| resource.kind() == kind)
            .cloned()
            .unwrap_or_else(|| mk_resource(default))
    };
    World {
        policies: PolicySet::new(resources.clone()),
        destinations: Destinations::new(resources.clone()),
        mesh: first(Kind::Mesh, MESH),
        dataplane: first(Kind::Dataplane, DATAPLANE),
    }
}

impl World {
    pub(crate) fn effective(&self) -> Effective {
        let options = MatchOptions::default();
        effective(&self.policies, &self.destinations, Some(&self.mesh), &self.dataplane, options)
    }
}

/// One line per rule: key, configuration, origins.
pub(crate) fn show_rules(rules: &ResourceRules) -> String {
    let mut out = String::new();
    for (key, rule) in &rules.rules {
        let origins: Vec<String> = rule
            .origins
            .iter()
            .map(|origin| format!("{}#{}", origin.policy.resource.meta.display_name(), origin.rule_index))
            .collect();
        let conf: Vec<String> = rule.conf.iter().map(ToString::to_string).collect();
        let _ = writeln!(out, "{key} = {} [{}]", conf.join(" | "), origins.join(", "));
    }
    out
}
