//! Time as an argument: the system's, tokio's (simulation, paused tests) or one that a test moves by hand.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;

/// Cheap to clone; tells the time and sleeps.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    /// The wall clock of the machine; elapsed time from tokio.
    System { started: Instant },
    /// Wall time derived from tokio's time, so that paused or simulated time moves both.
    Simulated { epoch: Timestamp, started: Instant },
    /// Moved by a [`ClockHand`] only.
    Manual(Arc<Manual>),
}

#[derive(Debug)]
struct Manual {
    epoch: Timestamp,
    elapsed: watch::Receiver<Duration>,
}

/// Moves a manual clock.
#[derive(Debug)]
pub struct ClockHand(watch::Sender<Duration>);

impl ClockHand {
    /// Moves the clock forward and wakes the sleepers whose time has come.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|elapsed| *elapsed = elapsed.saturating_add(by));
    }
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Clock {
        Clock(Source::System { started: Instant::now() })
    }

    /// Starts at `epoch` and follows tokio's time (paused tests, simulation).
    pub fn simulated(epoch: Timestamp) -> Clock {
        Clock(Source::Simulated { epoch, started: Instant::now() })
    }

    /// Stands still at `epoch` until its hand moves it.
    pub fn manual(epoch: Timestamp) -> (Clock, ClockHand) {
        let (hand, elapsed) = watch::channel(Duration::ZERO);
        (Clock(Source::Manual(Arc::new(Manual { epoch, elapsed }))), ClockHand(hand))
    }

    /// Wall-clock time.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System { .. } => Timestamp::now(),
            Source::Simulated { epoch, .. } => later(*epoch, self.monotonic()),
            Source::Manual(manual) => later(manual.epoch, self.monotonic()),
        }
    }

    /// Time since the clock was made; never goes back.
    pub fn monotonic(&self) -> Duration {
        match &self.0 {
            Source::System { started } | Source::Simulated { started, .. } => started.elapsed(),
            Source::Manual(manual) => *manual.elapsed.borrow(),
        }
    }

    /// Returns after `duration`. Cancel-safe.
    pub async fn sleep(&self, duration: Duration) {
        match &self.0 {
            Source::System { .. } | Source::Simulated { .. } => tokio::time::sleep(duration).await,
            Source::Manual(manual) => {
                let until = self.monotonic().saturating_add(duration);
                let mut elapsed = manual.elapsed.clone();
                if elapsed.wait_for(|elapsed| *elapsed >= until).await.is_err() {
                    // The hand is gone: nobody moves this clock any more, so the sleep never ends.
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

fn later(epoch: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| epoch.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn manual_clock_wakes_sleepers() {
        let (clock, hand) = Clock::manual(Timestamp::UNIX_EPOCH);
        let sleep = clock.sleep(Duration::from_secs(5));
        tokio::pin!(sleep);
        hand.advance(Duration::from_secs(4));
        assert!(futures::poll!(&mut sleep).is_pending());
        assert_eq!(clock.now().as_second(), 4);
        // The sleep began at its first poll, at second 4.
        hand.advance(Duration::from_secs(5));
        assert!(futures::poll!(&mut sleep).is_ready());
        assert_eq!(clock.monotonic(), Duration::from_secs(9));
    }

    #[tokio::test(start_paused = true)]
    async fn simulated_clock_follows_tokio() {
        let clock = Clock::simulated(Timestamp::UNIX_EPOCH);
        clock.sleep(Duration::from_secs(3600)).await;
        assert_eq!(clock.now().as_second(), 3600);
    }
}
