//! A small control plane, a small Envoy admin interface and a shell script in Envoy's place, for one agent.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use base64::Engine as _;
use rustix::net;
use rustix::process::{Pid, Signal};

const DEADLINE: Duration = Duration::from_secs(30);
pub(crate) const DATAPLANE: &str = "{type: Dataplane, mesh: default, name: web-1, \
    networking: {address: 127.0.0.1, inbound: [{port: 8080, protocol: http}]}}";
/// A token in form only.
pub(crate) const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.e30.c2ln";

#[derive(Debug)]
pub(crate) struct Request {
    /// Method and path.
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Status and body of an answer to a request; the number counts requests from 0.
type Answer = Box<dyn FnMut(usize, &Request) -> (u16, String) + Send>;

fn serve<S: Read + Write>(stream: S, number: usize, answer: &mut Answer) -> Option<Request> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).ok()?;
        let Some((key, value)) = header.trim_end().split_once(": ") else { break };
        headers.push((key.to_ascii_lowercase(), value.to_owned()));
    }
    let mut request = Request { line, headers, body: Vec::new() };
    let len = request.header("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
    request.body.resize(len, 0);
    stream.read_exact(&mut request.body).ok()?;
    let (status, body) = answer(number, &request);
    let stream = stream.get_mut();
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).ok()?;
    stream.flush().ok()?;
    Some(request)
}

/// Serves HTTP or HTTPS on a free port: the port, and every request that was answered.
pub(crate) fn serve_tcp(
    tls: Option<Arc<rustls::ServerConfig>>,
    mut answer: Answer,
) -> (u16, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = listener.local_addr().expect("has an address").port();
    let (seen, requests) = channel();
    std::thread::spawn(move || {
        let mut number = 0;
        for stream in listener.incoming() {
            let stream: TcpStream = stream.expect("accepts");
            let request = match &tls {
                None => serve(stream, number, &mut answer),
                Some(config) => {
                    let session = rustls::ServerConnection::new(config.clone()).expect("starts TLS");
                    let mut stream = rustls::StreamOwned::new(session, stream);
                    let request = serve(&mut stream, number, &mut answer);
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                    request
                }
            };
            if let Some(request) = request {
                number += 1;
                if seen.send(request).is_err() {
                    return;
                }
            }
        }
    });
    (port, requests)
}

/// A control plane that gives everybody this bootstrap configuration, and 404 for anything else.
pub(crate) fn bootstrap_answer(bootstrap: &str) -> Answer {
    let body = serde_json::json!({
        "bootstrap": base64::engine::general_purpose::STANDARD.encode(bootstrap),
        "kumaSidecarConfiguration": {"networking": {"address": "127.0.0.1"}, "metrics": {"aggregate": null}},
    })
    .to_string();
    Box::new(move |_, request| match request.line.as_str() {
        "POST /bootstrap" => (200, body.clone()),
        _ => (404, "404 page not found\n".into()),
    })
}

/// A port that nobody listens on and nobody else is given, as long as the socket lives. The agent may take it.
pub(crate) fn reserve_port() -> (OwnedFd, u16) {
    let socket = net::socket(net::AddressFamily::INET, net::SocketType::STREAM, None).expect("opens");
    net::sockopt::set_socket_reuseaddr(&socket, true).expect("sets the option");
    net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("binds");
    let address = net::getsockname(&socket).expect("has an address");
    let address = SocketAddr::try_from(address).expect("is an address of TCP");
    (socket, address.port())
}

/// A directory with everything around one agent; what runs in it ends with it.
pub(crate) struct Site {
    pub(crate) dir: PathBuf,
    pub(crate) readiness_port: u16,
    _readiness_socket: OwnedFd,
    agent: Option<Child>,
}

