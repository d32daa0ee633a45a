//! The application of the demo: answers every request with its name, its zone and what it was asked.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Parser;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Connections served at the same time; more wait in the listen queue.
const CONNECTIONS_MAX: usize = 1024;
/// How long requests may take to finish after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait after an accept that failed for want of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Answers every HTTP request with JSON that says who answered and what was asked.
#[derive(Debug, Parser)]
#[command(name = "demo-app", version)]
struct Args {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    address: IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[arg(long)]
    port: u16,
    /// Name of this instance.
    #[arg(long)]
    name: String,
    /// Zone of this instance.
    #[arg(long, default_value = "")]
    zone: String,
}

/// Who answers.
#[derive(Debug)]
struct Instance {
    name: String,
    zone: String,
    header: HeaderValue,
}

#[expect(clippy::print_stderr, reason = "the whole log of this small program")]
fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let header = HeaderValue::from_str(&args.name)
        .with_context(|| format!("--name {:?} cannot be sent in a header", args.name))?;
    let instance = Arc::new(Instance { name: args.name, zone: args.zone, header });
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(serve(SocketAddr::new(args.address, args.port), instance))
}

#[expect(clippy::print_stderr, reason = "the whole log of this small program")]
async fn serve(address: SocketAddr, instance: Arc<Instance>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr().context("the socket has no address")?;
    eprintln!("{} listens on http://{address}", instance.name);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (stop, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            accepted = async { (places.clone().acquire_owned().await, listener.accept().await) } => accepted,
        };
        let (Ok(place), Ok((stream, _))) = accepted else {
            tokio::time::sleep(ACCEPT_BACKOFF).await;
            continue;
        };
        let (instance, stopping) = (instance.clone(), stopping.clone());
        connections.spawn(async move {
            serve_connection(stream, instance, stopping).await;
            drop(place);
        });
    }
    drop(listener);
    drop(stop);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_TIMEOUT, finished).await.is_err() {
        eprintln!("some requests did not finish within {STOP_TIMEOUT:?}");
    }
    Ok(())
}

/// Serves until the client goes, or until all requests on the connection are answered after a stop.
async fn serve_connection(stream: TcpStream, instance: Arc<Instance>, mut stopping: watch::Receiver<()>) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = answer(&instance, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut connection = pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service)
    );
    tokio::select! {
        // A connection that breaks is the client's affair.
        _ = &mut connection => return,
        // Its sender is dropped to stop.
        _ = stopping.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

fn answer(instance: &Instance, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut headers = Map::new();
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        match headers.get_mut(name.as_str()) {
            Some(Value::String(all)) => {
                all.push_str(", ");
                all.push_str(&value);
            }
            _ => {
                headers.insert(name.as_str().into(), value.into());
            }
        }
    }
    let body = json!({
        "name": instance.name,
        "zone": instance.zone,
        "path": request.uri().path_and_query().map_or("/", |path| path.as_str()),
        "method": request.method().as_str(),
        "headers": headers,
    });
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert("x-demo-instance", instance.header.clone());
    response
}
