//! MeshRetry (policies.md §17).

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::route::v3::retry_policy::{
    RateLimitedRetryBackOff, ResetHeader, ResetHeaderFormat, RetryBackOff, RetryHostPredicate, RetryPriority,
    retry_host_predicate, retry_priority,
};
use envoy_types::pb::envoy::config::route::v3::{HeaderMatcher, RetryPolicy};
use envoy_types::pb::envoy::extensions::retry::host::omit_host_metadata::v3::OmitHostMetadataConfig;
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use graticule_model::GoDuration;
use graticule_model::kinds::mesh_retry::{
    BackOff, Conf, Grpc, GrpcRetryOn, HostPredicate, HostSelection, Http, RateLimitedBackOff, ResetFormat,
};
use graticule_policy::inputs::Protocol;

use crate::message::{any, duration, exact, map_struct, metadata, number};
use crate::route::header_matcher;

const HTTP_DEFAULT: &str = "gateway-error,connect-failure,refused-stream";
const GRPC_DEFAULT: &str =
    "cancelled,connect-failure,gateway-error,refused-stream,reset,resource-exhausted,unavailable";
/// Pause before the first retry where only the longest one is given; Envoy wants both (policies.md §22 no. 20).
const BASE_INTERVAL: GoDuration = GoDuration::from_millis(25);
/// Retries before priorities are chosen anew.
const UPDATE_FREQUENCY: i32 = 2;
/// Legacy tag that no endpoint carries.
const SERVICE_TAG: &str = "kuma.io/service";

/// Connection attempts of a TCP destination.
pub(crate) fn connect_attempts(conf: Option<&Conf>) -> Option<u32> {
    conf?.tcp.as_ref()?.max_connect_attempt
}

/// Retry policy of requests; `http2` is treated as `http` (policies.md §22 no. 19).
pub(crate) fn policy(conf: Option<&Conf>, protocol: Protocol) -> Option<RetryPolicy> {
    let conf = conf?;
    match protocol {
        Protocol::Http | Protocol::Http2 => conf.http.as_ref().and_then(http),
        Protocol::Grpc => conf.grpc.as_ref().and_then(grpc),
        Protocol::Tcp => None,
    }
}

fn http(conf: &Http) -> Option<RetryPolicy> {
    if conf.num_retries == Some(0) {
        return None;
    }
    let conditions = Conditions::parse(conf.retry_on.as_deref().unwrap_or_default());
    let mut request_headers: Vec<_> = conditions.methods.iter().map(|method| method_header(method)).collect();
    request_headers.extend(conf.retriable_request_headers.iter().flatten().map(header_matcher));
    let selections = conf.host_selection.as_deref().unwrap_or_default();
    Some(RetryPolicy {
        retry_on: conditions.retry_on,
        num_retries: conf.num_retries.map(number),
        per_try_timeout: conf.per_try_timeout.map(duration),
        retry_priority: selections.iter().find_map(priority),
        retry_host_predicate: selections.iter().filter_map(host_predicate).collect(),
        host_selection_retry_max_attempts: conf.host_selection_max_attempts.unwrap_or_default(),
        retriable_status_codes: conditions.status_codes,
        retry_back_off: conf.back_off.as_ref().map(back_off),
        rate_limited_retry_back_off: conf.rate_limited_back_off.as_ref().map(limited_back_off),
        retriable_headers: conf.retriable_response_headers.iter().flatten().map(header_matcher).collect(),
        retriable_request_headers: request_headers,
        ..Default::default()
    })
}

fn grpc(conf: &Grpc) -> Option<RetryPolicy> {
    if conf.num_retries == Some(0) {
        return None;
    }
    let conditions: Vec<_> = conf.retry_on.iter().flatten().map(|on| grpc_condition(*on)).collect();
    Some(RetryPolicy {
        retry_on: if conditions.is_empty() { GRPC_DEFAULT.into() } else { conditions.join(",") },
        num_retries: conf.num_retries.map(number),
        per_try_timeout: conf.per_try_timeout.map(duration),
        retry_back_off: conf.back_off.as_ref().map(back_off),
        rate_limited_retry_back_off: conf.rate_limited_back_off.as_ref().map(limited_back_off),
        ..Default::default()
    })
}

