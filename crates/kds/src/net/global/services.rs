//! The RPCs that zones call (federation.md §1.2).

use std::collections::VecDeque;
use std::time::Duration;

use graticule_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use graticule_proto::google::protobuf::Duration as DurationPb;
use graticule_proto::kuma::mesh::v1alpha1 as pb;
use pb::global_kds_service_server::GlobalKdsService;
use pb::kds_sync_service_server::KdsSyncService;
use tonic::{Request, Response, Status, Streaming};

use super::streams::{Asking, BoxStream, Downward, Upward, driven};
use super::{CATCH_UP_MAX, GlobalServer, bodies};
use crate::core::{REVISION_HEADERS, Source, StreamKind};
use crate::net::admin::{AdminStream, Clusters, ConfigDumps, Stats};
use crate::net::describe;
use crate::net::healing::{Obstacles, Patience};
use crate::net::registry::ZoneReport;

#[tonic::async_trait]
impl KdsSyncService for GlobalServer {
    type GlobalToZoneSyncStream = BoxStream<DeltaDiscoveryResponse>;
    type ZoneToGlobalSyncStream = BoxStream<DeltaDiscoveryRequest>;

    async fn global_to_zone_sync(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::GlobalToZoneSyncStream>, Status> {
        let shared = self.0.clone();
        let visitor = shared.admit(&request, Status::unknown)?;
        shared.is_current()?;
        shared.catch_up().await?;
        let revision = shared.deps.stores.config.snapshot().revision();
        if !shared.hub.shows(revision, CATCH_UP_MAX).await {
            return Err(Status::unavailable(
                "this replica of global does not keep up with its store; try again",
            ));
        }
        shared.ensure_zone(&visitor.zone).await?;
        let (stream, pulse) = shared.open_stream(&visitor, StreamKind::GlobalToZone).await?;
        let now = shared.deps.clock.now();
        shared.take_over(&visitor.zone);
        let subscription = shared.deps.random.uuid();
        shared.registry.subscribed(&visitor.zone, subscription.clone(), now, visitor.token_provided);
        // Watch before the source takes its position, so that no change falls between.
        let changes = shared.hub.changes();
        let limit = shared.options.message_len_max;
        let source = Source::new("global", Some(&visitor.zone), limit, &shared.hub.catalog());
        let drain = shared.drain.clone();
        let requests = request.into_inner();
        let ready = VecDeque::new();
        let patience = Patience::new(shared.options.stuck_after);
        let told = Duration::ZERO;
        let state = Downward {
            shared,
            stream,
            subscription,
            source,
            requests,
            ready,
            changes,
            patience,
            told,
            drain,
        };
        Ok(bodies::pulsed(bodies::detached(driven(state), limit), pulse))
    }

    async fn zone_to_global_sync(
        &self,
        request: Request<Streaming<DeltaDiscoveryResponse>>,
    ) -> Result<Response<Self::ZoneToGlobalSyncStream>, Status> {
        let shared = self.0.clone();
        let visitor = shared.admit(&request, Status::unknown)?;
        shared.catch_up().await?;
        shared.ensure_zone(&visitor.zone).await?;
        let (stream, pulse) = shared.open_stream(&visitor, StreamKind::ZoneToGlobal).await?;
        shared.take_over(&visitor.zone);
        let mut sink = shared.registry.take_sink(&visitor.zone);
        let doubted = shared.is_estranged(&visitor.zone);
        sink.set_estranged(doubted);
        stream.begin_with(None);
        let decision = shared.decision(&visitor.zone, &visitor.claimant).await;
        let decided = decision.as_ref().map(|decision| decision.version);
        stream.begin_with(decided);
        let given_up = decision.map(|decision| decision.given_up).unwrap_or_default();
        if !given_up.is_empty() {
            tracing::info!(
                zone = visitor.zone,
                given_up = given_up.values().sum::<usize>(),
                "an operator gave up what a zone no longer has"
            );
        }
        sink.set_decision(given_up);
        let node = describe(&visitor.zone, &shared.deps.instance_id, &shared.options.version, "");
        let ready = sink.start(&node, &shared.deps.stores.held()).into();
        shared.registry.set_report(&visitor.zone, |report| report.peer.usage = Some(sink.usage()));
        let drain = shared.drain.clone();
        let responses = request.into_inner();
        let audit_at = shared.next_audit();
        let claimant = visitor.claimant;
        let state = Upward {
            shared,
            stream,
            claimant,
            doubted,
            decided,
            node,
            sink: Some(sink),
            ready,
            responses,
            audit_at,
            obstacles: Obstacles::default(),
            drain,
        };
        Ok(bodies::pulsed(Response::new(driven(state)), pulse))
    }
}

impl GlobalServer {
    async fn ask<S: AdminStream>(
        &self,
        request: Request<Streaming<S::Response>>,
    ) -> Result<Response<BoxStream<S::Request>>, Status> {
        let shared = self.0.clone();
        let visitor = shared.admit(&request, Status::invalid_argument)?;
        shared.await_zone(&visitor.zone).await?;
        let (stream, pulse) = shared.open_stream(&visitor, S::KIND).await?;
        let questions = shared.broker.connect(&visitor.zone, S::KIND);
        let drain = shared.drain.clone();
        let state = Asking::<S> { stream, questions, answers: request.into_inner(), drain };
        Ok(bodies::pulsed(Response::new(driven(state)), pulse))
    }
}

#[tonic::async_trait]
impl GlobalKdsService for GlobalServer {
    type StreamXDSConfigsStream = BoxStream<pb::XdsConfigRequest>;
    type StreamStatsStream = BoxStream<pb::StatsRequest>;
    type StreamClustersStream = BoxStream<pb::ClustersRequest>;

