//! Whatever the order of snapshots, acknowledgements, rejections and reconnects: the client ends up with the last
//! snapshot, except what it rejects, and nothing loops.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use envoy_types::pb::google::rpc::Status;
use proptest::prelude::*;

use super::tests::mk_snapshot;
use super::*;

/// A client that does what Envoy does: applies responses, subscribes to what its clusters and listeners name,
/// rejects versions that it does not like, and acknowledges late.
#[derive(Default)]
struct Client {
    has: BTreeMap<ResourceType, BTreeMap<String, String>>,
    subscribed: BTreeMap<ResourceType, BTreeSet<String>>,
    answers: VecDeque<discovery::DeltaDiscoveryRequest>,
}

const BAD: &str = "9";

impl Client {
    fn request(kind: ResourceType) -> discovery::DeltaDiscoveryRequest {
        discovery::DeltaDiscoveryRequest { type_url: kind.type_url().into(), ..Default::default() }
    }

    /// First requests of a stream, with everything that the client has.
    fn connect(&mut self) -> Vec<discovery::DeltaDiscoveryRequest> {
        self.answers.clear();
        let kinds =
            [ResourceType::Cluster, ResourceType::Endpoint, ResourceType::Secret, ResourceType::Listener]
                .into_iter();
        kinds
            .map(|kind| {
                let mut request = Client::request(kind);
                let has = self.has.entry(kind).or_default();
                request.initial_resource_versions = has.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
                if !kind.has_wildcard() {
                    let names = self.subscribed.entry(kind).or_default();
                    request.resource_names_subscribe = names.iter().cloned().collect();
                }
                request
            })
            .collect()
    }

    fn receive(&mut self, response: &discovery::DeltaDiscoveryResponse) {
        let kind = ResourceType::from_type_url(&response.type_url).expect("a served type");
        let is_whole_refused = !kind.has_wildcard() && response.resources.iter().any(|r| r.version == BAD);
        let mut bad = Vec::new();
        let has = self.has.entry(kind).or_default();
        let subscribed = self.subscribed.entry(kind).or_default();
        for resource in &response.resources {
            if resource.version == BAD {
                bad.push(format!("{}: bad", resource.name));
            } else if !is_whole_refused && (kind.has_wildcard() || subscribed.contains(&resource.name)) {
                has.insert(resource.name.clone(), resource.version.clone());
            }
        }
        if !is_whole_refused {
            for name in &response.removed_resources {
                has.remove(name);
            }
        }
        self.follow(kind);
        let mut answer = Client::request(kind);
        answer.response_nonce = response.nonce.clone();
        if !bad.is_empty() {
            let message =
                if kind.has_wildcard() { format!("refused {}", bad.join(", ")) } else { "refused".into() };
            answer.error_detail = Some(Status { code: 13, message, ..Default::default() });
        }
        self.answers.push_back(answer);
    }

    /// A cluster named like `a` uses endpoints `a`, a listener named like `a` uses secret `a`.
    fn follow(&mut self, kind: ResourceType) {
        let used = match kind {
            ResourceType::Cluster => ResourceType::Endpoint,
            ResourceType::Listener => ResourceType::Secret,
            _ => return,
        };
        let wanted: BTreeSet<String> = self.has[&kind].keys().cloned().collect();
        let names = self.subscribed.entry(used).or_default();
        let mut request = Client::request(used);
        request.resource_names_subscribe = wanted.difference(names).cloned().collect();
        request.resource_names_unsubscribe = names.difference(&wanted).cloned().collect();
        for name in &request.resource_names_unsubscribe {
            self.has.entry(used).or_default().remove(name);
        }
        *names = wanted;
        if !request.resource_names_subscribe.is_empty() || !request.resource_names_unsubscribe.is_empty() {
            self.answers.push_back(request);
        }
    }
}

struct World {
    stream: Stream,
    client: Client,
    now: Duration,
    sent: usize,
}

impl World {
    fn poll(&mut self) {
        let step = self.stream.poll(self.now);
        self.sent += step.responses.len();
        for response in &step.responses {
            self.client.receive(response);
        }
    }

    fn request(&mut self, request: &discovery::DeltaDiscoveryRequest) {
        self.stream.on_request(request).expect("a well-behaved client");
        self.poll();
    }

    fn connect(&mut self, snapshot: Option<Arc<Snapshot>>) {
        self.stream = Stream::new("m.p", "cp-1");
        if let Some(snapshot) = snapshot {
            self.stream.on_snapshot(snapshot);
        }
        for request in self.client.connect() {
            self.request(&request);
        }
    }

    fn answer(&mut self) -> bool {
        let Some(answer) = self.client.answers.pop_front() else { return false };
        self.request(&answer);
        true
    }
}

#[derive(Debug, Clone)]
enum Act {
    Snapshot(String),
    Answer,
    Wait(u16),
    Reconnect,
}

/// Clusters with their endpoints, listeners with their secrets; version [`BAD`] is refused by the client.
fn snapshots() -> impl Strategy<Value = String> {
    let part = |first: &'static str, second: &'static str| {
        prop::collection::btree_map("[a-e]", (1..5u8, prop_oneof![9 => 1..5u8, 1 => Just(9u8)]), 0..5)
            .prop_map(move |parts| {
                let words =
                    parts.iter().map(|(name, (v, w))| format!("{first}:{name}={v} {second}:{name}={w}"));
                words.collect::<Vec<_>>().join(" ")
            })
    };
    // The first of a pair may be refused by name, the second only as part of a whole response.
    (part("c", "e"), part("l", "s")).prop_map(|(clusters, listeners)| format!("{clusters} {listeners}"))
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => snapshots().prop_map(Act::Snapshot),
        6 => Just(Act::Answer),
        1 => (0..1500u16).prop_map(Act::Wait),
        1 => Just(Act::Reconnect),
    ];
    prop::collection::vec(act, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn converges(acts in acts()) {
        let mut world = World {
            stream: Stream::new("m.p", "cp-1"),
            client: Client::default(),
            now: Duration::from_secs(1),
            sent: 0,
        };
        let mut last: Option<Arc<Snapshot>> = None;
        world.connect(None);
        for (index, act) in acts.iter().enumerate() {
            match act {
                Act::Snapshot(resources) => {
                    let snapshot = mk_snapshot(index as u64 + 1, resources);
                    last = Some(snapshot.clone());
                    world.stream.on_snapshot(snapshot);
                    world.poll();
                }
                Act::Answer => { world.answer(); }
                Act::Wait(ms) => {
                    world.now += Duration::from_millis((*ms).into());
                    world.poll();
                }
                Act::Reconnect => world.connect(last.clone()),
            }
        }
        // The client answers everything and time passes.
        let sent_before = world.sent;
        for _ in 0..8 {
            while world.answer() {}
            world.now += HOLD_MAX;
            world.poll();
        }
        prop_assert!(world.client.answers.is_empty());
        prop_assert!(world.sent - sent_before < 200, "a loop: {} responses", world.sent - sent_before);
        if let Some(last) = last {
            for kind in ResourceType::ALL {
                let has = &world.client.has[&kind];
                let is_wanted = |name: &str| kind.has_wildcard() || world.client.subscribed[&kind].contains(name);
                for (name, resource) in kind.of(&last) {
                    if &*resource.version != BAD && is_wanted(name) {
                        prop_assert_eq!(has.get(&**name).map(String::as_str), Some(&*resource.version), "{} {}", kind, name);
                    }
                }
                for name in has.keys() {
                    prop_assert!(kind.of(&last).contains_key(name.as_str()), "{} {} is left over", kind, name);
                }
            }
        }
    }
}
