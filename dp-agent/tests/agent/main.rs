//! The built agent against a small control plane and a shell script in Envoy's place: exit codes, signals,
//! files, retries, TLS.

mod harness;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::FileTypeExt as _;
use std::sync::Arc;

use rustix::process::Signal;

use crate::harness::{
    Request, Site, TOKEN, bare_agent, bootstrap_answer, eventually, is_alive, mode, next_request,
    reserve_port, send_signal, serve_tcp,
};

/// An Envoy that is ready and takes every order.
fn mk_ready_admin(_: usize, request: &Request) -> (u16, String) {
    match request.line.as_str() {
        "GET /ready" => (200, "LIVE\n".into()),
        _ => (200, "OK\n".into()),
    }
}

#[test]
fn starts_drains_and_stops() {
    let mut site = Site::new();
    let bootstrap = site.bootstrap();
    let (port, cp) = serve_tcp(None, bootstrap_answer(&bootstrap));
    let admin = site.serve_admin(Box::new(mk_ready_admin));
    let mut agent = site.agent(&format!("http://127.0.0.1:{port}"));
    site.start(agent.args(["--concurrency", "1"]));

    let request = next_request(&cp, "POST /bootstrap");
    assert_eq!(request.header("accept"), Some("application/json"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("host"), Some(format!("127.0.0.1:{port}").as_str()));
    let body: serde_json::Value = serde_json::from_slice(&request.body).expect("is JSON");
    assert_eq!(body["dataplaneToken"], TOKEN);
    assert_eq!(body["workdir"], site.workdir().to_str().expect("is text"));
    assert!(body["dataplaneResource"].as_str().is_some_and(|text| text.contains("web-1")));

    let envoy = site.envoy_pid();
    let file = site.workdir().join("bootstrap.yaml");
    assert_eq!(std::fs::read_to_string(&file).expect("reads"), bootstrap);
    assert_eq!(mode(&file), 0o600);
    let args = std::fs::read_to_string(site.dir.join("args")).expect("reads");
    let file = file.display();
    assert_eq!(
        args.trim(),
        format!(
            "--config-path {file} --drain-time-s 600 --drain-strategy immediate --disable-hot-restart --log-level debug --concurrency 1"
        )
    );
    let pipe = site.workdir().join("kuma-al-web-1-default.sock");
    assert!(std::fs::metadata(&pipe).expect("exists").file_type().is_fifo());
    let live = Some((200, "LIVE\n".to_owned()));
    eventually("is ready", || (site.ready() == live).then_some(()));

    site.signal(Signal::TERM);
    next_request(&admin, "POST /healthcheck/fail");
    let leave = next_request(&cp, "POST /proxies/default/web-1/drain");
    assert_eq!(leave.header("authorization"), Some(TOKEN));
    assert_eq!(site.ready(), Some((503, "TERMINATING".into())));
    assert!(is_alive(envoy));

    site.signal(Signal::INT);
    assert_eq!(site.exit().code(), Some(0), "{}", site.log());
    assert!(!is_alive(envoy));
    assert!(!pipe.exists());
    assert!(!site.log().contains(TOKEN), "the token is in the log");
}

#[test]
fn drain_ends_with_its_time() {
    let mut site = Site::new();
    let (port, _cp) = serve_tcp(None, bootstrap_answer(&site.bootstrap()));
    let _admin = site.serve_admin(Box::new(mk_ready_admin));
    let mut agent = site.agent(&format!("http://127.0.0.1:{port}"));
    site.start(agent.env("GRATICULE_DATAPLANE_RUNTIME_CONCURRENCY", "1").args(["--drain-time", "200ms"]));
    site.envoy_pid();
    site.signal(Signal::TERM);
    assert_eq!(site.exit().code(), Some(0), "{}", site.log());
}

#[test]
fn stops_at_once_when_envoy_takes_no_orders() {
    let mut site = Site::new();
    let (port, _cp) = serve_tcp(None, bootstrap_answer(&site.bootstrap()));
    let mut agent = site.agent(&format!("http://127.0.0.1:{port}"));
    site.start(&mut agent);
    site.envoy_pid();
    site.signal(Signal::TERM);
    assert_eq!(site.exit().code(), Some(0), "{}", site.log());
}

#[test]
fn user_signal_drains_listeners() {
    let mut site = Site::new();
    let (port, _cp) = serve_tcp(None, bootstrap_answer(&site.bootstrap()));
    let admin = site.serve_admin(Box::new(mk_ready_admin));
    let mut agent = site.agent(&format!("http://127.0.0.1:{port}"));
    site.start(&mut agent);
    let envoy = site.envoy_pid();
    site.signal(Signal::USR2);
    next_request(&admin, "POST /drain_listeners?inboundonly&graceful&skip_exit");
    assert_eq!(site.ready(), Some((200, "LIVE\n".into())));
    site.signal(Signal::TERM);
    assert_eq!(site.exit().code(), Some(0), "{}", site.log());
    assert!(!is_alive(envoy));
    assert!(admin.try_iter().all(|request| request.line != "POST /healthcheck/fail"));
}

#[test]
fn shares_envoys_fate() {
    for (script, signal, code) in
        [("exit 0", None, 0), ("exit 3", None, 1), ("exec sleep 600", Some(Signal::KILL), 1)]
    {
        let mut site = Site::new();
        site.envoy_does(script);
        let (port, _cp) = serve_tcp(None, bootstrap_answer(&site.bootstrap()));
        let mut agent = site.agent(&format!("http://127.0.0.1:{port}"));
        site.start(&mut agent);
        let envoy = site.envoy_pid();
        if let Some(signal) = signal {
            send_signal(envoy, signal);
        }
        assert_eq!(site.exit().code(), Some(code), "{script}: {}", site.log());
    }
}

#[test]
fn envoy_dies_with_the_agent() {
    let mut site = Site::new();
    let (port, _cp) = serve_tcp(None, bootstrap_answer(&site.bootstrap()));
    let mut agent = site.agent(&format!("http://127.0.0.1:{port}"));
    site.start(&mut agent);
    let envoy = site.envoy_pid();
    site.signal(Signal::KILL);
    site.exit();
    eventually("Envoy dies", || (!is_alive(envoy)).then_some(()));
}

#[test]
fn failures_are_explained() {
    let (port, _cp) = serve_tcp(None, Box::new(|_, _| (422, "Dataplane Token is required".into())));
    let url = format!("http://127.0.0.1:{port}");
    type Change = fn(&Site, &mut std::process::Command);
    let cases: [(&str, Change); 7] = [
        ("invalid request: Dataplane Token is required", |_, _| {}),
        ("not a JWT", |site, _| std::fs::write(site.dir.join("token"), "word").expect("writes")),
        ("variable \"nmae\" has no value", |site, _| {
            std::fs::write(site.dir.join("dp.yaml"), "name: {{ nmae }}").expect("writes");
        }),
        ("name: invalid characters", |site, _| {
            let text = harness::DATAPLANE.replace("web-1", "Web_1");
            std::fs::write(site.dir.join("dp.yaml"), text).expect("writes");
        }),
        ("--binary-path", |_, agent| {
            agent.args(["--binary-path", "/nowhere/envoy"]);
        }),
        ("is this Envoy?", |_, agent| {
            agent.args(["--binary-path", "/bin/echo"]);
        }),
        ("--transparent-proxy is not available", |_, agent| {
            agent.arg("--transparent-proxy");
        }),
    ];
    for (part, change) in cases {
        let mut site = Site::new();
        let mut agent = site.agent(&url);
        change(&site, &mut agent);
        site.start(&mut agent);
        assert_eq!(site.exit().code(), Some(1), "{part}");
        assert!(site.log().contains(part), "{part}: {}", site.log());
    }
}

#[test]
fn retries_until_the_control_plane_is_there() {
    let mut site = Site::new();
    let mut good = bootstrap_answer(&site.bootstrap());
    let (port, cp) = serve_tcp(
        None,
        Box::new(move |number, request| match number {
            0 => (404, String::new()),
            1 => (404, "404: Page Not Found".into()),
            2 => (500, String::new()),
            3 => (200, "{}".into()),
            _ => good(number, request),
        }),
    );
    let mut agent = site.agent(&format!("http://127.0.0.1:{port}"));
    site.start(&mut agent);
    site.envoy_pid();
    for _ in 0..5 {
        next_request(&cp, "POST /bootstrap");
    }
    assert!(site.log().contains("5678 by default"), "{}", site.log());
}

#[test]
fn gives_up_or_stops_while_retrying() {
    let (_closed, port) = reserve_port();
    let url = format!("http://127.0.0.1:{port}");
    let mut site = Site::new();
    let mut agent = site.agent(&url);
    site.start(agent.env("GRATICULE_CONTROL_PLANE_RETRY_MAX_DURATION", "100ms"));
    assert_eq!(site.exit().code(), Some(1));
    assert!(site.log().contains("no bootstrap configuration within 100ms"), "{}", site.log());

    let mut site = Site::new();
    let mut agent = site.agent(&url);
    site.start(&mut agent);
    eventually("a retry", || site.log().contains("trying again").then_some(()));
    site.signal(Signal::TERM);
    assert_eq!(site.exit().code(), Some(0), "{}", site.log());
}

/// A server's TLS configuration and the PEM that a client should trust.
fn mk_tls(self_signed: bool) -> (Arc<rustls::ServerConfig>, String) {
    let mut ca = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).expect("builds");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().expect("generates");
    let ca_cert = ca.self_signed(&ca_key).expect("signs");
    let (cert, key) = if self_signed {
        (ca_cert.der().clone(), ca_key)
    } else {
        let key = rcgen::KeyPair::generate().expect("generates");
        let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).expect("builds");
        let issuer = rcgen::Issuer::from_params(&ca, &ca_key);
        (leaf.signed_by(&key, &issuer).expect("signs").der().clone(), key)
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .expect("takes the certificate");
    (Arc::new(config), ca_cert.pem())
}

