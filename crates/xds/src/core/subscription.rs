//! One resource type on one stream: what the client wants, what it has, and what it has not answered yet
//! (xds.md §1.6).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use graticule_envoygen::{EnvoyResource, Resources};

/// Names that a client may subscribe to, or claim to have, per type.
pub(super) const NAMES_MAX: usize = 100_000;
/// Longest name that a client may subscribe to.
pub(super) const NAME_BYTES_MAX: usize = 4_096;
/// Answers to new subscriptions that may be out without an acknowledgement; more wait.
const UNANSWERED_MAX: usize = 256;

/// What the client has under a name.
#[derive(Debug, Clone)]
enum Known {
    /// What was sent; delivered or rejected, it is not sent again.
    Sent(Arc<EnvoyResource>),
    /// The version that it claims to have from an earlier stream.
    Claimed(String),
    /// Sent in a response that was rejected as a whole because of some other resource.
    Unsure,
}

impl Known {
    fn is_current(&self, resource: &Arc<EnvoyResource>) -> bool {
        match self {
            Known::Sent(sent) => Arc::ptr_eq(sent, resource) || sent.version == resource.version,
            Known::Claimed(version) => **version == *resource.version,
            Known::Unsure => false,
        }
    }
}

/// A response on its way, until it is acknowledged or rejected.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) nonce: String,
    pub(super) revision: u64,
    pub(super) sent: Vec<Arc<EnvoyResource>>,
    pub(super) removed: Vec<Arc<str>>,
}

/// What the client lacks.
#[derive(Debug, Default, Clone)]
pub(super) struct Diff {
    pub(super) changed: Vec<Arc<EnvoyResource>>,
    pub(super) removed: Vec<Arc<str>>,
}

impl Diff {
    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// More names than a client may use, or a name that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NamesLimit;

/// State of one type.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    opened: bool,
    wildcard: bool,
    names: BTreeSet<Arc<str>>,
    known: BTreeMap<Arc<str>, Known>,
    /// To be sent at once, although the client may have it.
    asked: BTreeSet<Arc<str>>,
    /// To be sent when the client subscribes for the first time, although it may claim to have it.
    early: BTreeSet<Arc<str>>,
    /// The client waits for a response, even an empty one.
    must_answer: bool,
    unanswered: VecDeque<Unanswered>,
    /// Groups of names of which each holds one that the client rejects.
    suspects: Vec<Vec<Arc<str>>>,
    rejected: BTreeMap<Arc<str>, Arc<str>>,
    /// Against the current snapshot; `None` = to be computed.
    diff: Option<Diff>,
}

impl Subscription {
    /// A request was seen.
    pub(super) fn is_open(&self) -> bool {
        self.opened
    }

