//! Effective policies of one proxy (policy-engine.md §2.1).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use graticule_model::kinds::{mesh_circuit_breaker, mesh_retry, mesh_timeout, mesh_tls};
use graticule_model::targetref::TargetKind;
use graticule_model::{Kind, Kri, Resource};
use serde_json::Value;

use crate::body::{Policy, ResourceMeta};
use crate::destinations::{Destinations, Stamp};
use crate::inbound::InboundRules;
use crate::inputs::{InboundTimeout, Permission};
use crate::merge::merge;
use crate::outbound::{ResourceRule, ResourceRules, World};
use crate::select::{ListenerKey, Proxy};
use crate::set::PolicySet;
use crate::typed::Typed;

/// What counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MatchOptions {
    /// Policies with the shadow effect count as well.
    pub shadow: bool,
}

/// Effective policies of one proxy. Results that other proxies have as well are shared.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Effective {
    kinds: BTreeMap<Kind, KindResult>,
    mesh_tls: mesh_tls::Conf,
    warnings: Vec<String>,
}

/// What the policies of one kind mean for a proxy.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KindResult {
    /// Policies that select the proxy, ascending by priority.
    pub matched: Vec<Arc<Policy>>,
    /// Rules of each listener that some policy selects; the list may be empty.
    pub inbound: BTreeMap<ListenerKey, Arc<InboundRules>>,
    /// Rules by destination.
    pub outbound: Arc<ResourceRules>,
    /// Configuration of the whole proxy.
    pub proxy: Option<ProxyConf>,
    /// What could not be applied.
    pub warnings: Vec<String>,
}

/// Merged configuration of the whole proxy.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyConf {
    /// The configuration.
    pub conf: Value,
    /// Contributors, lowest priority first.
    pub origins: Vec<Arc<Policy>>,
}

/// Merges the proxy-wide configurations of policies that select a proxy, ascending by priority.
pub fn proxy_conf(kind: &str, policies: &[Arc<Policy>]) -> Option<ProxyConf> {
    let contributors = policies.iter().filter(|policy| policy.body.proxy_default.is_some());
    let mut origins: Vec<Arc<Policy>> = Vec::new();
    for policy in contributors.clone() {
        if !origins.iter().any(|known| known.key == policy.key) {
            origins.push(policy.clone());
        }
    }
    let confs = contributors.filter_map(|policy| policy.body.proxy_default.as_ref());
    let conf = merge(kind, confs).into_iter().next()?;
    Some(ProxyConf { conf, origins })
}

/// Results that many proxies share: rules depend on *which* policies select a proxy or a listener, not on
/// the proxy. Keeps them between calls and forgets them when their inputs changed, so it can be passed
/// whatever happened in between.
#[derive(Debug, Default)]
pub struct Memo {
    inbound: HashMap<(Kind, Vec<usize>), Shared<InboundRules>>,
    outbound: HashMap<(Kind, Vec<usize>), Shared<ResourceRules>>,
    seen: Option<Seen>,
}

type Shared<T> = Result<Arc<T>, String>;

/// More different sets of policies than this are not remembered; then the memory starts afresh.
const MEMO_ENTRIES_MAX: usize = 4096;

/// The state of the inputs that remembered results were made of.
#[derive(Debug)]
struct Seen {
    policies: BTreeMap<Kind, Option<Arc<Stamp>>>,
    destinations: Arc<Stamp>,
    mesh: Option<ResourceMeta>,
}

impl Memo {
    /// Forgets what the given inputs make obsolete.
    fn follow(&mut self, world: World<'_>) {
        let stamps = Kind::all()
            .filter(|kind| kind.descriptor().is_policy())
            .map(|kind| (kind, world.policies.stamp(kind).cloned()))
            .collect();
        let destinations = world.destinations.stamp().clone();
        let now =
            Seen { policies: stamps, destinations, mesh: world.mesh.map(|mesh| ResourceMeta::of(mesh)) };
        if let Some(seen) = &self.seen {
            let is_same = |kind: &Kind| same_stamp(seen.policies.get(kind), now.policies.get(kind));
            let same_targets = Arc::ptr_eq(&seen.destinations, &now.destinations)
                && is_same(&Kind::MeshHTTPRoute)
                && seen.mesh == now.mesh;
            self.inbound.retain(|(kind, _), _| is_same(kind));
            self.outbound.retain(|(kind, _), _| same_targets && is_same(kind));
        }
        if self.inbound.len() + self.outbound.len() > MEMO_ENTRIES_MAX {
            self.inbound.clear();
            self.outbound.clear();
        }
        self.seen = Some(now);
    }

