//! What every server of Graticule stands on: settings, logging, metrics, time, randomness, tasks, shutdown,
//! certificates and listeners.
//!
//! The crate knows nothing about meshes. Components get a [`Clock`], a [`Random`], a [`Spawner`] and a
//! [`Drain`] as arguments, so that a whole federation also runs in one process under simulated time.
//!
//! ```
//! use graticule_runtime::{Random, random::instance_id};
//! let random = Random::seeded(7);
//! assert!(instance_id("cp-0", &random).starts_with("cp-0-"));
//! ```

pub mod audit;
pub mod clock;
pub mod config;
pub mod drain;
pub mod host;
pub mod http_server;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod random;
pub mod settings;
pub mod supervisor;
pub mod tls;
pub mod version;

pub use clock::{Clock, ClockHand};
pub use drain::{Drain, DrainSignal};
pub use http_server::{ConnectionEnd, HttpLimits, Progress, serve_http};
pub use listen::{BindError, Connection, Incoming, ListenLimits, Peer, TcpAcceptor, WhenFull};
pub use metrics::Metrics;
pub use random::{Random, instance_id};
pub use supervisor::{Backoff, Spawner, Supervisor, TaskFailed};
pub use tls::ServerCert;
