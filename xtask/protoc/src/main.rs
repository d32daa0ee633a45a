//! The program behind `xtask/protoc/protoc`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let done = graticule_protoc::Call::parse(std::env::args_os().skip(1)).and_then(|call| call.run());
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            fail(&reason);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a build script shows what is said here")]
fn fail(reason: &str) {
    eprintln!("graticule-protoc: {reason}");
}
