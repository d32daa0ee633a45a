//! The two ends of a sync stream that a replay plays: what it has said, what it was told, what the recording says
//! that it should have been told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use graticule_proto::discovery::{DeltaDiscoveryRequest, Node};
use graticule_testkit::wait;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::differences::Meant;
use super::recording::Message;
use super::state::{State, fold, fold_recorded};
use super::transport::{Sink, Source};
use crate::compare::{Bindings, Difference, Found, compare};

/// How long our side may take for anything, on a machine that has other things to do.
const LIMIT: Duration = Duration::from_secs(30);

/// What is recorded next.
#[derive(Debug, Default)]
pub(super) struct Next {
    /// By kind: responses, before the played side says anything about that kind.
    pub(super) responses: BTreeMap<String, Vec<Message>>,
    /// Kinds of which the played side refuses the next response.
    pub(super) refused: BTreeSet<String>,
}

/// Which responses of ours are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answers {
    /// Those that the recording answers, as it does, and those that it does not have.
    Recorded,
    /// Each one as it comes: a global that never refuses anything. Ours may say in more responses than the recorded
    /// zone what is recorded, or later than the recorded answer, and sends the next one of a kind when the last one
    /// is answered.
    All,
}

/// Asks for resources and takes them.
#[derive(Debug)]
pub(super) struct SinkSide {
    peer: Sink,
    answers: Answers,
    /// Goes by this name where the recording has another.
    node: String,
    read: usize,
    ours: State,
    expected: State,
    /// Kinds of which something came since the last comparison.
    changed: BTreeSet<String>,
    /// Responses of ours that were not answered: nonces by kind.
    unanswered: BTreeMap<String, Vec<String>>,
    /// As many recorded ones.
    awaited: BTreeMap<String, usize>,
    recorded_nonces: BTreeSet<String>,
    problem: Option<String>,
    versions: Versions,
    /// Versions by name, in our last response that had one.
    own_versions: BTreeMap<String, String>,
    recorded_versions: BTreeMap<String, String>,
}

/// What ours calls a recorded version of a name; outlives the streams.
pub(super) type Versions = Arc<Mutex<BTreeMap<(String, String), String>>>;

impl SinkSide {
    pub(super) fn new(peer: Sink, node: &str, versions: Versions, answers: Answers) -> SinkSide {
        SinkSide {
            peer,
            answers,
            node: node.into(),
            read: 0,
            ours: State::new(),
            expected: State::new(),
            changed: BTreeSet::new(),
            unanswered: BTreeMap::new(),
            awaited: BTreeMap::new(),
            recorded_nonces: BTreeSet::new(),
            problem: None,
            versions,
            own_versions: BTreeMap::new(),
            recorded_versions: BTreeMap::new(),
        }
    }

    /// How the stream ended, once it has.
    pub(super) fn ended(&self) -> Option<String> {
        self.peer.ended()
    }

    /// Sends a recorded request: the first one of a kind, or the answer to a response.
    pub(super) async fn say(&mut self, message: &Message) -> Result<()> {
        let mut request = message.to_request()?;
        if let Some(node) = &mut request.node {
            node.id.clone_from(&self.node);
        }
        let Some(nonce) = message.response_nonce() else {
            self.present(&mut request);
            return self.peer.send(request).await;
        };
        let kind = message.kind();
        if let Some(awaited) = self.awaited.get_mut(kind) {
            *awaited = awaited.saturating_sub(1);
        }
        if !self.recorded_nonces.contains(nonce) {
            // Wrong on purpose.
            self.unanswered.remove(kind);
            return self.peer.send(request).await;
        }
        if message.error().is_some() {
            self.unanswered_of(kind).await?;
        }
        self.read();
        let mut open = self.unanswered.remove(kind).unwrap_or_default();
        // Where ours says in one response what the recording has in two, there is nothing left to acknowledge.
        let Some(last) = open.pop() else { return Ok(()) };
        for nonce in open {
            self.acknowledge(kind, nonce).await?;
        }
        request.response_nonce = last;
        self.peer.send(request).await
    }

