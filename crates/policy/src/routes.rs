//! Routes of an outbound (policy-engine.md §5, policies.md §4 and §5).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use graticule_model::kinds::mesh_http_route::{
    FilterType, PathMatch, PathMatchType, RouteConf, RouteMatch, RouteRule,
};
use graticule_model::targetref::BackendRef;
use graticule_model::{Kind, Kri, Meta, Resource};
use sha2::{Digest, Sha256};

use crate::body::Origin;
use crate::destinations::{Backend, Destinations, Port};
use crate::effective::Effective;
use crate::inputs::{HttpRoute, Routing, Share};
use crate::outbound::ResourceRule;
use crate::typed::Typed;

/// What an outbound does, and which clusters that needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Routes {
    /// What it does.
    pub routing: Routing,
    /// Destination ports that it sends traffic to, sorted by KRI; their KRI texts are the names of the
    /// clusters in `routing`.
    pub clusters: Vec<Backend>,
}

/// Weight of the only backend where none is declared.
const WHOLE: u32 = 100;

/// Identity of a list of matches (policy-engine.md §5.2).
pub fn hash(matches: &[RouteMatch]) -> String {
    let json = serde_json::to_string(matches).unwrap_or_default();
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            other => escaped.push(other),
        }
    }
    STANDARD.encode(Sha256::digest(escaped))
}

/// Name of the route that stands at the end where no rule matches everything.
pub fn default_route_name() -> &'static str {
    static NAME: LazyLock<String> = LazyLock::new(|| hash(&[everything()]));
    &NAME
}

fn everything() -> RouteMatch {
    let path = PathMatch { value: "/".into(), r#type: PathMatchType::PathPrefix };
    RouteMatch { path: Some(path), ..RouteMatch::default() }
}

/// An outbound whose routes are being built.
struct Builder<'a> {
    effective: &'a Effective,
    outbound: &'a Kri,
    itself: Backend,
    destinations: &'a Destinations,
    clusters: BTreeMap<String, Backend>,
}

impl Effective {
    /// What the outbound for a destination port does (policy-engine.md §5.1). `outbound` is its name in
    /// Envoy, which is also the name of the destination's own cluster.
    pub fn routing(
        &self,
        outbound: &Kri,
        destination: &Arc<Resource>,
        port: &Port,
        destinations: &Destinations,
    ) -> Routes {
        let itself = Backend { kri: outbound.clone(), resource: destination.clone(), port: port.clone() };
        let mut builder =
            Builder { effective: self, outbound, itself, destinations, clusters: BTreeMap::new() };
        let http = self.rule(Kind::MeshHTTPRoute, outbound);
        let tcp = self.rule(Kind::MeshTCPRoute, outbound);
        let routing = match (port.protocol.is_http_based(), http, tcp) {
            (true, None, Some(tcp)) => match builder.tcp(tcp) {
                shares if shares.is_empty() => Routing::Http(builder.http(None)),
                shares => Routing::Tcp(shares),
            },
            (true, http, _) => Routing::Http(builder.http(http)),
            (false, _, Some(tcp)) => Routing::Tcp(builder.tcp(tcp)),
            (false, _, None) => Routing::Tcp(vec![builder.share_of_itself()]),
        };
        Routes { routing, clusters: builder.clusters.into_values().collect() }
    }
}

