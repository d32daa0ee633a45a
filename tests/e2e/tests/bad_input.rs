//! Bad input of every kind: one clear error that says what to do, and everything else goes on.
//!
//! One federation of real processes serves all checks. A check names itself when it fails; all failures are shown
//! together.

#![expect(clippy::print_stdout, reason = "the progress of a long test")]

#[path = "bad_input/agents.rs"]
mod agents;
#[path = "bad_input/control_planes.rs"]
mod control_planes;
#[path = "bad_input/liars.rs"]
mod liars;
#[path = "bad_input/resources.rs"]
mod resources;
#[path = "bad_input/tokens.rs"]
mod tokens;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use graticule_testkit::federation::Role;
use graticule_testkit::http::Client;
use graticule_testkit::{Binaries, Federation, wait};

/// How long anything may take until it is seen.
const LIMIT: Duration = Duration::from_secs(20);

/// The federation, and what went wrong.
struct Bench {
    federation: Federation,
    dir: PathBuf,
    failures: Vec<String>,
    /// Secrets that were used; none may be in a log.
    secrets: Vec<String>,
}

impl Bench {
    /// Notes the outcome of one check.
    fn note(&mut self, name: &str, outcome: Result<()>) {
        match outcome {
            Ok(()) => println!("  {name}"),
            Err(error) => {
                println!("  {name}: FAILED: {error:#}");
                self.failures.push(format!("{name}: {error:#}"));
            }
        }
    }

    fn url(&mut self, control_plane: &str, path: &str) -> Result<String> {
        Ok(format!("{}{path}", self.federation.control_plane(control_plane)?.api))
    }

    /// A file in the directory of the run.
    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.dir.join(name);
        std::fs::write(&path, content)?;
        Ok(path)
    }

    /// Every process runs, the zones are connected, and requests pass the two Envoys.
    async fn everything_works(&mut self, after: &str) {
        let outcome = self.look().await;
        self.note(&format!("everything works after {after}"), outcome);
    }

    async fn look(&mut self) -> Result<()> {
        self.federation.check_running()?;
        for zone in ["east", "west"] {
            self.federation.wait_zone_joined(zone).await?;
        }
        let url = self.federation.proxy("client-1")?.outbound_url("/");
        wait::until("a request passes", LIMIT, || async {
            let answer = Client::new().map_err(|error| error.to_string())?.get(&url).await;
            match answer {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(format!("{}: {}", answer.status, answer.body)),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
        .map(|_| ())
    }

    /// No log holds a secret or a panic.
    fn logs_are_clean(&self) -> Result<()> {
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                self.is_clean(&path)?;
            }
        }
        Ok(())
    }

    fn is_clean(&self, path: &Path) -> Result<()> {
        let text = String::from_utf8_lossy(&std::fs::read(path)?).into_owned();
        ensure!(!text.contains("panicked at"), "{} holds a panic", path.display());
        for secret in &self.secrets {
            // The last part of a token is its signature, which alone makes it useful.
            let tail = secret.rsplit('.').next().unwrap_or(secret);
            ensure!(!text.contains(tail), "{} holds a token", path.display());
        }
        Ok(())
    }
}

/// All of `parts` are in `text`, and it tells of no panic.
fn says(text: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(text.contains(part), "{part:?} is not in: {text}");
    }
    ensure!(!text.contains("panicked"), "panic: {text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_gets_a_clear_error_and_everything_else_goes_on() -> Result<()> {
    let Some(binaries) = Binaries::from_env() else {
        println!("skipped: run it with `cargo xtask e2e`, which builds the programs and finds Envoy");
        return Ok(());
    };
    let dir = binaries.dir.join(format!("../e2e/bad-input-{}", std::process::id()));
    let mut federation = Federation::start(binaries, &dir).await?;
    for zone in ["east", "west"] {
        federation.start_zone(zone).await?;
    }
    for zone in ["east", "west"] {
        federation.wait_zone_joined(zone).await?;
    }
    federation.start_proxy("west", "echo-1", Role::Echo).await?;
    federation.start_proxy("west", "client-1", Role::Client).await?;
    let mut bench = Bench { federation, dir: dir.clone(), failures: Vec::new(), secrets: Vec::new() };
    bench.look().await.with_context(|| format!("logs are in {}", dir.display()))?;
    resources::rest(&mut bench).await?;
    resources::grat(&mut bench).await?;
    bench.everything_works("bad resources").await;
    control_planes::starts(&mut bench).await?;
    bench.everything_works("control planes that cannot start").await;
    agents::starts(&mut bench).await?;
    tokens::zones(&mut bench).await?;
    tokens::proxies(&mut bench).await?;
    tokens::users(&mut bench).await?;
    bench.everything_works("bad tokens").await;
    liars::lie(&mut bench).await?;
    bench.everything_works("lies").await;
    let clean = bench.logs_are_clean();
    bench.note("no log holds a secret or a panic", clean);
    assert!(bench.failures.is_empty(), "logs are in {}:\n{}", dir.display(), bench.failures.join("\n"));
    drop(bench);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