    async fn stream_xds_configs(
        &self,
        request: Request<Streaming<pb::XdsConfigResponse>>,
    ) -> Result<Response<Self::StreamXDSConfigsStream>, Status> {
        self.ask::<ConfigDumps>(request).await
    }

    async fn stream_stats(
        &self,
        request: Request<Streaming<pb::StatsResponse>>,
    ) -> Result<Response<Self::StreamStatsStream>, Status> {
        self.ask::<Stats>(request).await
    }

    async fn stream_clusters(
        &self,
        request: Request<Streaming<pb::ClustersResponse>>,
    ) -> Result<Response<Self::StreamClustersStream>, Status> {
        self.ask::<Clusters>(request).await
    }

    async fn health_check(
        &self,
        request: Request<pb::ZoneHealthCheckRequest>,
    ) -> Result<Response<pb::ZoneHealthCheckResponse>, Status> {
        let shared = &self.0;
        let visitor = shared.admit(&request, Status::invalid_argument)?;
        if shared.registry.is_held_by(&visitor.zone, &visitor.claimant) {
            shared.registry.health_checked(&visitor.zone, shared.deps.clock.now());
        }
        let interval = shared.options.health_interval;
        let interval = DurationPb {
            seconds: i64::try_from(interval.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(interval.subsec_nanos()).unwrap_or_default(),
        };
        let mut response = Response::new(pb::ZoneHealthCheckResponse { interval: Some(interval) });
        // Behind a balancer the call may come to another replica than the streams do, which does not know how far the zone is.
        let is_here = shared.registry.has_stream(&visitor.zone, StreamKind::GlobalToZone);
        if let Some(ZoneReport { peer, .. }) = shared.reported(&visitor.zone).filter(|_| is_here) {
            let current = shared.deps.stores.config.snapshot().revision();
            let revisions = peer.revisions(current, shared.hub.catalog().head());
            for (header, revision) in
                REVISION_HEADERS.into_iter().zip([revisions.current, revisions.acknowledged])
            {
                response.metadata_mut().insert(header, revision.into());
            }
        }
        Ok(response)
    }
}
