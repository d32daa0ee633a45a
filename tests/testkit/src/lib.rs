//! Test harness: real processes on free ports, real Envoys, waiting on conditions; and the scenario that both
//! the demo and the end-to-end tests run.
//!
//! Development only: nothing in the product depends on it.

pub mod binaries;
pub mod etcd;
pub mod federation;
pub mod history;
pub mod http;
pub mod namespaces;
pub mod net;
pub mod process;
pub mod relay;
pub mod replicas;
pub mod scenario;
pub mod skew;
pub mod traffic;
pub mod wait;

pub use binaries::Binaries;
pub use federation::Federation;
pub use process::Process;
pub use replicas::Replicas;
