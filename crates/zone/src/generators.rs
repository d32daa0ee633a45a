//! The generators of a zone: after every change they derive services, addresses, hostnames, identity and trust, and the
//! leader writes what differs (`view::derive`). The other replicas derive to have the same certificate authorities at hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use graticule_model::{Key, Kind, Resource};
use graticule_runtime::supervisor::chain;
use graticule_runtime::{Clock, Drain, Random};
use graticule_store::{CommitError, Event, Expect, Store, Txn, Write};
use graticule_view::derive::{AuthorityReport, AuthoritySource};
use graticule_view::{DeriveSettings, DeriveState, Derived, DerivedWrite, ResourceSet, derive_meshes};

use crate::authorities::{Authorities, Provided};
use crate::observations::Observations;

/// Longest time without a look at deadlines.
const LOOK_MAX: Duration = Duration::from_secs(600);
/// Pause after the store refused writes for reasons of its own.
const STORE_RETRY: Duration = Duration::from_millis(500);

/// Settings of the generators.
#[derive(Debug, Clone)]
pub struct GeneratorSettings {
    /// Name of the zone.
    pub zone: String,
    /// Settings of the derivation.
    pub derive: DeriveSettings,
    /// Whether this replica leads: others write nothing.
    pub leads: bool,
}

/// Derives and writes.
pub struct Generators {
    settings: GeneratorSettings,
    store: Arc<dyn Store>,
    observations: Observations,
    authorities: Authorities,
    clock: Clock,
    random: Random,
    resources: ResourceSet,
    reports: BTreeMap<Key, AuthorityReport>,
    problems: BTreeMap<Key, String>,
}

impl Generators {
    /// Generators of one zone.
    pub fn new(
        settings: GeneratorSettings,
        store: Arc<dyn Store>,
        observations: Observations,
        authorities: Authorities,
        clock: Clock,
        random: Random,
    ) -> Generators {
        Generators {
            settings,
            store,
            observations,
            authorities,
            clock,
            random,
            resources: ResourceSet::default(),
            reports: BTreeMap::new(),
            problems: BTreeMap::new(),
        }
    }

    /// Runs until drained.
    pub async fn run(mut self, drain: Drain) {
        let mut feed = self.store.watch(None);
        let mut observed = self.observations.changes();
        let clock = self.clock.clone();
        let mut wait = LOOK_MAX;
        loop {
            let mut meshes = BTreeSet::new();
            tokio::select! {
                biased;
                () = drain.signaled() => return,
                event = feed.next() => match event {
                    Some(event) => self.take(event, &mut meshes),
                    None => return,
                },
                Ok(()) = observed.changed() => meshes = self.all_meshes(),
                () = clock.sleep(wait) => meshes = self.all_meshes(),
            }
            // What queued up meanwhile is derived together.
            loop {
                tokio::select! {
                    biased;
                    event = feed.next() => match event {
                        Some(event) => self.take(event, &mut meshes),
                        None => return,
                    },
                    () = std::future::ready(()) => break,
                }
            }
            wait = self.derive(&meshes).await;
        }
    }

    fn all_meshes(&self) -> BTreeSet<String> {
        self.resources.all(Kind::Mesh).map(|mesh| mesh.meta.name.clone()).collect()
    }

    fn take(&mut self, event: Event, meshes: &mut BTreeSet<String>) {
        match event {
            Event::Resync(snapshot) => {
                self.resources = ResourceSet::default();
                for resource in snapshot.iter() {
                    self.resources.set(resource.key(), Some(resource.clone()));
                }
                meshes.extend(self.all_meshes());
            }
            Event::Batch(batch) => {
                for change in &batch.changes {
                    self.resources.set(change.key.clone(), change.new.clone());
                    match change.key.kind {
                        Kind::Mesh => {
                            meshes.insert(change.key.name.clone());
                        }
                        Kind::HostnameGenerator => meshes.extend(self.all_meshes()),
                        kind if kind.descriptor().is_global_scoped() || kind.descriptor().is_policy() => {}
                        _ => {
                            meshes.insert(change.key.mesh.clone());
                        }
                    }
                }
            }
        }
    }