/// Envoy's spelling, also of `cancelled` (policies.md §22 no. 21).
fn grpc_condition(on: GrpcRetryOn) -> &'static str {
    match on {
        GrpcRetryOn::Canceled => "cancelled",
        GrpcRetryOn::DeadlineExceeded => "deadline-exceeded",
        GrpcRetryOn::Internal => "internal",
        GrpcRetryOn::ResourceExhausted => "resource-exhausted",
        GrpcRetryOn::Unavailable => "unavailable",
    }
}

/// What `http.retryOn` says.
struct Conditions {
    retry_on: String,
    status_codes: Vec<u32>,
    methods: Vec<String>,
}

impl Conditions {
    fn parse(items: &[String]) -> Conditions {
        let (mut names, mut status_codes, mut methods) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            if let Some(method) = item.strip_prefix("HttpMethod") {
                methods.push(method.to_ascii_uppercase());
            } else if let Some(name) = http_condition(item) {
                names.push(name);
            } else if let Ok(code @ 100..=599) = item.parse::<u32>() {
                status_codes.push(code);
            }
        }
        if names.is_empty() {
            names.push(HTTP_DEFAULT);
        }
        if !status_codes.is_empty() {
            names.push("retriable-status-codes");
        }
        Conditions { retry_on: names.join(","), status_codes, methods }
    }
}

fn http_condition(item: &str) -> Option<&'static str> {
    Some(match item {
        "5xx" => "5xx",
        "GatewayError" => "gateway-error",
        "Reset" => "reset",
        "Retriable4xx" => "retriable-4xx",
        "ConnectFailure" => "connect-failure",
        "EnvoyRatelimited" => "envoy-ratelimited",
        "RefusedStream" => "refused-stream",
        "Http3PostConnectFailure" => "http3-post-connect-failure",
        _ => return None,
    })
}

fn method_header(method: &str) -> HeaderMatcher {
    use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
    HeaderMatcher {
        name: ":method".into(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(exact(method))),
        ..Default::default()
    }
}

fn back_off(conf: &BackOff) -> RetryBackOff {
    RetryBackOff {
        base_interval: Some(duration(conf.base_interval.unwrap_or(BASE_INTERVAL))),
        max_interval: conf.max_interval.map(duration),
    }
}

fn limited_back_off(conf: &RateLimitedBackOff) -> RateLimitedRetryBackOff {
    let format = |format: ResetFormat| match format {
        ResetFormat::Seconds => ResetHeaderFormat::Seconds,
        ResetFormat::UnixTimestamp => ResetHeaderFormat::UnixTimestamp,
    };
    let headers = conf.reset_headers.iter().flatten();
    RateLimitedRetryBackOff {
        reset_headers: headers
            .map(|header| ResetHeader { name: header.name.clone(), format: format(header.format).into() })
            .collect(),
        max_interval: conf.max_interval.map(duration),
    }
}

fn host_predicate(selection: &HostSelection) -> Option<RetryHostPredicate> {
    let (name, config) = match selection.predicate {
        HostPredicate::OmitPreviousHosts => {
            ("envoy.retry_host_predicates.previous_hosts", any(&PreviousHostsPredicate {}))
        }
        HostPredicate::OmitHostsWithTags => {
            let mut tags: BTreeMap<String, String> = selection.tags.clone().unwrap_or_default();
            tags.remove(SERVICE_TAG);
            let config =
                OmitHostMetadataConfig { metadata_match: Some(metadata([("envoy.lb", map_struct(&tags))])) };
            ("envoy.retry_host_predicates.omit_host_metadata", any(&config))
        }
        HostPredicate::OmitPreviousPriorities => return None,
    };
    Some(RetryHostPredicate {
        name: name.into(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(config)),
    })
}

fn priority(selection: &HostSelection) -> Option<RetryPriority> {
    if selection.predicate != HostPredicate::OmitPreviousPriorities {
        return None;
    }
    let update_frequency = selection.update_frequency.unwrap_or(UPDATE_FREQUENCY);
    Some(RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".into(),
        config_type: Some(retry_priority::ConfigType::TypedConfig(any(&PreviousPrioritiesConfig {
            update_frequency,
        }))),
    })
}