#[test]
fn tls() {
    let (_, other_pem) = mk_tls(true);
    for (name, self_signed, host, given, good) in [
        ("its own certificate", true, "127.0.0.1", Some(None), true),
        ("its authority", false, "127.0.0.1", Some(None), true),
        ("another authority", false, "127.0.0.1", Some(Some(other_pem.clone())), false),
        ("another host", true, "localhost", Some(None), false),
        ("no verification", true, "localhost", None, true),
    ] {
        let mut site = Site::new();
        let (config, pem) = mk_tls(self_signed);
        let (port, _cp) = serve_tcp(Some(config), bootstrap_answer(&site.bootstrap()));
        let mut agent = site.agent(&format!("https://{host}:{port}"));
        agent.env("GRATICULE_CONTROL_PLANE_RETRY_MAX_DURATION", if good { "10s" } else { "100ms" });
        match given {
            None => agent.arg("--skip-verify"),
            Some(other) => {
                std::fs::write(site.dir.join("ca.pem"), other.unwrap_or(pem)).expect("writes");
                agent.arg("--ca-cert-file").arg(site.dir.join("ca.pem"))
            }
        };
        site.start(&mut agent);
        if good {
            site.envoy_pid();
        } else {
            assert_eq!(site.exit().code(), Some(1), "{name}");
            assert!(site.log().contains("certificate"), "{name}: {}", site.log());
        }
    }
}

