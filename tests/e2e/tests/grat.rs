//! The real `grat` against real global control planes.

#![expect(clippy::print_stdout, reason = "the progress of a long test")]

use anyhow::Result;
use graticule_testkit::Binaries;

mod bench {
    //! Two globals, a configuration file, and `grat`.

    use std::path::PathBuf;
    use std::process::Command;
    use std::time::Duration;

    use anyhow::{Result, ensure};
    use graticule_testkit::federation::{ControlPlane, start_global};
    use graticule_testkit::http::Client;
    use graticule_testkit::{Binaries, process, wait};

    /// How long one run may take.
    const LIMIT: Duration = Duration::from_secs(30);

    #[derive(Debug)]
    pub(crate) struct Bench {
        pub(crate) dir: PathBuf,
        pub(crate) a: ControlPlane,
        pub(crate) b: ControlPlane,
        program: PathBuf,
    }

    /// What a run said.
    #[derive(Debug)]
    pub(crate) struct Said {
        pub(crate) code: i32,
        pub(crate) out: String,
        pub(crate) err: String,
    }

    impl Said {
        /// Fails unless the exit code is this one.
        pub(crate) fn ended_with(self, code: i32) -> Result<Said> {
            ensure!(
                self.code == code,
                "exit code {} instead of {code}\n{}\n{}",
                self.code,
                self.out,
                self.err
            );
            Ok(self)
        }
    }

    impl Bench {
        pub(crate) async fn start(binaries: &Binaries) -> Result<Bench> {
            let dir = binaries.dir.join(format!("../e2e/grat-{}", std::process::id()));
            std::fs::create_dir_all(&dir)?;
            let a = start_global(binaries, &dir, "global-a", None).await?;
            let b = start_global(binaries, &dir, "global-b", None).await?;
            let mut bench = Bench { program: binaries.program("grat")?, dir, a, b };
            let client = Client::new()?;
            for control_plane in [&mut bench.a, &mut bench.b] {
                // The admin's token is the last of the default objects.
                let url = format!("{}/global-secrets/admin-user-token", control_plane.api);
                wait::until("global is ready", LIMIT, || async {
                    let answer = client.get(&url).await.map_err(|error| error.to_string())?;
                    if answer.status == 200 { Ok(()) } else { Err(answer.body) }
                })
                .await?;
                control_plane.process.check_running()?;
            }
            Ok(bench)
        }

        pub(crate) fn command(&self, arguments: &[&str]) -> Command {
            let mut command = Command::new(&self.program);
            for name in ["GRATICULE_ADDRESS", "GRATICULE_TOKEN", "GRATICULE_CONTEXT"] {
                command.env_remove(name);
            }
            command.args(arguments).env("GRATICULE_CONFIG", self.dir.join("config"));
            command
        }

        /// Runs `grat` to its end.
        pub(crate) async fn grat(&self, arguments: &[&str]) -> Result<Said> {
            self.grat_with(arguments, "").await
        }

        /// With standard input.
        pub(crate) async fn grat_with(&self, arguments: &[&str], input: &str) -> Result<Said> {
            let said = process::answer(self.command(arguments), input, LIMIT).await?;
            Ok(Said { code: said.code, out: said.stdout, err: said.stderr })
        }

        pub(crate) fn file(&self, name: &str, text: &str) -> Result<String> {
            let path = self.dir.join(name);
            if let Some(dir) = path.parent() {
                std::fs::create_dir_all(dir)?;
            }
            std::fs::write(&path, text)?;
            Ok(path.display().to_string())
        }
    }
}

#[path = "grat/access.rs"]
mod access;
#[path = "grat/resources.rs"]
mod resources;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grat_does_what_it_says() -> Result<()> {
    let Some(binaries) = Binaries::from_env() else {
        println!("skipped: run it with `cargo xtask e2e`, which builds the programs and finds Envoy");
        return Ok(());
    };
    let bench = bench::Bench::start(&binaries).await?;
    access::contexts(&bench).await?;
    resources::apply(&bench).await?;
    resources::dry_run(&bench).await?;
    resources::get(&bench).await?;
    resources::watch(&bench).await?;
    resources::prune(&bench).await?;
    resources::delete(&bench).await?;
    access::mistakes(&bench).await?;
    access::tokens(&bench).await?;
    resources::export_and_import(&bench).await?;
    drop(bench.a);
    drop(bench.b);
    std::fs::remove_dir_all(&bench.dir)?;
    Ok(())
}
