//! The side of [`Store::replace_all`](graticule_store::Store::replace_all) that proposes; [`staging`](crate::staging)
//! is the one that applies.

use bytes::Bytes;
use graticule_store::{CommitError, Replacement, Revision};

use crate::staging::Parts;
use crate::store::RaftStore;
use crate::wire::{self, ReplaceStep};

impl RaftStore {
    /// Proposes parts one after the other, and then that they take the place of everything. All of it happens in one
    /// term, or not at all.
    pub(crate) async fn replace(&self, replacement: Replacement, term: u64) -> Result<Revision, CommitError> {
        let Replacement { resources, expect, above } = replacement;
        let id = Bytes::copy_from_slice(&self.shared.random.bytes16());
        let mut parts = Parts::new(resources, self.shared.machine.sealer());
        let staged = self.stage(&mut parts, &id, term).await;
        if let Err(error) = staged {
            // If this gets lost, too, the replicas give the parts up by themselves.
            let abandon = ReplaceStep::Abandon(wire::Abandon {});
            if let Err(error) = self.replace_step(&id, abandon, 0).await {
                tracing::debug!(%error, "parts that are not needed any more stay for a while");
            }
            return Err(match error {
                // What is uncertain is a part; without the last step it changes nothing.
                CommitError::Uncertain(reason) | CommitError::Unavailable(reason) => {
                    CommitError::Unavailable(format!("{reason}; nothing was changed"))
                }
                CommitError::Fenced(_) => {
                    CommitError::Unavailable("the leader changed meanwhile; nothing was changed".into())
                }
                error => error,
            });
        }
        let finish =
            wire::Finish { parts: parts.number(), expect: expect.map(|revision| revision.0), above: above.0 };
        self.replace_step(&id, ReplaceStep::Finish(finish), term).await
    }

    async fn stage(&self, parts: &mut Parts<'_>, id: &Bytes, term: u64) -> Result<(), CommitError> {
        loop {
            // Encoding takes a while for each part; others get their turn in between.
            let part = parts.next().map_err(|error| CommitError::Invalid(error.to_string()))?;
            let Some(part) = part else { return Ok(()) };
            self.replace_step(id, ReplaceStep::Part(part), term).await?;
        }
    }

    async fn replace_step(&self, id: &Bytes, step: ReplaceStep, term: u64) -> Result<Revision, CommitError> {
        let replace = wire::Replace { id: id.clone(), step: Some(step) };
        let proposal = wire::Proposal {
            fence: term,
            replace: Some(replace),
            form: wire::PROPOSAL_FORM,
            ..wire::Proposal::default()
        };
        self.send(proposal).await.map(|committed| committed.revision)
    }
}
