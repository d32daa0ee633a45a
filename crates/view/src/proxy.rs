//! What is observed of proxies.

/// What is observed of a proxy's ability to serve: soft state (DESIGN decision 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Serving {
    /// Nothing observed: judged by its Dataplane alone.
    #[default]
    Unknown,
    /// Connected, has not acknowledged its listeners yet.
    Starting,
    /// Runs its configuration.
    Serving,
    /// Shuts down.
    Draining,
    /// Its stream ended and the delay for coming back is over.
    Gone,
}

impl Serving {
    /// Whether others may send traffic, as far as observation goes.
    pub fn accepts_traffic(self) -> bool {
        matches!(self, Serving::Unknown | Serving::Serving)
    }
}
