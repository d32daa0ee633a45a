//! The course of `run`: prepare, start Envoy and the parts around it, follow the lifecycle to its end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::Context as _;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Sleep;

use crate::accesslog::Pipe;
use crate::admin;
use crate::bootstrap::{self, Bootstrap};
use crate::config::Config;
use crate::dataplane::{self, Proxy};
use crate::drain::{Action, Event, Lifecycle, Outcome};
use crate::envoy;
use crate::http1;
use crate::readiness;
use crate::token::{self, Token};
use crate::workdir::{WorkDir, access_log_path, write_private};

/// How long Envoy may take to end before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the control plane may take to accept that this proxy leaves.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
const LEAVE_BODY_LEN_MAX: usize = 64 * 1024;

/// Signals that the agent acts upon, from its first moment.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    drain_listeners: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            drain_listeners: signal(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.terminate.recv() => Event::Terminate,
            _ = self.interrupt.recv() => Event::Terminate,
            _ = self.drain_listeners.recv() => Event::DrainListeners,
        }
    }
}

/// Everything that is known when Envoy can be started.
struct Prepared {
    workdir: WorkDir,
    proxy: Proxy,
    token: Option<Token>,
    binary: PathBuf,
    bootstrap: Bootstrap,
}

/// Runs one proxy until it ends or is told to.
pub(crate) async fn run(config: Config) -> anyhow::Result<ExitCode> {
    // Before signals are handled: reading standard input blocks, and must stay interruptible.
    let proxy = dataplane::load(&config.dataplane, &config.variables)?;
    let mut signals = Signals::new().context("cannot handle signals")?;
    let mut preparation = Box::pin(prepare(&config, proxy));
    let prepared = loop {
        tokio::select! {
            prepared = &mut preparation => break prepared?,
            event = signals.next() => if event == Event::Terminate {
                tracing::info!("told to stop before Envoy was started");
                return Ok(ExitCode::SUCCESS);
            }
        }
    };
    drop(preparation);
    let outcome = Box::pin(supervise(&config, prepared, signals)).await?;
    tracing::info!(?outcome, "the agent ends");
    Ok(match outcome {
        Outcome::Normal => ExitCode::SUCCESS,
        Outcome::Failure => ExitCode::FAILURE,
    })
}

async fn prepare(config: &Config, proxy: Proxy) -> anyhow::Result<Prepared> {
    tracing::info!(mesh = proxy.mesh, proxy = proxy.name, "starting");
    let binary = envoy::locate(&config.envoy.binary)?;
    let workdir = WorkDir::open(config.work_dir.as_deref())?;
    let token = token::load(&config.token, workdir.path(), &proxy.name)?;
    let ca_pem = config.control_plane.trust.given_pem()?.unwrap_or_default();
    let inputs = bootstrap::Inputs {
        config,
        proxy: &proxy,
        token: token.as_ref(),
        ca_pem: &ca_pem,
        workdir: workdir.path(),
    };
    let url = config.control_plane.origin.url("/bootstrap");
    tracing::info!(url, "fetching the bootstrap configuration");
    let bootstrap =
        bootstrap::fetch(inputs, &binary).await.context("cannot fetch the bootstrap configuration")?;
    Ok(Prepared { workdir, proxy, token, binary, bootstrap })
}

async fn supervise(config: &Config, prepared: Prepared, signals: Signals) -> anyhow::Result<Outcome> {
    let Prepared { workdir, proxy, token, binary, bootstrap } = prepared;
    let bootstrap_path = workdir.path().join("bootstrap.yaml");
    write_private(&bootstrap_path, &bootstrap.text)
        .with_context(|| format!("cannot write {}", bootstrap_path.display()))?;
    let mut pipe = Pipe::create(access_log_path(workdir.path(), &proxy.mesh, &proxy.name))?;
    let (terminating, terminating_seen) = watch::channel(false);
    let readiness_ip = readiness::bind_ip(&bootstrap.admin, config.in_pod, bootstrap.networking_address);
    let address = SocketAddr::new(readiness_ip, config.readiness_port);
    let readiness = readiness::Server::bind(address, bootstrap.admin.clone(), terminating_seen).await?;
    tracing::info!(%address, "answering readiness probes");
    let envoy = envoy::Process::start(&binary, &envoy::arguments(&config.envoy, &bootstrap_path))?;
    tracing::info!(path = %binary.display(), pid = envoy.id(), "Envoy is started");
    let running = Running {
        config,
        proxy: &proxy,
        token: token.as_ref(),
        admin: &bootstrap.admin,
        terminating,
        envoy,
        timer: None,
        calls: JoinSet::new(),
    };
    let outcome = tokio::select! {
        outcome = running.run(signals, pipe.stream()) => outcome,
        // Never ends by itself; goes with the rest.
        () = readiness.run() => Outcome::Failure,
    };
    Ok(outcome)
}

/// A call that must not hold up signals, and what its end means.
type Called = Option<Event>;

