//! What is answered from more than one resource, and the edges of the API: pages of other origins, too many
//! requests, the GUI that is not there.

use graticule_model::yaml;

use super::*;

/// A stand-alone zone `east` with these resources in the mesh `default`.
fn mk_zone(documents: &str) -> Server {
    let server = mk_server(Mode::StandaloneZone, |_| {});
    for document in yaml::parse_all(documents).unwrap() {
        let kind = Kind::from_name(document["type"].as_str().unwrap()).unwrap();
        let resource = Resource::from_rest(kind, &document).unwrap();
        let is_soft = kind.descriptor().capabilities.soft;
        let store = if is_soft { &server.soft } else { &server.store };
        store.commit_now(Txn::put(resource)).unwrap();
    }
    server
}

const PROXIES: &str = "
type: Dataplane
mesh: default
name: web-1
labels: {app: web, kuma.io/zone: east}
networking: {address: 10.0.0.1, inbound: [{port: 80, name: main}]}
---
type: Dataplane
mesh: default
name: web-2
labels: {app: web, kuma.io/zone: west}
networking: {address: 10.0.0.2, inbound: [{port: 80}]}
---
type: Dataplane
mesh: default
name: gateway
networking: {address: 10.0.0.3, gateway: {tags: {kuma.io/service: kong}}}
---
type: DataplaneInsight
mesh: default
name: web-1
subscriptions:
  - id: a
    connectTime: 2026-01-01T00:00:00Z
    version: {kumaDp: {version: 0.1.0}, envoy: {version: 1.39.3}}
mTLS: {issuedBackend: kri_mid_default___id_, supportedBackends: [a, a, b]}
---
type: MeshService
mesh: default
name: web
labels: {kuma.io/zone: east}
spec: {state: Available, selector: {dataplaneLabels: {matchLabels: {app: web}}}, ports: [{port: 80}]}
status: {dataplaneProxies: {connected: 1, healthy: 1, total: 1}}
---
type: MeshTimeout
mesh: default
name: t
spec: {to: [{targetRef: {kind: Mesh}, default: {idleTimeout: 5s}}]}
";

#[tokio::test]
async fn answers_that_need_policies() {
    let server = mk_zone(PROXIES);
    let need = "needs the policy engine, which this control plane does not have yet";
    let outbound = "kri_msvc_default_east__web_80";
    for view in [
        "_rules".to_owned(),
        "_policies".into(),
        "policies".into(),
        "_config".into(),
        "_inbounds/kri_dp_default_east__web-1_main/_policies".into(),
        format!("_outbounds/{outbound}/_policies"),
        format!("_outbounds/{outbound}/_routes"),
        format!("_outbounds/{outbound}/_routes/kri_mhttpr_default___r_/_policies"),
    ] {
        let answer =
            server.admin("GET", &format!("/meshes/default/dataplanes/web-1/{view}"), Value::Null).await;
        assert!(
            answer.brief().starts_with("501 Not implemented: /meshes/{mesh}/dataplanes/{name}/"),
            "{view}"
        );
        assert!(answer.brief().ends_with(need), "{}", answer.brief());
    }
    for (path, want) in [
        (
            "dataplanes/web-1/_outbounds/x/_policies",
            "400 Bad Request: bad request: invalid identifier string: \"x\"",
        ),
        (
            "dataplanes/web-1/_outbounds/kri_msvc_default_east__web_80/_routes/x/_policies",
            "400 Bad Request: bad request: invalid identifier string: \"x\"",
        ),
        (
            "dataplanes/web-1/_inbounds/kri_dp_default_east__web-1_nope/_policies",
            "404 Failed building response: Not found",
        ),
        ("dataplanes/web-2/_config", "404 Failed to fetch dataplane insight: Not found"),
        (
            "dataplanes/web-1/_config?shadow=yes",
            "400 Bad Request: bad request: unsupported value for query parameter 'shadow'",
        ),
        (
            "dataplanes/web-1/_config?include=all",
            "400 Bad Request: bad request: unsupported value for query parameter 'include'",
        ),
        ("dataplanes/none/_rules", "404 Could not retrieve Dataplane: Not found"),
        ("dataplanes/none/_outbounds/x/_policies", "404 Could not retrieve Dataplane: Not found"),
        ("dataplanes/none/policies", "404 Could not get MatchedPolicies: Not found"),
        ("dataplanes/none/_layout", "404 Failed to retrieve Dataplane: Not found"),
        ("dataplanes/none/xds", "404 Could not get dataplane resource: Not found"),
        ("dataplanes/web-1/nope", "404 Could not execute admin operation: Not found"),
        ("meshtimeouts/none/dataplanes", "200 { \"items\": [], \"total\": 0 }"),
        ("meshtimeouts/none/_resources/dataplanes", "404 Could not retrieve policy: Not found"),
        ("meshservices/none/_dataplanes", "404 Could not retrieve policy: Not found"),
        ("meshservices/none/_hostnames", "404 could not retrieve service: Not found"),
        (
            "nope/x/_hostnames",
            "400 only \"meshservices,meshexternalservices,meshmultizoneservices\" are available for inspection: Resource is not valid",
        ),
    ] {
        let answer = server.admin("GET", &format!("/meshes/default/{path}"), Value::Null).await;
        assert_eq!(answer.brief(), want, "{path}");
    }
    for path in ["_resources/dataplanes", "-resources/dataplanes", "dataplanes"] {
        let answer =
            server.admin("GET", &format!("/meshes/default/meshtimeouts/t/{path}"), Value::Null).await;
        assert_eq!(answer.status, StatusCode::NOT_IMPLEMENTED, "{path}");
    }
    for (path, want) in [
        ("dataplanes/d/_layout", "404 Failed to build MeshContext: Not found"),
        ("dataplanes/d/_rules", "404 Failed to retrieve Mesh: Not found"),
        ("meshservices/s/_hostnames", "404 could not retrieve service: Not found"),
    ] {
        let answer = server.admin("GET", &format!("/meshes/none/{path}"), Value::Null).await;
        assert_eq!(answer.brief(), want, "{path}");
    }
    let global = mk_server(Mode::Global, |_| {});
    let config = global.admin("GET", "/meshes/none/dataplanes/x/_config?shadow=x", Value::Null).await;
    assert_eq!(config.brief(), "405 Method not allowed: Not allowed on global CP");
}

