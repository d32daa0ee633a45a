//! Plays one side of recorded conversations against our control plane on the other side.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use graticule_testkit::{Binaries, Process, wait};
use serde_json::{Value, json};

use super::case;
use super::differences::Meant;
use super::peer::Peer;
use super::recording::{Event, Headers, Message, Recording, Rest, Rpc, Status, What};
use super::sides::{Answers, SinkSide, SourceSide, Versions};
use super::site::Site;
use super::transport::{PlayedGlobal, ZoneConnection};
use crate::compare::{Bindings, Difference, Found, compare};
use order::{
    already_joined, is_closed_later, is_never_answered, kinds_asked, next_of_zone, next_responses,
    speaks_first,
};

mod asked;
mod calls;
mod order;
mod proxies;
mod questions;

pub(super) use proxies::{PROXY_STARTS, PROXY_STOPS};
pub(super) use questions::NAME as QUESTIONS;

/// How long a zone of ours may take to open its streams.
pub(super) const JOIN_LIMIT: Duration = Duration::from_secs(60);
/// What the played global answers to health checks.
const HEALTH_INTERVAL: Duration = Duration::from_secs(3);
/// The zone of the recordings that is played by ours.
pub(super) const ZONE: &str = "east";

/// What is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Zones, against our global.
    Zones,
    /// Global, against our zone.
    Global,
}

impl Role {
    /// What our side is, in names of checks.
    pub(super) fn ours(self) -> &'static str {
        match self {
            Role::Zones => "global",
            Role::Global => "zone",
        }
    }
}

/// Connections of a second control plane that goes by the name of a zone.
const RIVALS: [(&str, u64); 1] = [("05d-zone-name-clash", 7)];

/// A connection: zone and number.
type Link = (String, u64);

/// A check and what it found.
pub(super) struct Check {
    /// Place in the file.
    pub(super) index: usize,
    pub(super) what: String,
    pub(super) found: Result<Vec<Difference>>,
}

/// A replay under way.
pub(super) struct Play<'a> {
    role: Role,
    /// The complete join of a zone, which recordings of a connected zone begin after.
    join: &'a Recording,
    site: Site,
    global: Option<PlayedGlobal>,
    connections: BTreeMap<Link, ZoneConnection>,
    sinks: BTreeMap<Link, SinkSide>,
    sources: BTreeMap<Link, SourceSide>,
    /// Connections that the reference broke and ours did not.
    outlived: BTreeSet<Link>,
    /// Real proxies of our zone.
    proxies: Vec<Process>,
    /// Calls that our zone gets once it has joined.
    before: Vec<Rest>,
    checks: Vec<Check>,
    versions: Versions,
}

