//! Who may open streams: zones with a good token, one control plane for each name.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use graticule_model::kinds::config::Config;
use graticule_model::kinds::zone::{KdsSubscription, Zone, ZoneInsight};
use graticule_model::{Key, Kind, Meta, Resource, labels, name};
use graticule_runtime::{ConnectionEnd, Peer};
use graticule_store::{CommitError, Event, Expect, Health, Txn, Write};
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use super::streams::unavailable;
use super::watchdog::{Pulse, Watched};
use super::{Shared, ZoneGrant};
use crate::core::{
    Claimant, Elsewhere, INSTANCE_HEADER, StreamKind, TERM_HEADER, Verdict, ZONE_IDENTITY_HEADER, ZoneLeader,
    short_reason,
};
use crate::net::bucket::and_more;
use crate::net::registry::{Asking, OpenStream, took_over};

/// Longest Zone token that is looked at, in bytes.
const TOKEN_LEN_MAX: usize = 8 * 1024;
/// Longest identity or instance that is looked at, in bytes.
const CLAIM_LEN_MAX: usize = 256;
/// Beginning of the names of the Configs that keep the identities of zones.
const IDENTITY_PREFIX: &str = "graticule-zone-identity.";
/// Beginning of the names of the Configs of zones that show no identity, and have shown a token.
const TOKEN_PREFIX: &str = "graticule-zone-token.";

/// Beginning of the names of the Configs that say who led a zone when its leader connected last.
const LEADER_PREFIX: &str = "graticule-zone-leader.";

/// End of a stored identity that took a name over, while copies of the one before it are there.
const UNCONFIRMED: &str = " unconfirmed";

/// A zone that proved who it is.
pub(super) struct Visitor {
    pub(super) zone: String,
    pub(super) token_provided: bool,
    pub(super) claimant: Claimant,
    /// What its token says; a zone without one has none.
    grant: Option<ZoneGrant>,
    connection: Option<ConnectionEnd>,
}

impl Shared {
    /// Checks the headers of a call, before any message of it is read (federation.md §1.3).
    pub(super) fn admit<T>(
        &self,
        request: &Request<T>,
        absent: fn(String) -> Status,
    ) -> Result<Visitor, Status> {
        let headers = request.metadata();
        let zone = headers.get("client-id").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if zone.is_empty() {
            return Err(absent("\"client-id\" is not present in metadata".into()));
        }
        if !name::is_dns1035_label(zone) {
            return Err(Status::invalid_argument("\"client-id\" is not a zone name (an RFC 1035 label)"));
        }
        let visitor = |grant: Option<ZoneGrant>| {
            let token_provided = grant.is_some();
            let address = request.extensions().get::<Peer>().map(|peer| peer.address.ip().to_string());
            let claimant = Claimant {
                // Without a token nothing proves it: such a zone is treated as a stock one.
                identity: claim(headers, ZONE_IDENTITY_HEADER)?.filter(|_| token_provided),
                instance: claim(headers, INSTANCE_HEADER)?.unwrap_or_default(),
                term: claim(headers, TERM_HEADER)?.and_then(|term| term.parse().ok()),
                address: address.unwrap_or_default(),
            };
            let connection = request.extensions().get::<ConnectionEnd>().cloned();
            Ok(Visitor { zone: zone.to_owned(), token_provided, claimant, grant, connection })
        };
        let Some(header) = headers.get("authorization") else {
            if !self.options.tokenless_zones.allows(zone) {
                return Err(self.refuse(zone, "a zone token is required, none was presented"));
            }
            if self.needs_token(zone) {
                let reason = "a zone token is required: the name was used with one before. Whoever wants to use it without \
                              one has to delete the Zone first";
                return Err(self.refuse(zone, reason));
            }
            return visitor(None);
        };
        let token = header.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
        let result = match token {
            Some(token) if token.len() <= TOKEN_LEN_MAX => {
                self.deps.authenticator.authenticate(zone, token.trim())
            }
            _ => Err("the authorization header is not \"Bearer <zone token>\"".into()),
        };
        result.map_err(|reason| self.refuse(zone, &reason)).and_then(|grant| visitor(Some(grant)))
    }

    /// The zone is told the reason as well: it is about its own token, and its operator has to act.
    fn refuse(&self, zone: &str, reason: &str) -> Status {
        let reason = short_reason(reason);
        let news = self.refusals.lock().is_news(zone, &reason, self.deps.clock.monotonic());
        if let Some(unsaid) = news {
            tracing::warn!(
                zone,
                %reason,
                "zone refused; make a token with `grat generate zone-token --zone {zone}`{}",
                and_more(unsaid)
            );
        }
        Status::unauthenticated(format!("authentication failed: {reason}"))
    }

