//! The Envoy process: finding it, asking for its version, starting and stopping it (dataplane-agent.md §3.3).

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use crate::cli::ExecEnvoyArgs;
use crate::config;
use crate::version;

/// This program, also when its file was replaced meanwhile.
const OWN_EXECUTABLE: &str = "/proc/self/exe";
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest output of `--version` that is read, in bytes.
const VERSION_LEN_MAX: u64 = 64 * 1024;
/// Variables that hold secrets which Envoy has no use for.
const SECRET_VARIABLES: [&str; 2] = ["GRATICULE_DATAPLANE_RUNTIME_TOKEN", "KUMA_DATAPLANE_RUNTIME_TOKEN"];

/// Why there is no Envoy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "Envoy was not found: looked for {name:?} in PATH, in the current directory and next to this program; install Envoy {major}.{minor}, or say where it is with --binary-path",
        major = version::ENVOY.0, minor = version::ENVOY.1
    )]
    NotFound { name: String },
    #[error("cannot run {path}")]
    Run {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} --version: {reason}")]
    Version { path: String, reason: String },
}

/// What an Envoy says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    /// Such as `1.39.3`.
    pub(crate) version: String,
    /// Revision, version, state of the sources, kind of build and TLS library.
    pub(crate) build: String,
}

impl Version {
    /// True for the release line that this agent is made for.
    pub(crate) fn is_supported(&self) -> bool {
        let mut numbers = self.version.split('.').map(|part| part.parse::<u64>().ok());
        let (major, minor) = version::ENVOY;
        numbers.next() == Some(Some(major)) && numbers.next() == Some(Some(minor))
    }

    fn parse(output: &str) -> Option<Version> {
        let (_, build) = output.split_once("version:")?;
        let build = build.split_whitespace().next()?;
        let parts: Vec<&str> = build.split('/').collect();
        match parts[..] {
            [_, version, _, _, _] => Some(Version { version: version.into(), build: build.into() }),
            _ => None,
        }
    }
}

/// Finds the program: a name with a slash is a path, any other is looked for.
pub(crate) fn locate(name: &str) -> Result<PathBuf, Error> {
    let not_found = || Error::NotFound { name: name.into() };
    if name.contains('/') {
        let path = Path::new(name);
        return if is_executable(path) { Ok(path.to_owned()) } else { Err(not_found()) };
    }
    let path_var = std::env::var_os("PATH").unwrap_or_default();
    let own_dir = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
    std::env::split_paths(&path_var)
        .chain(std::env::current_dir().ok())
        .chain(own_dir)
        .map(|dir| dir.join(name))
        .find(|path| is_executable(path))
        .ok_or_else(not_found)
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// Runs `envoy --version`.
pub(crate) async fn version(binary: &Path) -> Result<Version, Error> {
    let path = || binary.display().to_string();
    let fail = |reason: String| Error::Version { path: path(), reason };
    let mut child = Command::new(binary)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| Error::Run { path: path(), source })?;
    let mut output = Vec::new();
    let finished = async {
        if let Some(stdout) = child.stdout.take() {
            stdout.take(VERSION_LEN_MAX).read_to_end(&mut output).await?;
        }
        child.wait().await
    };
    let status = tokio::time::timeout(VERSION_TIMEOUT, finished)
        .await
        .map_err(|_| fail(format!("no answer within {VERSION_TIMEOUT:?}")))?
        .map_err(|source| Error::Run { path: path(), source })?;
    if !status.success() {
        return Err(fail(format!("failed with {status}")));
    }
    let output = String::from_utf8_lossy(&output);
    Version::parse(&output)
        .ok_or_else(|| fail(format!("unexpected output {:?}, is this Envoy?", shortened(output.trim()))))
}

fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

/// The command line of Envoy after its name.
pub(crate) fn arguments(options: &config::Envoy, bootstrap_path: &Path) -> Vec<OsString> {
    let seconds = options.drain_time.as_secs().max(1).to_string();
    let mut arguments: Vec<OsString> = vec!["--config-path".into(), bootstrap_path.into()];
    arguments.extend(["--drain-time-s", &seconds, "--drain-strategy", "immediate"].map(OsString::from));
    arguments.extend(["--disable-hot-restart", "--log-level", &options.log_level].map(OsString::from));
    if let Some(levels) = &options.component_log_level {
        arguments.extend(["--component-log-level", levels].map(OsString::from));
    }
    match options.concurrency {
        0 if cfg!(target_os = "linux") => arguments.push("--cpuset-threads".into()),
        0 => {}
        number => arguments.extend(["--concurrency".into(), OsString::from(number.to_string())]),
    }
    arguments
}

