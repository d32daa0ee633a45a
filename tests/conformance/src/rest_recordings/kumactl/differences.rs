//! The accepted differences of the suite. What concerns the API is in `docs/deviations.md`, what concerns `grat` in
//! `docs/cli.md`.

use crate::accepted::{Accepted, Ours, differs};

const UNCHANGED: &str = "what is stored as it is applied is not written again";
const USAGE: &str = "wrong command lines end with 2";
const SAYS_LESS: &str = "nothing but the error is said";
const HIDDEN: &str = "tokens are hidden";
const NO_INTER_CP_CA: &str = "instances of a control plane need no certificates from a secret";
const EITHER_WORD: &str = "kinds are understood in singular and plural everywhere";
const MISSING_POLICY: &str = "a policy that does not exist is an error";
const OWN_VERSIONS: &str = "versions and numbers of messages are the system's own";
const ZONE_LABELS: &str = "the Zone that global makes is labelled like one that a person makes";

const OWN_INSIGHT: &str = "a zone shows its own Zone without its insight yet (deviations: Not there yet)";

/// Every one has its reason.
pub(super) static ACCEPTED: &[Accepted] = &[
    differs("grat/* apply -f -", "/stdout/resource*Updated", Ours::Absent, UNCHANGED),
    differs("grat/* apply -f -", "/stdout/resource*Unchanged", Ours::Additional, UNCHANGED),
    differs("grat/*", "/exit-code", Ours::Is("2"), USAGE),
    differs("grat/* get nope", "/stdout", Ours::Is("\"nothing\""), SAYS_LESS),
    differs("grat/* export --profile nope", "/stdout", Ours::Is("\"nothing\""), SAYS_LESS),
    differs("grat/* config view", "/stdout/*/token", Ours::Like("(hidden*"), HIDDEN),
    differs("grat/* get global*", "/stdout/inter-cp-ca *", Ours::Absent, NO_INTER_CP_CA),
    differs("grat/* delete meshtimeouts t2 -m demo", "/stdout/*", Ours::Additional, EITHER_WORD),
    differs("grat/* delete meshtimeouts t2 -m demo", "/exit-code", Ours::Is("0"), EITHER_WORD),
    differs("grat/* inspect mesh* none", "/stdout/*", Ours::Absent, MISSING_POLICY),
    differs("grat/* inspect mesh* none", "/exit-code", Ours::Is("1"), MISSING_POLICY),
    differs("grat/* inspect dataplanes*", "/stdout/default web-1* Online *", Ours::Absent, OWN_VERSIONS),
    differs("grat/* inspect dataplanes*", "/stdout/default web-1* Online *", Ours::Additional, OWN_VERSIONS),
    differs("grat/* inspect zones", "/stdout/zone-1 Online *", Ours::Absent, OWN_VERSIONS),
    differs("grat/* inspect zones", "/stdout/zone-1 Online *", Ours::Additional, OWN_VERSIONS),
    differs("grat/148 inspect zones", "/stdout/zone-1 Offline *", Ours::Additional, OWN_INSIGHT),
    differs("grat/* get zones *", "/stdout/items/zone-1/labels", Ours::Additional, ZONE_LABELS),
    differs("grat/* get zone zone-1 *", "/stdout/labels", Ours::Additional, ZONE_LABELS),
];
