//! One HDS stream on the wire: asks the proxy to probe, passes on what it finds (dataplane-agent.md §4.1).

use std::collections::VecDeque;
use std::sync::Arc;

use envoy_types::pb::envoy::service::health::v3::health_check_request_or_endpoint_health_response::RequestType;
use envoy_types::pb::envoy::service::health::v3::{
    HealthCheckRequestOrEndpointHealthResponse as Request, HealthCheckSpecifier,
};
use futures::Stream as FuturesStream;
use graticule_model::Resource;
use graticule_model::kinds::dataplane::Dataplane;
use graticule_policy::ProxyId;
use tokio::sync::watch;
use tonic::{Status, Streaming};

use super::server::{Credential, DATAPLANE_WAIT, FIRST_REQUEST_TIMEOUT, Shared};
use crate::core::hds::{HealthReport, report, specifier};
use crate::core::{Hello, read_node};

/// Serves a stream; see [`super::ads::serve`].
pub(super) fn serve(
    shared: Arc<Shared>,
    credential: Credential,
    requests: Streaming<Request>,
) -> impl FuturesStream<Item = Result<HealthCheckSpecifier, Status>> + Send + 'static {
    let session =
        Session { shared, requests, ready: VecDeque::new(), credential: Some(credential), open: None };
    futures::stream::unfold(Some(session), |session| async move {
        let mut session = session?;
        match session.next().await {
            Ok(specifier) => Some((Ok(specifier), Some(session))),
            Err(Some(status)) => Some((Err(status), None)),
            Err(None) => None,
        }
    })
}

struct Session {
    shared: Arc<Shared>,
    requests: Streaming<Request>,
    ready: VecDeque<HealthCheckSpecifier>,
    /// Until the proxy is authenticated.
    credential: Option<Credential>,
    open: Option<Open>,
}

struct Open {
    hello: Hello,
    dataplanes: watch::Receiver<Option<Arc<Resource>>>,
    asked: Option<HealthCheckSpecifier>,
    told: Option<HealthReport>,
}

/// `Err(None)` ends the stream without an error.
type Step<T> = Result<T, Option<Status>>;

impl Session {
    async fn next(&mut self) -> Step<HealthCheckSpecifier> {
        loop {
            if let Some(specifier) = self.ready.pop_front() {
                return Ok(specifier);
            }
            match &mut self.open {
                None => self.hello().await?,
                Some(open) => open.turn(&self.shared, &mut self.requests, &mut self.ready).await?,
            }
        }
    }

    async fn hello(&mut self) -> Step<()> {
        let shared = self.shared.clone();
        let first = tokio::select! {
            biased;
            () = shared.drain.signaled() => return Err(Some(shutting_down())),
            first = self.requests.message() => first,
            () = shared.deps.clock.sleep(FIRST_REQUEST_TIMEOUT) => {
                return Err(Some(Status::deadline_exceeded("no request came")));
            }
        };
        let request = match first {
            Ok(Some(Request { request_type: Some(RequestType::HealthCheckRequest(request)) })) => request,
            Ok(Some(_)) => {
                return Err(Some(Status::unknown("the first request must be a health check request")));
            }
            Ok(None) | Err(_) => return Err(None),
        };
        let hello =
            read_node(request.node.as_ref()).map_err(|refusal| Some(Status::unknown(refusal.to_string())))?;
        let credential = self.credential.take().unwrap_or(Credential::None);
        let dataplanes = authenticate(&shared, &credential, &hello.id).await.map_err(Some)?;
        let mut open = Open { hello, dataplanes, asked: None, told: None };
        open.ask(&shared, &mut self.ready)?;
        self.open = Some(open);
        Ok(())
    }
}

/// Waits until the Dataplane exists (the proxy's ADS stream may be creating it) and checks the credential against it.
async fn authenticate(
    shared: &Shared,
    credential: &Credential,
    id: &ProxyId,
) -> Result<watch::Receiver<Option<Arc<Resource>>>, Status> {
    let credential = credential.single().map_err(Status::unknown)?;
    let mut dataplanes = shared.deps.proxies.watch_dataplane(id).await;
    let exists = async { dataplanes.wait_for(Option::is_some).await.ok().and_then(|found| found.clone()) };
    let stored = tokio::select! {
        biased;
        () = shared.drain.signaled() => return Err(shutting_down()),
        stored = exists => stored,
        () = shared.deps.clock.sleep(DATAPLANE_WAIT) => None,
    };
    let stored = stored.ok_or_else(|| not_found(id))?;
    let checked = shared.deps.authenticator.authenticate(credential, &stored).await;
    checked.map_err(|error| Status::unknown(format!("authentication failed: {error}")))?;
    Ok(dataplanes)
}

impl Open {
    async fn turn(
        &mut self,
        shared: &Shared,
        requests: &mut Streaming<Request>,
        ready: &mut VecDeque<HealthCheckSpecifier>,
    ) -> Step<()> {
        tokio::select! {
            biased;
            () = shared.drain.signaled() => Err(Some(shutting_down())),
            changed = self.dataplanes.changed() => {
                changed.map_err(|_| Some(not_found(&self.hello.id)))?;
                self.ask(shared, ready)
            }
            request = requests.message() => match request {
                Ok(Some(request)) => self.take(shared, request).await,
                Ok(None) | Err(_) => Err(None),
            },
        }
    }

    /// Asks for what the Dataplane needs now, if that is something new.
    fn ask(&mut self, shared: &Shared, ready: &mut VecDeque<HealthCheckSpecifier>) -> Step<()> {
        let stored =
            self.dataplanes.borrow_and_update().clone().ok_or_else(|| Some(not_found(&self.hello.id)))?;
        let Some(dataplane) = stored.spec_as::<Dataplane>() else {
            return Err(Some(not_found(&self.hello.id)));
        };
        // A Dataplane that was stored again may have lost what was reported.
        self.told = None;
        let hds = &shared.options.hds;
        let specifier =
            specifier(dataplane, &self.hello.node, &hds.check_defaults.to_core(), hds.interval.to_std());
        if self.asked.as_ref() != Some(&specifier) {
            self.asked = Some(specifier.clone());
            ready.push_back(specifier);
        }
        Ok(())
    }

    async fn take(&mut self, shared: &Shared, request: Request) -> Step<()> {
        match request.request_type {
            Some(RequestType::HealthCheckRequest(request)) => {
                let id = request.node.map(|node| node.id).unwrap_or_default();
                if !id.is_empty() && id != self.hello.id.to_string() {
                    return Err(Some(Status::unknown("node id changed on the same stream")));
                }
            }
            Some(RequestType::EndpointHealthResponse(response)) => {
                let report = report(&response).map_err(|error| Some(Status::unknown(error.to_string())))?;
                if self.told.as_ref() != Some(&report) {
                    shared.deps.proxies.health(&self.hello.id, report.clone()).await;
                    self.told = Some(report);
                }
            }
            None => {}
        }
        Ok(())
    }
}

fn shutting_down() -> Status {
    Status::unavailable("the control plane is shutting down")
}

fn not_found(id: &ProxyId) -> Status {
    Status::unknown(format!("resource not found: type=\"Dataplane\" name={:?} mesh={:?}", id.name, id.mesh))
}