impl Site {
    pub(crate) fn new() -> Site {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("gr-agent-{}-{number}", std::process::id()));
        std::fs::create_dir_all(dir.join("run")).expect("creates");
        std::fs::write(dir.join("token"), TOKEN).expect("writes");
        std::fs::write(dir.join("dp.yaml"), DATAPLANE).expect("writes");
        let (readiness_socket, readiness_port) = reserve_port();
        let site = Site { dir, readiness_port, _readiness_socket: readiness_socket, agent: None };
        site.envoy_does("exec sleep 600");
        site
    }

    /// What the program in Envoy's place does after it has written down its arguments and process id.
    pub(crate) fn envoy_does(&self, script: &str) {
        let path = self.dir.join("envoy");
        let text = format!(
            "#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'envoy  version: abc/1.39.3/Clean/RELEASE/BoringSSL'; exit 0; fi\n\
             echo \"$@\" > {dir}/args\necho $$ > {dir}/pid.new\nmv {dir}/pid.new {dir}/pid\n{script}\n",
            dir = self.dir.display()
        );
        std::fs::write(&path, text).expect("writes");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("sets the mode");
    }

    pub(crate) fn workdir(&self) -> PathBuf {
        self.dir.join("run")
    }

    pub(crate) fn bootstrap(&self) -> String {
        format!("admin:\n  address: {{pipe: {{path: {}/kuma-envoy-admin.sock}}}}\n", self.workdir().display())
    }

    /// Answers in the place of Envoy's admin interface.
    pub(crate) fn serve_admin(&self, mut answer: Answer) -> Receiver<Request> {
        let listener = UnixListener::bind(self.workdir().join("kuma-envoy-admin.sock")).expect("binds");
        let (seen, requests) = channel();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                if let Some(request) = serve(stream.expect("accepts"), number, &mut answer)
                    && seen.send(request).is_err()
                {
                    return;
                }
            }
        });
        requests
    }

    /// An agent with everything that it needs, still to be started.
    pub(crate) fn agent(&self, cp_url: &str) -> Command {
        let mut command = bare_agent();
        command
            .arg("run")
            .args(["--cp-address", cp_url, "--drain-time", "600s"])
            .arg("--dataplane-file")
            .arg(self.dir.join("dp.yaml"))
            .arg("--dataplane-token-file")
            .arg(self.dir.join("token"))
            .arg("--binary-path")
            .arg(self.dir.join("envoy"))
            .arg("--work-dir")
            .arg(self.workdir())
            .env("GRATICULE_READINESS_PORT", self.readiness_port.to_string())
            .env("GRATICULE_CONTROL_PLANE_RETRY_BACKOFF", "10ms");
        command
    }

    pub(crate) fn start(&mut self, command: &mut Command) {
        let log = std::fs::File::create(self.dir.join("log")).expect("creates");
        self.agent = Some(command.stderr(log).spawn().expect("starts"));
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// The process id of Envoy once it runs.
    pub(crate) fn envoy_pid(&self) -> u32 {
        eventually(&format!("Envoy runs; log: {}", self.log()), || {
            std::fs::read_to_string(self.dir.join("pid")).ok()?.trim().parse().ok()
        })
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send_signal(self.agent.as_ref().expect("is started").id(), signal);
    }

    pub(crate) fn exit(&mut self) -> ExitStatus {
        let log = self.dir.join("log");
        let agent = self.agent.as_mut().expect("is started");
        eventually(&format!("the agent ends, see {}", log.display()), || agent.try_wait().expect("waits"))
    }

    /// Status and body of the agent's readiness answer; `None` while nobody answers.
    pub(crate) fn ready(&self) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.readiness_port)).ok()?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nhost: localhost\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(agent) = &mut self.agent {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The agent in an environment without any setting.
pub(crate) fn bare_agent() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dp-agent"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(["--log-level", "debug"]).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

pub(crate) fn send_signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("is a process id");
    rustix::process::kill_process(pid, signal).expect("signals");
}

/// True until the process has ended (a zombie has).
pub(crate) fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ").map(|(_, rest)| !rest.starts_with(['Z', 'X'])))
        .unwrap_or(false)
}

/// Asks again and again until there is an answer.
#[expect(clippy::disallowed_methods, reason = "a test has no other clock than the real one")]
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "did not happen: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// The next request with this first line.
pub(crate) fn next_request(requests: &Receiver<Request>, line: &str) -> Request {
    loop {
        let request = requests.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("no request {line}"));
        if request.line == line {
            return request;
        }
    }
}

/// Mode bits of a file.
pub(crate) fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("exists").permissions().mode() & 0o777
}
