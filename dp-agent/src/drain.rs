//! The life of the agent after Envoy has started: which event leads to which action (dataplane-agent.md §3.4).
//! Decisions only; [`crate::app`] carries them out.

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// SIGTERM or SIGINT.
    Terminate,
    /// SIGUSR2.
    DrainListeners,
    /// Envoy did not take the order to fail its health check.
    HealthCheckNotFailed,
    /// The time for draining, or for Envoy's end, is over.
    TimeUp,
    /// Envoy has ended.
    EnvoyEnded {
        /// With status 0.
        success: bool,
    },
    /// A part of the agent has failed.
    PartFailed,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Go on.
    Nothing,
    /// Let Envoy's inbound listeners finish.
    DrainListeners,
    /// Answer probes with 503, leave the endpoints of others, start the drain timer.
    Drain,
    /// Ask Envoy to end and start the timer for that.
    StopEnvoy,
    /// Envoy did not end when asked to.
    KillEnvoy,
    /// End the process.
    Exit(Outcome),
}

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As asked: exit status 0.
    Normal,
    /// Exit status 1.
    Failure,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Draining,
    Stopping(Outcome),
}

/// State of the agent from Envoy's start to its end.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    phase: Phase,
    listeners_drained: bool,
}

impl Lifecycle {
    /// Envoy has started.
    pub(crate) fn new() -> Lifecycle {
        Lifecycle { phase: Phase::Running, listeners_drained: false }
    }

    /// Takes an event; says what to do now.
    pub(crate) fn on(&mut self, event: Event) -> Action {
        match (self.phase, event) {
            (Phase::Stopping(outcome), Event::EnvoyEnded { .. }) => Action::Exit(outcome),
            (_, Event::EnvoyEnded { success: true }) => Action::Exit(Outcome::Normal),
            (_, Event::EnvoyEnded { success: false }) => Action::Exit(Outcome::Failure),
            (Phase::Stopping(_), Event::Terminate) => Action::Exit(Outcome::Failure),
            (Phase::Stopping(_), Event::TimeUp) => Action::KillEnvoy,
            (Phase::Stopping(_), _) => Action::Nothing,
            (_, Event::PartFailed) => self.stop(Outcome::Failure),
            (Phase::Running, Event::Terminate) if self.listeners_drained => self.stop(Outcome::Normal),
            (Phase::Running, Event::Terminate) => {
                self.phase = Phase::Draining;
                Action::Drain
            }
            (Phase::Running, Event::DrainListeners) if !self.listeners_drained => {
                self.listeners_drained = true;
                Action::DrainListeners
            }
            (Phase::Draining, Event::Terminate | Event::TimeUp | Event::HealthCheckNotFailed) => {
                self.stop(Outcome::Normal)
            }
            (Phase::Running | Phase::Draining, _) => Action::Nothing,
        }
    }

    fn stop(&mut self, outcome: Outcome) -> Action {
        self.phase = Phase::Stopping(outcome);
        Action::StopEnvoy
    }
}

#[cfg(test)]
mod tests {
    use super::Event::{DrainListeners, HealthCheckNotFailed, PartFailed, Terminate, TimeUp};
    use super::*;

    const ENDED: Event = Event::EnvoyEnded { success: true };
    const CRASHED: Event = Event::EnvoyEnded { success: false };
    const NORMAL: Action = Action::Exit(Outcome::Normal);
    const FAILURE: Action = Action::Exit(Outcome::Failure);

    #[test]
    fn lives() {
        use Action::{Drain, KillEnvoy, Nothing, StopEnvoy};
        for (name, events, expected) in [
            ("drain", vec![Terminate, TimeUp, ENDED], vec![Drain, StopEnvoy, NORMAL]),
            ("second signal", vec![Terminate, Terminate, CRASHED], vec![Drain, StopEnvoy, NORMAL]),
            ("third signal", vec![Terminate, Terminate, Terminate], vec![Drain, StopEnvoy, FAILURE]),
            (
                "Envoy hangs",
                vec![Terminate, TimeUp, TimeUp, CRASHED],
                vec![Drain, StopEnvoy, KillEnvoy, NORMAL],
            ),
            ("Envoy crashes", vec![CRASHED], vec![FAILURE]),
            ("Envoy ends", vec![ENDED], vec![NORMAL]),
            ("Envoy crashes in drain", vec![Terminate, CRASHED], vec![Drain, FAILURE]),
            ("no admin", vec![Terminate, HealthCheckNotFailed, ENDED], vec![Drain, StopEnvoy, NORMAL]),
            ("part fails", vec![PartFailed, ENDED], vec![StopEnvoy, FAILURE]),
            ("part fails in drain", vec![Terminate, PartFailed, ENDED], vec![Drain, StopEnvoy, FAILURE]),
            (
                "listeners first",
                vec![DrainListeners, DrainListeners, Terminate, ENDED],
                vec![Action::DrainListeners, Nothing, StopEnvoy, NORMAL],
            ),
            ("stray events", vec![TimeUp, HealthCheckNotFailed], vec![Nothing, Nothing]),
            ("drain once", vec![Terminate, DrainListeners], vec![Drain, Nothing]),
            (
                "late failure",
                vec![Terminate, Terminate, HealthCheckNotFailed],
                vec![Drain, StopEnvoy, Nothing],
            ),
        ] {
            let mut lifecycle = Lifecycle::new();
            let got: Vec<Action> = events.into_iter().map(|event| lifecycle.on(event)).collect();
            assert_eq!(got, expected, "{name}");
        }
    }
}
