//! TLS contexts (xds.md §3.3, §3.7, policies.md §6).

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use graticule_model::kinds::mesh_tls;
use graticule_policy::inputs::UpstreamTls;

use crate::message::{ads, any, exact, flag, inline_bytes, prefix, tls_socket};
use crate::snapshot::{AdminTls, LeafSecret};

/// Secret with the authorities of the mesh.
pub(crate) const TRUST_BUNDLE: &str = "system_trust_bundle";
/// ALPN between proxies; the Permissive chain selects it.
pub(crate) const ALPN: &str = "kuma";
/// Client of the admin listener: DNS name in the certificate of the control plane.
const ADMIN_CLIENT: &str = "kuma-cp";

fn sds(name: &str) -> tls::SdsSecretConfig {
    tls::SdsSecretConfig { name: name.into(), sds_config: Some(ads()) }
}

fn san(
    san_type: tls::subject_alt_name_matcher::SanType,
    matcher: StringMatcher,
) -> tls::SubjectAltNameMatcher {
    tls::SubjectAltNameMatcher { san_type: san_type.into(), matcher: Some(matcher), ..Default::default() }
}

fn uri(matcher: StringMatcher) -> tls::SubjectAltNameMatcher {
    san(tls::subject_alt_name_matcher::SanType::Uri, matcher)
}

/// Certificate by SDS, peers by trust bundle and the given names.
fn mesh_context(
    identity_secret: &str,
    peers: Vec<tls::SubjectAltNameMatcher>,
    params: Option<tls::TlsParameters>,
) -> tls::CommonTlsContext {
    use tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
    let combined = CombinedCertificateValidationContext {
        default_validation_context: Some(tls::CertificateValidationContext {
            match_typed_subject_alt_names: peers,
            ..Default::default()
        }),
        validation_context_sds_secret_config: Some(sds(TRUST_BUNDLE)),
        ..Default::default()
    };
    tls::CommonTlsContext {
        tls_params: params,
        tls_certificate_sds_secret_configs: vec![sds(identity_secret)],
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(combined)),
        ..Default::default()
    }
}

/// Versions and ciphers, if any is set.
fn params(conf: &mesh_tls::Conf) -> Option<tls::TlsParameters> {
    use mesh_tls::TlsVersion;
    use tls::tls_parameters::TlsProtocol;
    let protocol = |version: Option<TlsVersion>| -> i32 {
        match version {
            None | Some(TlsVersion::Auto) => TlsProtocol::TlsAuto,
            Some(TlsVersion::Tls10) => TlsProtocol::TlSv10,
            Some(TlsVersion::Tls11) => TlsProtocol::TlSv11,
            Some(TlsVersion::Tls12) => TlsProtocol::TlSv12,
            Some(TlsVersion::Tls13) => TlsProtocol::TlSv13,
        }
        .into()
    };
    let versions = conf.tls_version.clone().unwrap_or_default();
    let ciphers = conf.tls_ciphers.clone().unwrap_or_default();
    if versions == mesh_tls::TlsVersions::default() && ciphers.is_empty() {
        return None;
    }
    Some(tls::TlsParameters {
        tls_minimum_protocol_version: protocol(versions.min),
        tls_maximum_protocol_version: protocol(versions.max),
        cipher_suites: ciphers,
        ..Default::default()
    })
}

/// Server side of an inbound: clients of any trusted domain, authorised by RBAC.
pub(crate) fn inbound_socket<'a>(
    identity_secret: &str,
    trust_domains: impl IntoIterator<Item = &'a String>,
    conf: &mesh_tls::Conf,
) -> core::TransportSocket {
    let peers = trust_domains.into_iter().map(|domain| uri(prefix(&format!("spiffe://{domain}/")))).collect();
    tls_socket(&tls::DownstreamTlsContext {
        common_tls_context: Some(mesh_context(identity_secret, peers, params(conf))),
        require_client_certificate: Some(flag(true)),
        ..Default::default()
    })
}

/// Client side of a destination cluster.
pub(crate) fn upstream_socket(upstream: &UpstreamTls) -> core::TransportSocket {
    let peers = upstream.spiffe_ids.iter().map(|id| uri(exact(id))).collect();
    let mut common = mesh_context(&upstream.identity_secret, peers, params(&upstream.params));
    common.alpn_protocols = vec![ALPN.into()];
    tls_socket(&tls::UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: upstream.sni.clone(),
        ..Default::default()
    })
}

/// Server side of the admin listener: only the control plane (xds.md §3.9).
///
/// Without material the members are empty: the form that shows a configuration without its secrets.
pub(crate) fn admin_socket(admin: Option<&AdminTls>) -> core::TransportSocket {
    let (certificate, key, ca) = match admin {
        Some(admin) => (admin.certificate_pem.as_str(), admin.key_pem.as_str(), admin.ca_pem.as_str()),
        None => Default::default(),
    };
    let client = san(tls::subject_alt_name_matcher::SanType::Dns, exact(ADMIN_CLIENT));
    let validation = tls::CertificateValidationContext {
        trusted_ca: Some(inline_bytes(ca)),
        match_typed_subject_alt_names: vec![client],
        ..Default::default()
    };
    tls_socket(&tls::DownstreamTlsContext {
        common_tls_context: Some(tls::CommonTlsContext {
            tls_certificates: vec![certificate_of(certificate, key)],
            validation_context_type: Some(tls::common_tls_context::ValidationContextType::ValidationContext(
                validation,
            )),
            ..Default::default()
        }),
        require_client_certificate: Some(flag(true)),
        ..Default::default()
    })
}

fn certificate_of(chain: &str, key: &str) -> tls::TlsCertificate {
    tls::TlsCertificate {
        certificate_chain: Some(inline_bytes(chain)),
        private_key: Some(inline_bytes(key)),
        ..Default::default()
    }
}

/// The proxy's own certificate (xds.md §4.6).
pub(crate) fn identity_secret(name: &str, leaf: &LeafSecret) -> tls::Secret {
    tls::Secret {
        name: name.into(),
        r#type: Some(tls::secret::Type::TlsCertificate(certificate_of(&leaf.chain_pem, &leaf.key_pem))),
    }
}

/// The authorities of the mesh by trust domain (xds.md §4.6).
pub(crate) fn trust_bundle(trust: &graticule_policy::inputs::Trust) -> tls::Secret {
    let trust_domains =
        trust.domains.iter().map(|(name, pems)| tls::spiffe_cert_validator_config::TrustDomain {
            name: name.clone(),
            trust_bundle: Some(inline_bytes(&pems.join("\n"))),
            ..Default::default()
        });
    let config =
        tls::SpiffeCertValidatorConfig { trust_domains: trust_domains.collect(), ..Default::default() };
    let validation = tls::CertificateValidationContext {
        custom_validator_config: Some(core::TypedExtensionConfig {
            name: "envoy.tls.cert_validator.spiffe".into(),
            typed_config: Some(any(&config)),
        }),
        ..Default::default()
    };
    tls::Secret { name: TRUST_BUNDLE.into(), r#type: Some(tls::secret::Type::ValidationContext(validation)) }
}