    pub(super) fn has_unanswered(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// The client has some version of it and did not just reject it.
    pub(super) fn has(&self, name: &str) -> bool {
        matches!(self.known.get(name), Some(Known::Sent(_) | Known::Claimed(_)))
            && !self.rejected.contains_key(name)
    }

    pub(super) fn has_any(&self) -> bool {
        self.known.keys().any(|name| self.has(name))
    }

    pub(super) fn knows(&self, name: &str) -> bool {
        self.known.contains_key(name)
    }

    pub(super) fn is_rejected(&self, name: &str) -> bool {
        self.rejected.contains_key(name)
    }

    pub(super) fn rejected_len(&self) -> usize {
        self.rejected.len()
    }

    pub(super) fn has_all_named(&self) -> bool {
        self.names.iter().all(|name| self.has(name))
    }

    /// Whether the name is part of a response that has no answer yet.
    pub(super) fn is_on_its_way(&self, name: &str) -> bool {
        self.unanswered.iter().any(|response| response.sent.iter().any(|resource| &*resource.name == name))
    }

    /// The snapshot changed.
    pub(super) fn invalidate(&mut self) {
        self.diff = None;
    }

    /// Sends a resource once more, if the client subscribed to it or does so in its first request.
    pub(super) fn resend(&mut self, name: &Arc<str>) {
        if self.names.contains(name) {
            self.asked.insert(name.clone());
        } else if !self.opened {
            self.early.insert(name.clone());
        }
    }

    /// Applies the subscription part of a request.
    pub(super) fn subscribe(
        &mut self,
        has_wildcard: bool,
        subscribe: &[String],
        unsubscribe: &[String],
        versions: &HashMap<String, String>,
    ) -> Result<(), NamesLimit> {
        let is_first = !self.opened;
        self.opened = true;
        self.diff = None;
        if is_first && has_wildcard && subscribe.is_empty() {
            self.wildcard = true;
            self.must_answer = true;
        }
        for name in subscribe {
            if has_wildcard && name == "*" {
                self.wildcard = true;
                self.must_answer = true;
                continue;
            }
            if name.len() > NAME_BYTES_MAX
                || (self.names.len() >= NAMES_MAX && !self.names.contains(name.as_str()))
            {
                return Err(NamesLimit);
            }
            let name: Arc<str> = name.as_str().into();
            if !(is_first && versions.contains_key(&*name)) || self.early.contains(&name) {
                self.asked.insert(name.clone());
            }
            self.names.insert(name);
        }
        if is_first {
            self.early.clear();
            if versions.len() > NAMES_MAX || versions.keys().any(|name| name.len() > NAME_BYTES_MAX) {
                return Err(NamesLimit);
            }
            for (name, version) in versions {
                if self.wildcard || self.names.contains(name.as_str()) {
                    self.known.insert(name.as_str().into(), Known::Claimed(version.clone()));
                }
            }
        }
        for name in unsubscribe {
            self.unsubscribe(has_wildcard, name);
        }
        Ok(())
    }

    fn unsubscribe(&mut self, has_wildcard: bool, name: &str) {
        if has_wildcard && name == "*" {
            self.wildcard = false;
            self.must_answer = false;
            let names = &self.names;
            self.known.retain(|name, _| names.contains(name));
            self.rejected.retain(|name, _| names.contains(name));
            return;
        }
        self.names.remove(name);
        self.asked.remove(name);
        if !self.wildcard {
            self.known.remove(name);
            self.rejected.remove(name);
        }
    }

    /// What the client lacks of `resources`.
    pub(super) fn diff(&mut self, resources: &Resources) -> &Diff {
        if self.diff.is_none() {
            let diff = if self.wildcard { self.diff_all(resources) } else { self.diff_named(resources) };
            self.diff = Some(diff);
        }
        self.diff.get_or_insert_default()
    }

    fn diff_named(&mut self, resources: &Resources) -> Diff {
        let mut diff = Diff::default();
        for name in &self.names {
            match (resources.get(name), self.known.get_mut(name)) {
                (Some(resource), Some(known)) if known.is_current(resource) => {
                    *known = Known::Sent(resource.clone())
                }
                (Some(resource), _) => diff.changed.push(resource.clone()),
                (None, Some(_)) => diff.removed.push(name.clone()),
                (None, None) => {}
            }
        }
        diff
    }

    /// Both sides are ordered by name, so one pass over both does. Named resources are part of all.
    fn diff_all(&mut self, resources: &Resources) -> Diff {
        let mut diff = Diff::default();
        let mut known = self.known.iter_mut().peekable();
        for (name, resource) in resources {
            while let Some((gone, _)) = known.next_if(|(known, _)| (**known).cmp(name) == Ordering::Less) {
                diff.removed.push(gone.clone());
            }
            match known.next_if(|(known, _)| *known == name) {
                Some((_, known)) if known.is_current(resource) => *known = Known::Sent(resource.clone()),
                _ => diff.changed.push(resource.clone()),
            }
        }
        diff.removed.extend(known.map(|(gone, _)| gone.clone()));
        diff
    }

    /// Nothing to send and nothing to wait for.
    pub(super) fn is_settled(&mut self, resources: &Resources) -> bool {
        self.unanswered.is_empty() && !self.must_answer && self.diff(resources).is_empty()
    }

    /// The client has something that it should not have any more.
    pub(super) fn has_removals(&mut self, resources: &Resources) -> bool {
        self.opened && !self.diff(resources).removed.is_empty()
    }

    /// The client lacks something.
    pub(super) fn has_changes(&mut self, resources: &Resources) -> bool {
        self.opened && !self.diff(resources).changed.is_empty()
    }

    /// What goes out now, if anything: at most one unanswered response with changes, but new subscriptions are
    /// answered at once.
    pub(super) fn due(&mut self, resources: &Resources, removals: bool) -> Option<Diff> {
        if !self.opened {
            return None;
        }
        let is_free = self.unanswered.is_empty();
        if !is_free && self.unanswered.len() >= UNANSWERED_MAX {
            return None;
        }
        let mut due = Diff::default();
        if is_free {
            let diff = self.diff(resources).clone();
            due.changed = self.pick_suspects(diff.changed);
            if removals && self.suspects.is_empty() {
                due.removed = diff.removed;
            }
        }
        let sorted = due.changed.len();
        for name in std::mem::take(&mut self.asked) {
            if let Some(resource) = resources.get(&name)
                && due.changed[..sorted].binary_search_by(|changed| changed.name.cmp(&name)).is_err()
            {
                due.changed.push(resource.clone());
            }
        }
        if due.is_empty() && !self.must_answer {
            return None;
        }
        self.must_answer = false;
        Some(due)
    }

    /// While a culprit is searched, one group of names after the other.
    fn pick_suspects(&mut self, changed: Vec<Arc<EnvoyResource>>) -> Vec<Arc<EnvoyResource>> {
        while let Some(group) = self.suspects.pop() {
            let picked: Vec<_> =
                changed.iter().filter(|r| group.binary_search(&r.name).is_ok()).cloned().collect();
            if !picked.is_empty() {
                return picked;
            }
        }
        changed
    }

    /// A response was made of what was due.
    pub(super) fn sent(&mut self, response: Unanswered) {
        for resource in &response.sent {
            self.known.insert(resource.name.clone(), Known::Sent(resource.clone()));
            self.rejected.remove(&resource.name);
        }
        for name in &response.removed {
            self.known.remove(name);
            self.rejected.remove(name);
        }
        self.unanswered.push_back(response);
        self.diff = None;
    }

    /// The response that a nonce answers; `None` for a stale nonce.
    pub(super) fn answered(&mut self, nonce: &str) -> Option<Unanswered> {
        let index = self.unanswered.iter().position(|response| response.nonce == nonce)?;
        self.unanswered.remove(index)
    }

    /// A response was rejected. Returns the names that are to blame; none as long as that is not known, then
    /// halves of the response go out again, so that one bad resource never stops the others.
    pub(super) fn reject(
        &mut self,
        response: &Unanswered,
        message: &str,
        names_are_told: bool,
    ) -> Vec<Arc<str>> {
        self.diff = None;
        let names: Vec<Arc<str>> = response.sent.iter().map(|resource| resource.name.clone()).collect();
        let told: Vec<Arc<str>> = match names_are_told {
            true => names.iter().filter(|name| is_blamed(message, name)).cloned().collect(),
            false => Vec::new(),
        };
        if told.is_empty() && !names.is_empty() {
            self.remove_again(&response.removed);
        }
        let blamed = match (names.len(), told.len()) {
            (0, _) => return response.removed.clone(),
            (1, _) => names,
            (_, 0) => {
                self.search(response, names);
                return Vec::new();
            }
            _ => told,
        };
        for resource in response.sent.iter().filter(|resource| blamed.contains(&resource.name)) {
            // Something newer may have been sent in between.
            if matches!(self.known.get(&resource.name), Some(known) if known.is_current(resource)) {
                self.rejected.insert(resource.name.clone(), resource.version.clone());
            }
        }
        blamed
    }

    /// Removals that were refused together with something else go out once more, on their own.
    fn remove_again(&mut self, removed: &[Arc<str>]) {
        for name in removed {
            if self.wildcard || self.names.contains(name) {
                self.known.entry(name.clone()).or_insert(Known::Unsure);
            }
        }
    }

    fn search(&mut self, response: &Unanswered, mut names: Vec<Arc<str>>) {
        for resource in &response.sent {
            if let Some(known) = self.known.get_mut(&resource.name)
                && known.is_current(resource)
            {
                *known = Known::Unsure;
            }
        }
        names.sort();
        let second = names.split_off(names.len() / 2);
        self.suspects.push(second);
        self.suspects.push(names);
    }
}

/// Envoy lists rejected clusters and listeners as `… (s) name: reason, name: reason`.
fn is_blamed(message: &str, name: &str) -> bool {
    message.match_indices(name).any(|(start, _)| {
        let before = message[..start].chars().next_back();
        let after = message[start + name.len()..].chars().next();
        matches!(before, None | Some(' ' | ',' | '\n')) && after == Some(':')
    })
}
