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

/// `compat`: single points of safety that can be turned off for stock Kuma peers and habits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Compat {
    /// REST writes need no credential.
    pub anonymous_writes: bool,
    /// Zones need no token.
    pub allow_zones_without_token: bool,
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
            "zones need no token, as in Kuma; a stock Kuma zone sends none",
        ),
    ];
}
