//! Settings of global's side, and who may be a zone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use graticule_model::Timestamp;

use crate::core::{DeletionProtection, RESERVED_FOR, TrustExchange, ZoneLimit};
use crate::net::{AUDIT_INTERVAL, MESSAGE_LEN_MAX, STUCK_AFTER};

/// Decides who a zone is.
pub trait ZoneAuthenticator: Send + Sync {
    /// Whether this token was issued for this zone; what is needed to look at it again later.
    ///
    /// # Errors
    /// Why not, without repeating the token.
    fn authenticate(&self, zone: &str, token: &str) -> Result<ZoneGrant, String>;

    /// Those of these that are no longer good, with the reason: revoked, or signed with a key that is gone. Asked whenever
    /// GlobalSecrets change.
    fn revoked(&self, grants: &BTreeSet<ZoneGrant>) -> BTreeMap<ZoneGrant, String>;
}

/// What is remembered of a zone token while streams are open that it opened.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ZoneGrant {
    /// Its id; empty if it has none.
    pub token: String,
    /// Id of the key that signed it.
    pub key: String,
    /// Changes when another key gets this id.
    pub key_mark: u64,
    /// End of its life; `None`: it has none.
    pub expires: Option<Timestamp>,
}

/// Zones that need no token (`compat.allowZonesWithoutToken`). A name that was ever used with a token needs one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TokenlessZones {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// These.
    Named(BTreeSet<String>),
}

impl TokenlessZones {
    pub(super) fn allows(&self, zone: &str) -> bool {
        match self {
            TokenlessZones::None => false,
            TokenlessZones::All => true,
            TokenlessZones::Named(names) => names.contains(zone),
        }
    }
}

/// Settings of global's side.
#[derive(Debug, Clone)]
pub struct GlobalOptions {
    /// `multizone.global.kds.maxMsgSize`, bytes.
    pub message_len_max: usize,
    /// How often counters of zones are written to the soft store. Connects and disconnects are written at once. Not a setting:
    /// `multizone.global.kds.zoneInsightFlushInterval` has no meaning here.
    pub insight_flush_interval: Duration,
    /// `multizone.global.kds.labels.skipPrefixes`.
    pub skip_label_prefixes: Vec<String>,
    /// How many subscriptions of a zone its insight keeps. Not a setting: `metrics.zone.subscriptionLimit` has no meaning here.
    pub subscriptions_max: usize,
    /// `federation.trustExchange`.
    pub trust_exchange: TrustExchange,
    /// `compat.allowZonesWithoutToken`: a stock Kuma zone sends no token.
    pub tokenless_zones: TokenlessZones,
    /// What zones are told to wait between health checks.
    pub health_interval: Duration,
    /// A zone that does not acknowledge something for this time has to connect again.
    pub stuck_after: Duration,
    /// How often the copies of a zone are compared with what it sent.
    pub audit_interval: Duration,
    /// When a zone's deletions are held back.
    pub protection: DeletionProtection,
    /// How much each zone may store here.
    pub zone_limit: ZoneLimit,
    /// HTTP/2 pings on a connection of a zone, and the time for their answer: a dead connection is noticed within twice
    /// this time.
    pub keep_alive: Duration,
    /// The name of a zone with an identity stays reserved for this time after its last stream.
    pub name_reserved_for: Duration,
    /// Version that is told to zones.
    pub version: String,
}

impl Default for GlobalOptions {
    fn default() -> Self {
        GlobalOptions {
            message_len_max: MESSAGE_LEN_MAX,
            insight_flush_interval: Duration::from_secs(10),
            skip_label_prefixes: Vec::new(),
            subscriptions_max: 10,
            trust_exchange: TrustExchange::Automatic,
            tokenless_zones: TokenlessZones::None,
            health_interval: Duration::from_secs(10),
            stuck_after: STUCK_AFTER,
            audit_interval: AUDIT_INTERVAL,
            protection: DeletionProtection::default(),
            zone_limit: ZoneLimit::default(),
            keep_alive: Duration::from_secs(5),
            name_reserved_for: RESERVED_FOR,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}
