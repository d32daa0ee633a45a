//! Decisions of the data plane server: pure, from values to values. No runtime, no clock, no randomness; time is
//! an argument (a [`Duration`](std::time::Duration) since any fixed moment of the process).

mod contention;
pub mod hds;
mod hello;
pub mod insight;
mod kind;
mod stream;
mod subscription;

pub use contention::Contention;
pub use hello::{DATAPLANE_BYTES_MAX, DataplaneError, Hello, Refusal, read_dataplane, read_node};
pub use kind::ResourceType;
pub use stream::{Event, HOLD_MAX, Step, Stream, StreamError};
