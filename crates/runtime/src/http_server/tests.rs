use std::net::SocketAddr;

use futures::StreamExt;
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::listen::incoming_from;
use crate::{DrainSignal, ListenLimits, Peer, TcpAcceptor};

const SECOND: Duration = Duration::from_secs(1);

fn limits() -> HttpLimits {
    HttpLimits {
        header_read_timeout: SECOND,
        idle_timeout: 60 * SECOND,
        request_timeout: Some(10 * SECOND),
        ..HttpLimits::default()
    }
}

/// `/slow` never answers; `/long` takes 25 seconds and says every 5 that it gets on.
async fn answer(request: Request<RequestBody>) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    if request.uri().path() == "/slow" {
        std::future::pending::<()>().await;
    }
    if request.uri().path() == "/long" {
        for _ in 0..5 {
            tokio::time::sleep(5 * SECOND).await;
            request.extensions().get::<Progress>().expect("every request has it").made();
        }
    }
    Ok(Response::new(Full::new(Bytes::from_static(b"hello"))))
}

/// A server of one connection, and its other end.
fn serve() -> (DuplexStream, impl Future<Output = ()>, DrainSignal) {
    let (client, server) = tokio::io::duplex(4096);
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let connection = Connection::from_io(server, Peer { address, local: address, tls: false });
    let incoming = incoming_from(futures::stream::iter([connection]).chain(futures::stream::pending()));
    let (signal, drain) = Drain::new();
    (client, serve_http(tower::service_fn(answer), incoming, limits(), drain), signal)
}

/// Sends the parts one second and a half apart, and says when the connection ended, and what was answered.
async fn talk(parts: &[&str]) -> (Duration, String) {
    let (mut client, server, _signal) = serve();
    let start = tokio::time::Instant::now();
    let talk = async {
        let mut text = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                tokio::time::sleep(SECOND + SECOND / 2).await;
            }
            // The server may have closed already.
            let _sent = client.write_all(part.as_bytes()).await;
        }
        let _read = client.read_to_end(&mut text).await;
        (start.elapsed(), String::from_utf8_lossy(&text).into_owned())
    };
    tokio::select! {
        said = talk => said,
        () = server => unreachable!("the server runs until it is drained"),
    }
}

#[tokio::test(start_paused = true)]
async fn slow_clients_lose_their_connection() {
    const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    for (name, parts, end, answers) in [
        ("nothing is sent", vec![], 60.0, 0),
        ("half a head", vec!["GET / HTTP/1.1\r\nhost"], 1.0, 0),
        ("half a head, then the rest too late", vec!["GET / HTTP/1.1\r\n", "host: x\r\n\r\n"], 1.5, 0),
        ("an idle connection after an answer", vec![GET], 60.0, 1),
        ("two requests with a pause longer than a head may take", vec![GET, GET], 61.5, 2),
        ("an answer that takes long and gets on", vec!["GET /long HTTP/1.1\r\nhost: x\r\n\r\n"], 85.0, 1),
        ("no answer in time", vec!["GET /slow HTTP/1.1\r\nhost: x\r\n\r\n"], 10.0, 0),
        ("HTTP/2 without requests", vec!["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"], 20.0, 0),
    ] {
        let (ended, text) = talk(&parts).await;
        let seconds = ended.as_secs_f64();
        assert!(
            (end..end + 0.6).contains(&seconds) || name.starts_with("HTTP/2"),
            "{name}: after {seconds} s"
        );
        assert!(seconds >= end, "{name}: after {seconds} s");
        assert_eq!(text.matches("hello").count(), answers, "{name}: {text}");
    }
}

#[tokio::test]
async fn a_full_listener_says_so() {
    let limits = ListenLimits { max_connections: 1, ..ListenLimits::refusing() };
    let acceptor = TcpAcceptor::bind(([127, 0, 0, 1], 0).into(), "test", limits).await.expect("bound");
    let address = acceptor.local_addr();
    let (signal, drain) = Drain::new();
    let server = serve_http(tower::service_fn(answer), acceptor.plain(), HttpLimits::default(), drain);
    let requests = async {
        let get = async || {
            let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
            stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
            let mut bytes = [0; 400];
            let len = stream.read(&mut bytes).await.expect("answered");
            (stream, String::from_utf8_lossy(&bytes[..len]).into_owned())
        };
        let (first, text) = get().await;
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
        let (_second, text) = get().await;
        assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("too many connections"), "{text}");
        drop(first);
        // The place is free as soon as the server has seen the end of the first connection.
        loop {
            let (_third, text) = get().await;
            if text.starts_with("HTTP/1.1 200 ") {
                break;
            }
        }
        signal.drain();
    };
    let both = async { tokio::join!(server, requests) };
    tokio::time::timeout(20 * SECOND, both).await.expect("in time");
}
