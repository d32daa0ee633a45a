//! The built application: what it answers, and how it ends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

fn start(args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_demo-app")).args(args).stderr(Stdio::piped()).spawn().expect("starts")
}

fn stderr(child: &mut Child) -> BufReader<std::process::ChildStderr> {
    BufReader::new(child.stderr.take().expect("is piped"))
}

#[test]
fn answers_and_stops() {
    let mut app = start(&["--port", "0", "--name", "echo-1", "--zone", "west"]);
    let mut log = stderr(&mut app);
    let mut line = String::new();
    log.read_line(&mut line).expect("says where it listens");
    let address: SocketAddr =
        line.trim().rsplit_once("http://").expect("has a URL").1.parse().expect("is an address");

    let mut stream = TcpStream::connect(address).expect("connects");
    let request = "PUT /a?b=c HTTP/1.1\r\nHost: x\r\nX-Tag: one\r\nX-TAG: two\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("writes");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("reads");
    let (head, body) = text.split_once("\r\n\r\n").expect("has a body");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("x-demo-instance: echo-1"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    let expected = json!({
        "name": "echo-1",
        "zone": "west",
        "path": "/a?b=c",
        "method": "PUT",
        "headers": {"host": "x", "x-tag": "one, two", "connection": "close"},
    });
    assert_eq!(serde_json::from_str::<Value>(body).expect("is JSON"), expected);

    // A connection that is kept open does not hold up the end.
    let mut kept = TcpStream::connect(address).expect("connects");
    kept.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("writes");
    kept.read_exact(&mut [0; 12]).expect("reads");
    Command::new("kill").arg(app.id().to_string()).status().expect("signals");
    assert_eq!(app.wait().expect("ends").code(), Some(0));
    let mut rest = String::new();
    log.read_to_string(&mut rest).expect("reads");
    assert_eq!(rest, "");
}

#[test]
fn a_taken_port_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = taken.local_addr().expect("has an address");
    let mut app = start(&["--port", &address.port().to_string(), "--name", "echo-1"]);
    let mut log = String::new();
    stderr(&mut app).read_to_string(&mut log).expect("reads");
    assert_eq!(app.wait().expect("ends").code(), Some(1));
    assert!(log.contains(&format!("cannot listen on {address}")), "{log}");
}
