//! Requests to etcd, each with a limit of time.

use std::future::Future;
use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, Error, GetOptions, GetResponse, Txn, TxnOp, TxnOpResponse};
use graticule_runtime::{Backoff, Clock, Random};

use crate::failure::{Failure, no_answer};
use crate::options::{ANSWER_LEN_MAX, RETRY};

/// Sends requests. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Requests {
    pub(crate) client: Client,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) timeout: Duration,
}

/// What a guarded transaction came to.
#[derive(Debug)]
pub(crate) enum Guarded {
    /// The guards held, and the operations took place at this revision of etcd.
    Done(i64),
    /// They did not; the revisions of etcd that last changed the head and that made the leader's key, 0 = no such key.
    Moved {
        /// Of the head.
        head: i64,
        /// Of the leader's key.
        leader: i64,
    },
}

impl Requests {
    /// Awaits an answer, not longer than requests may take.
    pub(crate) async fn bounded<T>(
        &self,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            answer = answer => answer.map_err(Failure::from),
            () = self.clock.sleep(self.timeout) => Err(no_answer()),
        }
    }

    /// Waits before another attempt after `failures` in a row, and gets a new token of the user if the last attempt
    /// lacked a good one.
    pub(crate) async fn pause(&self, failures: u32, failure: &Failure) {
        if failure.reason().contains("auth") {
            // What is wrong shows at the next attempt.
            let _ = self.bounded(self.client.refresh_token()).await;
        }
        let backoff = Backoff { base: RETRY.0, max: RETRY.1 };
        self.clock.sleep(backoff.delay(failures, self.random.fraction())).await;
    }

    pub(crate) async fn get(&self, key: &str, options: Option<GetOptions>) -> Result<GetResponse, Error> {
        let mut client = self.client.kv_client().max_decoding_message_size(ANSWER_LEN_MAX);
        client.get(key, options).await
    }

    /// Revision of etcd that last changed the head, 0 = there is none. Asks a majority.
    pub(crate) async fn head(&self, key: &str) -> Result<i64, Failure> {
        let keys_only = Some(GetOptions::new().with_keys_only());
        let found = self.bounded(self.get(key, keys_only)).await?;
        Ok(found.kvs().first().map_or(0, |kv| kv.mod_revision()))
    }

    /// Does `operations` if no guard fails: the head was last changed at revision `head` of etcd (0 = there is none),
    /// and the leader's key was made at `leader`, if that is given.
    pub(crate) async fn guarded(
        &self,
        (head_key, head): (&str, i64),
        (leader_key, leader): (&str, Option<i64>),
        operations: Vec<TxnOp>,
    ) -> Result<Guarded, Failure> {
        let mut guards = vec![Compare::mod_revision(head_key, CompareOp::Equal, head)];
        if let Some(leader) = leader {
            guards.push(Compare::create_revision(leader_key, CompareOp::Equal, leader));
        }
        let keys_only = || Some(GetOptions::new().with_keys_only());
        let look = vec![TxnOp::get(head_key, keys_only()), TxnOp::get(leader_key, keys_only())];
        let txn = Txn::new().when(guards).and_then(operations).or_else(look);
        let answer = self.bounded(self.client.kv_client().txn(txn)).await?;
        if answer.succeeded() {
            let revision = answer.header().map_or(0, |header| header.revision());
            return Ok(Guarded::Done(revision));
        }
        let found: Vec<_> = answer
            .op_responses()
            .into_iter()
            .map(|found| match found {
                TxnOpResponse::Get(found) => {
                    found.kvs().first().map_or((0, 0), |kv| (kv.mod_revision(), kv.create_revision()))
                }
                _ => (0, 0),
            })
            .collect();
        match found.as_slice() {
            &[(head, _), (_, leader)] => Ok(Guarded::Moved { head, leader }),
            _ => Err(Failure::Unknown("etcd's answer is not understood".into())),
        }
    }
}
