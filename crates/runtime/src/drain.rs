//! Shutdown in two levels: first "finish what you have begun", then "stop now".

use tokio_util::sync::CancellationToken;

/// Tells a component when to finish. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Drain {
    graceful: CancellationToken,
    forced: CancellationToken,
}

/// Starts the shutdown. Cheap to clone; dropping it starts nothing.
#[derive(Clone, Debug)]
pub struct DrainSignal(Drain);

impl Drain {
    /// A signal and what listens to it.
    pub fn new() -> (DrainSignal, Drain) {
        let drain = Drain { graceful: CancellationToken::new(), forced: CancellationToken::new() };
        (DrainSignal(drain.clone()), drain)
    }

    /// A drain that never comes.
    pub fn never() -> Drain {
        Drain::new().1
    }

    /// Returns once the component should finish what it has begun and take nothing new. Cancel-safe.
    pub async fn signaled(&self) {
        self.graceful.cancelled().await;
    }

    /// Returns once there is no time left. Cancel-safe.
    pub async fn forced(&self) {
        self.forced.cancelled().await;
    }

    /// What `work` gives; `None` once [`signaled`](Self::signaled) returns. For loops that end with either:
    /// `while let Some(event) = drain.unless_signaled(feed.next()).await`.
    pub async fn unless_signaled<T>(&self, work: impl Future<Output = Option<T>>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.signaled() => None,
            given = work => given,
        }
    }

    /// Whether [`signaled`](Self::signaled) would return at once.
    pub fn is_signaled(&self) -> bool {
        self.graceful.is_cancelled()
    }

    /// Whether [`forced`](Self::forced) would return at once.
    pub fn is_forced(&self) -> bool {
        self.forced.is_cancelled()
    }

    /// A part of the whole: its signal drains the part alone, this drain's signal both.
    pub fn child(&self) -> (DrainSignal, Drain) {
        let drain = Drain { graceful: self.graceful.child_token(), forced: self.forced.child_token() };
        (DrainSignal(drain.clone()), drain)
    }
}

impl DrainSignal {
    /// Asks everybody to finish.
    pub fn drain(&self) {
        self.0.graceful.cancel();
    }

    /// Asks everybody to stop now (and to finish, who was not asked yet).
    pub fn force(&self) {
        self.0.graceful.cancel();
        self.0.forced.cancel();
    }

    /// The listening side.
    pub fn listen(&self) -> Drain {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn levels_and_children() {
        let (signal, drain) = Drain::new();
        let (part_signal, part) = drain.child();
        part_signal.drain();
        assert!(part.is_signaled() && !part.is_forced() && !drain.is_signaled());
        signal.force();
        drain.signaled().await;
        part.forced().await;
    }
    #[tokio::test]
    async fn a_signal_ends_waiting_and_comes_before_work() {
        let (signal, drain) = Drain::new();
        assert_eq!(drain.unless_signaled(async { Some(1) }).await, Some(1));
        assert_eq!(drain.unless_signaled(async { None::<u8> }).await, None);
        let (waited, ()) = tokio::join!(drain.unless_signaled(std::future::pending::<Option<u8>>()), async {
            signal.drain();
        });
        assert_eq!(waited, None);
        assert_eq!(drain.unless_signaled(async { Some(1) }).await, None, "the signal comes first");
    }
}
