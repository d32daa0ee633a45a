//! `wait`: asks a proxy until it is ready (dataplane-agent.md §3.1).

use std::net::IpAddr;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;

use crate::cli::WaitArgs;
use crate::http1::{self, Origin, Peer};

const BODY_LEN_MAX: usize = 64 * 1024;

/// Returns when the proxy is ready; fails when the time is over.
pub(crate) async fn run(args: &WaitArgs) -> anyhow::Result<()> {
    let (peer, authority, path) = target(args)?;
    let deadline = tokio::time::Instant::now() + args.timeout;
    tracing::info!(url = args.url, timeout = ?args.timeout, "waiting until the proxy is ready");
    loop {
        let request =
            Request::get(&path).header(http::header::HOST, &authority).body(Full::new(Bytes::new()))?;
        let problem = match http1::send(&peer, request, args.request_timeout, BODY_LEN_MAX).await {
            Ok(answer) if answer.status == http::StatusCode::OK => {
                tracing::info!("the proxy is ready");
                return Ok(());
            }
            Ok(answer) => format!("it answered {}", answer.status),
            Err(error) => format!("{:#}", anyhow::Error::from(error)),
        };
        tracing::debug!(problem, "the proxy is not ready");
        if tokio::time::Instant::now() + args.check_frequency >= deadline {
            bail!("the proxy was not ready within {:?}: {problem}", args.timeout);
        }
        tokio::time::sleep(args.check_frequency).await;
    }
}

fn target(args: &WaitArgs) -> anyhow::Result<(Peer, String, String)> {
    if let Some(path) = &args.unix_socket {
        return Ok((Peer::Unix(path.clone()), "localhost".into(), "/ready".into()));
    }
    let uri: Uri = args.url.parse().with_context(|| format!("--url {}", args.url))?;
    let origin = Origin::parse(&args.url).map_err(|reason| anyhow::anyhow!("--url: {reason}"))?;
    ensure!(!origin.tls, "--url {}: must start with http://", args.url);
    let loopback = origin.host == "localhost" || origin.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    ensure!(loopback, "--url {}: the host must be loopback", args.url);
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    Ok((Peer::Tcp(origin.host.clone(), origin.port), origin.authority(), path))
}