struct Running<'a> {
    config: &'a Config,
    proxy: &'a Proxy,
    token: Option<&'a Token>,
    admin: &'a admin::Address,
    terminating: watch::Sender<bool>,
    envoy: envoy::Process,
    timer: Option<Pin<Box<Sleep>>>,
    calls: JoinSet<Called>,
}

impl Running<'_> {
    /// Turns events into actions until the end. `streaming` is the access log, which ends only by failing.
    async fn run(
        mut self,
        mut signals: Signals,
        streaming: impl Future<Output = Result<(), crate::accesslog::Error>>,
    ) -> Outcome {
        let mut lifecycle = Lifecycle::new();
        let mut streaming = std::pin::pin!(streaming);
        let mut streams = true;
        loop {
            let event = tokio::select! {
                biased;
                status = self.envoy.wait() => envoy_ended(status),
                event = signals.next() => event,
                Some(called) = self.calls.join_next() => match called {
                    Ok(Some(event)) => event,
                    Ok(None) | Err(_) => continue,
                },
                () = elapsed(&mut self.timer) => {
                    self.timer = None;
                    Event::TimeUp
                }
                ended = &mut streaming, if streams => {
                    streams = false;
                    let error = ended.err().map(|error| format!("{:#}", anyhow::Error::from(error)));
                    tracing::error!(error, "the access log has ended");
                    Event::PartFailed
                }
            };
            match lifecycle.on(event) {
                Action::Nothing => {}
                Action::DrainListeners => self.drain_listeners(),
                Action::Drain => self.drain(),
                Action::StopEnvoy => {
                    tracing::info!("stopping Envoy");
                    self.terminating.send_replace(true);
                    self.envoy.terminate();
                    self.timer = Some(Box::pin(tokio::time::sleep(STOP_TIMEOUT)));
                }
                Action::KillEnvoy => {
                    tracing::warn!("Envoy did not end within {STOP_TIMEOUT:?}, killing it");
                    self.envoy.kill();
                }
                Action::Exit(outcome) => return outcome,
            }
        }
    }

    fn drain_listeners(&mut self) {
        tracing::info!("draining inbound listeners");
        let admin = self.admin.clone();
        self.calls.spawn(async move {
            if let Err(error) = admin.drain_inbound_listeners().await {
                tracing::warn!(error = chain(error), "cannot drain inbound listeners");
            }
            None
        });
    }

    fn drain(&mut self) {
        let drain_time = self.config.envoy.drain_time;
        tracing::info!(?drain_time, "draining; a second signal stops at once");
        self.terminating.send_replace(true);
        self.timer = Some(Box::pin(tokio::time::sleep(drain_time)));
        match self.leave_request() {
            Ok((peer, request)) => {
                self.calls.spawn(async move {
                    leave(&peer, request).await;
                    None
                });
            }
            Err(error) => tracing::debug!(error = format!("{error:#}"), "cannot tell the control plane"),
        }
        let admin = self.admin.clone();
        self.calls.spawn(async move {
            let error = admin.fail_health_check().await.err()?;
            tracing::warn!(error = chain(error), "cannot make Envoy's health check fail, stopping at once");
            Some(Event::HealthCheckNotFailed)
        });
    }

    /// Asks the control plane to take this proxy out of everybody's endpoints. One that does not know this
    /// request learns the same from the failing health check, some seconds later.
    fn leave_request(
        &self,
    ) -> anyhow::Result<(http1::Peer, http::Request<http_body_util::Full<bytes::Bytes>>)> {
        let control_plane = &self.config.control_plane;
        let path = format!("/proxies/{}/{}/drain", self.proxy.mesh, self.proxy.name);
        let mut request = bootstrap::post(&control_plane.origin, &path, Vec::new())?;
        if let Some(token) = self.token {
            let mut value = HeaderValue::from_str(&token.text).context("the token is no header value")?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Ok((bootstrap::peer(control_plane)?, request))
    }
}

async fn leave(peer: &http1::Peer, request: http::Request<http_body_util::Full<bytes::Bytes>>) {
    match http1::send(peer, request, LEAVE_TIMEOUT, LEAVE_BODY_LEN_MAX).await {
        Ok(answer) if answer.status.is_success() => {
            tracing::info!("the control plane has taken this proxy out of use");
        }
        Ok(answer) => tracing::debug!(status = %answer.status, "the control plane has no fast drain"),
        Err(error) => tracing::debug!(error = chain(error), "cannot tell the control plane"),
    }
}

fn envoy_ended(status: std::io::Result<ExitStatus>) -> Event {
    match status {
        Ok(status) => {
            tracing::info!(%status, "Envoy has ended");
            Event::EnvoyEnded { success: status.success() }
        }
        Err(error) => {
            tracing::error!(%error, "Envoy cannot be waited for");
            Event::EnvoyEnded { success: false }
        }
    }
}

async fn elapsed(timer: &mut Option<Pin<Box<Sleep>>>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}

fn chain(error: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::from(error))
}