    /// Opens a stream for the control plane that holds the zone's name. Another one waits until the holder had to notice
    /// that its connection is dead, and is refused when it is alive.
    ///
    /// # Errors
    /// Somebody else holds the name.
    pub(super) async fn open_stream(
        self: &Arc<Self>,
        visitor: &Visitor,
        kind: StreamKind,
    ) -> Result<(OpenStream, Pulse), Status> {
        let clock = &self.deps.clock;
        let (zone, claimant) = (visitor.zone.as_str(), &visitor.claimant);
        let patience = 2 * self.options.keep_alive + Duration::from_secs(1);
        let give_up = clock.monotonic() + patience;
        loop {
            let mut released = std::pin::pin!(self.registry.released());
            released.as_mut().enable();
            let elsewhere = self.connected_elsewhere(zone);
            let asking = Asking {
                zone,
                kind,
                claimant,
                grant: visitor.grant.as_ref(),
                bound: self.bound_identity(zone),
                elsewhere: elsewhere.as_ref(),
                at: clock.now(),
                now: clock.monotonic(),
            };
            let now = asking.now;
            let reason = match self.registry.open(&asking, clock) {
                Ok(_) if !self.has_zone(zone) => {
                    // It was deleted at this moment: nobody else would forget it again.
                    self.registry.evict(zone);
                    return Err(Status::unavailable("the Zone was deleted: connect again to have it anew"));
                }
                Ok(stream) => {
                    self.registry.settle_conflict(zone, claimant);
                    if kind.is_sync() {
                        self.bind(zone, asking.bound.as_deref(), claimant).await?;
                        self.lead(zone, claimant).await?;
                        self.remember_token(visitor).await?;
                    }
                    return self.watched(visitor, stream).await;
                }
                Err(Verdict::Held { .. } | Verdict::Replaced { .. }) if now < give_up => {
                    tokio::select! {
                        () = released => {}
                        () = clock.sleep(give_up - now) => {}
                    }
                    continue;
                }
                Err(Verdict::Held { by }) => format!(
                    "{by} is connected as zone \"{zone}\"; give one of the two another multizone.zone.name, or stop the \
                     one that should not run"
                ),
                Err(Verdict::Replaced { by }) => {
                    return Err(self.refuse_leader(visitor, format!("{by} leads zone \"{zone}\" now")));
                }
                Err(Verdict::Reserved { remaining }) => format!(
                    "the name \"{zone}\" belongs to a control plane that left less than {:?} ago; if this one takes its \
                     place it gets the name in {} s",
                    self.options.name_reserved_for,
                    remaining.as_secs() + 1,
                ),
                Err(Verdict::Admitted) => continue,
            };
            return Err(self.refuse_name(visitor, reason));
        }
    }

    /// Has a new stream watched.
    ///
    /// # Errors
    /// Its token was revoked since it was looked at.
    async fn watched(&self, visitor: &Visitor, stream: OpenStream) -> Result<(OpenStream, Pulse), Status> {
        // From now on it is found when secrets change; what changed before is seen here.
        if let Some(grant) = &visitor.grant
            && let Some(reason) =
                self.deps.authenticator.revoked(&BTreeSet::from([grant.clone()])).remove(grant)
        {
            return Err(self.refuse(&visitor.zone, &reason));
        }
        let pulse = Pulse::new(&self.deps.clock);
        let watched = Watched {
            zone: visitor.zone.clone(),
            ending: stream.ending.clone(),
            closed: stream.closed.clone(),
            pulse: pulse.clone(),
            expires: visitor.grant.as_ref().and_then(|grant| grant.expires),
            connection: visitor.connection.clone(),
        };
        self.opened.send(watched).await.map_err(|_| Status::unavailable("this replica of global ends"))?;
        Ok((stream, pulse))
    }

    /// Whether this name was ever used with a token.
    fn needs_token(&self, zone: &str) -> bool {
        let config = self.deps.stores.config.snapshot();
        config.get(&identity_key(zone)).is_some() || config.get(&token_key(zone)).is_some()
    }

    /// The name needs a token from now on. An identity that is stored says so as well.
    async fn remember_token(&self, visitor: &Visitor) -> Result<(), Status> {
        let zone = &visitor.zone;
        if !visitor.token_provided || visitor.claimant.identity.is_some() || self.needs_token(zone) {
            return Ok(());
        }
        let mark = config_of(zone, token_key(zone), "required".into(), Expect::Absent);
        self.write_config(mark).await.map(|_| ())
    }

