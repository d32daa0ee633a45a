//! Which policies apply to a proxy (policy-engine.md §2).

use std::sync::Arc;

use graticule_model::kinds::dataplane::Dataplane;
use graticule_model::targetref::TargetKind;
use graticule_model::{Kind, Meta, Resource, TargetRef, labels};

use crate::body::{Policy, Role};
use crate::set::PolicySet;

/// Address and port of an inbound or of a zone proxy listener.
pub type ListenerKey = (String, u32);

/// What policies see of a proxy.
#[derive(Debug)]
pub(crate) struct Proxy<'a> {
    pub(crate) meta: &'a Meta,
    /// Section and key, inbounds first.
    pub(crate) listeners: Vec<(String, ListenerKey)>,
    is_gateway: bool,
}

/// What a policy selects of a proxy.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Selected {
    /// Positions in [`Proxy::listeners`], ascending.
    pub(crate) listeners: Vec<usize>,
    is_gateway: bool,
}

impl Selected {
    pub(crate) fn is_empty(&self) -> bool {
        self.listeners.is_empty() && !self.is_gateway
    }
}

impl<'a> Proxy<'a> {
    /// A Dataplane as policies see it. Ignored and unready inbounds count.
    pub(crate) fn new(resource: &'a Resource) -> Proxy<'a> {
        let mut listeners = Vec::new();
        let mut is_gateway = false;
        if let Some(dataplane) = resource.spec_as::<Dataplane>() {
            let networking = dataplane.networking();
            for inbound in &networking.inbound {
                let key = (networking.inbound_address(inbound).to_owned(), inbound.port);
                listeners.push((inbound.section(), key));
            }
            for listener in &networking.listeners {
                let key = (networking.listener_address(listener).to_owned(), listener.port);
                listeners.push((listener.section(), key));
            }
            is_gateway = dataplane.is_gateway();
        }
        Proxy { meta: &resource.meta, listeners, is_gateway }
    }

    /// What a policy selects of this proxy; an error is a reference that cannot be resolved.
    pub(crate) fn selected(&self, policy: &Policy, policies: &PolicySet) -> Result<Selected, String> {
        self.selected_by(policy, policy.body.target(), policies, 0)
    }

    fn selected_by(
        &self,
        policy: &Policy,
        target: &TargetRef,
        policies: &PolicySet,
        depth: usize,
    ) -> Result<Selected, String> {
        if !self.passes_gates(policy) {
            return Ok(Selected::default());
        }
        match target.kind {
            TargetKind::Mesh => Ok(self.section("")),
            TargetKind::Dataplane if !self.has_labels(target) => Ok(Selected::default()),
            TargetKind::Dataplane => Ok(self.section(target.section().unwrap_or_default())),
            // A route cannot refer to another route.
            TargetKind::MeshHTTPRoute if depth == 0 => {
                let routes = legacy_routes(policy, target, policies);
                if routes.is_empty() {
                    let wanted = go_map(target);
                    return Err(format!("couldn't resolve MeshHTTPRoute targetRef with labels {wanted}"));
                }
                let mut all = Selected::default();
                for route in routes {
                    let selected = self.selected_by(&route, route.body.target(), policies, depth + 1)?;
                    all.listeners.extend(selected.listeners);
                    all.is_gateway |= selected.is_gateway;
                }
                all.listeners.sort_unstable();
                all.listeners.dedup();
                Ok(all)
            }
            other => Err(format!("unsupported targetRef kind '{}'", other.name())),
        }
    }

    fn section(&self, section: &str) -> Selected {
        let wanted = |name: &String| section.is_empty() || name == section;
        let listeners = self.listeners.iter().enumerate().filter(|(_, (name, _))| wanted(name));
        Selected { listeners: listeners.map(|(position, _)| position).collect(), is_gateway: self.is_gateway }
    }

    fn has_labels(&self, target: &TargetRef) -> bool {
        target.labels.iter().flatten().all(|(label, value)| match label.as_str() {
            labels::DISPLAY_NAME => self.meta.display_name() == value,
            _ => self.meta.label(label) == Some(value),
        })
    }

    /// The zone gate and the namespace gate.
    pub(crate) fn passes_gates(&self, policy: &Policy) -> bool {
        self.passes_zone_gate(policy) && self.passes_namespace_gate(policy)
    }

    fn passes_zone_gate(&self, policy: &Policy) -> bool {
        let own_origin = self.meta.label(labels::ORIGIN).unwrap_or_default();
        let meta = &policy.resource.meta;
        if policy.role == Role::Producer || matches!(own_origin, "" | "global") {
            return true;
        }
        match (meta.label(labels::ORIGIN), meta.zone()) {
            (Some("zone"), Some(zone)) => {
                own_origin == "zone" && self.meta.zone().is_none_or(|own| own == zone)
            }
            _ => true,
        }
    }

    fn passes_namespace_gate(&self, policy: &Policy) -> bool {
        if !policy.role.is_namespaced() {
            return true;
        }
        let namespace = policy.resource.meta.label(labels::NAMESPACE);
        namespace.is_some() && namespace == self.meta.label(labels::NAMESPACE)
    }
}

/// Routes that a stored policy with a top-level MeshHTTPRoute reference means.
pub(crate) fn legacy_routes(policy: &Policy, target: &TargetRef, policies: &PolicySet) -> Vec<Arc<Policy>> {
    let Some(wanted) = &target.labels else { return Vec::new() };
    let namespace = policy.resource.meta.label(labels::NAMESPACE);
    policies
        .of(Kind::MeshHTTPRoute)
        .iter()
        .filter(|route| labels::matches(wanted, &route.resource.meta.labels))
        .filter(|route| {
            !policy.role.is_namespaced() || route.resource.meta.label(labels::NAMESPACE) == namespace
        })
        .cloned()
        .collect()
}

/// Labels as Go prints a map.
fn go_map(target: &TargetRef) -> String {
    let pairs: Vec<String> =
        target.labels.iter().flatten().map(|(label, value)| format!("{label}:{value}")).collect();
    format!("map[{}]", pairs.join(" "))
}