/// Answers one question.
struct OnePolicy;

#[async_trait::async_trait]
impl Inspector for OnePolicy {
    fn selected_proxies(
        &self,
        state: &graticule_store::Snapshot,
        _policy: &Resource,
    ) -> inspector::Answer<Vec<Arc<Resource>>> {
        Ok(state.list(Kind::Dataplane, Some("default")).cloned().collect())
    }

    fn matched_policies(
        &self,
        state: &graticule_store::Snapshot,
        _proxy: &Resource,
    ) -> inspector::Answer<Vec<Arc<Resource>>> {
        Ok(state.list(Kind::MeshTimeout, Some("default")).cloned().collect())
    }

    async fn config(&self, _proxy: &Key, _with_shadow: bool) -> inspector::Answer<inspector::ProxyConfig> {
        Ok(inspector::ProxyConfig { xds: json!({"a": {}}), diff: vec![] })
    }
}

#[tokio::test]
async fn answers_of_a_policy_engine() {
    let plain = mk_zone(PROXIES);
    let deps = Deps {
        store: plain.store.clone(),
        soft: plain.soft.clone(),
        mode: Mode::StandaloneZone,
        zone: "east".into(),
        clock: Clock::system(),
        random: Random::seeded(1),
        instance: Instance::default(),
        config: Value::Null,
        mesh_setup: MeshSetup::default(),
        backups: Backups::default(),
        inspector: Arc::new(OnePolicy),
        admin: Arc::new(NoEnvoyAdmin),
        cluster: crate::NoCluster::shared(),
        federation: crate::NoFederation::shared(),
    };
    let server = Server { router: Api::new(Options::default(), deps), ..plain };
    let get =
        async |path: &str| server.admin("GET", &format!("/meshes/default/{path}"), Value::Null).await.json();
    let first = get("meshtimeouts/t/_resources/dataplanes?name=web&size=1").await;
    assert_eq!((&first["total"], &first["items"][0]["name"]), (&json!(2), &json!("web-1")));
    let next =
        "http://localhost:5681/meshes/default/meshtimeouts/t/_resources/dataplanes?name=web&offset=1&size=1";
    assert_eq!(first["next"], next);
    let last = get("meshtimeouts/t/_resources/dataplanes?name=web&offset=1&size=1").await;
    assert_eq!((&last["items"][0]["name"], last.get("next")), (&json!("web-2"), None));
    assert_eq!(
        last["items"][0],
        json!({
            "type": "Dataplane", "mesh": "default", "name": "web-2", "labels": {"app": "web", "kuma.io/zone": "west"},
        })
    );
    let old = get("meshtimeouts/t/dataplanes?size=1").await;
    assert_eq!((&old["total"], &old["items"][0]["dataplane"]["name"]), (&json!(3), &json!("gateway")));
    let matched = get("dataplanes/web-1/policies").await;
    assert_eq!(matched["items"][0]["matchedPolicies"]["MeshTimeout"][0]["name"], "t");
    assert_eq!(matched["items"][0]["matchedPolicies"]["MeshTimeout"][0].get("spec"), None);
    assert_eq!(get("dataplanes/web-1/_config").await, json!({"xds": {"a": {}}}));
    assert_eq!(get("dataplanes/web-1/_config?include=diff").await, json!({"xds": {"a": {}}, "diff": []}));
}

