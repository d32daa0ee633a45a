//! TCP access logs: Envoy writes JSON lines to a named pipe, the agent sends each to its address
//! (dataplane-agent.md §3.12). Logs are never retried: a line that cannot be sent is dropped and counted.

use std::collections::HashMap;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{CWD, Mode};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Longest line, in bytes; the rest of a longer one is skipped with it.
const LINE_LEN_MAX: usize = 256 * 1024;
/// Addresses that are sent to at the same time.
const ADDRESSES_MAX: usize = 32;
/// Lines that wait for one address.
const QUEUE_LEN_MAX: usize = 256;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection without lines for so long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Why there are no access logs.
#[derive(Debug, thiserror::Error)]
#[error("the access log pipe {path} cannot be used")]
pub(crate) struct Error {
    path: String,
    #[source]
    source: std::io::Error,
}

/// The named pipe; removed when dropped.
#[derive(Debug)]
pub(crate) struct Pipe {
    path: PathBuf,
    reader: Option<pipe::Receiver>,
}

impl Pipe {
    /// Makes the pipe anew and opens it. Must happen before Envoy opens it.
    pub(crate) fn create(path: PathBuf) -> Result<Pipe, Error> {
        let fail = |source| Error { path: path.display().to_string(), source };
        remove_leftover(&path).map_err(fail)?;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
        rustix::fs::mkfifoat(CWD, &path, mode).map_err(|error| fail(error.into()))?;
        // For writing too: else every writer that closes the pipe would be its end.
        let reader = pipe::OpenOptions::new().read_write(true).open_receiver(&path).map_err(fail)?;
        Ok(Pipe { reader: Some(reader), path })
    }

    /// Sends lines on for ever; ends only when the pipe breaks.
    pub(crate) async fn stream(&mut self) -> Result<(), Error> {
        let Some(reader) = self.reader.take() else { return Ok(()) };
        let mut reader = BufReader::new(reader);
        let mut senders = Senders::default();
        let mut line = Vec::new();
        loop {
            let whole = read_line(&mut reader, &mut line)
                .await
                .map_err(|source| Error { path: self.path.display().to_string(), source })?;
            match whole {
                Line::Read => match parse_line(&line) {
                    Some((address, message)) => senders.send(address, message),
                    None => {
                        tracing::debug!(len = line.len(), "a line in the access log pipe names no address")
                    }
                },
                Line::TooLong => {
                    tracing::warn!("an access log line longer than {LINE_LEN_MAX} bytes was dropped")
                }
                Line::End => return Ok(()),
            }
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the access log pipe");
        }
    }
}

/// Removes the pipe of an earlier run. Anything else at its place is somebody else's.
fn remove_leftover(path: &Path) -> std::io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if metadata.file_type().is_fifo() => std::fs::remove_file(path),
        Ok(_) => {
            Err(std::io::Error::new(std::io::ErrorKind::AlreadyExists, "something else is in its place"))
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    Read,
    TooLong,
    End,
}

async fn read_line<R: tokio::io::AsyncBufRead + Unpin>(
    reader: &mut R,
    line: &mut Vec<u8>,
) -> std::io::Result<Line> {
    line.clear();
    let mut too_long = false;
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return Ok(Line::End);
        }
        let (len, ended) = match available.iter().position(|byte| *byte == b'\n') {
            Some(position) => (position + 1, true),
            None => (available.len(), false),
        };
        too_long |= line.len() + len > LINE_LEN_MAX;
        if !too_long {
            line.extend_from_slice(&available[..len]);
        }
        reader.consume(len);
        if ended {
            return Ok(if too_long { Line::TooLong } else { Line::Read });
        }
    }
}

/// Address and message of a line: JSON `{"address", "message"}`, or the older `address;message`.
fn parse_line(line: &[u8]) -> Option<(String, Bytes)> {
    let (address, message) = match serde_json::from_slice::<Value>(line) {
        Ok(mut entry) => {
            let address = entry.get("address")?.as_str()?.to_owned();
            let message = match entry.get_mut("message")?.take() {
                Value::String(text) => text,
                object @ Value::Object(_) => format!("{object}\n"),
                _ => return None,
            };
            (address, message)
        }
        Err(_) => {
            let (address, message) = std::str::from_utf8(line).ok()?.split_once(';')?;
            (address.to_owned(), message.to_owned())
        }
    };
    let (host, port) = address.rsplit_once(':')?;
    (!host.is_empty() && port.parse::<u16>().is_ok()).then(|| (address, message.into()))
}