    /// [`effective`], sharing results with earlier calls.
    pub fn effective(
        &mut self,
        policies: &PolicySet,
        destinations: &Destinations,
        mesh: Option<&Arc<Resource>>,
        dataplane: &Resource,
        options: MatchOptions,
    ) -> Effective {
        let world = World { policies, destinations, mesh };
        self.follow(world);
        let proxy = Proxy::new(dataplane);
        let mut effective =
            Effective { mesh_tls: mesh_tls(&proxy, policies, options), ..Effective::default() };
        for kind in policies.kinds() {
            let result = self.kind(kind, &proxy, world, options);
            effective.warnings.extend(result.warnings.iter().cloned());
            effective.kinds.insert(kind, result);
        }
        effective
    }

    fn kind(&mut self, kind: Kind, proxy: &Proxy<'_>, world: World<'_>, options: MatchOptions) -> KindResult {
        let policies = world.policies.of(kind);
        let mut result = KindResult::default();
        let mut positions = Vec::new();
        let mut by_listener: BTreeMap<&ListenerKey, Vec<usize>> = BTreeMap::new();
        for (position, policy) in policies.iter().enumerate() {
            if policy.is_shadow() && !options.shadow {
                continue;
            }
            let selected = match proxy.selected(policy, world.policies) {
                Ok(selected) => selected,
                Err(error) => {
                    result.warnings.push(warning(policy, &error));
                    continue;
                }
            };
            if selected.is_empty() {
                continue;
            }
            for problem in &policy.body.problems {
                result.warnings.push(warning(policy, problem));
            }
            positions.push(position);
            for listener in selected.listeners {
                let list = by_listener.entry(&proxy.listeners[listener].1).or_default();
                if list.last() != Some(&position) {
                    list.push(position);
                }
            }
        }
        let pick = |positions: &[usize]| -> Vec<Arc<Policy>> {
            positions.iter().map(|position| policies[*position].clone()).collect()
        };
        // What has no rules and no destinations is not worth remembering.
        let any =
            |positions: &[usize], has: fn(&Policy) -> bool| positions.iter().any(|p| has(&policies[*p]));
        for (listener, positions) in by_listener {
            let rules = if any(&positions, |policy| !policy.body.rules.is_empty()) {
                let known = self.inbound.entry((kind, positions));
                known
                    .or_insert_with_key(|(kind, at)| InboundRules::build(*kind, &pick(at)).map(Arc::new))
                    .clone()
            } else {
                Ok(Arc::default())
            };
            match rules {
                Ok(rules) => drop(result.inbound.insert(listener.clone(), rules)),
                Err(error) => result.warnings.push(format!("couldn't create From rules: {error}")),
            }
        }
        result.matched = pick(&positions);
        if any(&positions, |policy| !policy.body.to.is_empty()) {
            let known = self.outbound.entry((kind, positions));
            let rules = known
                .or_insert_with_key(|(kind, at)| ResourceRules::build(*kind, &pick(at), world).map(Arc::new));
            match rules {
                Ok(rules) => result.outbound = rules.clone(),
                Err(error) => result.warnings.push(format!("couldn't create To rules: {error}")),
            }
        }
        result.proxy = proxy_conf(kind.name(), &result.matched);
        result
    }
}

fn same_stamp(a: Option<&Option<Arc<Stamp>>>, b: Option<&Option<Arc<Stamp>>>) -> bool {
    match (a, b) {
        (Some(Some(a)), Some(Some(b))) => Arc::ptr_eq(a, b),
        (a, b) => a.cloned().flatten().is_none() && b.cloned().flatten().is_none(),
    }
}

fn warning(policy: &Policy, error: &str) -> String {
    let meta = &policy.resource.meta;
    format!("unable to resolve TargetRef on policy: mesh:{} name:{} error:{error:?}", meta.mesh, meta.name)
}

/// TLS parameters come from the policies for the whole mesh, also for proxies without inbounds
/// (policy-engine.md §3.3, last quirk).
fn mesh_tls(proxy: &Proxy<'_>, policies: &PolicySet, options: MatchOptions) -> mesh_tls::Conf {
    let whole_mesh: Vec<Arc<Policy>> = policies
        .of(Kind::MeshTLS)
        .iter()
        .filter(|policy| policy.body.target().kind == TargetKind::Mesh)
        .filter(|policy| (options.shadow || !policy.is_shadow()) && proxy.passes_gates(policy))
        .cloned()
        .collect();
    match InboundRules::build(Kind::MeshTLS, &whole_mesh) {
        Ok(InboundRules { typed: Typed::Tls(conf), .. }) => conf,
        _ => mesh_tls::Conf::default(),
    }
}

/// Effective policies of one proxy. Without the Mesh resource, `to` items of kind Mesh mean nothing.
/// For many proxies, [`Memo::effective`] does the common work once.
pub fn effective(
    policies: &PolicySet,
    destinations: &Destinations,
    mesh: Option<&Arc<Resource>>,
    dataplane: &Resource,
    options: MatchOptions,
) -> Effective {
    Memo::default().effective(policies, destinations, mesh, dataplane, options)
}

