//! MeshHTTPRoute as Envoy routes (policies.md §4).

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::route::v3 as pb;
use graticule_model::kinds::mesh_http_route::{
    Filter, FilterType, HeaderMatch, HeaderMatchType, HeaderModifier, PathMatchType, PathRewrite,
    PathRewriteType, QueryParamMatchType, RequestRedirect, RouteMatch, UrlRewrite,
};
use graticule_policy::inputs::{HttpRoute, Outbound, Share};
use pb::header_matcher::HeaderMatchSpecifier;
use pb::query_parameter_matcher::QueryParameterMatchSpecifier;
use pb::route_match::PathSpecifier;

use crate::message::{
    duration, exact, fraction, header, inline_string, matches_regex, number, prefix, regex, replace_all,
};
use crate::retry;
use crate::timeout::{NONE, Timeouts};

/// Status of requests whose backends are missing.
const UNRESOLVED_STATUS: u32 = 500;

/// The routes of an outbound, prefixes expanded, in order of precedence.
pub(crate) fn routes(outbound: &Outbound, routes: &[HttpRoute]) -> Vec<pb::Route> {
    routes.iter().flat_map(|route| expand(outbound, route)).collect()
}

fn expand(outbound: &Outbound, route: &HttpRoute) -> Vec<pb::Route> {
    paths(&route.condition).into_iter().flat_map(|path| variants(outbound, route, path)).collect()
}

/// How a path condition became a path specifier, which decides how its prefix is replaced.
struct Path {
    specifier: PathSpecifier,
    replace: PrefixReplacement,
}

#[derive(Clone, Copy, PartialEq)]
enum PrefixReplacement {
    Whole,
    Prefix,
    Never,
}

/// `PathPrefix /x` is `/x` and everything below `/x/`.
fn paths(condition: &RouteMatch) -> Vec<Path> {
    let one = |specifier, replace| vec![Path { specifier, replace }];
    let Some(path) = &condition.path else {
        return one(PathSpecifier::Prefix("/".into()), PrefixReplacement::Never);
    };
    match path.r#type {
        PathMatchType::Exact => one(PathSpecifier::Path(path.value.clone()), PrefixReplacement::Never),
        PathMatchType::RegularExpression => {
            one(PathSpecifier::SafeRegex(regex(&path.value)), PrefixReplacement::Never)
        }
        PathMatchType::PathPrefix if path.value == "/" => {
            one(PathSpecifier::Prefix("/".into()), PrefixReplacement::Prefix)
        }
        PathMatchType::PathPrefix => vec![
            Path { specifier: PathSpecifier::Path(path.value.clone()), replace: PrefixReplacement::Whole },
            Path {
                specifier: PathSpecifier::Prefix(format!("{}/", path.value)),
                replace: PrefixReplacement::Prefix,
            },
        ],
    }
}

/// The route, preceded by the share that is answered with 500.
fn variants(outbound: &Outbound, route: &HttpRoute, path: Path) -> Vec<pb::Route> {
    let redirects = route.filters.iter().any(|filter| filter.r#type == FilterType::RequestRedirect);
    let base = pb::Route {
        name: route.name.clone(),
        r#match: Some(condition(&route.condition, path.specifier)),
        action: forward(&route.split, route.auto_host_rewrite).map(pb::route::Action::Route),
        ..Default::default()
    };
    let mut built = filter(base, route, path.replace);
    if redirects {
        return vec![built];
    }
    if route.all_unresolved {
        built.action = Some(unresolved());
        return vec![built];
    }
    let Some(pb::route::Action::Route(action)) = &mut built.action else { return Vec::new() };
    Timeouts::new(outbound.timeout.as_ref()).apply(action);
    if route.timeout.is_some() {
        Timeouts::new(route.timeout.as_ref()).apply(action);
    }
    action.retry_policy = retry::policy(route.retry.as_ref(), outbound.protocol)
        .or_else(|| retry::policy(outbound.retry.as_ref(), outbound.protocol));
    if route.unresolved_weight == 0 {
        return vec![built];
    }
    let mut failing = pb::Route { action: Some(unresolved()), ..built.clone() };
    if let Some(condition) = &mut failing.r#match {
        condition.runtime_fraction = Some(fraction(unresolved_percent(route)));
    }
    vec![failing, built]
}

