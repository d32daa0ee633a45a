//! Settings that both control planes have besides those of `runtime` and of the REST API.

use graticule_model::labels;
use graticule_runtime::config::Setting;
use graticule_runtime::settings::setting;
use serde::{Deserialize, Serialize};

use crate::check::Findings;

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

/// `compat` of global: single points of safety that can be turned off for stock Kuma peers and habits.
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

/// `compat` of a zone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ZoneCompat {
    /// REST writes need no credential.
    pub anonymous_writes: bool,
}

impl ZoneCompat {
    /// Table.
    pub const SETTINGS: &[Setting] = &[ANONYMOUS_WRITES];
}

/// `multizone.{global,zone}.kds.labels`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct KdsLabels {
    /// Labels that begin like one of these are not sent to the other side (federation.md §3.4).
    pub skip_prefixes: Vec<String>,
}

/// Labels that say what a resource is, and to whom it belongs.
const LABELS_OF_SYNC: [&str; 4] = [labels::ORIGIN, labels::ZONE, labels::DISPLAY_NAME, labels::NAMESPACE];

impl KdsLabels {
    /// Finds prefixes that would take away what synchronisation itself needs. `key` is the setting.
    pub fn check(&self, key: &str, findings: &mut Findings) {
        for prefix in &self.skip_prefixes {
            if let Some(label) = LABELS_OF_SYNC.iter().find(|label| label.starts_with(prefix.as_str())) {
                findings.add(format!(
                    "{key}: {prefix:?} would take away the label {label}, without which the other side takes nothing"
                ));
            }
        }
    }
}

const ANONYMOUS_WRITES: Setting = setting(
    "compat.anonymousWrites",
    "COMPAT_ANONYMOUS_WRITES",
    "REST writes need no credential, as in Kuma",
);

impl Compat {
    /// Table.
    pub const SETTINGS: &[Setting] = &[
        ANONYMOUS_WRITES,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_that_sync_needs_are_refused() {
        for (prefix, is_refused) in [
            ("", true),
            ("kuma.io/", true),
            ("kuma.io/zone", true),
            ("k8s.", true),
            ("example/", false),
            ("kuma.io/zones", false),
        ] {
            let mut findings = Findings::default();
            KdsLabels { skip_prefixes: vec![prefix.into()] }.check("key", &mut findings);
            assert_eq!(findings.into_lines().len(), usize::from(is_refused), "{prefix:?}");
        }
    }
}