#[test]
fn access_logs_are_sent_on() {
    let mut site = Site::new();
    let (port, _cp) = serve_tcp(None, bootstrap_answer(&site.bootstrap()));
    let mut agent = site.agent(&format!("http://127.0.0.1:{port}"));
    site.start(&mut agent);
    site.envoy_pid();
    let sink = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = sink.local_addr().expect("has an address");
    let mut pipe = std::fs::OpenOptions::new()
        .write(true)
        .open(site.workdir().join("kuma-al-web-1-default.sock"))
        .expect("opens");
    let lines = format!(
        "garbage\n{{\"address\":\"{address}\",\"message\":\"one\\n\"}}\n{{\"address\":\"{address}\",\"message\":{{\"two\":2}}}}\n"
    );
    pipe.write_all(lines.as_bytes()).expect("writes");
    let (mut connection, _) = sink.accept().expect("accepts");
    let mut got = [0; 14];
    connection.read_exact(&mut got).expect("reads");
    assert_eq!(std::str::from_utf8(&got), Ok("one\n{\"two\":2}\n"));
}

#[test]
fn wait_command() {
    let (port, _requests) =
        serve_tcp(None, Box::new(|number, _| (if number < 2 { 503 } else { 200 }, String::new())));
    let wait = |args: &[&str]| {
        let output = bare_agent().arg("wait").args(args).output().expect("runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let url = format!("http://127.0.0.1:{port}/ready");
    let (code, log) = wait(&["--url", &url, "--check-frequency", "10ms", "--timeout", "10s"]);
    assert_eq!(code, Some(0), "{log}");

    let site = Site::new();
    let _admin = site.serve_admin(Box::new(mk_ready_admin));
    let socket = site.workdir().join("kuma-envoy-admin.sock");
    let (code, log) = wait(&["--unix-socket", socket.to_str().expect("is text")]);
    assert_eq!(code, Some(0), "{log}");

    let (_closed, port) = reserve_port();
    for (args, part) in [
        (vec!["--url", "http://example.com/ready"], "must be loopback"),
        (vec!["--url", "https://localhost/ready"], "http://"),
    ] {
        let (code, log) = wait(&args);
        assert_eq!(code, Some(1));
        assert!(log.contains(part), "{log}");
    }
    let url = format!("http://127.0.0.1:{port}/ready");
    let (code, log) = wait(&["--url", &url, "--check-frequency", "10ms", "--timeout", "50ms"]);
    assert_eq!(code, Some(1));
    assert!(log.contains("not ready within 50ms"), "{log}");
}
