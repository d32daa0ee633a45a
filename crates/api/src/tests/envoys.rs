//! `xds`, `stats`, `clusters`: what is asked, who may ask, and what becomes of the answers.

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::envoy_admin::{AdminFormat, AdminQuery, Unheard};

/// Says what it was asked; proxies with other names than `web` cannot be asked.
struct Told;

#[async_trait]
impl EnvoyAdmin for Told {
    async fn ask(&self, proxy: &Resource, query: AdminQuery) -> Result<Bytes, Unheard> {
        match proxy.meta.name.as_str() {
            "web" => Ok(format!("{query:?}").into()),
            "refused" => Err(Unheard::Refused("the zone says no".into())),
            "busy" => Err(Unheard::Busy("too many".into())),
            _ => Err(Unheard::Failed("10.0.0.1 is secret".into())),
        }
    }
}

fn mk_asked(change: impl FnOnce(&mut Options)) -> Server {
    let plain = mk_server(Mode::StandaloneZone, |_| {});
    for name in ["web", "refused", "busy", "broken"] {
        let proxy = json!({"type": "Dataplane", "mesh": "default", "name": name,
            "networking": {"address": "10.0.0.1", "inbound": [{"port": 80}]}});
        plain.store.commit_now(Txn::put(Resource::from_rest(Kind::Dataplane, &proxy).unwrap())).unwrap();
    }
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
        inspector: Arc::new(NoInspector),
        admin: Arc::new(Told),
        cluster: crate::NoCluster::shared(),
        federation: crate::NoFederation::shared(),
    };
    let mut options = Options::default();
    change(&mut options);
    Server { router: Api::new(options, deps), ..plain }
}

#[tokio::test]
async fn parameters() {
    use AdminFormat::{Json, Text};
    use AdminQuery::{Clusters, ConfigDump, Stats};
    let server = mk_asked(|_| {});
    let stats = |format, used_only| Stats { format, used_only };
    for (path, query, media_type) in [
        ("xds", ConfigDump { include_eds: false }, "application/json"),
        ("xds?include_eds=true", ConfigDump { include_eds: true }, "application/json"),
        ("xds?include_eds=x&format=text", ConfigDump { include_eds: false }, "application/json"),
        ("stats", stats(Text, true), "text/plain"),
        ("stats?usedonly=false", stats(Text, false), "text/plain"),
        ("stats?usedonly=x&format=x", stats(Text, true), "text/plain"),
        ("stats?format=json", stats(Json, true), "application/json"),
        ("clusters", Clusters { format: Text }, "text/plain"),
        ("clusters?format=json", Clusters { format: Json }, "application/json"),
        ("clusters?format=prometheus", Clusters { format: Text }, "text/plain"),
    ] {
        let answer =
            server.admin("GET", &format!("/meshes/default/dataplanes/web/{path}"), Value::Null).await;
        let got = (answer.status, answer.text.clone(), answer.headers[header::CONTENT_TYPE].clone());
        assert_eq!(got, (StatusCode::OK, format!("{query:?}"), media_type.parse().unwrap()), "{path}");
    }
}

#[tokio::test]
async fn no_answers() {
    let server = mk_asked(|_| {});
    for (path, want) in [
        ("none/xds", "404 Could not get dataplane resource: Not found"),
        ("none/nope", "404 Could not execute admin operation: Not found"),
        ("refused/xds", "400 Could not execute admin operation: the zone says no"),
        ("busy/stats", "503 Service unavailable: too many"),
        ("broken/clusters", "500 Could not execute admin operation: Internal Server Error"),
    ] {
        let answer = server.admin("GET", &format!("/meshes/default/dataplanes/{path}"), Value::Null).await;
        assert_eq!(answer.brief(), want, "{path}");
    }
}

#[tokio::test]
async fn each_word_has_its_own_access_rule() {
    for (allowed, word) in [("xds", 0), ("stats", 1), ("clusters", 2)].map(|(word, at)| (at, word)) {
        let server = mk_asked(|options| {
            let rules = &mut options.access.r#static;
            let all = [&mut rules.view_config_dump, &mut rules.view_stats, &mut rules.view_clusters];
            for (_, rule) in all.into_iter().enumerate().filter(|(at, _)| *at != allowed) {
                rule.users.clear();
                rule.groups.clear();
            }
        });
        for asked in ["xds", "stats", "clusters"] {
            let path = format!("/meshes/default/dataplanes/web/{asked}");
            let status = server.admin("GET", &path, Value::Null).await.status;
            let want = if asked == word { StatusCode::OK } else { StatusCode::FORBIDDEN };
            assert_eq!(status, want, "{asked} where {word} is allowed");
        }
    }
}
