//! How the program ends.
//!
//! | Exit code | Meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | an error; standard error says which and what to do |
//! | 2 | the command line is wrong |
//! | 3 | `--exit-code` was given and there are differences, or something is wrong (`grat zone status`) |

use std::fmt;

/// Exit code of an error.
pub(crate) const ERROR: u8 = 1;
/// Exit code when differences, or what is wrong, were asked for and found.
pub(crate) const DIFFERENT: u8 = 3;

/// There are differences; they were shown.
#[derive(Debug)]
pub(crate) struct Different;

impl fmt::Display for Different {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there are differences")
    }
}

impl std::error::Error for Different {}

/// Whether the reader of the output went away, which is nobody's fault.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
