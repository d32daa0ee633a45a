//! Child processes with a log file each; none outlives the harness.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use tokio::io::AsyncWriteExt as _;

use crate::wait;

/// Asks a process to end.
pub const TERM: Signal = Signal::TERM;

/// A running child in a process group of its own.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    exited: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with stdout and stderr appended to `<dir>/<name>.log`.
    pub fn spawn(name: &str, dir: &Path, command: &mut Command) -> Result<Process> {
        let log = dir.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| log.display().to_string())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}: {}", command.get_program().to_string_lossy()))?;
        Ok(Process { name: name.into(), child, log, exited: None })
    }

    /// Name of the process in this run.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, once it has ended.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        if self.exited.is_none() {
            self.exited = self.child.try_wait()?;
        }
        Ok(self.exited)
    }

    /// An error with the end of the log when the process has ended.
    pub fn check_running(&mut self) -> Result<()> {
        match self.try_wait()? {
            None => Ok(()),
            Some(status) => {
                bail!("{} ended with {status}; log {}:\n{}", self.name, self.log.display(), self.log_tail(15))
            }
        }
    }

    /// The last lines of the log.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn pid_handle(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    /// Waits until the log holds `text`; gives the first line with it.
    pub async fn wait_for_log(&self, text: &str, limit: Duration) -> Result<String> {
        self.wait_for_log_after(0, text, limit).await
    }

    /// Waits until the log holds `text` after its first `skip` bytes; gives the first such line.
    pub async fn wait_for_log_after(&self, skip: usize, text: &str, limit: Duration) -> Result<String> {
        let what = format!("{} logs {text:?}", self.name);
        let (line, _) = wait::until(&what, limit, || {
            let log = std::fs::read(&self.log).unwrap_or_default();
            let log = String::from_utf8_lossy(log.get(skip..).unwrap_or_default()).into_owned();
            let found = log.lines().find(|line| line.contains(text)).map(str::to_owned);
            std::future::ready(found.ok_or_else(|| log.lines().last().unwrap_or_default().to_owned()))
        })
        .await?;
        Ok(line)
    }

    /// `kill -9` of the process alone, as a crash would be.
    pub fn kill(&mut self) -> Result<()> {
        if self.try_wait()?.is_none() {
            if let Some(pid) = self.pid_handle() {
                kill_process(pid, Signal::KILL)?;
            }
            self.exited = Some(self.child.wait()?);
        }
        Ok(())
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.try_wait()?.is_none()
            && let Some(pid) = self.pid_handle()
        {
            kill_process(pid, signal)?;
        }
        Ok(())
    }

    /// Waits for the end.
    pub async fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let start = wait::now();
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > limit {
                bail!("{} did not end within {limit:?}; log {}", self.name, self.log.display());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// SIGTERM, then wait.
    pub async fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait_exit(limit).await
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> Option<u64> {
        resident_kib(self.pid())
    }

    /// Children of the process: (pid, command name).
    pub fn children(&self) -> Vec<(u32, String)> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .map(|pid: u32| {
                let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                (pid, name.trim().to_owned())
            })
            .collect()
    }
}

/// Runs a command that should end by itself within `limit`: its exit code and everything that it said.
pub async fn finish(name: &str, dir: &Path, command: &mut Command, limit: Duration) -> Result<(i32, String)> {
    let mut process = Process::spawn(name, dir, command)?;
    let status = process.wait_exit(limit).await?;
    let said = std::fs::read_to_string(&process.log)?;
    Ok((status.code().with_context(|| format!("{name} ended with {status}"))?, said))
}

/// What a program answered.
#[derive(Debug, Clone)]
pub struct Said {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs a command that should end by itself within `limit`, with `input` as its standard input.
pub async fn answer(command: Command, input: &str, limit: Duration) -> Result<Said> {
    let what = format!("{command:?}");
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| what.clone())?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read it may have ended.
        let _ended = stdin.write_all(input.as_bytes()).await;
    }
    let output = tokio::time::timeout(limit, child.wait_with_output()).await;
    let output = output.with_context(|| format!("{what} did not end within {limit:?}"))??;
    Ok(Said {
        code: output.status.code().with_context(|| format!("{what} ended with {}", output.status))?,
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

/// Resident memory of any process in KiB.
pub fn resident_kib(pid: u32) -> Option<u64> {
    memory_kib(pid, "VmRSS:")
}

/// The most memory of any process that was ever resident, in KiB.
pub fn peak_kib(pid: u32) -> Option<u64> {
    memory_kib(pid, "VmHWM:")
}

fn memory_kib(pid: u32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The unit of times in `/proc`: the same on every architecture that Envoy runs on.
const USER_HZ: f64 = 100.0;

/// CPU time that any process has used, in seconds.
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything; `utime` and `stime` are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks = |index| fields.split(' ').nth(index)?.parse::<u64>().ok();
    Some((ticks(11)? + ticks(12)?) as f64 / USER_HZ)
}

impl Drop for Process {
    fn drop(&mut self) {
        if let (Ok(None), Some(pid)) = (self.child.try_wait(), self.pid_handle()) {
            let _gone = kill_process_group(pid, Signal::KILL);
            let _status = self.child.wait();
        }
    }
}
