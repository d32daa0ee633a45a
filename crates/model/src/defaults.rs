//! Objects that a control plane makes by itself (resources.md §6).

use std::collections::BTreeMap;

use crate::kinds::hostname_generator::{HostnameGenerator, LabelSelector, Selector};
use crate::kinds::mesh::Mesh;
use crate::kinds::{mesh_circuit_breaker as mcb, mesh_retry as mr, mesh_timeout as mt};
use crate::labels::{self, Site};
use crate::targetref::{Rule, TargetRef, ToItem};
use crate::{GoDuration, Key, Kind, Meta, Resource, Spec, TypedSpec};

/// The default policies of a mesh, with computed labels and the mesh as owner.
pub fn policies(site: Site<'_>, mesh_name: &str, mesh: &Mesh) -> Vec<Resource> {
    let skip = &mesh.skip_creating_initial_policies;
    let specs: [(&str, Spec); 4] = [
        ("mesh-timeout-all", inbound_timeout().wrap()),
        ("mesh-timeout-to-all", outbound_timeout().wrap()),
        ("mesh-circuit-breaker-all", circuit_breaker().wrap()),
        ("mesh-retry-all", retry().wrap()),
    ];
    specs
        .into_iter()
        .filter(|(_, spec)| !skip.iter().any(|kind| kind == "*" || kind == spec.kind().name()))
        .map(|(prefix, spec)| {
            let mut meta = Meta::new(mesh_name, format!("{prefix}-{mesh_name}"));
            meta.labels = labels::compute(site, spec.kind(), mesh_name, &meta.name, &spec, &BTreeMap::new());
            meta.owner = Some(Key::new(Kind::Mesh, "", mesh_name));
            let status = crate::Status::empty(spec.kind());
            Resource { meta, spec, status }
        })
        .collect()
}

fn inbound_timeout() -> mt::MeshTimeout {
    let conf = mt::Conf {
        connection_timeout: Some(GoDuration::from_secs(10)),
        idle_timeout: Some(GoDuration::from_secs(7200)),
        http: Some(mt::Http {
            request_timeout: Some(GoDuration(0)),
            stream_idle_timeout: Some(GoDuration::from_secs(3600)),
            max_stream_duration: Some(GoDuration(0)),
            ..mt::Http::default()
        }),
    };
    mt::MeshTimeout {
        target_ref: Some(TargetRef::MESH),
        to: None,
        rules: Some(vec![Rule { matches: None, default: conf }]),
    }
}

fn outbound_timeout() -> mt::MeshTimeout {
    let conf = mt::Conf {
        connection_timeout: Some(GoDuration::from_secs(5)),
        idle_timeout: Some(GoDuration::from_secs(3600)),
        http: Some(mt::Http {
            request_timeout: Some(GoDuration::from_secs(15)),
            stream_idle_timeout: Some(GoDuration::from_secs(1800)),
            ..mt::Http::default()
        }),
    };
    mt::MeshTimeout { target_ref: Some(TargetRef::MESH), to: Some(vec![to_mesh(conf)]), rules: None }
}

fn circuit_breaker() -> mcb::MeshCircuitBreaker {
    let conf = mcb::Conf {
        connection_limits: Some(mcb::ConnectionLimits {
            max_connections: Some(1024),
            max_pending_requests: Some(1024),
            max_requests: Some(1024),
            max_retries: Some(3),
            max_connection_pools: None,
        }),
        outlier_detection: None,
    };
    mcb::MeshCircuitBreaker { target_ref: Some(TargetRef::MESH), to: Some(vec![to_mesh(conf)]), rules: None }
}

fn retry() -> mr::MeshRetry {
    let back_off = Some(mr::BackOff {
        base_interval: Some(GoDuration::from_millis(25)),
        max_interval: Some(GoDuration::from_millis(250)),
    });
    let per_try_timeout = Some(GoDuration::from_secs(16));
    let conf = mr::Conf {
        tcp: Some(mr::Tcp { max_connect_attempt: Some(5) }),
        http: Some(mr::Http {
            num_retries: Some(5),
            per_try_timeout,
            back_off: back_off.clone(),
            ..mr::Http::default()
        }),
        grpc: Some(mr::Grpc { num_retries: Some(5), per_try_timeout, back_off, ..mr::Grpc::default() }),
    };
    mr::MeshRetry { target_ref: Some(TargetRef::MESH), to: Some(vec![to_mesh(conf)]) }
}

fn to_mesh<C>(default: C) -> ToItem<C> {
    ToItem { target_ref: TargetRef::MESH, default }
}

/// The default HostnameGenerators of a control plane. Global's have no labels; a zone's have the origin label.
pub fn hostname_generators(site: Site<'_>) -> Vec<Resource> {
    let service =
        |pairs: &[(&str, &str)]| Selector { mesh_service: Some(selector(pairs)), ..Selector::default() };
    let external = |pairs: &[(&str, &str)]| Selector {
        mesh_external_service: Some(selector(pairs)),
        ..Selector::default()
    };
    let multi_zone = |pairs: &[(&str, &str)]| Selector {
        mesh_multi_zone_service: Some(selector(pairs)),
        ..Selector::default()
    };
    let headless = "k8s.kuma.io/is-headless-service";
    let global = (labels::ORIGIN, "global");
    let zone = (labels::ORIGIN, "zone");
    let generators: Vec<(&str, Selector, &str)> = if site.mode.is_global() {
        vec![
            ("synced-mesh-multi-zone-service", multi_zone(&[global]), "{{ .DisplayName }}.mzsvc.mesh.local"),
            (
                "synced-kube-mesh-service",
                service(&[global, (headless, "false"), (labels::ENV, "kubernetes")]),
                "{{ .DisplayName }}.{{ .Namespace }}.svc.{{ .Zone }}.mesh.local",
            ),
            (
                "synced-headless-kube-mesh-service",
                service(&[global, (headless, "true"), (labels::ENV, "kubernetes")]),
                "{{ label \"statefulset.kubernetes.io/pod-name\" }}.{{ label \"k8s.kuma.io/service-name\" }}.{{ .Namespace }}.svc.{{ .Zone }}.mesh.local",
            ),
            (
                "synced-universal-mesh-service",
                service(&[global, (labels::ENV, "universal")]),
                "{{ .DisplayName }}.svc.{{ .Zone }}.mesh.local",
            ),
            ("synced-mesh-external-service", external(&[global]), "{{ .DisplayName }}.extsvc.mesh.local"),
        ]
    } else {
        vec![
            ("local-mesh-external-service", external(&[zone]), "{{ .DisplayName }}.extsvc.mesh.local"),
            ("local-universal-mesh-service", service(&[zone]), "{{ .DisplayName }}.svc.mesh.local"),
        ]
    };
    generators
        .into_iter()
        .map(|(name, selector, template)| {
            let mut meta = Meta::new("", name);
            if !site.mode.is_global() {
                meta.labels.insert(labels::ORIGIN.into(), "zone".into());
            }
            Resource::new(meta, HostnameGenerator { selector, template: template.into(), extension: None })
        })
        .collect()
}

fn selector(pairs: &[(&str, &str)]) -> LabelSelector {
    let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    LabelSelector { match_labels: Some(pairs.collect()) }
}