/// A typed question: the configuration of a rule, if it is of the kind.
macro_rules! conf {
    ($rule:expr, $variant:ident) => {
        match $rule {
            Some(Typed::$variant(conf)) => Some(conf.clone()),
            _ => None,
        }
    };
}

impl Effective {
    /// Everything about one kind, for inspection.
    pub fn of(&self, kind: Kind) -> Option<&KindResult> {
        self.kinds.get(&kind)
    }

    /// What could not be applied, for people.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Rule list of a listener; none if no policy of the kind selects it.
    pub fn inbound(&self, kind: Kind, address: &str, port: u32) -> Option<&InboundRules> {
        self.kinds.get(&kind)?.inbound.get(&(address.to_owned(), port)).map(|rules| &**rules)
    }

    /// MeshTrafficPermission rules of a listener, in list order.
    pub fn permissions(&self, address: &str, port: u32) -> Vec<Permission> {
        let rules = self.inbound(Kind::MeshTrafficPermission, address, port);
        rules.map(|rules| rules.permissions.clone()).unwrap_or_default()
    }

    /// MeshTimeout of a listener.
    pub fn inbound_timeout(&self, address: &str, port: u32) -> InboundTimeout {
        match self.inbound(Kind::MeshTimeout, address, port) {
            Some(InboundRules { typed: Typed::Timeout(conf), .. }) => InboundTimeout::CatchAll(conf.clone()),
            Some(InboundRules { rules, .. }) if !rules.is_empty() => InboundTimeout::Untouched,
            _ => InboundTimeout::Defaults,
        }
    }

    /// MeshTLS of a listener; the mode is always set (`Strict` by default).
    pub fn inbound_tls(&self, address: &str, port: u32) -> mesh_tls::Conf {
        let rules = self.inbound(Kind::MeshTLS, address, port);
        let mut conf = conf!(rules.map(|rules| &rules.typed), Tls).unwrap_or_default();
        conf.mode.get_or_insert(mesh_tls::Mode::Strict);
        conf
    }

    /// MeshTLS of the whole mesh: TLS parameters of outbound connections.
    pub fn mesh_tls_params(&self) -> mesh_tls::Conf {
        self.mesh_tls.clone()
    }

    /// MeshCircuitBreaker of a listener.
    pub fn inbound_circuit_breaker(&self, address: &str, port: u32) -> Option<mesh_circuit_breaker::Conf> {
        let rules = self.inbound(Kind::MeshCircuitBreaker, address, port);
        conf!(rules.map(|rules| &rules.typed), CircuitBreaker)
    }

    /// The rule of a kind that applies to a destination port.
    pub fn rule(&self, kind: Kind, outbound: &Kri) -> Option<&ResourceRule> {
        self.kinds.get(&kind)?.outbound.compute(outbound)
    }

    fn context(&self, kind: Kind, outbound: &Kri) -> Option<&Typed> {
        self.kinds.get(&kind)?.outbound.in_context(outbound).map(|rule| &rule.typed)
    }

    fn route_context(&self, kind: Kind, route: &Kri, outbound: &Kri) -> Option<&Typed> {
        self.kinds.get(&kind)?.outbound.on_route(route, outbound).map(|rule| &rule.typed)
    }

    /// MeshTimeout of a destination port.
    pub fn outbound_timeout(&self, outbound: &Kri) -> Option<mesh_timeout::Conf> {
        conf!(self.context(Kind::MeshTimeout, outbound), Timeout)
    }

    /// MeshRetry of a destination port.
    pub fn outbound_retry(&self, outbound: &Kri) -> Option<mesh_retry::Conf> {
        conf!(self.context(Kind::MeshRetry, outbound), Retry)
    }

    /// MeshCircuitBreaker of a destination port.
    pub fn outbound_circuit_breaker(&self, outbound: &Kri) -> Option<mesh_circuit_breaker::Conf> {
        conf!(self.rule(Kind::MeshCircuitBreaker, outbound).map(|rule| &rule.typed), CircuitBreaker)
    }

    /// MeshTimeout of a route to a destination port; `route` with or without section.
    pub fn route_timeout(&self, route: &Kri, outbound: &Kri) -> Option<mesh_timeout::Conf> {
        conf!(self.route_context(Kind::MeshTimeout, route, outbound), Timeout)
    }

    /// MeshRetry of a route to a destination port; `route` with or without section.
    pub fn route_retry(&self, route: &Kri, outbound: &Kri) -> Option<mesh_retry::Conf> {
        conf!(self.route_context(Kind::MeshRetry, route, outbound), Retry)
    }
}

#[cfg(test)]
mod tests;
