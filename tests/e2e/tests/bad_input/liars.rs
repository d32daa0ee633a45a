//! Peers that do not keep to the protocol.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use graticule_proto::discovery::{DeltaDiscoveryRequest, Node};
use graticule_runtime::tls::{ClientTrust, client_config};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::{Bench, LIMIT};

const ADS: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const SOTW: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const KDS: &str = "/kuma.mesh.v1alpha1.KDSSyncService/GlobalToZoneSync";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One case: name, port, path, headers, body.
type Call<'a> = (&'a str, u16, &'a str, &'a [(&'a str, &'a str)], Vec<u8>);

/// Bytes without meaning, the same in every run.
fn mk_noise(len: u32) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

/// A gRPC frame around a message.
fn mk_frame(message: &[u8]) -> Vec<u8> {
    let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &len.to_be_bytes(), message].concat()
}

fn mk_hello(node: Option<&str>) -> Vec<u8> {
    let node = node.map(|id| Node { id: id.into(), ..Node::default() });
    let request = DeltaDiscoveryRequest {
        node,
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".into(),
        ..DeltaDiscoveryRequest::default()
    };
    mk_frame(&request.encode_to_vec())
}

async fn tls(port: u16, alpn: &[&str]) -> Result<TlsStream<TcpStream>> {
    let connector = TlsConnector::from(Arc::clone(&client_config(&ClientTrust::Anybody, alpn)?));
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    Ok(connector.connect(ServerName::try_from("localhost")?, stream).await?)
}

/// Writes the bytes and waits until the server ends the connection.
async fn ended(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> Result<()> {
    let mut answer = Vec::new();
    let talk = async {
        // The server may end it while the bytes are on their way: that is what is asked for.
        let _sent = stream.write_all(bytes).await;
        let _read = stream.read_to_end(&mut answer).await;
    };
    tokio::time::timeout(LIMIT, talk).await.context("the connection stays open")
}

/// One gRPC call with any body; gives the status and its message.
async fn call(port: u16, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Result<(String, String)> {
    let stream = tls(port, &["h2"]).await?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let mut request = Request::post(format!("https://localhost:{port}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body)))?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let trailers = body.collect().await?.trailers().cloned().unwrap_or_default();
        let field = |name: &str| {
            let value = head.headers.get(name).or_else(|| trailers.get(name));
            value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
        };
        anyhow::Ok((field("grpc-status"), field("grpc-message")))
    };
    tokio::select! {
        answer = exchange => answer,
        ended = connection => anyhow::bail!("the connection ended first: {ended:?}"),
        () = tokio::time::sleep(LIMIT) => anyhow::bail!("no answer within {LIMIT:?}"),
    }
}

pub(crate) async fn lie(bench: &mut Bench) -> Result<()> {
    println!("lies");
    let (zone, global) = (bench.federation.zones["west"].port, bench.federation.global.port);
    for (who, port) in [("zone", zone), ("global", global)] {
        let noise = mk_noise(8192);
        let preface = [PREFACE, &noise].concat();
        let plain = TcpStream::connect(("127.0.0.1", port)).await?;
        let outcome = ended(plain, &noise).await;
        bench.note(&format!("noise at {who}"), outcome);
        let plain = TcpStream::connect(("127.0.0.1", port)).await?;
        let outcome = ended(plain, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        bench.note(&format!("HTTP without TLS at {who}"), outcome);
        let outcome = ended(tls(port, &[]).await?, b"NONSENSE\r\n\r\n").await;
        bench.note(&format!("TLS without ALPN, no HTTP, at {who}"), outcome);
        let outcome = ended(tls(port, &["h2"]).await?, &preface).await;
        bench.note(&format!("HTTP/2 preface and noise at {who}"), outcome);
    }
    let token = std::fs::read_to_string(bench.dir.join("client-1.token"))?;
    let bearer = format!(
        "Bearer {}",
        std::fs::read_to_string(bench.federation.zones["east"].workdir.join("zone.token"))?
    );
    let with_token = [("authorization", token.trim())];
    let as_east = [("client-id", "east"), ("authorization", bearer.as_str())];
    let as_nobody = [("authorization", bearer.as_str())];
    let as_dots = [("client-id", "../east"), as_nobody[0]];
    let as_west = [("client-id", "west"), as_nobody[0]];
    let huge = [&[0][..], &u32::MAX.to_be_bytes(), &[0; 64]].concat();
    let garbage = mk_frame(&mk_noise(512));
    let cases: Vec<Call<'_>> = vec![
        ("oversized message at zone", zone, ADS, &with_token, huge.clone()),
        ("garbage protobuf at zone", zone, ADS, &with_token, garbage.clone()),
        ("no node", zone, ADS, &with_token, mk_hello(None)),
        ("node id without dot", zone, ADS, &with_token, mk_hello(Some("nodot"))),
        ("node id of nobody", zone, ADS, &with_token, mk_hello(Some("default.nobody"))),
        ("node id of dots", zone, ADS, &with_token, mk_hello(Some("..."))),
        ("another proxy's node id without token", zone, ADS, &[], mk_hello(Some("default.echo-1"))),
        ("state of the world", zone, SOTW, &with_token, mk_hello(Some("default.client-1"))),
        ("unknown method at zone", zone, "/no.Such/Method", &with_token, garbage.clone()),
        ("garbage protobuf without token at global", global, KDS, &[("client-id", "east")], garbage.clone()),
        ("no zone name", global, KDS, &as_nobody, garbage.clone()),
        ("impossible zone name", global, KDS, &as_dots, garbage.clone()),
        ("another zone's token", global, KDS, &as_west, garbage.clone()),
        ("oversized message at global", global, KDS, &as_east, huge),
        ("garbage protobuf at global", global, KDS, &as_east, garbage),
    ];
    for (name, port, path, headers, body) in cases {
        let outcome = call(port, path, headers, body).await.and_then(|(status, message)| {
            ensure!(!matches!(status.as_str(), "" | "0"), "status {status:?}: {message:?}");
            println!("    {status}: {message}");
            Ok(())
        });
        bench.note(name, outcome);
    }
    Ok(())
}