    fn refuse_name(&self, visitor: &Visitor, reason: String) -> Status {
        self.say_refused(visitor, &reason);
        let (at, now) = (self.deps.clock.now(), self.deps.clock.monotonic());
        self.registry.note_conflict(&visitor.zone, &visitor.claimant, &reason, at, now);
        Status::already_exists(reason)
    }

    /// A former leader is no rival: nobody has to do anything.
    fn refuse_leader(&self, visitor: &Visitor, reason: String) -> Status {
        self.say_refused(visitor, &reason);
        Status::aborted(reason)
    }

    fn say_refused(&self, visitor: &Visitor, reason: &str) {
        let Visitor { zone, claimant, .. } = visitor;
        let news = self.refusals.lock().is_news(zone, reason, self.deps.clock.monotonic());
        if let Some(unsaid) = news {
            tracing::warn!(
                zone,
                address = claimant.address,
                instance = claimant.instance,
                reason,
                "zone refused{}",
                and_more(unsaid)
            );
        }
    }

    /// Another replica of global that serves the zone now, by what it tells about it.
    fn connected_elsewhere(&self, zone: &str) -> Option<Elsewhere> {
        let replica = self.open_elsewhere(zone, |one| Some(one.global_instance_id.clone()))?;
        Some(Elsewhere { replica, leader: self.leader(zone).map(|(leader, _)| leader) })
    }

    /// The first thing that is found in the open subscriptions of a zone at other replicas.
    fn open_elsewhere<T>(&self, zone: &str, look: impl Fn(&KdsSubscription) -> Option<T>) -> Option<T> {
        let insight = self.shown_status().snapshot().get(&Key::new(Kind::ZoneInsight, "", zone))?;
        let is_elsewhere = |one: &&KdsSubscription| {
            one.connect_time.is_some()
                && one.disconnect_time.is_none()
                && !one.global_instance_id.is_empty()
                && one.global_instance_id != self.deps.instance_id
        };
        insight.spec_as::<ZoneInsight>()?.subscriptions.iter().filter(is_elsewhere).find_map(look)
    }

    /// Another process of this zone that connected to another replica of global since: the zone's leader now. Stock zones,
    /// whose streams a balancer may spread, do not say who they are.
    fn replaced_elsewhere(&self, zone: &str, claimant: &Claimant) -> Option<String> {
        if claimant.identity.is_none() || claimant.instance.is_empty() {
            return None;
        }
        let own = ZoneLeader::of(claimant);
        if let Some((leader, _)) = self
            .leader(zone)
            .filter(|(leader, _)| own.as_ref().is_some_and(|own| own.identity == leader.identity))
        {
            // In one term that is a copy of the zone's disk, which connected later.
            let is_copy =
                own.as_ref().is_some_and(|own| own.term == leader.term && own.instance != leader.instance);
            return (is_copy || leader.replaced(claimant)).then_some(leader.instance);
        }
        // Nobody says in which term it leads: whoever connected later.
        let is_other = |instance: &str| !instance.is_empty() && instance != claimant.instance;
        self.open_elsewhere(zone, |one| is_other(&one.zone_instance_id).then(|| one.zone_instance_id.clone()))
    }

    /// Whether this caller still speaks for the zone: something came from it.
    ///
    /// # Errors
    /// Another process leads the zone.
    pub(super) async fn still_leads(&self, zone: &str, claimant: &Claimant) -> Result<(), Status> {
        match self.replaced_elsewhere(zone, claimant) {
            Some(leader) => Err(took_over(&leader)),
            // A former leader may have connected to a replica that had not heard of this one.
            None => self.lead(zone, claimant).await,
        }
    }

    /// Who led the zone when its leader connected last, and the version of what says so.
    fn leader(&self, zone: &str) -> Option<(ZoneLeader, u64)> {
        let stored = self.deps.stores.config.snapshot().get(&leader_key(zone))?;
        let leader = serde_json::from_str(&stored.spec_as::<Config>()?.config).ok()?;
        Some((leader, stored.meta.version))
    }

