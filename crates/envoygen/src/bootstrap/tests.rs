use super::*;
use crate::json::from_json;

const BOOTSTRAP: &str = "type.googleapis.com/envoy.config.bootstrap.v3.Bootstrap";

fn mk_request(change: impl FnOnce(&mut BootstrapRequest)) -> BootstrapRequest {
    let mut request = BootstrapRequest {
        mesh: "shop".into(),
        name: "cart-1".into(),
        workdir: "/run/dp/cart-1".into(),
        dataplane_token: "a.b.c".into(),
        dataplane_token_path: "/etc/dp/token".into(),
        readiness_port: 9902,
        ..BootstrapRequest::default()
    };
    change(&mut request);
    request
}

fn mk_settings() -> BootstrapSettings {
    BootstrapSettings { ca_pem: "pem".into(), ..BootstrapSettings::default() }
}

fn built(request: &BootstrapRequest, settings: &BootstrapSettings) -> Value {
    let built = bootstrap(request, settings, &DataplaneFacts::default()).expect("valid");
    from_json(BOOTSTRAP, &built).expect("a bootstrap message");
    built
}

#[test]
fn static_token_flavour() {
    let built = built(&mk_request(|_| ()), &mk_settings());
    let service = &built["dynamicResources"]["adsConfig"]["grpcServices"][0];
    assert_eq!(service["initialMetadata"][0]["value"], "a.b.c");
    assert_eq!(built["hdsConfig"]["grpcServices"][0], *service);
    assert_eq!(built["staticResources"]["clusters"][1]["type"], "STRICT_DNS");
    assert_eq!(built["node"]["id"], "shop.cart-1");
    assert_eq!(built["node"]["cluster"], "unknown");
    assert_eq!(built["admin"]["address"]["pipe"]["path"], "/run/dp/cart-1/kuma-envoy-admin.sock");
}

#[test]
fn reloadable_token_flavour() {
    let settings = BootstrapSettings { reloadable_tokens: true, xds_host: "::1".into(), ..mk_settings() };
    let built = built(&mk_request(|_| ()), &settings);
    let service = &built["dynamicResources"]["adsConfig"]["grpcServices"][0]["googleGrpc"];
    assert_eq!(service["targetUri"], "[::1]:5678");
    assert_eq!(built["staticResources"]["clusters"].as_array().expect("a list").len(), 1);
    assert!(!built.to_string().contains("a.b.c"));
}

#[test]
fn admin_variants() {
    let no_workdir = mk_request(|request| request.workdir.clear());
    let built_without = built(&no_workdir, &mk_settings());
    assert_eq!(built_without["admin"]["address"]["socketAddress"]["portValue"], 9901);
    assert!(built_without["node"]["metadata"].get("dataplane.admin.socketPath").is_none());
    let off = BootstrapSettings { admin_port: 0, ..mk_settings() };
    assert!(built(&mk_request(|_| ()), &off).get("admin").is_none());
    let own = DataplaneFacts { admin_port: Some(1234), workload: Some("cart".into()) };
    let built = bootstrap(&mk_request(|_| ()), &off, &own).expect("valid");
    assert_eq!(built["node"]["metadata"]["dataplane.admin.port"], "1234");
    assert_eq!(built["node"]["cluster"], "cart");
}

#[test]
fn refused_requests_name_the_field() {
    let facts = DataplaneFacts { admin_port: Some(70_000), ..DataplaneFacts::default() };
    let refused = |request: &BootstrapRequest, facts: &DataplaneFacts| {
        bootstrap(request, &mk_settings(), facts).expect_err("refused").to_string()
    };
    let none = DataplaneFacts::default();
    assert!(refused(&mk_request(|_| ()), &facts).starts_with("networking.admin.port:"));
    assert!(refused(&mk_request(|r| r.mesh.clear()), &none).starts_with("mesh:"));
    assert!(refused(&mk_request(|r| r.dns_port = 65_536), &none).starts_with("dnsPort:"));
    assert!(refused(&mk_request(|r| r.proxy_type = "ingress".into()), &none).starts_with("proxyType:"));
    assert!(refused(&mk_request(|r| r.ca_cert = "x".into()), &none).starts_with("caCert:"));
}

#[test]
fn bodies() {
    let parse = |text: &str| BootstrapRequest::parse(text.as_bytes());
    let error = |text: &str| parse(text).expect_err("refused").to_string();
    assert!(error(r#"{"version":{"envoy":{"build":7}}}"#).starts_with("version.envoy.build: "));
    assert!(error(r#"{"features":["a",1]}"#).starts_with("features[1]: "));
    assert!(error("[").starts_with("request: "), "{}", error("["));
    let read = parse(r#"{"mesh":"m","features":null,"unknown":{"a":1},"dnsPort":15053}"#).expect("valid");
    assert!(read.mesh == "m" && read.dns_port == 15053 && read.features.is_empty());
    let request = mk_request(|_| ());
    assert_eq!(parse(&serde_json::to_string(&request).expect("JSON")).expect("valid"), request);
    assert!(!format!("{request:?}").contains("a.b.c"));
}
