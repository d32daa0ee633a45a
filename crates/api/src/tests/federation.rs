//! What operators decide about a federation.

use super::*;

#[tokio::test]
async fn the_id_of_the_federation() {
    let global = mk_server(Mode::Global, |_| {});
    let id = |text: &str, expected: &str| json!({"clusterId": text, "expected": expected});
    let present = || async { global.admin("GET", "/", Value::Null).await.json()["clusterId"].clone() };
    let (first, second) = ("b5b9a4e4-0000-4000-8000-1b8f4c7d2f6a", "second");
    let before = present().await.as_str().unwrap_or_default().to_owned();
    for (body, status) in [
        (id("", &before), 400),
        (id("with space", &before), 400),
        (id(&"x".repeat(65), &before), 400),
        (json!({"clusterID": "x", "expected": before}), 400),
        (json!({"clusterId": first}), 400),
        (json!({"clusterId": first, "expected": 1}), 400),
        (json!(["x"]), 400),
        (id(first, "of-somebody-else"), 409),
        (id(first, &before), 200),
        (id(second, &before), 409),
        (id(second, ""), 409),
        (id(second, first), 200),
        (id(first, second), 200),
    ] {
        let answer = global.admin("PUT", "/_cluster-id", body.clone()).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.brief());
    }
    let index = global.admin("GET", "/", Value::Null).await.json();
    assert_eq!(index["clusterId"], "b5b9a4e4-0000-4000-8000-1b8f4c7d2f6a");
    let answer = global.external("PUT", "/_cluster-id", &[], id("x", "")).await;
    assert_eq!(answer.status, 403, "administrators only");
    for mode in [Mode::FederatedZone, Mode::StandaloneZone] {
        let zone = mk_server(mode, |_| {});
        let answer = zone.admin("PUT", "/_cluster-id", id("x", "")).await;
        assert_eq!(answer.status, 409, "{}", answer.brief());
    }
}

#[tokio::test]
async fn nobody_leaves_what_he_is_not_in() {
    for (mode, says) in
        [(Mode::Global, "ask the control plane of the zone"), (Mode::StandaloneZone, "stands alone")]
    {
        let server = mk_server(mode, |_| {});
        let answer = server.admin("GET", "/zones/nobody/_leave-global", Value::Null).await;
        assert_eq!(answer.status, 404, "{}", answer.brief());
        let zone = json!({"type": "Zone", "name": "east"});
        server.admin("PUT", "/zones/east", zone).await;
        for method in ["GET", "POST", "DELETE"] {
            let answer = server.admin(method, "/zones/east/_leave-global", json!({})).await;
            assert_eq!(answer.status, 409, "{}", answer.brief());
            assert!(
                answer.json()["detail"].as_str().is_some_and(|detail| detail.contains(says)),
                "{}",
                answer.brief()
            );
            let answer = server.external(method, "/zones/east/_leave-global", &[], json!({})).await;
            assert_eq!(answer.status, 403, "administrators only");
        }
    }
}