#[tokio::test]
async fn services() {
    let server = mk_zone(PROXIES);
    let proxies =
        server.admin("GET", "/meshes/default/meshservices/web/_dataplanes", Value::Null).await.json();
    assert_eq!((&proxies["total"], &proxies["items"][0]["name"]), (&json!(1), &json!("web-1")));
    let none = server.admin("GET", "/meshes/default/meshservices/web/_hostnames", Value::Null).await.json();
    assert_eq!(none, json!({"total": 0, "items": null}));
    let generator = json!({
        "type": "HostnameGenerator", "name": "g",
        "spec": {"selector": {"meshService": {"matchLabels": {}}}, "template": "{{ .Name }}.{{ .Zone }}.x"},
    });
    assert_eq!(server.admin("PUT", "/hostnamegenerators/g", generator).await.status, StatusCode::CREATED);
    let one = server.admin("GET", "/meshes/default/meshservices/web/_hostnames", Value::Null).await.json();
    assert_eq!(one, json!({"total": 1, "items": [{"hostname": "web.east.x", "zones": [{"name": "east"}]}]}));
    let lonely = json!({"type": "MeshService", "mesh": "default", "name": "l", "spec": {"ports": []}});
    let answer = server.admin("PUT", "/meshes/default/meshservices/l", lonely).await;
    assert_eq!(
        (answer.status, answer.json()["warnings"].as_array().map(Vec::len)),
        (StatusCode::CREATED, Some(1))
    );
}

#[tokio::test]
async fn insights() {
    let server = mk_zone(PROXIES);
    let mesh = server.admin("GET", "/mesh-insights/default", Value::Null).await.json();
    assert_eq!(mesh["dataplanes"], json!({"total": 3, "online": 1, "offline": 2}));
    assert_eq!(
        mesh["dpVersions"]["envoy"],
        json!({
            "1.39.3": {"total": 1, "online": 1}, "unknown": {"total": 2, "offline": 2},
        })
    );
    assert_eq!(mesh["mTLS"]["issuedBackends"], json!({"kri_mid_default___id_": {"total": 1, "online": 1}}));
    assert_eq!(mesh["mTLS"]["supportedBackends"]["a"], json!({"total": 1, "online": 1}));
    assert_eq!(mesh["dataplanesByType"]["gatewayDelegated"], json!({"total": 1, "offline": 1}));
    assert_eq!(
        mesh["resources"],
        json!({
            "Dataplane": {"total": 3}, "MeshService": {"total": 1}, "MeshTimeout": {"total": 1},
        })
    );
    let list = server.admin("GET", "/mesh-insights?name=def", Value::Null).await.json();
    assert_eq!((&list["total"], &list["items"][0]["name"]), (&json!(1), &json!("default")));
    assert_eq!(server.admin("GET", "/mesh-insights?name=nope", Value::Null).await.json()["total"], 0);
    assert_eq!(server.admin("GET", "/mesh-insights/none", Value::Null).await.status, StatusCode::NOT_FOUND);
    let all = server.admin("GET", "/global-insight", Value::Null).await.json();
    assert_eq!(all["policies"], json!({"total": 1}));
    assert_eq!(all["resources"], mesh["resources"]);
    let stat = |online: u32, offline: u32| json!({"online": online, "offline": offline, "partiallyDegraded": 0, "total": online + offline});
    assert_eq!(all["dataplanes"], json!({"standard": stat(1, 1), "gatewayDelegated": stat(0, 1)}));
    assert_eq!(all["services"]["internal"], stat(1, 0));
    assert_eq!(all["zones"]["controlPlanes"], json!({"online": 0, "total": 0}));
    assert_eq!(all["services"]["gatewayDelegated"], stat(0, 1));
    let bad = server.admin("GET", "/service-insights?type=internal,x", Value::Null).await;
    assert_eq!(bad.brief(), "400 Bad Request: bad request: unsupported service type");
}