fn unresolved_percent(route: &HttpRoute) -> f64 {
    let usable: u64 = route.split.iter().map(|share| u64::from(share.weight)).sum();
    let total = usable.saturating_add(route.unresolved_weight);
    #[expect(clippy::cast_precision_loss, reason = "a share of requests needs no more digits")]
    let percent = route.unresolved_weight as f64 * 100.0 / total as f64;
    percent
}

fn unresolved() -> pb::route::Action {
    pb::route::Action::DirectResponse(pb::DirectResponseAction {
        status: UNRESOLVED_STATUS,
        body: Some(inline_string("")),
        ..Default::default()
    })
}

/// Forwards to one cluster or splits between several; none without any.
fn forward(split: &[Share], auto_host_rewrite: bool) -> Option<pb::RouteAction> {
    use pb::route_action::{ClusterSpecifier, HostRewriteSpecifier};
    let clusters = match split {
        [] => return None,
        [share] => ClusterSpecifier::Cluster(share.cluster.clone()),
        shares => ClusterSpecifier::WeightedClusters(pb::WeightedCluster {
            clusters: shares
                .iter()
                .map(|share| pb::weighted_cluster::ClusterWeight {
                    name: share.cluster.clone(),
                    weight: Some(number(share.weight)),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }),
    };
    Some(pb::RouteAction {
        timeout: Some(duration(NONE)),
        cluster_specifier: Some(clusters),
        host_rewrite_specifier: auto_host_rewrite
            .then(|| HostRewriteSpecifier::AutoHostRewrite(crate::message::flag(true))),
        ..Default::default()
    })
}

fn condition(condition: &RouteMatch, path: PathSpecifier) -> pb::RouteMatch {
    let method = condition.method.map(|method| pb::HeaderMatcher {
        name: ":method".into(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(exact(method.name()))),
        ..Default::default()
    });
    // Header names ignore case; the first condition on a header counts.
    let mut seen = BTreeSet::new();
    let first = |header: &&HeaderMatch| seen.insert(header.name.to_ascii_lowercase());
    let headers = condition.headers.iter().flatten().filter(first).map(header_matcher);
    let parameters = condition.query_params.iter().flatten().map(|parameter| pb::QueryParameterMatcher {
        name: parameter.name.clone(),
        query_parameter_match_specifier: Some(QueryParameterMatchSpecifier::StringMatch(
            match parameter.r#type {
                QueryParamMatchType::Exact => exact(&parameter.value),
                QueryParamMatchType::RegularExpression => matches_regex(&parameter.value),
            },
        )),
    });
    pb::RouteMatch {
        path_specifier: Some(path),
        query_parameters: parameters.collect(),
        headers: method.into_iter().chain(headers).collect(),
        ..Default::default()
    }
}

/// A condition on a header, of requests or responses.
pub(crate) fn header_matcher(condition: &HeaderMatch) -> pb::HeaderMatcher {
    let specifier = match condition.r#type {
        HeaderMatchType::Exact => HeaderMatchSpecifier::StringMatch(exact(&condition.value)),
        HeaderMatchType::RegularExpression => {
            HeaderMatchSpecifier::StringMatch(matches_regex(&condition.value))
        }
        HeaderMatchType::Prefix if !condition.value.is_empty() => {
            HeaderMatchSpecifier::StringMatch(prefix(&condition.value))
        }
        HeaderMatchType::Present | HeaderMatchType::Prefix => HeaderMatchSpecifier::PresentMatch(true),
        HeaderMatchType::Absent => HeaderMatchSpecifier::PresentMatch(false),
    };
    pb::HeaderMatcher {
        name: condition.name.clone(),
        header_match_specifier: Some(specifier),
        ..Default::default()
    }
}

