//! What a MeshHTTPRoute must be.

use std::collections::BTreeSet;

use super::*;
use crate::kinds::Validate;
use crate::{Meta, Violations, name};

impl Validate for MeshHTTPRoute {
    const DESCRIPTION: &'static str =
        "Sends HTTP requests to other destinations, and changes requests and answers on the way.";
    const SCHEMA: &'static Schema = &SPEC;

    fn validate(&self, _meta: &Meta, violations: &mut Violations) {
        targetref::validate_top(self.target_ref.as_ref(), false, violations);
        for (index, to) in self.to.iter().flatten().enumerate() {
            let path = format!("spec.to[{index}]");
            if to.hostnames.as_ref().is_some_and(|hostnames| !hostnames.is_empty()) {
                violations.add(format!("{path}.hostnames"), "must not be defined");
            }
            targetref::validate(&to.target_ref, &format!("{path}.targetRef"), &DESTINATIONS, violations);
            for (rule_index, rule) in to.rules.iter().enumerate() {
                validate_rule(rule, &format!("{path}.rules[{rule_index}]"), violations);
            }
        }
    }
}

fn validate_rule(rule: &RouteRule, path: &str, violations: &mut Violations) {
    for (index, condition) in rule.matches.iter().enumerate() {
        validate_match(condition, &format!("{path}.matches[{index}]"), violations);
    }
    let is_prefix = |m: &RouteMatch| m.path.as_ref().is_some_and(|p| p.r#type == PathMatchType::PathPrefix);
    let all_prefix = !rule.matches.is_empty() && rule.matches.iter().all(is_prefix);
    for (index, filter) in rule.default.filters.iter().flatten().enumerate() {
        validate_filter(filter, &format!("{path}.default.filters[{index}]"), all_prefix, violations);
    }
    for (index, backend) in rule.default.backend_refs.iter().flatten().enumerate() {
        targetref::validate_backend(backend, &format!("{path}.default.backendRefs[{index}]"), violations);
    }
}

fn validate_match(condition: &RouteMatch, path: &str, violations: &mut Violations) {
    if let Some(PathMatch { value, r#type }) = &condition.path {
        let field = format!("{path}.path.value");
        match r#type {
            PathMatchType::PathPrefix if value != "/" && value.ends_with('/') => violations.add(
                field,
                "does not need a trailing slash because only a `/`-separated prefix or an entire path is matched",
            ),
            PathMatchType::PathPrefix | PathMatchType::Exact if !value.starts_with('/') => {
                violations.add(field, "must be an absolute path");
            }
            _ => {}
        }
    }
    for (index, header) in condition.headers.iter().flatten().enumerate() {
        if matches!(header.r#type, HeaderMatchType::Present | HeaderMatchType::Absent)
            && !header.value.is_empty()
        {
            violations.add(format!("{path}.headers[{index}].value"), "must not be defined");
        }
    }
    let mut seen = BTreeSet::new();
    for (index, parameter) in condition.query_params.iter().flatten().enumerate() {
        if !seen.insert(&parameter.name) {
            violations.add(
                format!("{path}.queryParams[{index}].name"),
                format!("multiple entries for name {}", parameter.name),
            );
        }
    }
}

fn validate_filter(filter: &Filter, path: &str, all_prefix: bool, violations: &mut Violations) {
    let (member, is_set) = match filter.r#type {
        FilterType::RequestHeaderModifier => {
            ("requestHeaderModifier", filter.request_header_modifier.is_some())
        }
        FilterType::ResponseHeaderModifier => {
            ("responseHeaderModifier", filter.response_header_modifier.is_some())
        }
        FilterType::RequestRedirect => ("requestRedirect", filter.request_redirect.is_some()),
        FilterType::URLRewrite => ("urlRewrite", filter.url_rewrite.is_some()),
        FilterType::RequestMirror => ("requestMirror", filter.request_mirror.is_some()),
    };
    let path = format!("{path}.{member}");
    if !is_set {
        violations.add(path, "must be defined");
        return;
    }
    match filter.r#type {
        FilterType::RequestHeaderModifier => {
            validate_modifier(filter.request_header_modifier.as_ref(), &path, violations);
        }
        FilterType::ResponseHeaderModifier => {
            validate_modifier(filter.response_header_modifier.as_ref(), &path, violations);
        }
        FilterType::RequestRedirect => {
            if let Some(redirect) = &filter.request_redirect {
                validate_path_rewrite(redirect.path.as_ref(), &path, all_prefix, violations);
                validate_hostname(redirect.hostname.as_deref(), &path, violations);
            }
        }
        FilterType::URLRewrite => {
            if let Some(rewrite) = &filter.url_rewrite {
                validate_path_rewrite(rewrite.path.as_ref(), &path, all_prefix, violations);
                validate_hostname(rewrite.hostname.as_deref(), &path, violations);
                if rewrite.host_to_backend_hostname == Some(true) {
                    let field = format!("{path}.hostToBackendHostname");
                    violations.add(&field, "must not be set");
                    if rewrite.hostname.is_some() {
                        violations.add(field, "cannot be set together with hostname");
                    }
                }
            }
        }
        FilterType::RequestMirror => {
            if let Some(mirror) = &filter.request_mirror {
                targetref::validate_backend(&mirror.backend_ref, &format!("{path}.backendRef"), violations);
                if let Some(percentage) = &mirror.percentage {
                    match percentage.value() {
                        None => violations.add(format!("{path}.percentage"), "string must be a valid number"),
                        Some(value) if !(0.0..=100.0).contains(&value) => {
                            violations
                                .add(format!("{path}.percentage"), "must be in inclusive range [0.0, 100.0]");
                        }
                        Some(_) => {}
                    }
                }
            }
        }
    }
}

fn validate_modifier(modifier: Option<&HeaderModifier>, path: &str, violations: &mut Violations) {
    let Some(modifier) = modifier else { return };
    let set = modifier.set.as_deref().unwrap_or_default();
    let add = modifier.add.as_deref().unwrap_or_default();
    let remove = modifier.remove.as_deref().unwrap_or_default();
    if set.is_empty() && add.is_empty() && remove.is_empty() {
        violations.add(path, "must have at least one defined: set, add, remove");
    }
    let mut seen = BTreeSet::new();
    let entries = set
        .iter()
        .enumerate()
        .map(|(i, header)| (format!("set[{i}].name"), &header.name))
        .chain(add.iter().enumerate().map(|(i, header)| (format!("add[{i}].name"), &header.name)))
        .chain(remove.iter().enumerate().map(|(i, header)| (format!("remove[{i}].name"), header)));
    for (field, header) in entries {
        if !seen.insert(header.to_ascii_lowercase()) {
            violations.add(format!("{path}.{field}"), "duplicate header name");
        }
    }
}

fn validate_path_rewrite(
    path_rewrite: Option<&PathRewrite>,
    path: &str,
    all_prefix: bool,
    violations: &mut Violations,
) {
    if path_rewrite.is_some_and(|p| p.replace_prefix_match.is_some()) && !all_prefix {
        violations.add(
            format!("{path}.path.replacePrefixMatch"),
            "can only appear if all matches match a path prefix",
        );
    }
}

fn validate_hostname(hostname: Option<&str>, path: &str, violations: &mut Violations) {
    let Some(hostname) = hostname else { return };
    let field = format!("{path}.hostname");
    if hostname.parse::<std::net::IpAddr>().is_ok() {
        violations.add(field, "cannot be an IP address");
    } else if !name::is_dns1123_subdomain(hostname) {
        violations.add(field, name::DNS1123_SUBDOMAIN_ERROR);
    }
}
