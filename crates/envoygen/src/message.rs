//! Small pieces of Envoy messages that every builder uses.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::google::protobuf as wkt;
use graticule_model::GoDuration;
use prost::{Message, Name};

/// Metadata key of listener tags (xds.md §2.5).
const TAGS_METADATA: &str = "io.kuma.tags";

/// Packs a message.
pub(crate) fn any<M: Message + Name>(message: &M) -> wkt::Any {
    wkt::Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// A protobuf duration.
pub(crate) fn duration(value: GoDuration) -> wkt::Duration {
    let std: Duration = value.to_std();
    // The quotient of nanoseconds in an i64 fits in an i64, the rest is below 10⁹.
    wkt::Duration {
        seconds: i64::try_from(std.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(std.subsec_nanos()).unwrap_or(0),
    }
}

/// A wrapped number.
pub(crate) fn number(value: u32) -> wkt::UInt32Value {
    wkt::UInt32Value { value }
}

/// A wrapped flag.
pub(crate) fn flag(value: bool) -> wkt::BoolValue {
    wkt::BoolValue { value }
}

/// A TCP address.
pub(crate) fn socket_address(address: &str, port: u32) -> core::SocketAddress {
    core::SocketAddress {
        address: address.into(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port)),
        ..Default::default()
    }
}

/// A TCP address as general address.
pub(crate) fn tcp_address(address: &str, port: u32) -> core::Address {
    core::Address { address: Some(core::address::Address::SocketAddress(socket_address(address, port))) }
}

/// A Unix socket.
pub(crate) fn pipe_address(path: &str) -> core::Address {
    core::Address { address: Some(core::address::Address::Pipe(core::Pipe { path: path.into(), mode: 0 })) }
}

/// The ADS stream as source of nested configuration (xds.md §1.2).
pub(crate) fn ads() -> core::ConfigSource {
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource {},
        )),
        ..Default::default()
    }
}

/// Bytes in place.
pub(crate) fn inline_bytes(text: &str) -> core::DataSource {
    core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineBytes(text.as_bytes().to_vec())),
        ..Default::default()
    }
}

/// Text in place.
pub(crate) fn inline_string(text: &str) -> core::DataSource {
    core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineString(text.into())),
        ..Default::default()
    }
}

/// A TLS transport socket.
pub(crate) fn tls_socket<M: Message + Name>(context: &M) -> core::TransportSocket {
    core::TransportSocket {
        name: "envoy.transport_sockets.tls".into(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(any(context))),
    }
}

/// A flat struct of texts.
pub(crate) fn text_struct<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> wkt::Struct {
    let text = |value: &str| wkt::Value { kind: Some(wkt::value::Kind::StringValue(value.into())) };
    wkt::Struct { fields: fields.into_iter().map(|(key, value)| (key.into(), text(value))).collect() }
}

/// A map of texts as struct.
pub(crate) fn map_struct(map: &BTreeMap<String, String>) -> wkt::Struct {
    text_struct(map.iter().map(|(key, value)| (key.as_str(), value.as_str())))
}

/// Filter metadata with the given entries.
pub(crate) fn metadata(entries: impl IntoIterator<Item = (&'static str, wkt::Struct)>) -> core::Metadata {
    core::Metadata {
        filter_metadata: entries
            .into_iter()
            .map(|(key, value)| (key.into(), value))
            .collect::<HashMap<_, _>>(),
        ..Default::default()
    }
}

/// Listener tags (xds.md §2.5).
pub(crate) fn tags(tags: wkt::Struct) -> core::Metadata {
    metadata([(TAGS_METADATA, tags)])
}

/// The tag of resources that have no tags of their own.
pub(crate) fn unified_name(name: &str) -> core::Metadata {
    tags(text_struct([("kuma.io/unified-name", name)]))
}

/// CIDR texts as messages; what is no CIDR is left out.
pub(crate) fn cidr_ranges<'a>(cidrs: impl IntoIterator<Item = &'a str>) -> Vec<core::CidrRange> {
    let range = |cidr: &str| {
        let (address, length) = cidr.split_once('/')?;
        let is_v6 = address.parse::<IpAddr>().ok()?.is_ipv6();
        let length = length.parse().ok().filter(|bits: &u32| *bits <= if is_v6 { 128 } else { 32 })?;
        Some(core::CidrRange { address_prefix: address.into(), prefix_len: Some(number(length)) })
    };
    cidrs.into_iter().filter_map(range).collect()
}

