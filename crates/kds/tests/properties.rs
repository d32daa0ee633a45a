//! Properties of the wire form, on generated resources of every kind.

use graticule_generate::Generator;
use graticule_kds::wire::{Encoded, RESOURCE_TYPE_URL, decode};
use graticule_model::{Kind, Resource, Status};
use graticule_proto::discovery;
use graticule_proto::google::protobuf::Any;
use proptest::prelude::*;

/// Kinds that no stream carries (resources.md §1.3).
const AT_HOME: [Kind; 4] = [Kind::Zone, Kind::ZoneInsight, Kind::MeshInsight, Kind::ServiceInsight];

fn generated(kind: Kind, seed: u64) -> Resource {
    let mut generator = Generator::new(seed);
    let mut resource = Resource::from_rest(kind, &generator.document(kind)).expect("valid");
    if kind.descriptor().capabilities.has_status {
        let status = generator.admitted(kind.status_schema(), "");
        resource.status = Status::from_json(kind, &status).expect("a status");
    }
    resource
}

/// What arrives is what was sent, and would be sent on as the same bytes.
#[test]
fn resources_survive_the_wire() {
    for kind in Kind::all() {
        for seed in 0..60 {
            let resource = generated(kind, seed);
            let encoded = match Encoded::of(&resource) {
                Ok(encoded) => encoded,
                Err(error) => {
                    assert!(AT_HOME.contains(&kind), "{kind}: {error}");
                    continue;
                }
            };
            assert!(!AT_HOME.contains(&kind), "{kind} travels");
            let received = decode(kind, &encoded.to_discovery());
            assert_eq!(received.as_ref(), Ok(&resource), "{kind}, seed {seed}");
            assert_eq!(Encoded::of(&received.expect("read")), Ok(encoded), "{kind}, seed {seed}");
        }
    }
}

proptest! {
    /// Damaged bytes give an answer; what is read can be sent again.
    #[test]
    fn damaged_bytes_get_an_answer(
        seed in any::<u64>(),
        index in any::<usize>(),
        places in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..6),
    ) {
        let kinds: Vec<Kind> = Kind::all().filter(|kind| !AT_HOME.contains(kind)).collect();
        let kind = kinds[index % kinds.len()];
        let mut value = Encoded::of(&generated(kind, seed)).expect("travels").bytes;
        for (place, byte) in places {
            let place = place % value.len();
            value[place] = byte;
        }
        let message = discovery::Resource {
            resource: Some(Any { type_url: RESOURCE_TYPE_URL.into(), value }),
            ..Default::default()
        };
        if let Ok(resource) = decode(kind, &message) {
            let again = Encoded::of(&resource);
            prop_assert!(again.is_ok(), "{}: {:?}", kind, again);
            let _ = resource.validate();
        }
    }
}