    /// Every replica of global knows who leads the zone. A global that cannot write now serves its zones without.
    ///
    /// # Errors
    /// Another process connected as its leader at this moment, to another replica.
    async fn lead(&self, zone: &str, claimant: &Claimant) -> Result<(), Status> {
        let Some(own) = ZoneLeader::of(claimant) else { return Ok(()) };
        let expect = match self.leader(zone) {
            Some((leader, _)) if leader == own => return Ok(()),
            Some((_, version)) => Expect::Version(version),
            None => Expect::Absent,
        };
        if self.deps.stores.config.health() != Health::Ready {
            return Ok(());
        }
        let text = serde_json::to_string(&own).map_err(|error| Status::internal(error.to_string()))?;
        match self.write_config(config_of(zone, leader_key(zone), text, expect)).await {
            Ok(Written::Done) => Ok(()),
            Err(error) => {
                tracing::warn!(zone, error = error.message(), "who leads a zone is not stored yet");
                Ok(())
            }
            Ok(Written::Raced) => match self.leader(zone) {
                Some((leader, _)) if leader.replaced(claimant) => Err(took_over(&leader.instance)),
                // Another stream of the same process.
                _ => Ok(()),
            },
        }
    }

    /// Streams of former leaders end, at whatever replica they are.
    pub(super) fn observe_leaders(&self, event: &Event) {
        let look = |stored: &Resource| {
            if stored.kind() == Kind::Config
                && let Some(zone) = stored.meta.name.strip_prefix(LEADER_PREFIX)
                && let Some((leader, _)) = self.leader(zone)
            {
                self.registry.led_by(zone, &leader);
            }
        };
        match event {
            Event::Batch(batch) => {
                batch.changes.iter().filter_map(|change| change.new.as_deref()).for_each(look)
            }
            Event::Resync(stored) => stored.list(Kind::Config, None).for_each(|stored| look(stored)),
        }
    }

    /// The identity that the name belonged to last.
    fn bound_identity(&self, zone: &str) -> Option<String> {
        let (identity, _) = self.binding(zone)?;
        Some(identity)
    }

    /// The identity, and whether its copies are still those of an earlier one.
    fn binding(&self, zone: &str) -> Option<(String, bool)> {
        let bound = self.deps.stores.config.snapshot().get(&identity_key(zone))?;
        let text = &bound.spec_as::<Config>()?.config;
        Some(match text.strip_suffix(UNCONFIRMED) {
            Some(identity) => (identity.to_owned(), true),
            None => (text.clone(), false),
        })
    }

    /// Whether the copies of this zone came from a control plane with another identity.
    pub(super) fn is_estranged(&self, zone: &str) -> bool {
        self.binding(zone).is_some_and(|(_, is_unconfirmed)| is_unconfirmed)
    }

    /// Whether the name belongs to this identity, as far as this replica knows.
    pub(super) fn may_be_of(&self, zone: &str, identity: Option<&str>) -> bool {
        self.binding(zone).is_none_or(|(bound, _)| Some(bound.as_str()) == identity)
    }

    /// Something of the zone's is held back: a restart or another replica decides nothing. Only for zones with an identity.
    pub(super) async fn doubt(&self, zone: &str, identity: Option<&str>) -> Result<(), Status> {
        match self.binding(zone) {
            Some((bound, false)) if Some(bound.as_str()) == identity => {
                self.write_binding(zone, format!("{bound}{UNCONFIRMED}")).await
            }
            _ => Ok(()),
        }
    }

    /// The zone has all that its copies say, or an operator decided.
    pub(super) async fn confirm(&self, zone: &str, identity: Option<&str>) -> Result<(), Status> {
        match self.binding(zone) {
            // Whoever had the name before cannot say so.
            Some((bound, true)) if Some(bound.as_str()) == identity => self.write_binding(zone, bound).await,
            _ => Ok(()),
        }
    }

    /// Every replica of global, and this one after a restart, knows whose name it is.
    ///
    /// # Errors
    /// Somebody else took the name at another replica at the same moment: who asks again is judged anew.
    async fn bind(&self, zone: &str, bound: Option<&str>, claimant: &Claimant) -> Result<(), Status> {
        let version = self.deps.stores.config.snapshot().get(&identity_key(zone)).map(|one| one.meta.version);
        if self.bound_identity(zone).as_deref() != bound {
            return self.lost_race(zone, claimant);
        }
        let expect = version.map_or(Expect::Absent, Expect::Version);
        let write = match (&claimant.identity, bound) {
            (Some(identity), Some(bound)) if identity == bound => return Ok(()),
            (None, None) => return Ok(()),
            (Some(identity), None) => binding_of(zone, identity.clone(), expect),
            (Some(identity), Some(_)) => binding_of(zone, format!("{identity}{UNCONFIRMED}"), expect),
            (None, Some(_)) => Write::Delete { key: identity_key(zone), expect },
        };
        match self.write_config(write).await? {
            Written::Done => Ok(()),
            Written::Raced => self.lost_race(zone, claimant),
        }
    }

