//! What goes wrong, and what it means for a write.

use std::error::Error as _;

use etcd_client::Error;
use graticule_store::CommitError;
use graticule_store::codec::DecodeError;
use tonic::{Code, ConnectError, Status};

use crate::wire::FORMAT;

/// Why a store cannot be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// The options are wrong.
    #[error("etcd: {0}")]
    Options(String),
    /// etcd does not answer.
    #[error("etcd at {endpoints} does not answer: {reason}")]
    Unreachable {
        /// Where it was looked for.
        endpoints: String,
        /// The last failure.
        reason: String,
    },
    /// etcd refuses: user, password, permissions.
    #[error("etcd refuses: {0}")]
    Refused(String),
    /// What is stored cannot be used.
    #[error(transparent)]
    Contents(#[from] ContentsError),
}

/// What is stored cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentsError {
    /// A newer version of the program wrote it.
    #[error(
        "the store in etcd has format {0}, this version knows formats up to {known}: run the newer version of the program again",
        known = FORMAT
    )]
    TooNew(u32),
    /// A value cannot be read.
    #[error("key {key} of etcd: {source}")]
    Unreadable {
        /// The key.
        key: String,
        /// Why.
        source: DecodeError,
    },
    /// The keys do not fit together.
    #[error("the store in etcd is damaged: {0}")]
    Damaged(String),
    /// What was there is gone.
    #[error("{0}; restart this control plane to accept what etcd has now")]
    WentBack(String),
}

/// What a failed request means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It had no effect, and another attempt may succeed.
    Missed(String),
    /// It had no effect, and another attempt fails alike.
    Refused(String),
    /// It had no effect: it is larger than etcd allows.
    TooLarge(String),
    /// etcd is out of space. It is over, but may have had its effect: etcd checks its room before a request is agreed on
    /// and again when it is carried out, and carries it out even then.
    NoSpace(String),
    /// It may have had its effect, or may still have it.
    Unknown(String),
}

impl Failure {
    /// Whether the request may have had its effect.
    pub(crate) fn may_have_taken_place(&self) -> bool {
        matches!(self, Failure::NoSpace(_) | Failure::Unknown(_))
    }

    pub(crate) fn reason(&self) -> &str {
        match self {
            Failure::Missed(reason)
            | Failure::Refused(reason)
            | Failure::TooLarge(reason)
            | Failure::NoSpace(reason)
            | Failure::Unknown(reason) => reason,
        }
    }
}

/// etcd did not answer in time.
pub(crate) fn no_answer() -> Failure {
    Failure::Unknown("no answer in time".into())
}

/// What is said about a request that is too large.
pub(crate) fn too_large(len: usize, len_max: usize) -> CommitError {
    CommitError::Invalid(format!(
        "it needs a request of about {len} bytes to etcd, more than {len_max} (store.etcd.maxRequestBytes, and \
         --max-request-bytes of etcd)"
    ))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::GRpcStatus(status) => of_status(&status),
            Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => {
                Failure::Refused(error.to_string())
            }
            error => Failure::Unknown(error.to_string()),
        }
    }
}

fn of_status(status: &Status) -> Failure {
    let message = status.message();
    let reason = text(status);
    match status.code() {
        Code::InvalidArgument if message.contains("too large") => Failure::TooLarge(reason),
        Code::InvalidArgument if message.contains("too many operations") => Failure::TooLarge(reason),
        // The user's rights changed since the token was made.
        Code::InvalidArgument if message.contains("revision of auth store is old") => Failure::Missed(reason),
        Code::ResourceExhausted if message.contains("space exceeded") => Failure::NoSpace(reason),
        Code::ResourceExhausted if message.contains("larger than max") => Failure::TooLarge(reason),
        Code::ResourceExhausted => Failure::Missed(reason),
        Code::InvalidArgument | Code::PermissionDenied | Code::FailedPrecondition | Code::Unimplemented => {
            Failure::Refused(reason)
        }
        Code::Unauthenticated => Failure::Missed(reason),
        // The connection was never made, or the member said so before it took the request.
        Code::Unavailable if never_sent(status) || message == "etcdserver: no leader" => {
            Failure::Missed(reason)
        }
        _ => Failure::Unknown(reason),
    }
}

fn never_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// A status for people: its message, and the deepest cause.
fn text(status: &Status) -> String {
    let mut text = match status.message() {
        "" => format!("{:?}", status.code()),
        message => message.trim_start_matches("etcdserver: ").to_owned(),
    };
    let mut cause = status.source();
    while let Some(error) = cause {
        cause = error.source();
        let deepest = error.to_string();
        if cause.is_none() && !text.contains(&deepest) {
            text = format!("{text}: {deepest}");
        }
    }
    text
}

/// Whether a watch or a read asks for what was compacted away.
pub(crate) fn is_compacted(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.code() == Code::OutOfRange && status.message().contains("compacted"))
}

/// Whether an answer was larger than is read.
pub(crate) fn is_answer_too_large(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status)
        if status.code() == Code::OutOfRange && status.message().contains("message length too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart() {
        let of = |code, message: &str| Failure::from(Error::GRpcStatus(Status::new(code, message)));
        assert!(matches!(
            of(Code::InvalidArgument, "etcdserver: request is too large"),
            Failure::TooLarge(_)
        ));
        assert!(matches!(
            of(Code::InvalidArgument, "etcdserver: too many operations in txn request"),
            Failure::TooLarge(_)
        ));
        assert!(matches!(
            of(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            Failure::NoSpace(_)
        ));
        assert!(matches!(of(Code::ResourceExhausted, "etcdserver: too many requests"), Failure::Missed(_)));
        assert!(matches!(of(Code::PermissionDenied, "etcdserver: permission denied"), Failure::Refused(_)));
        assert!(matches!(of(Code::Unavailable, "etcdserver: no leader"), Failure::Missed(_)));
        for message in ["etcdserver: request timed out", "etcdserver: leader changed", "transport error"] {
            assert!(matches!(of(Code::Unavailable, message), Failure::Unknown(_)), "{message}");
        }
        assert_eq!(of(Code::Unavailable, "etcdserver: request timed out").reason(), "request timed out");
    }
}
