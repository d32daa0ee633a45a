use rcgen::CertificateParams;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::X509Certificate;

use super::*;
use crate::AdminAuthority;

const TRUST_DOMAIN: &str = "default.east.mesh.local";

fn now() -> Timestamp {
    Timestamp::from_second(1_790_000_000).expect("in range")
}

fn der(pem: &str) -> Vec<u8> {
    parse_x509_pem(pem.as_bytes()).expect("PEM").1.contents
}

fn names(cert: &X509Certificate<'_>) -> Vec<String> {
    let names = cert.subject_alternative_name().expect("readable").expect("present");
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => format!("URI:{uri}"),
        GeneralName::DNSName(name) => format!("DNS:{name}"),
        GeneralName::IPAddress(bytes) => format!("IP:{bytes:?}"),
        other => format!("{other:?}"),
    };
    names.value.general_names.iter().map(text).collect()
}

fn mk_leaf(ca: &CertificateAuthority) -> Leaf {
    let id = SpiffeId::parse(format!("spiffe://{TRUST_DOMAIN}/workload/web")).expect("valid");
    ca.issue_leaf(&id, now(), Duration::from_secs(120 * 3600), [0xff; 16]).expect("issued")
}

/// Issues a leaf and checks it against its authority as a peer would.
fn check_chain(ca: &CertificateAuthority) {
    let (root, leaf) = (der(ca.cert_pem()), der(&mk_leaf(ca).chain_pem));
    let (_, root) = X509Certificate::from_der(&root).expect("root");
    let (_, leaf) = X509Certificate::from_der(&leaf).expect("leaf");
    leaf.verify_signature(Some(root.public_key())).expect("signed by the root");
    assert_eq!(leaf.issuer().as_raw(), root.subject().as_raw(), "issuer name to the byte");
}

#[test]
fn generated_authority() {
    let ca = CertificateAuthority::generate(TRUST_DOMAIN, now(), [7; 16]).expect("generated");
    assert!(ca.is_self_signed());
    let bytes = der(ca.cert_pem());
    let (_, cert) = X509Certificate::from_der(&bytes).expect("parses");
    assert_eq!(cert.subject().to_string(), format!("O=Kuma, OU=Mesh, CN={TRUST_DOMAIN}"));
    assert_eq!(names(&cert), [format!("URI:spiffe://{TRUST_DOMAIN}")]);
    assert_eq!(cert.validity().not_before.timestamp(), now().as_second() - 900);
    assert_eq!(cert.validity().not_after.timestamp(), now().as_second() + 3650 * 86_400);
    let usage = cert.key_usage().expect("readable").expect("present").value;
    assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
    assert_eq!(
        cert.signature_algorithm.algorithm.to_id_string(),
        "1.2.840.10045.4.3.2",
        "ECDSA with SHA-256"
    );
    check_chain(&ca);
    let pair = ca.to_pem();
    let again =
        CertificateAuthority::from_pem(pair.cert_pem.as_bytes(), pair.key_pem.as_bytes()).expect("loads");
    assert_eq!(again.to_pem(), pair);
    check_chain(&again);
    assert!(!format!("{ca:?} {pair:?}").contains("PRIVATE KEY"), "keys do not get into logs");
}

#[test]
fn leaf_form() {
    let ca = CertificateAuthority::generate(TRUST_DOMAIN, now(), [7; 16]).expect("generated");
    let leaf = mk_leaf(&ca);
    let bytes = der(&leaf.chain_pem);
    let (_, cert) = X509Certificate::from_der(&bytes).expect("parses");
    assert_eq!(cert.subject().iter().count(), 0, "empty subject");
    assert_eq!(names(&cert), [format!("URI:spiffe://{TRUST_DOMAIN}/workload/web")]);
    assert_eq!(cert.validity().not_before.timestamp(), now().as_second() - 900);
    assert_eq!(cert.validity().not_after.timestamp(), leaf.not_after.as_second());
    assert_eq!(leaf.not_after.as_second() - leaf.generated_at.as_second(), 120 * 3600);
    assert!(!cert.is_ca());
    let usage = cert.key_usage().expect("readable").expect("present").value;
    assert!(usage.digital_signature() && usage.key_encipherment() && usage.key_agreement());
    let extended = cert.extended_key_usage().expect("readable").expect("present").value;
    assert!(extended.server_auth && extended.client_auth);
    assert_eq!(cert.raw_serial()[0] & 0x80, 0, "serial numbers are positive");
    assert_eq!(leaf.chain_pem.matches("BEGIN CERTIFICATE").count(), 1);
}