impl<'a> Play<'a> {
    /// Starts our side; `asks`: the played global asks about proxies.
    pub(super) async fn start(
        role: Role,
        join: &'a Recording,
        binaries: &Binaries,
        dir: &Path,
        unsafe_delete: bool,
        asks: bool,
    ) -> Result<Play<'a>> {
        std::fs::create_dir_all(dir)?;
        let (global, mut site) = match role {
            Role::Zones => (None, Site::global(binaries, dir, unsafe_delete)?),
            Role::Global => {
                let global = PlayedGlobal::start(HEALTH_INTERVAL).await?;
                if asks {
                    global.ask();
                }
                let site = Site::zone(binaries, dir, ZONE, &global.address.to_string())?;
                (Some(global), site)
            }
        };
        site.start().await?;
        let (connections, sinks, sources) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Play {
            role,
            join,
            site,
            global,
            connections,
            sinks,
            sources,
            outlived: BTreeSet::new(),
            proxies: Vec::new(),
            before: Vec::new(),
            checks: Vec::new(),
            versions: Versions::default(),
        })
    }

    /// What our zone is told before the next recording begins, and after it has joined.
    pub(super) fn before(&mut self, rest: Rest) {
        self.before.push(rest);
    }

    /// Plays a recording to its end; gives what was checked.
    pub(super) async fn run(&mut self, recording: &Recording) -> Result<Vec<Check>> {
        for link in already_joined(recording) {
            self.go_on_as(&link);
            if self.concerns(&link.0) && !self.sinks.contains_key(&link) && !self.sources.contains_key(&link)
            {
                self.join(recording, &link).await?;
                if speaks_first(recording, &link) {
                    self.reopen(&link).await?;
                }
            }
        }
        for rest in std::mem::take(&mut self.before) {
            let answer = self.site.call(&rest).await?;
            ensure!(answer.status == 201, "{}: {} {}", rest.path, answer.status, answer.body);
        }
        for event in &recording.events {
            let outcome = self.event(recording, event).await;
            if let Err(error) = outcome {
                self.checks.push(Check { index: event.index, what: "replay".into(), found: Err(error) });
            }
        }
        let last = recording.events.len();
        self.settle(recording, last).await;
        let running = self.site.check_running().map(|()| Vec::new());
        self.checks.push(Check { index: last, what: "our process runs".into(), found: running });
        Ok(std::mem::take(&mut self.checks))
    }

    /// Whether the played side or ours talks for a zone.
    fn concerns(&self, zone: &str) -> bool {
        self.role == Role::Zones || zone == ZONE
    }

    /// Our zone is connected since the recording before, which numbered its connection another way.
    fn go_on_as(&mut self, link: &Link) {
        if self.role == Role::Zones || link.0 != ZONE {
            return;
        }
        if let Some((_, sink)) = self.sinks.pop_first() {
            self.sinks.insert(link.clone(), sink);
        }
        if let Some((_, source)) = self.sources.pop_first() {
            self.sources.insert(link.clone(), source);
        }
    }

    /// A second control plane with the name of a zone: our global refuses it, our zone does not see it.
    async fn rival(&mut self, event: &Event, link: &Link) -> Result<()> {
        let What::Open(rpc, headers) = &event.what else { return Ok(()) };
        if self.role == Role::Global {
            return Ok(());
        }
        let connection = ZoneConnection::open(self.site.kds).await?;
        let headers = renamed(headers, &link.0);
        let (sink, source) = match rpc {
            Rpc::Down => (Some(connection.sink(&headers)?), None),
            Rpc::Up => (None, Some(connection.source(&headers)?)),
        };
        let ended = || {
            let ended = sink.as_ref().and_then(Peer::ended).or(source.as_ref().and_then(Peer::ended));
            std::future::ready(match ended {
                Some(status) if status.starts_with("AlreadyExists") => Ok(()),
                other => Err(format!("{other:?}")),
            })
        };
        let waited = wait::until("the second control plane is refused", JOIN_LIMIT, ended).await;
        self.check(event.index, "the second control plane is refused", waited.map(|_| Vec::new()));
        Ok(())
    }

    /// Makes the zone of a connection join as recorded in a file of its own: the global of `recording`, whose id that
    /// may show.
    async fn join(&mut self, recording: &Recording, link: &Link) -> Result<()> {
        let join = self.join;
        let own_id = recording.first_state("Config");
        // Numbers of connections are those of the recording that goes on with them.
        let renumber = |event: &Event| {
            let what = match (&event.what, own_id) {
                (What::Message(message), Some(own)) if message.is_first_state("Config") => {
                    What::Message(own.clone())
                }
                (what, _) => what.clone(),
            };
            Event { zone: Some(link.0.clone()), conn: link.1, what, ..*event }
        };
        let join = &Recording { name: join.name.clone(), events: join.events.iter().map(renumber).collect() };
        for event in &join.events {
            match &event.what {
                What::Rest(_) | What::Disconnected | What::Process(..) => {}
                What::Message(message) if message.is_response() && message.by_zone && link.0 != ZONE => {
                    // Its names are made of the zone's; another zone has nothing yet.
                    self.say(link, &message.without_resources()).await?;
                }
                _ => self.event(join, event).await?,
            }
        }
        self.settle(join, join.events.len()).await;
        let failed: Vec<Check> =
            std::mem::take(&mut self.checks).into_iter().filter(|check| check.found.is_err()).collect();
        self.checks = failed;
        Ok(())
    }

    /// Ends the streams of a zone of ours; it opens them again.
    async fn reopen(&mut self, link: &Link) -> Result<()> {
        self.leave(link, Rpc::Down);
        self.leave(link, Rpc::Up);
        for rpc in [Rpc::Down, Rpc::Up] {
            let event = Event { index: 0, zone: Some(link.0.clone()), conn: link.1, what: What::Other };
            self.open(self.join, &event, link, rpc, &Headers::new()).await?;
        }
        self.checks.clear();
        Ok(())
    }

    async fn event(&mut self, recording: &Recording, event: &Event) -> Result<()> {
        let link = (event.zone.clone().unwrap_or_default(), event.conn);
        if event.zone.is_some() && !self.concerns(&link.0) {
            return Ok(());
        }
        if is_rival(recording, event) {
            return self.rival(event, &link).await;
        }
        match &event.what {
            What::Open(rpc, headers) => self.open(recording, event, &link, *rpc, headers).await,
            What::Message(message) => {
                let said = self.message(event.index, &link, message).await;
                // Ours may end a stream sooner than the reference, which is checked when the recording does, and end one
                // at once that the reference leaves without any answer.
                let may_end = is_closed_later(recording, event, message.rpc)
                    || is_never_answered(recording, event, message);
                if may_end { Ok(()) } else { said }
            }
            What::Closed(rpc, status) if self.role == Role::Zones => {
                self.closed(event.index, &link, *rpc, status).await
            }
            // Our zone leaves when a stream ends, and opens the next ones soon: the others of the old connection end with it.
            What::Closed(..) | What::Left(_) if self.role == Role::Global => {
                if !self.sinks.contains_key(&link) && !self.sources.contains_key(&link) {
                    return Ok(());
                }
                self.settle(recording, event.index).await;
                self.leave(&link, Rpc::Down);
                self.leave(&link, Rpc::Up);
                Ok(())
            }
            What::Closed(..) => Ok(()),
            What::Left(rpc) => {
                self.settle(recording, event.index).await;
                self.leave(&link, *rpc);
                Ok(())
            }
            What::Disconnected => {
                self.settle(recording, event.index).await;
                self.leave(&link, Rpc::Down);
                self.leave(&link, Rpc::Up);
                self.connections.remove(&link);
                Ok(())
            }
            What::Rest(rest) => self.rest(recording, event.index, rest).await,
            What::Process(what, name) => self.process(recording, event.index, what, name).await,
            What::Note(text) => {
                self.settle(recording, event.index).await;
                if text.starts_with(PROXY_STOPS) { self.stop_proxies().await } else { Ok(()) }
            }
            What::Other => Ok(()),
        }
    }

    fn check(&mut self, index: usize, what: impl Into<String>, found: Result<Vec<Difference>>) {
        self.checks.push(Check { index, what: what.into(), found });
    }

    /// The stream in which the played side asks.
    fn asks(&self) -> Rpc {
        match self.role {
            Role::Zones => Rpc::Down,
            Role::Global => Rpc::Up,
        }
    }

    async fn open(
        &mut self,
        recording: &Recording,
        event: &Event,
        link: &Link,
        rpc: Rpc,
        headers: &Headers,
    ) -> Result<()> {
        let asked = kinds_asked(recording, event, rpc);
        if self.role == Role::Zones {
            let headers = renamed(headers, &link.0);
            if !self.connections.contains_key(link) {
                self.forget_outlived(&link.0);
                self.connections.insert(link.clone(), ZoneConnection::open(self.site.kds).await?);
            }
            let connection = self.connections.get(link).context("no connection")?;
            if rpc == self.asks() {
                self.sinks.insert(
                    link.clone(),
                    SinkSide::new(
                        connection.sink(&headers)?,
                        &link.0,
                        self.versions.clone(),
                        Answers::Recorded,
                    ),
                );
            } else {
                self.sources.insert(link.clone(), SourceSide::new(connection.source(&headers)?, asked));
            }
            return Ok(());
        }
        let global = self.global.as_ref().context("no played global")?;
        let ours = if rpc == self.asks() {
            let take = || std::future::ready(global.take_sink().ok_or_else(|| "not opened".to_owned()));
            let ((ours, peer), _) = wait::until("ZoneToGlobalSync", JOIN_LIMIT, take).await?;
            self.sinks
                .insert(link.clone(), SinkSide::new(peer, &link.0, self.versions.clone(), Answers::All));
            ours
        } else {
            let take = || std::future::ready(global.take_source().ok_or_else(|| "not opened".to_owned()));
            let ((ours, peer), _) = wait::until("GlobalToZoneSync", JOIN_LIMIT, take).await?;
            self.sources.insert(link.clone(), SourceSide::new(peer, asked));
            ours
        };
        self.check(event.index, "headers of the stream", Ok(compare_headers(headers, &ours)));
        Ok(())
    }

    async fn message(&mut self, index: usize, link: &Link, message: &Message) -> Result<()> {
        let is_played = message.by_zone == (self.role == Role::Zones);
        if is_played {
            return self.say(link, message).await;
        }
        if message.is_response() {
            let sink = self.sinks.get_mut(link).context("no stream in which resources come")?;
            sink.expect(message);
            return Ok(());
        }
        if message.response_nonce().is_some() {
            let source = self.sources.get_mut(link).context("no stream in which resources go")?;
            let found = source.expect(message).await;
            self.check(index, format!("answer for {}", message.kind()), found);
        }
        Ok(())
    }

    /// The played side says something.
    async fn say(&mut self, link: &Link, message: &Message) -> Result<()> {
        if message.is_response() {
            self.sources.get_mut(link).context("no stream in which resources go")?.say(message).await
        } else {
            self.sinks.get_mut(link).context("no stream in which resources come")?.say(message).await
        }
    }

    /// In the recording the other side ended a stream.
    async fn closed(&mut self, index: usize, link: &Link, rpc: Rpc, recorded: &Status) -> Result<()> {
        if recorded.1 == STREAM_FAILED {
            let source = self.sources.get_mut(link).context("no stream in which resources go")?;
            let found = source.expect_refusal().await;
            self.check(index, "a refusal, where the reference ends the stream", found);
            self.outlived.insert(link.clone());
            return Ok(());
        }
        let ended = |play: &Play<'_>| {
            let sink = play.sinks.get(link).filter(|_| rpc == play.asks()).and_then(SinkSide::ended);
            let source = play.sources.get(link).filter(|_| rpc != play.asks()).and_then(SourceSide::ended);
            sink.or(source).ok_or_else(|| "it is open".to_owned())
        };
        let waited =
            wait::until("our side ends the stream", JOIN_LIMIT, || std::future::ready(ended(self))).await;
        // Names of codes are written in two ways.
        let code = |text: &str| text.split(':').next().unwrap_or_default().replace('_', "").to_lowercase();
        let form = |status: &str| json!({"code": code(status)});
        let compared =
            waited.map(|(ours, _)| compare(&form(&recorded.0), &form(&ours), &mut Bindings::shared()));
        self.check(index, "the stream is refused", compared);
        Ok(())
    }

    /// A zone has one connection: it connects again because the reference broke the last one.
    fn forget_outlived(&mut self, zone: &str) {
        for link in self.outlived.iter().filter(|link| link.0 == zone).cloned().collect::<Vec<_>>() {
            self.leave(&link, Rpc::Down);
            self.leave(&link, Rpc::Up);
            self.connections.remove(&link);
            self.outlived.remove(&link);
        }
    }

    fn leave(&mut self, link: &Link, rpc: Rpc) {
        if rpc == self.asks() {
            self.sinks.remove(link);
        } else {
            self.sources.remove(link);
        }
        if let Some(global) = &self.global {
            global.forget(rpc);
        }
    }

    /// Compares everything that came with what the recording says until here.
    async fn settle(&mut self, recording: &Recording, index: usize) {
        let mut found = Vec::new();
        for ((zone, conn), sink) in &mut self.sinks {
            let next = match self.role {
                Role::Zones => next_responses(recording, index, *conn),
                Role::Global => next_of_zone(recording, index, zone),
            };
            let meant = Meant::at(case(self.role, &recording.name, index, &format!("{zone} has ")));
            match sink.settle(&next, &meant).await {
                Ok(kinds) => found.extend(
                    kinds
                        .into_iter()
                        .map(|(kind, differences)| (format!("{zone} has {kind}"), Ok(differences))),
                ),
                Err(error) => found.push((format!("{zone}: what came"), Err(error))),
            }
        }
        for ((zone, _), source) in &mut self.sources {
            if let Some(differences) = source.settle().await {
                found.push((format!("{zone}: kinds that are asked for"), Ok(differences)));
            }
        }
        for (what, differences) in found {
            self.check(index, what, differences);
        }
    }

    async fn process(&mut self, recording: &Recording, index: usize, what: &str, name: &str) -> Result<()> {
        let ours = if self.role == Role::Zones { "global" } else { ZONE };
        if name != ours {
            if what == PROXY_STARTS && self.role == Role::Global {
                return self.start_recorded_proxy(recording, index, name).await;
            }
            if what == "exited" && self.role == Role::Zones {
                self.wait_until_offline(name).await;
            }
            return Ok(());
        }
        self.settle(recording, index).await;
        match what {
            "start"
                if self.site.is_running()
                    && self.checks.is_empty()
                    && self.sinks.is_empty()
                    && self.sources.is_empty() =>
            {
                Ok(())
            }
            // The reference crashed before; ours did not.
            "start" => {
                let running = self.site.check_running().map(|()| Vec::new());
                self.check(index, "our process runs", running);
                self.restart("SIGKILL").await
            }
            "SIGTERM" | "SIGKILL" => self.site.stop(what).await,
            _ => Ok(()),
        }
    }

    /// Until global has noticed that a zone is gone. What it does not notice shows in what follows.
    async fn wait_until_offline(&self, zone: &str) {
        let path = format!("/zones/{zone}/_status");
        let is_offline = || async {
            let answer = self.site.get(&path).await.map_err(|error| error.to_string())?;
            let report: Value = serde_json::from_str(&answer.body).map_err(|error| error.to_string())?;
            // One that is not known was refused.
            if answer.status == 404 || report["online"] == false { Ok(()) } else { Err(answer.body) }
        };
        let _ = wait::until("the zone is offline", READ_LIMIT, is_offline).await;
    }

    async fn restart(&mut self, how: &str) -> Result<()> {
        self.sinks.clear();
        self.sources.clear();
        self.connections.clear();
        if let Some(global) = &self.global {
            global.forget(Rpc::Down);
            global.forget(Rpc::Up);
        }
        self.site.stop(how).await?;
        self.site.start().await
    }
}