    /// A zone or global that says what it holds is not sent it again. Where the recording presents the version
    /// that was sent there, what ours sent is presented.
    fn present(&mut self, request: &mut DeltaDiscoveryRequest) {
        let known = self.versions.lock();
        for (name, version) in &mut request.initial_resource_versions {
            if let Some(ours) = known.get(&(name.clone(), version.clone())) {
                version.clone_from(ours);
            }
            let marked = json!("<presented>");
            self.ours.entry(request.type_url.clone()).or_default().insert(name.clone(), marked.clone());
            self.expected.entry(request.type_url.clone()).or_default().insert(name.clone(), marked);
        }
    }

    async fn acknowledge(&self, kind: &str, nonce: String) -> Result<()> {
        let node = Some(Node { id: self.node.clone(), ..Node::default() });
        let request = DeltaDiscoveryRequest {
            node,
            type_url: kind.into(),
            response_nonce: nonce,
            ..DeltaDiscoveryRequest::default()
        };
        self.peer.send(request).await
    }

    /// Waits for a response of a kind that was not answered.
    async fn unanswered_of(&mut self, kind: &str) -> Result<()> {
        let start = wait::now();
        loop {
            self.read();
            if self.unanswered.get(kind).is_some_and(|open| !open.is_empty()) {
                return Ok(());
            }
            if start.elapsed() > LIMIT {
                bail!("{kind}: no response came that could be answered");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The recording says that this came.
    pub(super) fn expect(&mut self, message: &Message) {
        fold_recorded(&mut self.expected, message);
        self.recorded_nonces.insert(message.nonce().into());
        for item in message.decoded["resources"].as_array().into_iter().flatten() {
            if let (Some(name), Some(version)) = (item["name"].as_str(), item["version"].as_str()) {
                self.recorded_versions.insert(name.into(), version.into());
            }
        }
        *self.awaited.entry(message.kind().into()).or_default() += 1;
        self.changed.insert(message.kind().into());
    }

    /// Takes what came.
    fn read(&mut self) {
        for response in self.peer.heard(self.read) {
            self.read += 1;
            if let Err(problem) = fold(&mut self.ours, &response) {
                self.problem.get_or_insert(format!("{}: {problem}", response.type_url));
            }
            let sent = response.resources.iter().map(|item| (item.name.clone(), item.version.clone()));
            self.own_versions.extend(sent);
            self.unanswered.entry(response.type_url).or_default().push(response.nonce);
        }
    }

    /// Waits until what came is what the recording says, but for what is `meant` to differ; gives the kinds that were
    /// compared and the differences that stay. Ours may be ahead by what is recorded `next`: the reference waits for
    /// a tick.
    pub(super) async fn settle(
        &mut self,
        next: &Next,
        meant: &Meant,
    ) -> Result<Vec<(String, Vec<Difference>)>> {
        let start = wait::now();
        loop {
            self.read();
            self.answer_all().await;
            let kinds: BTreeSet<String> =
                self.ours.keys().chain(self.expected.keys()).chain(&self.changed).cloned().collect();
            let compared: Vec<(String, Vec<Difference>)> =
                kinds.iter().map(|kind| (kind.clone(), self.differences(kind, next))).collect();
            if meant.is_all(&compared) || start.elapsed() > LIMIT || self.ended().is_some() {
                let is_shown = |(kind, differences): &(String, Vec<Difference>)| {
                    self.changed.contains(kind) || !differences.is_empty()
                };
                let compared: Vec<_> = compared.into_iter().filter(is_shown).collect();
                self.changed.clear();
                self.learn_versions();
                for (kind, _) in compared.iter().filter(|(_, differences)| !differences.is_empty()) {
                    self.take_as_recorded(kind, next);
                }
                if let Some(problem) = self.problem.take() {
                    bail!(problem);
                }
                return Ok(compared);
            }
            self.acknowledge_more(next).await?;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn learn_versions(&self) {
        let mut known = self.versions.lock();
        for (name, recorded) in &self.recorded_versions {
            if let Some(own) = self.own_versions.get(name) {
                known.insert((name.clone(), recorded.clone()), own.clone());
            }
        }
    }

    /// Answers whatever came. A stream that ended answers nothing, which shows in what is compared.
    async fn answer_all(&mut self) {
        if self.answers == Answers::Recorded {
            return;
        }
        for (kind, nonces) in std::mem::take(&mut self.unanswered) {
            for nonce in nonces {
                let _sent = self.acknowledge(&kind, nonce).await;
            }
        }
    }

    /// Answers responses of ours that the recording does not have, or that came later than their recorded answer, so that
    /// more can come.
    async fn acknowledge_more(&mut self, next: &Next) -> Result<()> {
        let free: Vec<String> = self
            .unanswered
            .keys()
            .filter(|kind| self.awaited.get(*kind).is_none_or(|count| *count == 0))
            .filter(|kind| !next.refused.contains(*kind))
            .cloned()
            .collect();
        for kind in free {
            for nonce in self.unanswered.remove(&kind).unwrap_or_default() {
                self.acknowledge(&kind, nonce).await?;
            }
        }
        Ok(())
    }

    /// Where what a kind has differs from the recording, now and at every later moment.
    fn differences(&self, kind: &str, next: &Next) -> Vec<Difference> {
        if self.expected.contains_key(kind) && !self.ours.contains_key(kind) {
            // That there is nothing is said as well.
            return vec![Difference { path: format!("/{kind}"), found: Found::Missing(json!({})) }];
        }
        let apart = self.apart(kind, next);
        let of = |state: &State| {
            let held = state.get(kind).into_iter().flatten();
            json!(held.filter(|(name, _)| apart.contains(*name)).collect::<BTreeMap<_, _>>())
        };
        let mut found = compare(&of(&self.expected), &of(&self.ours), &mut Bindings::shared());
        for difference in &mut found {
            difference.path = format!("/{kind}{}", difference.path);
        }
        found
    }

    /// Names that differ from the recording, now and at every later moment.
    fn apart(&self, kind: &str, next: &Next) -> BTreeSet<String> {
        let mut later = self.expected.clone();
        let mut states = vec![later.get(kind).cloned().unwrap_or_default()];
        for message in next.responses.get(kind).into_iter().flatten() {
            fold_recorded(&mut later, message);
            states.push(later.get(kind).cloned().unwrap_or_default());
        }
        let ours = self.ours.get(kind).cloned().unwrap_or_default();
        let is_recorded = |name: &String| {
            let ours = json!(ours.get(name));
            let is_it = |recorded: Value| compare(&recorded, &ours, &mut Bindings::shared()).is_empty();
            states.iter().any(|state| is_it(json!(state.get(name))))
        };
        let names = ours.keys().chain(states.first().into_iter().flat_map(BTreeMap::keys));
        names.filter(|name| !is_recorded(name)).cloned().collect()
    }

    /// What differs is told once: from here on it is taken as recorded.
    fn take_as_recorded(&mut self, kind: &str, next: &Next) {
        let Some(ours) = self.ours.get(kind) else {
            self.expected.remove(kind);
            return;
        };
        let apart: Vec<_> = self.apart(kind, next).into_iter().map(|name| (ours.get(&name), name)).collect();
        let held = self.expected.entry(kind.to_owned()).or_default();
        for (ours, name) in apart {
            match ours {
                Some(ours) => held.insert(name, ours.clone()),
                None => held.remove(&name),
            };
        }
    }
}

/// Has resources and sends them to whoever asked.
#[derive(Debug)]
pub(super) struct SourceSide {
    peer: Source,
    read: usize,
    /// Kinds that were asked for.
    asked: BTreeSet<String>,
    /// What ours says that it holds, of kinds that were not answered yet.
    presented: BTreeMap<String, BTreeSet<String>>,
    /// Kinds that the recording asks for on this stream.
    expected: BTreeSet<String>,
    is_compared: bool,
    replies: BTreeMap<String, VecDeque<DeltaDiscoveryRequest>>,
    last_sent: Option<String>,
}

impl SourceSide {
    pub(super) fn new(peer: Source, expected: BTreeSet<String>) -> SourceSide {
        SourceSide {
            peer,
            read: 0,
            asked: BTreeSet::new(),
            presented: BTreeMap::new(),
            expected,
            is_compared: false,
            replies: BTreeMap::new(),
            last_sent: None,
        }
    }

    /// How the stream ended, once it has.
    pub(super) fn ended(&self) -> Option<String> {
        self.peer.ended()
    }

    fn read(&mut self) {
        for request in self.peer.heard(self.read) {
            self.read += 1;
            if request.response_nonce.is_empty() {
                let held = request.initial_resource_versions.into_keys().collect();
                self.presented.insert(request.type_url.clone(), held);
                self.asked.insert(request.type_url);
            } else {
                self.replies.entry(request.type_url.clone()).or_default().push_back(request);
            }
        }
    }

    /// Sends a recorded response once its kind was asked for; one that nobody asks for in the recording at once.
    pub(super) async fn say(&mut self, message: &Message) -> Result<()> {
        let kind = message.kind().to_owned();
        let start = wait::now();
        while self.expected.contains(&kind) && !self.asked.contains(&kind) {
            self.read();
            if start.elapsed() > LIMIT {
                bail!("{kind} was not asked for");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let mut response = message.to_response()?;
        // The recorded peer was not told what the other side holds; one that is names what is gone.
        let held = self.presented.remove(&kind).unwrap_or_default();
        let sent: BTreeSet<&String> = response.resources.iter().map(|item| &item.name).collect();
        let gone: Vec<String> = held.into_iter().filter(|name| !sent.contains(name)).collect();
        response.removed_resources.extend(gone);
        self.last_sent = Some(kind);
        self.peer.send(response).await
    }

    /// The answer to the oldest response of a kind that was not looked at.
    async fn reply(&mut self, kind: &str) -> Result<DeltaDiscoveryRequest> {
        let start = wait::now();
        loop {
            self.read();
            if let Some(reply) = self.replies.get_mut(kind).and_then(VecDeque::pop_front) {
                return Ok(reply);
            }
            if let Some(ended) = self.peer.ended() {
                bail!("{kind}: no answer; the stream ended with {ended}");
            }
            if start.elapsed() > LIMIT {
                bail!("{kind}: no answer");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Compares the answer to the oldest response of a kind with the recorded one.
    pub(super) async fn expect(&mut self, message: &Message) -> Result<Vec<Difference>> {
        let reply = self.reply(message.kind()).await?;
        let recorded = json!({"node": message.decoded["node"]["id"], "error": message.error()});
        let ours = json!({
            "node": reply.node.map(|node| node.id),
            "error": reply.error_detail.map(|error| error.message),
        });
        Ok(compare(&recorded, &ours, &mut Bindings::shared()))
    }

    /// Whether the last response was refused; the reference ends the stream where we answer.
    pub(super) async fn expect_refusal(&mut self) -> Result<Vec<Difference>> {
        let Some(kind) = self.last_sent.clone() else { bail!("nothing was sent") };
        let reply = self.reply(&kind).await?;
        let refused = reply.error_detail.is_some_and(|error| !error.message.is_empty());
        Ok(compare(&json!({"refused": true}), &json!({"refused": refused}), &mut Bindings::shared()))
    }

    /// Once: whether exactly the recorded kinds were asked for.
    pub(super) async fn settle(&mut self) -> Option<Vec<Difference>> {
        if self.is_compared || self.expected.is_empty() {
            return None;
        }
        self.is_compared = true;
        let start = wait::now();
        while self.asked != self.expected && start.elapsed() < LIMIT && self.ended().is_none() {
            self.read();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let missing = self.expected.difference(&self.asked).map(|kind| (kind, Found::Missing(true.into())));
        let extra = self.asked.difference(&self.expected).map(|kind| (kind, Found::Extra(true.into())));
        Some(
            missing
                .chain(extra)
                .map(|(kind, found)| Difference { path: format!("/asked/{kind}"), found })
                .collect(),
        )
    }
}
