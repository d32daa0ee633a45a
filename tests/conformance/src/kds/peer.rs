//! The ends of sync streams that a replay holds: everything that is heard is kept, in order.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::Status;

/// Messages that wait to be sent.
pub(super) const QUEUE_LEN: usize = 256;

/// One end of a stream: `Out` is sent, `In` is heard.
#[derive(Debug)]
pub(super) struct Peer<Out, In> {
    out: mpsc::Sender<Out>,
    heard: Arc<Mutex<Heard<In>>>,
    reader: JoinHandle<()>,
}

#[derive(Debug)]
struct Heard<In> {
    messages: Vec<In>,
    ended: Option<Option<Status>>,
}

impl<Out: Send + 'static, In: Clone + Send + 'static> Peer<Out, In> {
    /// What is sent goes to `out`; `opening` gives what is heard.
    pub(super) fn new<S, Opening>(out: mpsc::Sender<Out>, opening: Opening) -> Peer<Out, In>
    where
        Opening: Future<Output = Result<S, Status>> + Send + 'static,
        S: Stream<Item = Result<In, Status>> + Send + Unpin + 'static,
    {
        let heard = Arc::new(Mutex::new(Heard { messages: Vec::new(), ended: None }));
        let kept = heard.clone();
        #[expect(clippy::disallowed_methods, reason = "ends with the peer that holds it")]
        let reader = tokio::spawn(async move {
            let ended = match opening.await {
                Ok(mut stream) => loop {
                    match stream.next().await {
                        Some(Ok(message)) => kept.lock().messages.push(message),
                        Some(Err(status)) => break Some(status),
                        None => break None,
                    }
                },
                Err(status) => Some(status),
            };
            kept.lock().ended = Some(ended);
        });
        Peer { out, heard, reader }
    }

    /// Sends a message.
    pub(super) async fn send(&self, message: Out) -> Result<()> {
        self.out.send(message).await.ok().context("the stream has ended")
    }

    /// What was heard after the first `skip` messages.
    pub(super) fn heard(&self, skip: usize) -> Vec<In> {
        self.heard.lock().messages.get(skip..).unwrap_or_default().to_vec()
    }

    /// How the stream ended, once it has.
    pub(super) fn ended(&self) -> Option<String> {
        let heard = self.heard.lock();
        let ended = heard.ended.as_ref()?;
        Some(
            ended.as_ref().map_or_else(
                || "OK".to_owned(),
                |status| format!("{:?}: {}", status.code(), status.message()),
            ),
        )
    }
}

impl<Out, In> Drop for Peer<Out, In> {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
