//! `DataplaneInsight` ⇄ its message (federation.md §2.6).

use graticule_model::Timestamp;
use graticule_model::kinds::dataplane_insight as model;
use graticule_proto::google::protobuf as wkt;
use graticule_proto::kuma::mesh::v1alpha1 as pb;
use pb::dataplane_insight::{Mtls, OpenTelemetry, open_telemetry};

use super::structs::{from_struct, from_time, to_struct, to_time};

pub(super) fn to_message(spec: &model::DataplaneInsight) -> pb::DataplaneInsight {
    pb::DataplaneInsight {
        subscriptions: spec.subscriptions.iter().map(to_subscription).collect(),
        m_tls: spec.mtls.as_ref().map(|mtls| Mtls {
            certificate_expiration_time: mtls.certificate_expiration_time.as_ref().map(to_time),
            last_certificate_regeneration: mtls.last_certificate_regeneration.as_ref().map(to_time),
            certificate_regenerations: mtls.certificate_regenerations,
            issued_backend: mtls.issued_backend.clone(),
            supported_backends: mtls.supported_backends.clone(),
        }),
        metadata: spec.metadata.as_ref().map(to_struct),
        open_telemetry: spec.open_telemetry.as_ref().map(to_open_telemetry),
    }
}

fn to_subscription(from: &model::DiscoverySubscription) -> pb::DiscoverySubscription {
    pb::DiscoverySubscription {
        id: from.id.clone(),
        control_plane_instance_id: from.control_plane_instance_id.clone(),
        connect_time: from.connect_time.as_ref().map(to_time),
        disconnect_time: from.disconnect_time.as_ref().map(to_time),
        status: from.status.as_ref().map(|status| pb::DiscoverySubscriptionStatus {
            last_update_time: status.last_update_time.as_ref().map(to_time),
            total: Some(to_stats(&status.total)),
            cds: Some(to_stats(&status.cds)),
            eds: Some(to_stats(&status.eds)),
            lds: Some(to_stats(&status.lds)),
            rds: Some(to_stats(&status.rds)),
        }),
        version: from.version.as_ref().map(|version| pb::Version {
            kuma_dp: version.kuma_dp.as_ref().map(|agent| pb::KumaDpVersion {
                version: agent.version.clone(),
                git_tag: agent.git_tag.clone(),
                git_commit: agent.git_commit.clone(),
                build_date: agent.build_date.clone(),
                kuma_cp_compatible: agent.kuma_cp_compatible,
            }),
            envoy: version.envoy.as_ref().map(|envoy| pb::EnvoyVersion {
                version: envoy.version.clone(),
                build: envoy.build.clone(),
                kuma_dp_compatible: envoy.kuma_dp_compatible,
            }),
            dependencies: version.dependencies.clone(),
        }),
        generation: from.generation,
    }
}

fn to_stats(from: &model::DiscoveryStats) -> pb::DiscoveryServiceStats {
    pb::DiscoveryServiceStats {
        responses_sent: from.responses_sent,
        responses_acknowledged: from.responses_acknowledged,
        responses_rejected: from.responses_rejected,
    }
}

fn to_open_telemetry(from: &model::OpenTelemetry) -> OpenTelemetry {
    let signal = |signal: &model::OtelSignal| open_telemetry::Signal {
        enabled: signal.enabled,
        env_allowed: signal.env_allowed,
        env_input_present: signal.env_input_present,
        state: signal.state.clone(),
        override_kinds: signal.override_kinds.clone(),
        missing_fields: signal.missing_fields.clone(),
        blocked_reasons: signal.blocked_reasons.clone(),
    };
    let backend = |backend: &model::OtelBackend| open_telemetry::Backend {
        name: backend.name.clone(),
        traces: backend.traces.as_ref().map(signal),
        logs: backend.logs.as_ref().map(signal),
        metrics: backend.metrics.as_ref().map(signal),
    };
    OpenTelemetry { backends: from.backends.iter().map(backend).collect() }
}

pub(super) fn from_message(from: pb::DataplaneInsight) -> Result<model::DataplaneInsight, String> {
    Ok(model::DataplaneInsight {
        subscriptions: from.subscriptions.into_iter().map(from_subscription).collect::<Result<_, _>>()?,
        mtls: from
            .m_tls
            .map(|mtls| {
                Ok::<_, String>(model::MTls {
                    certificate_expiration_time: time(mtls.certificate_expiration_time)?,
                    last_certificate_regeneration: time(mtls.last_certificate_regeneration)?,
                    certificate_regenerations: mtls.certificate_regenerations,
                    issued_backend: mtls.issued_backend,
                    supported_backends: mtls.supported_backends,
                })
            })
            .transpose()?,
        metadata: from.metadata.map(from_struct),
        open_telemetry: from.open_telemetry.map(from_open_telemetry),
    })
}

fn from_subscription(from: pb::DiscoverySubscription) -> Result<model::DiscoverySubscription, String> {
    let status = from.status.map(|status| {
        Ok::<_, String>(model::DiscoverySubscriptionStatus {
            last_update_time: time(status.last_update_time)?,
            total: from_stats(status.total),
            cds: from_stats(status.cds),
            eds: from_stats(status.eds),
            lds: from_stats(status.lds),
            rds: from_stats(status.rds),
        })
    });
    Ok(model::DiscoverySubscription {
        id: from.id,
        control_plane_instance_id: from.control_plane_instance_id,
        connect_time: time(from.connect_time)?,
        disconnect_time: time(from.disconnect_time)?,
        status: status.transpose()?,
        version: from.version.map(from_version),
        generation: from.generation,
    })
}

fn from_version(from: pb::Version) -> model::Versions {
    model::Versions {
        kuma_dp: from.kuma_dp.map(|agent| model::AgentVersion {
            version: agent.version,
            git_tag: agent.git_tag,
            git_commit: agent.git_commit,
            build_date: agent.build_date,
            kuma_cp_compatible: agent.kuma_cp_compatible,
        }),
        envoy: from.envoy.map(|envoy| model::EnvoyVersion {
            version: envoy.version,
            build: envoy.build,
            kuma_dp_compatible: envoy.kuma_dp_compatible,
        }),
        dependencies: from.dependencies,
    }
}

fn from_stats(from: Option<pb::DiscoveryServiceStats>) -> model::DiscoveryStats {
    from.map_or_else(model::DiscoveryStats::default, |stats| model::DiscoveryStats {
        responses_sent: stats.responses_sent,
        responses_acknowledged: stats.responses_acknowledged,
        responses_rejected: stats.responses_rejected,
    })
}

fn time(from: Option<wkt::Timestamp>) -> Result<Option<Timestamp>, String> {
    from.as_ref().map(from_time).transpose()
}

fn from_open_telemetry(from: OpenTelemetry) -> model::OpenTelemetry {
    let signal = |signal: open_telemetry::Signal| model::OtelSignal {
        enabled: signal.enabled,
        env_allowed: signal.env_allowed,
        env_input_present: signal.env_input_present,
        state: signal.state,
        override_kinds: signal.override_kinds,
        missing_fields: signal.missing_fields,
        blocked_reasons: signal.blocked_reasons,
    };
    let backend = |backend: open_telemetry::Backend| model::OtelBackend {
        name: backend.name,
        traces: backend.traces.map(signal),
        logs: backend.logs.map(signal),
        metrics: backend.metrics.map(signal),
    };
    model::OpenTelemetry { backends: from.backends.into_iter().map(backend).collect() }
}