/// A CA certificate with the given usages over a key of any algorithm.
fn mk_ca(key: &KeyPair, usages: Vec<KeyUsagePurpose>, is_ca: IsCa) -> String {
    let mut params: CertificateParams =
        cert::params(now(), BACKDATE, Duration::from_secs(3600), [1; 16]).expect("params");
    params.distinguished_name = cert::subject("mine");
    params.key_usages = usages;
    params.is_ca = is_ca;
    params.self_signed(key).expect("signed").pem()
}

#[test]
fn provided_authorities() {
    let ca = || IsCa::Ca(BasicConstraints::Unconstrained);
    let sign = || vec![KeyUsagePurpose::KeyCertSign];
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).expect("a key");
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
    for key in [&rsa, &p384] {
        let cert = mk_ca(key, sign(), ca());
        let loaded = CertificateAuthority::from_pem(cert.as_bytes(), key.serialize_pem().as_bytes())
            .expect("accepted");
        check_chain(&loaded);
        let late = now() + jiff::SignedDuration::from_secs(3601);
        let id = SpiffeId::parse("spiffe://a/b").expect("valid");
        let error = loaded.issue_leaf(&id, late, Duration::from_secs(60), [1; 16]).expect_err("expired");
        assert!(error.to_string().starts_with("authority expired at "), "{error}");
    }
    let agreement = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::KeyAgreement];
    let key_pem = p384.serialize_pem();
    let good = mk_ca(&p384, sign(), ca());
    for (cert, key, expect) in [
        (mk_ca(&p384, sign(), IsCa::ExplicitNoCa), &key_pem, "basic constraint CA must be true"),
        (mk_ca(&p384, vec![KeyUsagePurpose::CrlSign], ca()), &key_pem, "keyCertSign must be set"),
        (mk_ca(&p384, vec![], ca()), &key_pem, "keyCertSign must be set"),
        (mk_ca(&p384, agreement, ca()), &key_pem, "keyAgreement must not be set"),
        (good.clone(), &rsa.serialize_pem(), "private key does not belong to the certificate"),
        (good.clone(), &good, "private key cannot be read"),
        ("nothing".into(), &key_pem, "certificate cannot be read"),
    ] {
        let error = CertificateAuthority::from_pem(cert.as_bytes(), key.as_bytes()).expect_err(expect);
        assert!(error.to_string().contains(expect), "{error}");
    }
}

#[test]
fn impossible_times() {
    let ca = CertificateAuthority::generate(TRUST_DOMAIN, now(), [7; 16]).expect("generated");
    let id = SpiffeId::parse("spiffe://a/b").expect("valid");
    for (now, expiry) in [(now(), Duration::MAX), (Timestamp::MIN, Duration::ZERO)] {
        assert!(ca.issue_leaf(&id, now, expiry, [1; 16]).is_err());
    }
}

#[test]
fn admin_authority() {
    let made = AdminAuthority::generate(now(), [3; 16]).expect("generated");
    let secret = made.to_secret();
    let loaded = AdminAuthority::from_secret(&secret).expect("loads");
    assert_eq!(loaded.to_secret(), secret);
    assert!(secret.starts_with(b"-----BEGIN CERTIFICATE-----"));
    let root = der(loaded.cert_pem());
    let (_, root) = X509Certificate::from_der(&root).expect("root");
    assert_eq!(root.subject().to_string(), "O=Kuma, OU=Mesh, CN=Envoy Admin CA");
    let issued = [
        (loaded.server_cert("10.0.0.9", now(), [4; 16]).expect("issued"), "IP:[10, 0, 0, 9]", true),
        (loaded.server_cert("pod.example", now(), [4; 16]).expect("issued"), "DNS:pod.example", true),
        (loaded.client_cert(now(), [4; 16]).expect("issued"), "DNS:kuma-cp", false),
    ];
    for (pair, name, is_server) in issued {
        let bytes = der(&pair.cert_pem);
        let (_, cert) = X509Certificate::from_der(&bytes).expect("parses");
        cert.verify_signature(Some(root.public_key())).expect("signed by the root");
        assert_eq!(names(&cert), [name]);
        let extended = cert.extended_key_usage().expect("readable").expect("present").value;
        assert_eq!((extended.server_auth, extended.client_auth), (is_server, !is_server));
        assert_eq!(cert.validity().not_before.timestamp(), now().as_second() - 900);
    }
    assert!(loaded.server_cert("bücher", now(), [4; 16]).is_err());
}