/// A regular expression (the engine is the bootstrap's: RE2).
pub(crate) fn regex(regex: &str) -> matcher::RegexMatcher {
    matcher::RegexMatcher { regex: regex.into(), ..Default::default() }
}

/// Replaces everything.
pub(crate) fn replace_all(substitution: &str) -> matcher::RegexMatchAndSubstitute {
    matcher::RegexMatchAndSubstitute { pattern: Some(regex(".*")), substitution: substitution.into() }
}

/// A text comparison.
pub(crate) fn string_matcher(pattern: matcher::string_matcher::MatchPattern) -> matcher::StringMatcher {
    matcher::StringMatcher { match_pattern: Some(pattern), ..Default::default() }
}

/// Equal.
pub(crate) fn exact(text: &str) -> matcher::StringMatcher {
    string_matcher(matcher::string_matcher::MatchPattern::Exact(text.into()))
}

/// Starts with.
pub(crate) fn prefix(text: &str) -> matcher::StringMatcher {
    string_matcher(matcher::string_matcher::MatchPattern::Prefix(text.into()))
}

/// RE2.
pub(crate) fn matches_regex(text: &str) -> matcher::StringMatcher {
    string_matcher(matcher::string_matcher::MatchPattern::SafeRegex(regex(text)))
}

/// A header that is added.
pub(crate) fn header(
    key: &str,
    value: &str,
    action: core::header_value_option::HeaderAppendAction,
) -> core::HeaderValueOption {
    core::HeaderValueOption {
        header: Some(core::HeaderValue { key: key.into(), value: value.into(), ..Default::default() }),
        append_action: action.into(),
        ..Default::default()
    }
}

/// Name in statistics: everything outside `[A-Za-z0-9_-]` becomes `_` (xds.md §2.3).
pub(crate) fn sanitize(name: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    name.chars().map(|c| if keep(c) { c } else { '_' }).collect()
}

/// A Unix socket of the agent; the path before `.sock` is cut at 98 characters (xds.md §2.7).
pub(crate) fn socket_path(workdir: &str, name: &str) -> String {
    const LONGEST: usize = 98;
    let path = if workdir.is_empty() {
        name.to_owned()
    } else {
        format!("{}/{name}", workdir.trim_end_matches('/'))
    };
    let cut: String = path.chars().take(LONGEST).collect();
    format!("{cut}.sock")
}

/// A share of requests with the smallest denominator that makes it whole (policies.md §3.5).
pub(crate) fn fraction(percent: f64) -> core::RuntimeFractionalPercent {
    use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};
    let percent = percent.clamp(0.0, 100.0);
    let scaled = [
        (percent, DenominatorType::Hundred),
        (percent * 100.0, DenominatorType::TenThousand),
        (percent * 10_000.0, DenominatorType::Million),
    ];
    // Multiplication leaves a trace of binary fractions, so "whole" means closer than a millionth.
    let whole = |value: f64| (value - value.round()).abs() < 1e-6;
    let (value, denominator) = scaled.into_iter().find(|(value, _)| whole(*value)).unwrap_or(scaled[2]);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1,000,000")]
    let numerator = value.round() as u32;
    core::RuntimeFractionalPercent {
        default_value: Some(FractionalPercent { numerator, denominator: denominator.into() }),
        runtime_key: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions() {
        for (percent, want) in [
            (50.0, (50, 0)),
            (25.5, (2550, 1)),
            (0.1, (10, 1)),
            (1.0 / 3.0, (3333, 2)),
            (100.0 * 2.0 / 3.0, (666_667, 2)),
            (0.0, (0, 0)),
            (250.0, (100, 0)),
        ] {
            let got = fraction(percent).default_value.expect("set");
            assert_eq!((got.numerator, got.denominator), want, "{percent}");
        }
    }

    #[test]
    fn odd_input() {
        assert_eq!(cidr_ranges(["10.0.0.0/8", "10.0.0.0", "x/8", "10.0.0.0/33", "::1/128"]).len(), 2);
        assert_eq!(sanitize("a.b:c/ä-_Z"), "a_b_c__-_Z");
        assert_eq!(socket_path("/run/x/", "kuma-a"), "/run/x/kuma-a.sock");
        assert_eq!(socket_path("", "kuma-a"), "kuma-a.sock");
        assert_eq!(socket_path(&"ä".repeat(200), "a").chars().count(), 103);
        assert_eq!(duration(GoDuration(-5)).nanos, 0);
    }
}
