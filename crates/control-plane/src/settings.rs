//! Settings that both control planes have besides those of `runtime` and of the REST API.

use graticule_runtime::config::Setting;
use graticule_runtime::settings::setting;
use serde::{Deserialize, Serialize};

/// `mode` of `global-cp`: only `global`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GlobalMode(pub String);

impl Default for GlobalMode {
    fn default() -> Self {
        GlobalMode("global".into())
    }
}

/// `mode` of `zone-cp`: only `zone`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ZoneMode(pub String);

impl Default for ZoneMode {
    fn default() -> Self {
        ZoneMode("zone".into())
    }
}

/// `environment`: only `universal`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Environment(pub String);

impl Default for Environment {
    fn default() -> Self {
        Environment("universal".into())
    }
}

/// Table of `mode` and `environment`.
pub const SITE_SETTINGS: &[Setting] = &[
    setting(
        "mode",
        "MODE",
        "what the program is; there for configurations of Kuma, any other value is an error",
    ),
    setting("environment", "ENVIRONMENT", "where the program runs; this version: universal"),
];

/// Table of `federation.deletionProtection`, which both control planes have.
pub const DELETION_PROTECTION_SETTINGS: &[Setting] = &[
    setting(
        "federation.deletionProtection.share",
        "FEDERATION_DELETION_PROTECTION_SHARE",
        "what the other side of a federation lacks when a connection begins is kept when that is at least this share \
         of the copies of a kind (0 to 1) …",
    ),
    setting(
        "federation.deletionProtection.number",
        "FEDERATION_DELETION_PROTECTION_NUMBER",
        "… and at least this number of them; 0: nothing is ever kept",
    ),
];

/// What is wrong with `federation.deletionProtection.share`.
pub fn check_deletion_share(share: f64) -> Option<String> {
    let is_share = (0.0..=1.0).contains(&share);
    (!is_share).then(|| "federation.deletionProtection.share: must be from 0 to 1".to_owned())
}

/// `compat`: single points of safety that can be turned off for stock Kuma peers and habits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Compat {
    /// REST writes need no credential.
    pub anonymous_writes: bool,
    /// Zones need no token.
    pub allow_zones_without_token: bool,
    /// These zones need no token.
    pub zones_without_token: Vec<String>,
}

impl Compat {
    /// Table.
    pub const SETTINGS: &[Setting] = &[
        setting(
            "compat.anonymousWrites",
            "COMPAT_ANONYMOUS_WRITES",
            "REST writes need no credential, as in Kuma",
        ),
        setting(
            "compat.allowZonesWithoutToken",
            "COMPAT_ALLOW_ZONES_WITHOUT_TOKEN",
            "zones need no token, as in Kuma; a stock Kuma zone sends none. A name that was used with a token needs one still",
        ),
        setting(
            "compat.zonesWithoutToken",
            "COMPAT_ZONES_WITHOUT_TOKEN",
            "names of single zones that need no token",
        ),
    ];
}