/// Whether it is of a second control plane that goes by the name of a zone.
fn is_rival(recording: &Recording, event: &Event) -> bool {
    RIVALS.contains(&(recording.name.as_str(), event.conn))
}

/// The text of the status with which the reference ends a stream over a resource.
const STREAM_FAILED: &str = "stream failed";
/// How long a read may take to show what arrived.
const READ_LIMIT: Duration = Duration::from_secs(30);

/// The headers with another zone's name.
fn renamed(headers: &Headers, zone: &str) -> Headers {
    let rename = |(key, value): &(String, String)| {
        let value = if key == "client-id" { zone.to_owned() } else { value.clone() };
        (key.clone(), value)
    };
    headers.iter().map(rename).collect()
}

/// Headers that a zone sets itself; ours may add some of its own.
fn compare_headers(recorded: &Headers, ours: &Headers) -> Vec<Difference> {
    let of = |headers: &Headers, key: &str| -> Vec<String> {
        headers.iter().filter(|(other, _)| other == key).map(|(_, value)| value.clone()).collect()
    };
    let keys: BTreeSet<&str> = recorded.iter().map(|(key, _)| key.as_str()).collect();
    keys.into_iter()
        // The version of the program.
        .filter(|key| *key != "version")
        .filter(|key| of(recorded, key) != of(ours, key))
        .map(|key| Difference {
            path: format!("/headers/{key}"),
            found: Found::Other { recorded: json!(of(recorded, key)), ours: json!(of(ours, key)) },
        })
        .collect()
}

/// Fails when a recording has nothing to play.
pub(super) fn ensure_playable(recording: &Recording) -> Result<()> {
    if recording.events.iter().any(|event| matches!(event.what, What::Message(_) | What::Open(..))) {
        return Ok(());
    }
    bail!("{}: neither streams nor messages", recording.name)
}
