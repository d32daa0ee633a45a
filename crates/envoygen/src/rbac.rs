//! MeshTrafficPermission as matcher trees (policies.md §14).

use envoy_types::pb::envoy::config::rbac::v3 as rbac_pb;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac as HttpRbac;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkRbac;
use envoy_types::pb::envoy::extensions::matching::common_inputs::network::v3::ServerNameInput;
use envoy_types::pb::envoy::extensions::matching::common_inputs::ssl::v3::UriSanInput;
use envoy_types::pb::xds::core::v3::TypedExtensionConfig;
use envoy_types::pb::xds::r#type::matcher::v3 as xds;
use graticule_model::targetref::{Match, MatchType};
use graticule_policy::inputs::Permission;
use prost::{Message, Name};
use xds::matcher::matcher_list::{FieldMatcher, Predicate, predicate};
use xds::matcher::{MatcherType, OnMatch, on_match};

use crate::message::{any, sanitize};

/// Name of the action when nothing matches.
const DEFAULT_ACTION: &str = "default";

/// The HTTP filter's configuration.
pub(crate) fn http(permissions: &[Permission]) -> HttpRbac {
    HttpRbac {
        matcher: Some(matcher(permissions)),
        shadow_matcher: shadow(permissions),
        ..Default::default()
    }
}

/// The network filter's configuration.
pub(crate) fn network(permissions: &[Permission], listener: &str) -> NetworkRbac {
    NetworkRbac {
        matcher: Some(matcher(permissions)),
        shadow_matcher: shadow(permissions),
        stat_prefix: format!("{}.", sanitize(listener)),
        ..Default::default()
    }
}

/// Whether a condition needs the requested server name.
pub(crate) fn needs_sni(permissions: &[Permission]) -> bool {
    permissions
        .iter()
        .flat_map(|p| [&p.conf.deny, &p.conf.allow, &p.conf.allow_with_shadow_deny])
        .flatten()
        .flatten()
        .any(|condition| condition.sni.is_some())
}

/// Denials of all rules, then what they allow, else denied.
fn matcher(permissions: &[Permission]) -> xds::Matcher {
    use rbac_pb::rbac::Action;
    let denied = permissions.iter().filter_map(|p| entry(p, p.conf.deny.iter().flatten(), Action::Deny));
    let allowed = permissions.iter().filter_map(|p| {
        let matches = p.conf.allow.iter().flatten().chain(p.conf.allow_with_shadow_deny.iter().flatten());
        entry(p, matches, Action::Allow)
    });
    tree(denied.chain(allowed).collect())
}

/// What would be denied if shadow denials were enforced; none without any.
fn shadow(permissions: &[Permission]) -> Option<xds::Matcher> {
    let entries: Vec<_> = permissions
        .iter()
        .filter_map(|p| entry(p, p.conf.allow_with_shadow_deny.iter().flatten(), rbac_pb::rbac::Action::Deny))
        .collect();
    (!entries.is_empty()).then(|| tree(entries))
}

fn tree(matchers: Vec<FieldMatcher>) -> xds::Matcher {
    let list = xds::matcher::MatcherList { matchers };
    xds::Matcher {
        on_no_match: Some(Box::new(action(DEFAULT_ACTION, rbac_pb::rbac::Action::Deny))),
        matcher_type: (!list.matchers.is_empty()).then_some(MatcherType::MatcherList(list)),
    }
}

fn action(name: &str, action: rbac_pb::rbac::Action) -> OnMatch {
    let config = rbac_pb::Action { name: name.into(), action: action.into() };
    OnMatch {
        on_match: Some(on_match::OnMatch::Action(extension("envoy.filters.rbac.action", &config))),
        ..Default::default()
    }
}

fn entry<'a>(
    permission: &Permission,
    matches: impl Iterator<Item = &'a Match>,
    verdict: rbac_pb::rbac::Action,
) -> Option<FieldMatcher> {
    let mut predicates: Vec<_> = matches.filter_map(condition).collect();
    let predicate = match predicates.len() {
        0 => return None,
        1 => predicates.remove(0),
        _ => list_predicate(predicates, predicate::MatchType::OrMatcher),
    };
    Some(FieldMatcher { predicate: Some(predicate), on_match: Some(action(&permission.policy, verdict)) })
}

/// A condition; one that asks for nothing matches nothing.
fn condition(condition: &Match) -> Option<Predicate> {
    let spiffe = condition.spiffe_id.as_ref().map(|id| {
        let value = match id.r#type {
            MatchType::Exact => xds::string_matcher::MatchPattern::Exact(id.value.clone()),
            MatchType::Prefix => xds::string_matcher::MatchPattern::Prefix(id.value.clone()),
        };
        single(extension("envoy.matching.inputs.uri_san", &UriSanInput {}), value)
    });
    let sni = condition.sni.as_ref().map(|sni| {
        let value = xds::string_matcher::MatchPattern::Exact(sni.value.clone());
        single(extension("envoy.matching.inputs.server_name", &ServerNameInput {}), value)
    });
    match (spiffe, sni) {
        (Some(spiffe), Some(sni)) => {
            Some(list_predicate(vec![spiffe, sni], predicate::MatchType::AndMatcher))
        }
        (spiffe, sni) => spiffe.or(sni),
    }
}

fn list_predicate(
    predicates: Vec<Predicate>,
    kind: fn(predicate::PredicateList) -> predicate::MatchType,
) -> Predicate {
    Predicate { match_type: Some(kind(predicate::PredicateList { predicate: predicates })) }
}

fn single(input: TypedExtensionConfig, pattern: xds::string_matcher::MatchPattern) -> Predicate {
    let value = xds::StringMatcher { match_pattern: Some(pattern), ..Default::default() };
    let single = predicate::SinglePredicate {
        input: Some(input),
        matcher: Some(predicate::single_predicate::Matcher::ValueMatch(value)),
    };
    Predicate { match_type: Some(predicate::MatchType::SinglePredicate(single)) }
}

fn extension<M: Message + Name>(name: &str, config: &M) -> TypedExtensionConfig {
    TypedExtensionConfig { name: name.into(), typed_config: Some(any(config)) }
}