/// Applies the filters in list order.
fn filter(mut built: pb::Route, route: &HttpRoute, replace: PrefixReplacement) -> pb::Route {
    let mut mirrors = route.mirrors.iter();
    for filter in &route.filters {
        match filter.r#type {
            FilterType::RequestHeaderModifier => {
                if let Some(modifier) = &filter.request_header_modifier {
                    let lists = (&mut built.request_headers_to_add, &mut built.request_headers_to_remove);
                    modify_headers(modifier, lists);
                }
            }
            FilterType::ResponseHeaderModifier => {
                if let Some(modifier) = &filter.response_header_modifier {
                    let lists = (&mut built.response_headers_to_add, &mut built.response_headers_to_remove);
                    modify_headers(modifier, lists);
                }
            }
            FilterType::RequestRedirect => {
                if let Some(conf) = &filter.request_redirect {
                    built.action = Some(pb::route::Action::Redirect(redirect(conf, replace)));
                }
            }
            FilterType::URLRewrite => {
                if let (Some(conf), Some(pb::route::Action::Route(action))) =
                    (&filter.url_rewrite, &mut built.action)
                {
                    rewrite(conf, action, replace);
                }
            }
            FilterType::RequestMirror => {
                let cluster = mirrors.next().cloned().flatten();
                if let (Some(cluster), Some(pb::route::Action::Route(action))) = (cluster, &mut built.action)
                {
                    action.request_mirror_policies.push(mirror(cluster, filter));
                }
            }
        }
    }
    built
}

type HeaderLists<'a> =
    (&'a mut Vec<envoy_types::pb::envoy::config::core::v3::HeaderValueOption>, &'a mut Vec<String>);

fn modify_headers(modifier: &HeaderModifier, (to_add, to_remove): HeaderLists<'_>) {
    for set in modifier.set.iter().flatten() {
        to_add.push(header(&set.name, &set.value, HeaderAppendAction::OverwriteIfExistsOrAdd));
    }
    for add in modifier.add.iter().flatten() {
        to_add.push(header(&add.name, &add.value, HeaderAppendAction::AppendIfExistsOrAdd));
    }
    to_remove.extend(modifier.remove.iter().flatten().cloned());
}

/// A new path, as Envoy expresses it.
enum NewPath<'a> {
    Whole(&'a str),
    Prefix(&'a str),
}

fn new_path(path: &PathRewrite, replace: PrefixReplacement) -> Option<NewPath<'_>> {
    match path.r#type {
        PathRewriteType::ReplaceFullPath => path.replace_full_path.as_deref().map(NewPath::Whole),
        PathRewriteType::ReplacePrefixMatch => {
            let value = path.replace_prefix_match.as_deref()?;
            match replace {
                PrefixReplacement::Whole => Some(NewPath::Whole(value)),
                PrefixReplacement::Prefix => Some(NewPath::Prefix(value)),
                PrefixReplacement::Never => None,
            }
        }
    }
}

fn redirect(conf: &RequestRedirect, replace: PrefixReplacement) -> pb::RedirectAction {
    use pb::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
    let code = match conf.status_code {
        Some(301) => RedirectResponseCode::MovedPermanently,
        Some(303) => RedirectResponseCode::SeeOther,
        Some(307) => RedirectResponseCode::TemporaryRedirect,
        Some(308) => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::Found,
    };
    let path = conf.path.as_ref().and_then(|path| new_path(path, replace)).map(|path| match path {
        NewPath::Whole(value) => PathRewriteSpecifier::RegexRewrite(replace_all(value)),
        NewPath::Prefix(value) => PathRewriteSpecifier::PrefixRewrite(value.into()),
    });
    pb::RedirectAction {
        host_redirect: conf.hostname.clone().unwrap_or_default(),
        port_redirect: conf.port.unwrap_or_default(),
        response_code: code.into(),
        scheme_rewrite_specifier: conf.scheme.clone().map(SchemeRewriteSpecifier::SchemeRedirect),
        path_rewrite_specifier: path,
        ..Default::default()
    }
}

fn rewrite(conf: &UrlRewrite, action: &mut pb::RouteAction, replace: PrefixReplacement) {
    if let Some(hostname) = &conf.hostname {
        action.host_rewrite_specifier =
            Some(pb::route_action::HostRewriteSpecifier::HostRewriteLiteral(hostname.clone()));
    }
    match conf.path.as_ref().and_then(|path| new_path(path, replace)) {
        Some(NewPath::Whole(value)) => action.regex_rewrite = Some(replace_all(value)),
        Some(NewPath::Prefix(value)) => action.prefix_rewrite = value.into(),
        None => {}
    }
}

fn mirror(cluster: String, filter: &Filter) -> pb::route_action::RequestMirrorPolicy {
    let percentage = filter.request_mirror.as_ref().and_then(|mirror| mirror.percentage.as_ref()?.value());
    pb::route_action::RequestMirrorPolicy {
        cluster,
        runtime_fraction: percentage.map(fraction),
        ..Default::default()
    }
}