    /// Derives the meshes and writes what differs; gives the time until the next look.
    async fn derive(&mut self, meshes: &BTreeSet<String>) -> Duration {
        if meshes.is_empty() {
            return LOOK_MAX;
        }
        let mut observed = self.observations.state();
        observed.connected.append(&mut observed.elsewhere);
        let state = DeriveState {
            resources: &self.resources,
            zone: &self.settings.zone,
            settings: &self.settings.derive,
            connected: &observed.connected,
            serving: &observed.serving,
            authorities: &self.reports,
        };
        let now = self.clock.now();
        let derived = derive_meshes(&state, meshes.iter().map(String::as_str), now);
        self.tell_problems(&derived, meshes);
        let next =
            derived.next_deadline.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        let mut wait = next.unwrap_or(LOOK_MAX).clamp(Duration::from_millis(1), LOOK_MAX);
        if let Err(pause) = self.write(derived).await {
            wait = wait.min(pause);
        }
        wait
    }

    /// Commits everything together; when one write conflicts with somebody else's, the feed brings theirs and the
    /// next derivation starts from it. An error is the time until the next try.
    async fn write(&mut self, derived: Derived) -> Result<(), Duration> {
        let now = self.clock.now();
        if self.settings.leads && !derived.writes.is_empty() {
            let writes: Vec<Write> = derived.writes.into_iter().map(to_write).collect();
            match self.store.commit(Txn { at: Some(now), writes }).await {
                Ok(_) => {}
                Err(error @ (CommitError::Unavailable(_) | CommitError::Uncertain(_))) => {
                    tracing::warn!(error = chain(&error), "derived resources cannot be stored now");
                    return Err(STORE_RETRY);
                }
                Err(error) => {
                    tracing::debug!(error = chain(&error), "derived from an older state; deriving again")
                }
            }
        }
        for request in &derived.authorities {
            if !self.settings.leads && matches!(request.source, AuthoritySource::Generated { .. }) {
                continue;
            }
            match self.authorities.provide(request, now, &self.random) {
                Provided::Store(txn) => {
                    if let Err(error) = self.store.commit(txn).await {
                        tracing::debug!(
                            error = chain(&error),
                            "the authority of {} was made elsewhere",
                            request.identity
                        );
                    } else {
                        tracing::info!(
                            identity = request.identity.name,
                            mesh = request.identity.mesh,
                            trust_domain = request.trust_domain,
                            "certificate authority made"
                        );
                    }
                }
                Provided::Report(report) => {
                    if self.reports.get(&request.identity) != Some(&report) {
                        self.reports.insert(request.identity.clone(), report);
                        return Err(Duration::from_millis(1));
                    }
                }
            }
        }
        Ok(())
    }

    /// Says each problem once, and again when it changed.
    fn tell_problems(&mut self, derived: &Derived, meshes: &BTreeSet<String>) {
        let now: BTreeMap<Key, String> = derived.problems.iter().cloned().collect();
        for (key, problem) in &now {
            if self.settings.leads && self.problems.get(key) != Some(problem) {
                tracing::warn!(resource = %key, problem, "left out of what the zone derives");
            }
        }
        self.problems.retain(|key, _| !meshes.contains(&key.mesh));
        self.problems.extend(now);
    }
}

fn to_write(write: DerivedWrite) -> Write {
    match write {
        DerivedWrite::Put(resource) => {
            let expect = match resource.meta.version {
                0 => Expect::Absent,
                version => Expect::Version(version),
            };
            Write::Put { resource: Box::<Resource>::new(resource), expect, touch: false }
        }
        DerivedWrite::Delete(key) => Write::Delete { key, expect: Expect::Any },
    }
}