/// A running Envoy, in its own process group so that signals to the agent's group do not reach it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts Envoy. It dies with the agent, however the agent ends.
    pub(crate) fn start(binary: &Path, arguments: &[OsString]) -> Result<Process, Error> {
        let mut command = Command::new(OWN_EXECUTABLE);
        command
            .arg("exec-envoy")
            .arg("--agent-pid")
            .arg(std::process::id().to_string())
            .arg("--")
            .arg(binary)
            .args(arguments)
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        for name in SECRET_VARIABLES {
            command.env_remove(name);
        }
        let child =
            command.spawn().map_err(|source| Error::Run { path: binary.display().to_string(), source })?;
        Ok(Process { child })
    }

    /// Process id; `None` after its end.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end.
    pub(crate) async fn wait(&mut self) -> std::io::Result<std::process::ExitStatus> {
        self.child.wait().await
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid
            && let Err(error) = rustix::process::kill_process(pid, Signal::TERM)
        {
            tracing::warn!(%error, "cannot send SIGTERM to Envoy");
        }
    }

    /// Ends it.
    pub(crate) fn kill(&mut self) {
        if let Err(error) = self.child.start_kill() {
            tracing::warn!(%error, "cannot kill Envoy");
        }
    }
}

/// Turns this process into Envoy, which the kernel kills when the agent ends. Returns only on failure.
pub(crate) fn exec(args: &ExecEnvoyArgs) -> Error {
    let path: &OsStr = args.command.first().map_or(OsStr::new("envoy"), OsString::as_os_str);
    let fail = |source| Error::Run { path: path.to_string_lossy().into_owned(), source };
    if let Err(error) = tie_to_agent(args.agent_pid) {
        return fail(error);
    }
    fail(std::process::Command::new(path).args(args.command.iter().skip(1)).exec())
}

#[cfg(target_os = "linux")]
fn tie_to_agent(agent_pid: u32) -> std::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The agent may have ended before the line above: then nothing would ever kill Envoy.
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    if parent.and_then(|pid| u32::try_from(pid).ok()) != Some(agent_pid) {
        return Err(std::io::Error::other("the agent has ended"));
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn tie_to_agent(_agent_pid: u32) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (output, expected) in [
            ("\n/bin/envoy  version: abc/1.39.3/Clean/RELEASE/BoringSSL\n\n", Some(("1.39.3", true))),
            ("envoy version: abc/1.38.0/Modified/DEBUG/BoringSSL", Some(("1.38.0", false))),
            ("envoy version: abc/1.390.0-dev/Clean/RELEASE/BoringSSL", Some(("1.390.0-dev", false))),
            ("envoy version: 1.39.3", None),
            ("GNU bash, version 5", None),
            ("", None),
        ] {
            let version = Version::parse(output);
            let got = version.as_ref().map(|v| (v.version.as_str(), v.is_supported()));
            assert_eq!(got, expected, "{output}");
        }
    }

    #[test]
    fn command_lines() {
        let mk_options = |concurrency, component: Option<&str>| config::Envoy {
            binary: "envoy".into(),
            concurrency,
            log_level: "info".into(),
            component_log_level: component.map(str::to_owned),
            drain_time: Duration::from_secs(30),
        };
        let start = "--config-path /w/bootstrap.yaml --drain-time-s 30 --drain-strategy immediate --disable-hot-restart --log-level info";
        for (options, rest) in [
            (mk_options(1, None), "--concurrency 1"),
            (mk_options(0, Some("upstream:debug")), "--component-log-level upstream:debug --cpuset-threads"),
        ] {
            let got = arguments(&options, Path::new("/w/bootstrap.yaml"));
            let got: Vec<_> = got.iter().map(|argument| argument.to_string_lossy()).collect();
            assert_eq!(got.join(" "), format!("{start} {rest}"));
        }
    }

    #[test]
    fn a_missing_envoy_is_explained() {
        let error = locate("no-such-envoy").expect_err("is missing").to_string();
        assert!(error.contains("no-such-envoy") && error.contains("--binary-path"), "{error}");
        assert!(locate("/bin/sh").is_ok());
    }
}