impl Builder<'_> {
    fn cluster(&mut self, backend: Backend) -> String {
        let name = backend.kri.to_string();
        self.clusters.entry(name.clone()).or_insert(backend);
        name
    }

    fn share_of_itself(&mut self) -> Share {
        Share { cluster: self.cluster(self.itself.clone()), weight: WHOLE }
    }

    /// Backends that do not resolve are left out.
    fn tcp(&mut self, rule: &ResourceRule) -> Vec<Share> {
        let (Typed::Tcp(conf), Some(origin)) = (&rule.typed, rule.origins.last()) else { return Vec::new() };
        let mut shares = Vec::new();
        for backend in conf.backend_refs.iter().flatten() {
            let weight = weight(backend);
            if weight > 0
                && let Some(resolved) = self.destinations.resolve_backend(backend, meta_of(origin))
            {
                shares.push(Share { cluster: self.cluster(resolved), weight });
            }
        }
        shares
    }

    fn http(&mut self, rule: Option<&ResourceRule>) -> Vec<HttpRoute> {
        let mut routes = Vec::new();
        if let Some(rule) = rule
            && let Typed::Http(conf) = &rule.typed
        {
            for route_rule in &conf.rules {
                if let Some(origin) = rule.origin_by_matches.get(&hash(&route_rule.matches)) {
                    let route = self.http_route(route_rule, origin);
                    routes.extend(
                        route_rule
                            .matches
                            .iter()
                            .map(|condition| HttpRoute { condition: condition.clone(), ..route.clone() }),
                    );
                }
            }
        }
        routes.sort_by_key(|route| precedence(&route.condition));
        if !routes.iter().any(|route| route.condition == everything()) {
            routes.push(self.default_route());
        }
        for route in &mut routes {
            route
                .condition
                .path
                .get_or_insert_with(|| PathMatch { value: "/".into(), r#type: PathMatchType::PathPrefix });
        }
        routes
    }

    fn default_route(&mut self) -> HttpRoute {
        HttpRoute {
            name: default_route_name().into(),
            condition: everything(),
            filters: Vec::new(),
            mirrors: Vec::new(),
            split: vec![self.share_of_itself()],
            unresolved_weight: 0,
            all_unresolved: false,
            auto_host_rewrite: false,
            timeout: self.effective.outbound_timeout(self.outbound),
            retry: self.effective.outbound_retry(self.outbound),
        }
    }

    /// The route of a rule, with an empty condition.
    fn http_route(&mut self, rule: &RouteRule, origin: &Origin) -> HttpRoute {
        let meta = meta_of(origin);
        let kri = origin.policy.kri.clone().with_section(format!("rule_{}", origin.rule_index));
        let mirrors = self.mirrors(&rule.default, meta);
        let filters = rule.default.filters.clone().unwrap_or_default();
        let declared = rule.default.backend_refs.as_deref().unwrap_or_default();
        let mut split = Vec::new();
        let mut unresolved_weight = 0;
        let mut auto_host_rewrite = false;
        for backend in declared {
            match self.http_backend(backend, meta) {
                Some(resolved) if weight(backend) > 0 => {
                    auto_host_rewrite |= is_external(&resolved);
                    split.push(Share { cluster: self.cluster(resolved), weight: weight(backend) });
                }
                _ => unresolved_weight += u64::from(weight(backend)),
            }
        }
        if declared.is_empty() {
            auto_host_rewrite = is_external(&self.itself);
            split.push(self.share_of_itself());
        }
        // A redirect is answered by the proxy itself, whatever the backends.
        let redirects = filters.iter().any(|filter| filter.r#type == FilterType::RequestRedirect);
        HttpRoute {
            name: kri.to_string(),
            condition: RouteMatch::default(),
            filters,
            mirrors,
            all_unresolved: split.is_empty() && !redirects,
            unresolved_weight: if redirects { 0 } else { unresolved_weight },
            split,
            auto_host_rewrite,
            timeout: self.effective.route_timeout(&kri, self.outbound),
            retry: self.effective.route_retry(&kri, self.outbound),
        }
    }

    fn mirrors(&mut self, conf: &RouteConf, route: &Meta) -> Vec<Option<String>> {
        let mirrors =
            conf.filters.iter().flatten().filter(|filter| filter.r#type == FilterType::RequestMirror);
        mirrors
            .map(|filter| {
                let backend = &filter.request_mirror.as_ref()?.backend_ref;
                let resolved = self.http_backend(backend, route)?;
                Some(self.cluster(resolved))
            })
            .collect()
    }

    /// A backend that can answer HTTP requests.
    fn http_backend(&self, backend: &BackendRef, route: &Meta) -> Option<Backend> {
        self.destinations.resolve_backend(backend, route).filter(|found| found.port.protocol.is_http_based())
    }
}

fn meta_of(origin: &Origin) -> &Meta {
    &origin.policy.resource.meta
}

fn weight(backend: &BackendRef) -> u32 {
    u32::try_from(backend.weight.unwrap_or(1)).unwrap_or(u32::MAX)
}

fn is_external(backend: &Backend) -> bool {
    backend.kri.kind.name() == "MeshExternalService"
}

/// Order of routes, most specific first (policy-engine.md §5.3); ties keep the merged order.
fn precedence(condition: &RouteMatch) -> impl Ord + use<> {
    let path = condition.path.as_ref().map(|path| {
        let longest_first = if path.r#type == PathMatchType::Exact { 0 } else { path.value.len() };
        (path.r#type, Reverse(longest_first))
    });
    let headers = condition.headers.as_ref().map_or(0, Vec::len);
    let params = condition.query_params.as_ref().map_or(0, Vec::len);
    (path.is_none(), path, condition.method.is_none(), Reverse(headers), Reverse(params))
}

#[cfg(test)]
mod tests;