/// One sending task for each address, so that a dead one does not hold up the others.
#[derive(Default)]
struct Senders {
    queues: HashMap<String, mpsc::Sender<Bytes>>,
    tasks: JoinSet<()>,
    dropped: u64,
}

impl Senders {
    fn send(&mut self, address: String, message: Bytes) {
        while self.tasks.try_join_next().is_some() {}
        self.queues.retain(|_, queue| !queue.is_closed());
        if !self.queues.contains_key(&address) {
            if self.queues.len() >= ADDRESSES_MAX {
                return self.drop_line(&address, "too many addresses");
            }
            let (queue, lines) = mpsc::channel(QUEUE_LEN_MAX);
            self.tasks.spawn(send_lines(address.clone(), lines));
            self.queues.insert(address.clone(), queue);
        }
        let full = self.queues.get(&address).is_some_and(|queue| queue.try_send(message).is_err());
        if full {
            self.drop_line(&address, "it does not take lines as fast as they come");
        }
    }

    fn drop_line(&mut self, address: &str, reason: &str) {
        self.dropped += 1;
        // 1, 2, 4, 8, …: says how bad it is without flooding the log.
        if self.dropped.is_power_of_two() {
            tracing::warn!(address, dropped = self.dropped, reason, "access log lines were dropped");
        }
    }
}

async fn send_lines(address: String, mut lines: mpsc::Receiver<Bytes>) {
    let mut connection: Option<TcpStream> = None;
    let mut dropped: u64 = 0;
    loop {
        let line = match tokio::time::timeout(IDLE_TIMEOUT, lines.recv()).await {
            Ok(Some(line)) => line,
            Ok(None) | Err(_) => return,
        };
        if let Err(error) = send_line(&address, &mut connection, &line).await {
            connection = None;
            dropped += 1;
            if dropped.is_power_of_two() {
                tracing::warn!(address, dropped, %error, "an access log line could not be sent and was dropped");
            }
        }
    }
}

async fn send_line(address: &str, connection: &mut Option<TcpStream>, line: &[u8]) -> std::io::Result<()> {
    let timed_out = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
    let stream = match connection {
        Some(stream) => stream,
        None => {
            let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
                .await
                .map_err(timed_out)??;
            connection.insert(stream)
        }
    };
    tokio::time::timeout(SEND_TIMEOUT, stream.write_all(line)).await.map_err(timed_out)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        for (line, expected) in [
            (r#"{"address":"log:80","message":"a\n"}"#, Some(("log:80", "a\n"))),
            (r#"{"address":"[::1]:80","message":{"b":1}}"#, Some(("[::1]:80", "{\"b\":1}\n"))),
            ("log:80;a;b\n", Some(("log:80", "a;b\n"))),
            (r#"{"address":"log:80"}"#, None),
            (r#"{"address":"log","message":"a"}"#, None),
            (r#"{"address":":80","message":"a"}"#, None),
            (r#"{"address":"log:80","message":1}"#, None),
            ("nothing", None),
            ("", None),
        ] {
            let got = parse_line(line.as_bytes());
            let got = got.as_ref().map(|(address, message)| (address.as_str(), &message[..]));
            assert_eq!(got, expected.map(|(address, message)| (address, message.as_bytes())), "{line}");
        }
    }

    #[tokio::test]
    async fn long_lines_are_skipped_whole() {
        let text = format!("{}\nshort\nrest", "x".repeat(LINE_LEN_MAX + 10));
        let mut reader = BufReader::new(text.as_bytes());
        let mut line = Vec::new();
        assert_eq!(read_line(&mut reader, &mut line).await.expect("reads"), Line::TooLong);
        assert_eq!(read_line(&mut reader, &mut line).await.expect("reads"), Line::Read);
        assert_eq!(line, b"short\n");
        assert_eq!(read_line(&mut reader, &mut line).await.expect("reads"), Line::End);
    }
}
