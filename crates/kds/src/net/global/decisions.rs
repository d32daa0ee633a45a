//! What operators decided about copies that are held back. A decision is stored until a stream has been brought into step with
//! it: the zone may open that stream at another replica of global, or after a restart.

use std::collections::BTreeMap;
use std::time::Duration;

use graticule_model::kinds::config::Config;
use graticule_model::{Key, Kind, Meta, Resource};
use graticule_store::{CommitError, Event, Expect, Txn, Write};
use serde::{Deserialize, Serialize};

use super::Shared;
use crate::core::Claimant;

/// Time after which a decision that nobody carried out is void: what would be lost then is not what the operator was shown.
const LIFE: Duration = Duration::from_secs(24 * 3600);

/// Beginning of the names of the Configs that keep decisions.
const DECISION_PREFIX: &str = "graticule-accepted-deletions.";

/// About the control plane that had the zone's name then, and no other one: it may have lost its disk once more meanwhile.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Decision {
    /// Of the control plane; a stock zone has none.
    identity: Option<String>,
    /// How many copies of each kind were given up: more than the operator was shown is not.
    given_up: BTreeMap<String, usize>,
}

/// A decision that counts.
pub(super) struct Decided {
    /// Of its Config.
    pub(super) version: u64,
    /// How many copies of each kind were given up.
    pub(super) given_up: BTreeMap<Kind, usize>,
}

fn key_of(zone: &str) -> Key {
    Key::new(Kind::Config, "", format!("{DECISION_PREFIX}{zone}"))
}

impl Shared {
    /// An operator gives up what is held back of a zone that is connected here. The zone connects again, and then it goes.
    /// Tells how many copies that concerns; `None`: the zone is not connected here.
    pub(super) async fn accept_deletions(&self, zone: &str) -> Result<Option<usize>, CommitError> {
        let Some((identity, given_up)) = self.registry.held_back(zone) else { return Ok(None) };
        let count = given_up.values().sum();
        let given_up = given_up.into_iter().map(|(kind, count)| (kind.name().to_owned(), count)).collect();
        let decision = Decision { identity, given_up };
        let text =
            serde_json::to_string(&decision).map_err(|error| CommitError::Invalid(error.to_string()))?;
        let mut meta = Meta::new("", key_of(zone).name);
        meta.owner = Some(Key::new(Kind::Zone, "", zone));
        let resource = Box::new(Resource::new(meta, Config { config: text }));
        // The same decision once more is news, too.
        let put = Write::Put { resource, expect: Expect::Any, touch: true };
        let store = &self.deps.stores.config;
        store.commit(Txn { at: Some(self.deps.clock.now()), writes: vec![put] }).await?;
        // The feed tells so as well, to a stream that has begun with it by then.
        if let Some(stored) = store.snapshot().get(&key_of(zone)) {
            self.decided(&stored);
        }
        Ok(Some(count))
    }

    /// What an operator decided about this control plane; a decision about another one is void.
    pub(super) async fn decision(&self, zone: &str, claimant: &Claimant) -> Option<Decided> {
        let stored = self.deps.stores.config.snapshot().get(&key_of(zone))?;
        let config = stored.spec_as::<Config>()?;
        let version = stored.meta.version;
        let age = self.deps.clock.now().duration_since(stored.meta.modification_time);
        let is_fresh = Duration::try_from(age).unwrap_or_default() < LIFE;
        match serde_json::from_str::<Decision>(&config.config) {
            Ok(decision) if is_fresh && decision.identity == claimant.identity => {
                let known = |(kind, count): (String, usize)| Some((Kind::from_name(&kind).ok()?, count));
                Some(Decided { version, given_up: decision.given_up.into_iter().filter_map(known).collect() })
            }
            _ => {
                self.forget_decision(zone, version).await;
                None
            }
        }
    }

    /// The decision of this version was carried out, or it is void; a later one stays.
    pub(super) async fn forget_decision(&self, zone: &str, version: u64) {
        let writes = vec![Write::Delete { key: key_of(zone), expect: Expect::Version(version) }];
        let txn = Txn { at: Some(self.deps.clock.now()), writes };
        let outcome = self.deps.stores.config.commit(txn).await;
        if matches!(outcome, Err(CommitError::Conflict { .. } | CommitError::NotFound(_))) {
            return;
        }
        if let Err(error) = outcome {
            // It concerns what is gone already.
            tracing::warn!(%error, zone, "what an operator decided cannot be forgotten yet");
        }
    }

    /// Streams of zones that something was decided about begin anew, at whatever replica they are. Decisions that were made
    /// while changes were missed are found among what is stored.
    pub(super) fn observe_decisions(&self, event: &Event) {
        match event {
            Event::Batch(batch) => {
                batch
                    .changes
                    .iter()
                    .filter_map(|change| change.new.as_deref())
                    .for_each(|new| self.decided(new));
            }
            Event::Resync(stored) => stored.list(Kind::Config, None).for_each(|stored| self.decided(stored)),
        }
    }

    /// This may be a decision.
    fn decided(&self, stored: &Resource) {
        if stored.kind() == Kind::Config
            && let Some(zone) = stored.meta.name.strip_prefix(DECISION_PREFIX)
        {
            self.registry.renew(zone, stored.meta.version);
        }
    }
}
