//! Differences from the recorded conversations that are meant. Every one is in `docs/deviations.md`.

use crate::accepted::{self, Accepted, Ours, differs};
use crate::compare::Difference;

const ZONE_LABELS: &str =
    "the Zone that global makes is labelled like one that a person makes (deviations: Federation)";
const NOT_PROVIDED: &str = "a zone has no say about meshes (deviations: Federation)";
const OLD_NAMES: &str = "names without a hash stay as they are (deviations: Federation)";
const GOOD_ONES: &str = "one bad name does not keep the others out (deviations: Federation)";
const MESH_SECRETS: &str = "Secrets of a deleted mesh are deleted with it (deviations: REST)";
const NO_INTER_CP: &str = "replicas need no authority of their own, so none is made (deviations: REST)";
const SERVICES: &str =
    "status of external and multi-zone services is not there yet (deviations: Not there yet)";
const OWN_WORDS: &str = "what may be done instead is said in other words (deviations: REST)";
const STATE: &str = "a MeshService without a state shows the one that it counts as (deviations: Federation)";
const STATUS: &str = "a status that global sends is not taken (deviations: Federation)";
const AT_ONCE: &str = "what is derived is there at once (deviations: REST)";

const OTHER_GLOBAL: &str = "a global of another federation takes nothing away (deviations: Federation)";
const RIVAL: &str = "a second control plane with a zone's name is refused, the first one keeps everything (deviations: Federation)";

const STOPPED: &str = "an instance that has stopped is no endpoint any more (deviations: Proxies)";

const REFUSED_ONLY: &str =
    "a response that cannot be read is refused, the connection stays (deviations: Federation)";
const NO_NODE: &str = "a request without a node ends its stream (deviations: Federation)";
const UP_ENDED: &str = "the end of ZoneToGlobalSync is never taken for a rest (deviations: Federation)";

pub(super) static ACCEPTED: &[Accepted] = &[
    differs("global/*GET /zones", "/body/items/*/labels", Ours::Additional, ZONE_LABELS),
    differs(
        "global/06b-*#49 *",
        "/error",
        Ours::Like("resources of type \"Mesh\" are not taken from this peer"),
        NOT_PROVIDED,
    ),
    differs("global/06b-*#50 GET /meshes", "/body/items/zonemesh", Ours::Absent, NOT_PROVIDED),
    differs("global/06b-*#50 GET /meshes", "/body/total", Ours::Is("\"1\""), NOT_PROVIDED),
    differs("global/06b-*#46 *", "/body/spec/state", Ours::Additional, STATE),
    differs("global/06b-*#348 *", "/body/items/old.legacy", Ours::Absent, OLD_NAMES),
    differs("global/06b-*#348 *", "/body/items/legacy", Ours::Additional, OLD_NAMES),
    differs("global/06e-*#16 *", "/body/items/twoown-2222222222222222", Ours::Additional, GOOD_ONES),
    differs("global/06e-*#16 *", "/body/total", Ours::Is("\"4\""), GOOD_ONES),
    differs("global/07-*#63 east has Secret", "/Secret/gs.demo", Ours::Absent, MESH_SECRETS),
    differs("global/07b-*east has Secret", "/Secret/gs.demo", Ours::Absent, MESH_SECRETS),
    differs("global/07b-*#80 GET /meshes/demo/secrets", "/body/items/gs", Ours::Absent, MESH_SECRETS),
    differs("global/07b-*#80 GET /meshes/demo/secrets", "/body/total", Ours::OneLess, MESH_SECRETS),
    differs(
        "global/07b-*#82 GET /meshes/demo/meshservices",
        "/body/items/*/spec/state",
        Ours::Additional,
        STATE,
    ),
    differs(
        "global/05c-*#3 the stream is refused",
        "/code",
        Ours::Is("\"cancelled\""),
        "streams of a deleted Zone end at once (deviations: Federation)",
    ),
    differs("global/05d-*GET *", "/body/items/manual*", Ours::Additional, RIVAL),
    differs("global/05d-*GET *", "/body/items/second-*", Ours::Absent, RIVAL),
    differs("global/05d-*#185 *", "/body/total", Ours::Is("\"2\""), RIVAL),
    differs(
        "global/05d-*#220 *",
        "/MeshTimeout/glob-*/spec/to/0/default/idleTimeout",
        Ours::Is("\"33s\""),
        RIVAL,
    ),
    differs("global/05d-*GET *", "/body/total", Ours::Is("\"3\""), RIVAL),
    differs("*GET /global-secrets", "/body/items/inter-cp-ca", Ours::Absent, NO_INTER_CP),
    differs("*GET /global-secrets", "/body/total", Ours::OneLess, NO_INTER_CP),
    differs("zone/02-*#63 *", "/body/status/*", Ours::Absent, SERVICES),
    differs("zone/02-*#64 *", "/body/status/*", Ours::Absent, SERVICES),
    differs("zone/02-*#72 *", "/body/detail*", Ours::Like("* belong to global: *"), OWN_WORDS),
    differs("zone/03-*#114 *", "/MeshService/*/spec/state", Ours::Is("\"Unavailable\""), STOPPED),
    differs("zone/03-*#114 *", "/MeshService/*/status/dataplaneProxies/healthy", Ours::Absent, STOPPED),
    differs("zone/03-*#114 *", "/Workload/*/status/dataplaneProxies/healthy", Ours::Is("\"0\""), STOPPED),
    differs("zone/03-*#128 *", "/MeshService/backend-*/spec/identities", Ours::Absent, AT_ONCE),
    differs("zone/03-*#128 *", "/MeshService/backend-*/status/dataplaneProxies/total", Ours::Absent, AT_ONCE),
    differs("zone/04-*#417 *", "/body/items/second", Ours::Additional, OTHER_GLOBAL),
    differs("zone/04-*#417 *", "/body/total", Ours::Is("\"2\""), OTHER_GLOBAL),
    differs("zone/04-*#418 *", "/body/items/slow-*", Ours::Additional, OTHER_GLOBAL),
    differs("zone/04-*#418 *", "/body/total", Ours::Is("\"4\""), OTHER_GLOBAL),
    differs("zone/07b-*has MeshService", "/MeshService/w1-*/s*", Ours::Additional, AT_ONCE),
    differs("zone/07b-*has Workload", "/Workload/w1-*/status/dataplaneProxies/*", Ours::Is("\"1\""), AT_ONCE),
    differs(
        "zone/07b-*GET *workloads",
        "/body/items/w1/status/dataplaneProxies/*",
        Ours::Is("\"1\""),
        AT_ONCE,
    ),
    differs("zone/07b-*GET *meshservices", "/body/items/w1/status/vips", Ours::Additional, AT_ONCE),
    differs("zone/07b-*GET *secrets", "/body/items/zs", Ours::Absent, MESH_SECRETS),
    differs("zone/07b-*GET *secrets", "/body/total", Ours::OneLess, MESH_SECRETS),
    differs("zone/05-*has MeshService", "/MeshService/*/status/tls/status", Ours::Additional, AT_ONCE),
    differs("zone/06c-*/svc-2222222222222222", "/body/spec/state", Ours::Additional, STATE),
    differs("zone/06c-*/svc-2222222222222222", "/body/status/vips/0/ip", Ours::Like("241.0.0.*"), STATUS),
    differs("zone/06d-*#0 13. *", "/connection", Ours::Is("\"stays\""), REFUSED_ONLY),
    differs("zone/06d-*#26 14. *", "/connection", Ours::Is("\"stays\""), REFUSED_ONLY),
    differs("zone/06d-*#50 15. *", "/connection", Ours::Is("\"stays\""), REFUSED_ONLY),
    differs("zone/06d-*#75 15b. *", "/process", Ours::Is("\"runs\""), REFUSED_ONLY),
    differs("zone/06d-*#75 15b. *", "/connection", Ours::Added("\"stays\""), REFUSED_ONLY),
    differs("zone/06d-*. ZoneToGlobalSync: *without node", "/process", Ours::Is("\"runs\""), NO_NODE),
    differs(
        "zone/06d-*. ZoneToGlobalSync: *without node",
        "/connection",
        Ours::Added("\"is made anew\""),
        NO_NODE,
    ),
    differs("zone/06d-*#171 21. *", "/connection", Ours::Is("\"is made anew\""), UP_ENDED),
];