    /// The other streams of the same zone are no rivals.
    fn lost_race(&self, zone: &str, claimant: &Claimant) -> Result<(), Status> {
        if self.bound_identity(zone) == claimant.identity {
            return Ok(());
        }
        Err(Status::unavailable(format!(
            "another control plane took the name \"{zone}\" at this moment; ask again"
        )))
    }

    async fn write_binding(&self, zone: &str, text: String) -> Result<(), Status> {
        let known = self.deps.stores.config.snapshot().get(&identity_key(zone));
        let Some(version) = known.map(|known| known.meta.version) else { return Ok(()) };
        // Whoever wrote it meanwhile knows better.
        self.write_config(binding_of(zone, text, Expect::Version(version))).await.map(|_| ())
    }

    async fn write_config(&self, write: Write) -> Result<Written, Status> {
        let txn = Txn { at: Some(self.deps.clock.now()), writes: vec![write] };
        match self.deps.stores.config.commit(txn).await {
            Ok(_) | Err(CommitError::NotFound(_)) => Ok(Written::Done),
            Err(CommitError::Exists(_) | CommitError::Conflict { .. }) => Ok(Written::Raced),
            Err(error) => Err(Status::unavailable(format!("the zone's identity cannot be stored: {error}"))),
        }
    }

    fn has_zone(&self, zone: &str) -> bool {
        self.deps.stores.config.snapshot().contains(&Key::new(Kind::Zone, "", zone))
    }

    /// Waits until the Zone is there, for as long as the caller does: a new zone opens all its streams at once, those for
    /// resources make its Zone, and with many new zones that takes its time.
    ///
    /// # Errors
    /// This replica ends.
    pub(super) async fn await_zone(&self, zone: &str) -> Result<(), Status> {
        loop {
            let mut changed = std::pin::pin!(self.zones_changed.notified());
            changed.as_mut().enable();
            if self.has_zone(zone) {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = self.drain.cancelled() => return Err(unavailable()),
                () = changed => {}
            }
        }
    }

    pub(super) async fn ensure_zone(&self, zone: &str) -> Result<(), Status> {
        let store = &self.deps.stores.config;
        let mut resource = Resource::new(Meta::new("", zone), Zone { enabled: Some(true) });
        if store.snapshot().get(&resource.key()).is_some() {
            return Ok(());
        }
        for (key, value) in [(labels::DISPLAY_NAME, zone), (labels::ORIGIN, labels::Origin::Global.as_str())]
        {
            resource.meta.labels.insert(key.into(), value.into());
        }
        let put = Write::Put { resource: Box::new(resource), expect: Expect::Absent, touch: false };
        match store.commit(Txn { at: Some(self.deps.clock.now()), writes: vec![put] }).await {
            Ok(_) => {
                tracing::info!(zone, "zone registered");
                Ok(())
            }
            // By another replica; it has to be seen here as well.
            Err(CommitError::Exists(_)) => self.catch_up().await,
            Err(error) => Err(Status::unavailable(format!("the Zone cannot be stored: {error}"))),
        }
    }
}

/// What became of a write of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Done,
    /// Somebody else wrote first.
    Raced,
}

fn binding_of(zone: &str, text: String, expect: Expect) -> Write {
    config_of(zone, identity_key(zone), text, expect)
}

/// A write of a Config that goes with the Zone.
fn config_of(zone: &str, key: Key, text: String, expect: Expect) -> Write {
    let mut meta = Meta::new("", key.name);
    meta.owner = Some(Key::new(Kind::Zone, "", zone));
    Write::Put { resource: Box::new(Resource::new(meta, Config { config: text })), expect, touch: false }
}

fn identity_key(zone: &str) -> Key {
    Key::new(Kind::Config, "", format!("{IDENTITY_PREFIX}{zone}"))
}

fn leader_key(zone: &str) -> Key {
    Key::new(Kind::Config, "", format!("{LEADER_PREFIX}{zone}"))
}

fn token_key(zone: &str) -> Key {
    Key::new(Kind::Config, "", format!("{TOKEN_PREFIX}{zone}"))
}

/// What a header of ours says; absent in a stock zone.
fn claim(headers: &MetadataMap, key: &str) -> Result<Option<String>, Status> {
    let Some(value) = headers.get(key) else { return Ok(None) };
    match value.to_str() {
        Ok(text) if !text.is_empty() && text.len() <= CLAIM_LEN_MAX => Ok(Some(text.to_owned())),
        _ => Err(Status::invalid_argument(format!(
            "{key}: not a printable text of up to {CLAIM_LEN_MAX} bytes"
        ))),
    }
}
