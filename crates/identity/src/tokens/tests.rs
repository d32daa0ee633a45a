use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use graticule_model::GoDuration;
use jiff::Timestamp;

use super::*;

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate().expect("a key"));
static OTHER_KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate().expect("a key"));

const NOW: i64 = 1_790_000_000;
const DAY: GoDuration = GoDuration::from_secs(86_400);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

/// The secret store of a control plane whose user key 1 is `KEY`.
fn secret(name: &str) -> Option<Vec<u8>> {
    match name {
        "user-token-signing-key-1" | "user-token-signing-key" => Some(KEY.to_pem().into_bytes()),
        "user-token-signing-key-3" => Some(b"rubbish".to_vec()),
        "zone-token-signing-public-key-1" => Some(KEY.public().to_pem().into_bytes()),
        _ => None,
    }
}

fn mk_keys(kind: TokenKind<'static>) -> Keys<'static> {
    Keys { kind, configured: &[], secret: Some(&secret) }
}

fn mk_user(kid: &str) -> String {
    let claims = UserClaims { name: "jane".into(), groups: Some(vec!["team-a".into()]) };
    issue(&claims, &KEY, kid, at(NOW), DAY, "id-1").expect("issued")
}

/// A token with any header and payload, rightly signed.
fn mk_raw(header: &str, payload: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = KEY.sign(signed.as_bytes()).expect("signed");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn outcome(token: &str, now: i64) -> String {
    let mut revocations = Revocations::default();
    revocations.add(b"other,revoked\n");
    match validate::<UserClaims>(token, &mk_keys(TokenKind::User), &revocations, at(now)) {
        Ok(valid) => {
            format!("{} {:?} {}", valid.claims.name, valid.claims.groups.unwrap_or_default(), valid.jti)
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn written_form() {
    let token = mk_user("1");
    let parts: Vec<String> = token
        .split('.')
        .take(2)
        .map(|part| String::from_utf8(URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("text"))
        .collect();
    assert_eq!(parts[0], r#"{"alg":"RS256","kid":"1","typ":"JWT"}"#);
    assert_eq!(
        parts[1],
        r#"{"Name":"jane","Groups":["team-a"],"exp":1790086400,"nbf":1789999995,"iat":1789999995,"jti":"id-1"}"#
    );
    let claims =
        serde_json::to_string(&DataplaneClaims { mesh: "m".into(), ..Default::default() }).expect("json");
    assert_eq!(claims, r#"{"Name":"","Mesh":"m","Tags":{},"Type":"","Workload":""}"#);
    let claims = serde_json::to_string(&ZoneClaims { zone: "east".into(), scope: None }).expect("json");
    assert_eq!(claims, r#"{"Zone":"east","Scope":null}"#);
}

#[test]
fn validation_outcomes() {
    let good = mk_user("1");
    assert_eq!(outcome(&good, NOW), r#"jane ["team-a"] id-1"#);
    assert_eq!(outcome(&mk_user("0"), NOW), r#"jane ["team-a"] id-1"#, "serial 0 is the bare name");
    assert_eq!(outcome(&good, NOW + 86_399), r#"jane ["team-a"] id-1"#);
    assert_eq!(
        outcome(&good, NOW + 86_400),
        "could not parse token: token has invalid claims: token is expired"
    );
    assert_eq!(outcome(&good, NOW - 905), r#"jane ["team-a"] id-1"#, "a clock that is behind");
    assert_eq!(
        outcome(&good, NOW - 906),
        "token is not yet valid: token has invalid claims: token is not valid yet"
    );
    assert_eq!(
        outcome(&mk_user("2"), NOW),
        "there is no signing key with KID 2. GlobalSecret of name \"user-token-signing-key-2\" is not found. If signing key was rotated, regenerate the token"
    );
    assert_eq!(outcome(&mk_user("3"), NOW), "signing key with KID 3 cannot be used");
    let claims = UserClaims::default();
    let forged = issue(&claims, &OTHER_KEY, "1", at(NOW), DAY, "x").expect("issued");
    assert_eq!(outcome(&forged, NOW), "could not parse token: token signature is invalid");
    let revoked = issue(&claims, &KEY, "1", at(NOW), DAY, "revoked").expect("issued");
    assert_eq!(outcome(&revoked, NOW), "token is revoked");
    assert_eq!(
        outcome(&revoked, NOW + 90_000),
        "could not parse token: token has invalid claims: token is expired"
    );
    let (head, _) = good.rsplit_once('.').expect("parts");
    assert_eq!(outcome(&format!("{head}."), NOW), "could not parse token: token signature is invalid");
    assert!(outcome(&"a".repeat(TOKEN_BYTES_MAX + 1), NOW).contains("too long"));
    for broken in ["", "a", "a.b", "a.b.c", "a.b.c.d", "é.é.é", head] {
        assert!(outcome(broken, NOW).starts_with("could not parse token: token "), "{broken}");
    }
}

#[test]
fn headers_and_payloads() {
    let payload = r#"{"name":"jane","GROUPS":null}"#;
    for (header, payload, expect) in [
        (r#"{"alg":"RS256","kid":"1"}"#, payload, "jane [] "),
        (r#"{"alg":"RS256"}"#, payload, "could not parse token: JWT token must have kid header"),
        (r#"{"alg":"RS256","kid":1}"#, payload, "could not parse token: kid header must be a string"),
        (
            r#"{"alg":"none","kid":"1"}"#,
            payload,
            "could not parse token: signing method none is invalid, only RS256 is accepted",
        ),
        (
            r#"{"alg":"HS256","kid":"1"}"#,
            payload,
            "could not parse token: signing method HS256 is invalid, only RS256 is accepted",
        ),
        (r#"{"kid":"1"}"#, payload, "could not parse token: token has no signing method"),
        (
            r#"{"alg":"RS256","kid":"1","crit":["b64"]}"#,
            payload,
            "could not parse token: critical header extensions are not supported",
        ),
        (r#"["RS256"]"#, payload, "could not parse token: token is malformed: header is no JSON object"),
        (
            r#"{"alg":"RS256","kid":"1"}"#,
            "[]",
            "could not parse token: token is malformed: claims is no JSON object",
        ),
        (r#"{"alg":"RS256","kid":"1"}"#, r#"{"NAME":"joe","exp":1790000000.5}"#, "joe [] "),
        (r#"{"alg":"RS256","kid":"1"}"#, r#"{"Name":"a","name":"b"}"#, "b [] "),
    ] {
        assert_eq!(outcome(&mk_raw(header, payload), NOW), expect, "{header} {payload}");
    }
    let bad_exp = outcome(&mk_raw(r#"{"alg":"RS256","kid":"1"}"#, r#"{"exp":"soon"}"#), NOW);
    assert!(
        bad_exp.starts_with("could not parse token: token is malformed: could not read claims"),
        "{bad_exp}"
    );
}

#[test]
fn key_sources() {
    let claims = DataplaneClaims { mesh: "demo".into(), ..Default::default() };
    let token = issue(&claims, &KEY, "1", at(NOW), DAY, "j").expect("issued");
    let check = |configured: &[StaticKey]| {
        let keys = Keys { kind: TokenKind::Dataplane { mesh: "demo" }, configured, secret: Some(&secret) };
        let result = validate::<DataplaneClaims>(&token, &keys, &Revocations::default(), at(NOW));
        result.map(|valid| valid.claims.mesh).map_err(|error| error.to_string())
    };
    let configured =
        |mesh: &str, key: &SigningKey| StaticKey { kid: "1".into(), mesh: mesh.into(), key: key.public() };
    assert_eq!(check(&[configured("", &KEY)]), Ok("demo".into()));
    assert_eq!(check(&[configured("demo", &KEY)]), Ok("demo".into()));
    let missing = "there is no signing key with KID 1. Secret of name \"dataplane-token-signing-key-demo-1\" in mesh \"demo\" is not found. If signing key was rotated, regenerate the token";
    assert_eq!(check(&[configured("other", &KEY)]), Err(missing.into()));
    assert_eq!(
        check(&[configured("", &OTHER_KEY)]),
        Err("could not parse token: token signature is invalid".into()),
        "the first key with the id decides"
    );
    let zone = issue(&ZoneClaims { zone: "east".into(), scope: None }, &KEY, "1", at(NOW), DAY, "j")
        .expect("issued");
    let valid = validate::<ZoneClaims>(&zone, &mk_keys(TokenKind::Zone), &Revocations::default(), at(NOW));
    assert_eq!(valid.expect("checked with the public key").claims.zone, "east");
}

#[test]
fn key_forms() {
    let pem = KEY.to_pem();
    assert!(pem.starts_with("-----BEGIN RSA PRIVATE KEY-----\n"), "PKCS#1");
    let again = SigningKey::from_secret(pem.as_bytes()).expect("PEM");
    assert_eq!(again.public(), KEY.public());
    assert_eq!(SigningKey::from_secret(again.pkcs1()).expect("DER").public(), KEY.public());
    let public = KEY.public().to_pem();
    assert!(public.starts_with("-----BEGIN RSA PUBLIC KEY-----\n"));
    assert_eq!(PublicKey::from_pem(public.as_bytes()), Ok(KEY.public()));
    let rsa =
        rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).expect("a key");
    let pkcs8 = SigningKey::from_secret(rsa.serialize_pem().as_bytes()).expect("PKCS#8");
    assert_eq!(PublicKey::from_pem(rsa.public_key_pem().as_bytes()), Ok(pkcs8.public()), "SPKI");
    let elliptic = rcgen::KeyPair::generate().expect("a key");
    for bad in [&b""[..], b"rubbish", elliptic.serialize_pem().as_bytes(), public.as_bytes()] {
        assert_eq!(SigningKey::from_secret(bad).err(), Some(KeyError::NotPrivate));
    }
    for bad in [&b""[..], b"rubbish", elliptic.public_key_pem().as_bytes(), pem.as_bytes()] {
        assert_eq!(PublicKey::from_pem(bad).err(), Some(KeyError::NotPublic));
    }
}

#[test]
fn names() {
    let dataplane = TokenKind::Dataplane { mesh: "demo" };
    assert_eq!(dataplane.secret_name(1), "dataplane-token-signing-key-demo-1");
    assert_eq!(TokenKind::User.secret_name(0), "user-token-signing-key");
    assert_eq!(TokenKind::Zone.public_secret_name(2).as_deref(), Some("zone-token-signing-public-key-2"));
    assert_eq!(dataplane.public_secret_name(2), None);
    assert_eq!(dataplane.revocations_name(), "dataplane-token-revocations-demo");
    assert_eq!(signing_key_mesh("dataplane-token-signing-key-a-b-12"), Some(("a-b", 12)));
    assert_eq!(signing_key_mesh("user-token-signing-key-1"), None);
    let names =
        ["user-token-signing-key-2", "user-token-signing-key-10", "user-token-signing-key", "envoy-admin-ca"];
    assert_eq!(TokenKind::User.latest(names), Some((10, "user-token-signing-key-10")));
    assert_eq!(TokenKind::User.latest(["user-token-signing-key-x"]), Some((0, "user-token-signing-key-x")));
    assert_eq!(TokenKind::Zone.latest(names), None);
    assert_eq!(TokenKind::Zone.latest(["zone-token-signing-public-key-1"]), None);
}

#[test]
fn dataplane_rules() {
    let mk = |name: &str, mesh: &str, tags: &[(&str, &[&str])], workload: &str| DataplaneClaims {
        name: name.into(),
        mesh: mesh.into(),
        tags: tags
            .iter()
            .map(|(label, values)| ((*label).to_owned(), values.iter().map(|v| (*v).to_owned()).collect()))
            .collect(),
        r#type: "ingress".into(),
        workload: workload.into(),
    };
    let labels = BTreeMap::from([("kuma.io/workload".to_owned(), "web".to_owned())]);
    let none = BTreeMap::new();
    let workload_tag: &[(&str, &[&str])] = &[("kuma.io/workload", &["a", "web"])];
    let ok = None;
    for (claims, labels, needs_workload, expect) in [
        (mk("", "", &[], ""), &labels, false, ok),
        (mk("web-1", "default", workload_tag, "web"), &labels, true, ok),
        (
            mk("web-2", "default", &[], ""),
            &labels,
            false,
            Some("proxy name from requestor: web-1 is different than in token: web-2"),
        ),
        (
            mk("", "demo", &[], ""),
            &labels,
            false,
            Some("proxy mesh from requestor: default is different than in token: demo"),
        ),
        (
            mk("", "", workload_tag, ""),
            &none,
            false,
            Some("dataplane has no label \"kuma.io/workload\" required by the token"),
        ),
        (
            mk("", "", &[("kuma.io/workload", &["a", "b"])], ""),
            &labels,
            false,
            Some("dataplane label \"kuma.io/workload\" has the value \"web\", the token allows a, b"),
        ),
        (
            mk("", "", &[], "api"),
            &labels,
            false,
            Some("dataplane belongs to workload \"web\", the token is bound to \"api\""),
        ),
        (
            mk("", "", &[], "api"),
            &none,
            false,
            Some("dataplane belongs to workload \"\", the token is bound to \"api\""),
        ),
        (mk("", "", &[], ""), &none, true, ok),
        (
            mk("", "", workload_tag, ""),
            &labels,
            true,
            Some(
                "dataplane has label \"kuma.io/workload\" and its identity derives from it: a token bound to the workload is required",
            ),
        ),
    ] {
        let got = check_dataplane(&claims, "web-1", "default", labels, needs_workload);
        assert_eq!(got.err().map(|error| error.to_string()).as_deref(), expect, "{claims:?}");
    }
}