#[tokio::test]
async fn pages_of_other_origins() {
    const GUI: &str = "https://gui.example.com";
    let server = mk_server(Mode::Global, |options| options.server.cors_allowed_domains = vec![GUI.into()]);
    let preflight = [("origin", GUI), ("access-control-request-method", "PUT")];
    let answer = server.send("192.0.2.10", "OPTIONS", "/meshes/m", &preflight, "").await;
    let header = |answer: &Answer, name: &str| {
        answer.headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!((answer.status, answer.text.as_str()), (StatusCode::OK, ""));
    assert_eq!(header(&answer, "access-control-allow-origin").as_deref(), Some(GUI));
    assert_eq!(header(&answer, "access-control-allow-methods").as_deref(), Some("PUT,DELETE,GET"));
    assert_eq!(
        header(&answer, "access-control-allow-headers").as_deref(),
        Some("Authorization, Content-Type")
    );
    let list = server.send("192.0.2.10", "OPTIONS", "/meshes", &preflight, "").await;
    assert_eq!(header(&list, "access-control-allow-methods"), None, "a list cannot be put");
    let denied = server.send("192.0.2.10", "GET", "/secrets", &[("origin", GUI)], "").await;
    assert_eq!(denied.status, StatusCode::FORBIDDEN);
    assert_eq!(header(&denied, "access-control-allow-origin").as_deref(), Some(GUI));
    let other = [("origin", "https://evil.example.com"), ("access-control-request-method", "PUT")];
    let refused = server.send("192.0.2.10", "OPTIONS", "/meshes/m", &other, "").await;
    assert_eq!(
        (refused.status, header(&refused, "access-control-allow-origin")),
        (StatusCode::METHOD_NOT_ALLOWED, None)
    );
    let local = server.send("127.0.0.1", "GET", "/who-am-i", &[("origin", GUI)], "").await;
    assert_eq!(local.json()["name"], "mesh-system:anonymous", "a page is not the administrator");
}

#[tokio::test]
async fn too_many_requests_are_refused() {
    let server = mk_server(Mode::Global, |options| options.server.max_concurrent_requests = 1);
    // A body that never comes holds the only permit.
    let body = Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let peer = Peer {
        address: "127.0.0.1:4000".parse().unwrap(),
        local: "127.0.0.1:5681".parse().unwrap(),
        tls: false,
    };
    let slow = Request::put("/meshes/m")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .extension(peer)
        .body(body)
        .unwrap();
    let mut slow = std::pin::pin!(server.router.clone().oneshot(slow));
    assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(slow.as_mut().poll(cx).is_pending())).await);
    let refused = server.admin("GET", "/meshes", Value::Null).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers[header::RETRY_AFTER], "1");
    assert_eq!(refused.json()["title"], "Service unavailable");
}

#[tokio::test]
async fn gui() {
    let server = mk_server(Mode::Global, |_| {});
    let root = server.send("192.0.2.10", "GET", "/gui", &[("accept", "text/html")], "").await;
    assert_eq!(
        (root.status, &root.headers[header::LOCATION]),
        (StatusCode::TEMPORARY_REDIRECT, &header::HeaderValue::from_static("/gui/"))
    );
    for path in ["/gui/", "/gui/meshes/default"] {
        let page = server.send("192.0.2.10", "GET", path, &[("accept", "application/json")], "").await;
        assert_eq!(
            (page.status, &page.headers[header::CONTENT_TYPE]),
            (StatusCode::OK, &header::HeaderValue::from_static("text/html; charset=utf-8"))
        );
        assert!(!page.text.contains("kuma-config"));
    }
}