/// What may differ at one step of a replay.
#[derive(Debug)]
pub(super) struct Meant {
    /// Name of a check there, up to what is checked.
    step: String,
}

impl Meant {
    /// At a step whose checks have names that begin like this.
    pub(super) fn at(step: String) -> Meant {
        Meant { step }
    }

    /// Whether all differences of a check are meant.
    pub(super) fn covers(&self, what: &str, differences: &[Difference]) -> bool {
        let case = format!("{}{what}", self.step);
        differences.iter().all(|difference| accepted::find(ACCEPTED, &case, difference).is_some())
    }

    /// Whether differences of kinds are those that are meant: no other ones, and each that is meant for this very step,
    /// which may come a moment later.
    pub(super) fn is_all(&self, compared: &[(String, Vec<Difference>)]) -> bool {
        let covered = compared.iter().all(|(kind, differences)| self.covers(kind, differences));
        covered && ACCEPTED.iter().all(|entry| !self.awaits(entry, compared) || self.is_met(entry, compared))
    }

    fn awaits(&self, entry: &Accepted, compared: &[(String, Vec<Difference>)]) -> bool {
        let is_about = |kind: &str| {
            let in_kind = entry.path.strip_prefix('/').and_then(|path| path.strip_prefix(kind));
            in_kind.is_some_and(|rest| rest.starts_with('/'))
                && accepted::glob(entry.case, &format!("{}{kind}", self.step))
        };
        entry.case.contains('#') && compared.iter().any(|(kind, _)| is_about(kind))
    }

    fn is_met(&self, entry: &Accepted, compared: &[(String, Vec<Difference>)]) -> bool {
        compared.iter().any(|(kind, differences)| {
            let case = format!("{}{kind}", self.step);
            let is_it = |found: &Accepted| std::ptr::eq(found, entry);
            differences
                .iter()
                .any(|difference| accepted::find(ACCEPTED, &case, difference).is_some_and(is_it))
        })
    }
}
