//! The operator's side of the store, with real processes: backup and restore, encryption of secrets, a full disk.

#![expect(clippy::print_stdout, reason = "the progress of a long test")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use graticule_testkit::http::Client;
use graticule_testkit::net::free_port;
use graticule_testkit::process::{Process, Said};
use graticule_testkit::{Binaries, process, wait};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
/// The value of a secret, and what JSON has of it.
const SECRET: &str = "aHVudGVyMi1odW50ZXIyLWh1bnRlcjI=";

struct Bench {
    binaries: Binaries,
    dir: PathBuf,
    rest: Client,
}

/// A global control plane with a store of its own.
struct Global {
    process: Process,
    api: String,
    diagnostics: String,
    data: PathBuf,
    environment: Vec<(String, String)>,
}

impl Bench {
    /// Starts it, or starts it again where `data` is there.
    async fn start(&self, name: &str, environment: &[(&str, &str)]) -> Result<Global> {
        self.start_in(name, &self.dir.join(name).join("data"), environment).await
    }

    async fn start_in(&self, name: &str, data: &Path, environment: &[(&str, &str)]) -> Result<Global> {
        let work = self.dir.join(name);
        std::fs::create_dir_all(&work)?;
        let (api, diagnostics) = (free_port("127.0.0.1")?, free_port("127.0.0.1")?);
        let mut command = Command::new(self.binaries.program("global-cp")?);
        command
            .args(["run", "--data-dir"])
            .arg(data)
            .env("GRATICULE_GENERAL_WORK_DIR", &work)
            .env("GRATICULE_API_SERVER_HTTP_INTERFACE", "127.0.0.1")
            .env("GRATICULE_API_SERVER_HTTP_PORT", api.to_string())
            .env("GRATICULE_API_SERVER_HTTPS_ENABLED", "false")
            .env("GRATICULE_DIAGNOSTICS_SERVER_PORT", diagnostics.to_string())
            .env("GRATICULE_MULTIZONE_GLOBAL_KDS_GRPC_PORT", free_port("127.0.0.1")?.to_string())
            .envs(environment.iter().copied());
        let global = Global {
            process: Process::spawn(name, &self.dir, &mut command)?,
            api: format!("http://127.0.0.1:{api}"),
            diagnostics: format!("http://127.0.0.1:{diagnostics}"),
            data: data.to_owned(),
            environment: environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        let ready = format!("{}/ready", global.diagnostics);
        let is_up = wait::until("global is ready", LIMIT, || async {
            let answer = self.rest.get(&ready).await.map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(answer.body) }
        });
        is_up.await.with_context(|| global.process.log_tail(10))?;
        Ok(global)
    }

    async fn restart_after_kill(&self, name: &str, mut global: Global) -> Result<Global> {
        global.process.kill()?;
        let environment: Vec<(&str, &str)> =
            global.environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        self.start_in(name, &global.data, &environment).await
    }

    async fn grat(&self, global: &Global, arguments: &[&str]) -> Result<Said> {
        let mut command = Command::new(self.binaries.program("grat")?);
        command.args(arguments).args(["--no-config", "--address", &global.api]).current_dir(&self.dir);
        process::answer(command, "", LIMIT).await
    }

    async fn grat_ok(&self, global: &Global, arguments: &[&str]) -> Result<Said> {
        let said = self.grat(global, arguments).await?;
        ensure!(said.code == 0, "grat {arguments:?}: {}\n{}\n{}", said.code, said.stdout, said.stderr);
        Ok(said)
    }

    async fn put(&self, global: &Global, path: &str, document: &Value) -> Result<u16> {
        Ok(self.rest.put(&format!("{}{path}", global.api), document).await?.status)
    }

    /// Everything that is stored, as the API shows it.
    async fn contents(&self, global: &Global) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        for path in
            ["/meshes", "/meshtimeouts", "/secrets", "/global-secrets", "/hostnamegenerators", "/zones"]
        {
            let list = self.rest.get(&format!("{}{path}", global.api)).await?.json()?;
            all.extend(list["items"].as_array().context("items")?.iter().cloned());
        }
        Ok(all)
    }
}

fn timeout(name: &str, idle: &str) -> Value {
    json!({
        "type": "MeshTimeout", "mesh": "default", "name": name,
        "spec": {"to": [{"targetRef": {"kind": "Mesh"}, "default": {"idleTimeout": idle}}]},
    })
}

fn secret(name: &str, data: &str) -> Value {
    json!({"type": "Secret", "mesh": "default", "name": name, "data": data})
}

fn says(said: &Said, code: i32, parts: &[&str]) -> Result<()> {
    let all = format!("{}{}", said.stdout, said.stderr);
    ensure!(said.code == code, "exit code {} instead of {code}: {all}", said.code);
    for part in parts {
        ensure!(all.contains(part), "{part:?} is not in: {all}");
    }
    Ok(())
}

/// Files below `dir` with these bytes in them.
fn files_with(dir: &Path, text: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let bytes = std::fs::read(&path)?;
        if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
            found.push(path);
        }
    }
    Ok(found)
}

fn bench(name: &str) -> Result<Option<Bench>> {
    let Some(binaries) = Binaries::from_env() else {
        println!("skipped: run it with `cargo xtask e2e`, which builds the programs and finds Envoy");
        return Ok(None);
    };
    let dir = binaries.dir.join(format!("../e2e/{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    Ok(Some(Bench { binaries, dir: dir.canonicalize()?, rest: Client::new()? }))
}

/// raft → memory → raft with encryption, and back in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backup_restore_and_migration() -> Result<()> {
    let Some(bench) = bench("backup")? else { return Ok(()) };
    let first = bench.start("first", &[]).await?;
    for n in 0..20 {
        ensure!(
            bench
                .put(&first, &format!("/meshes/default/meshtimeouts/t{n}"), &timeout(&format!("t{n}"), "5s"))
                .await?
                == 201
        );
    }
    ensure!(bench.put(&first, "/meshes/default/secrets/s", &secret("s", SECRET)).await? == 201);
    let contents = bench.contents(&first).await?;
    let said = bench.grat_ok(&first, &["backup", "-o", "first.backup"]).await?;
    says(&said, 0, &["of global", "as plain text", "store.encryption.keyFile"])?;
    let file = bench.dir.join("first.backup");
    let mode = std::fs::metadata(&file)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "mode {mode:o}");
    println!("  a backup of raft: {} bytes", std::fs::metadata(&file)?.len());

    // A fresh control plane of another backend takes it without force.
    let memory = bench.start("memory", &[("GRATICULE_STORE_TYPE", "memory")]).await?;
    let said = bench.grat_ok(&memory, &["restore", "first.backup", "--dry-run"]).await?;
    says(&said, 0, &["MeshTimeout", "nothing was changed"])?;
    ensure!(!said.stdout.contains("--force"), "{}", said.stdout);
    bench.grat_ok(&memory, &["restore", "first.backup"]).await?;
    ensure!(bench.contents(&memory).await? == contents, "memory holds what raft held, times included");
    println!("  restored to memory");

    // From there to raft with encryption; the process is killed right afterwards.
    bench.grat_ok(&memory, &["backup", "-o", "memory.backup"]).await?;
    let keys = bench.dir.join("keys");
    let key = |id: &str| {
        let mut command = Command::new(bench.binaries.program("grat")?);
        command.args(["generate", "encryption-key", "--id", id]);
        Ok::<String, anyhow::Error>(String::from_utf8(command.output()?.stdout)?)
    };
    let (old, new) = (key("old")?, key("new")?);
    std::fs::write(&keys, &old)?;
    let key_file = keys.display().to_string();
    let encrypted = [("GRATICULE_STORE_ENCRYPTION_KEY_FILE", key_file.as_str())];
    let last = bench.start("last", &encrypted).await?;
    bench.grat_ok(&last, &["restore", "memory.backup"]).await?;
    let last = bench.restart_after_kill("last", last).await?;
    ensure!(bench.contents(&last).await? == contents, "raft holds it, after kill -9, too");
    ensure!(files_with(&last.data, SECRET)?.is_empty(), "no file of the store has a secret");
    let said = bench.grat_ok(&last, &["backup", "-o", "last.backup"]).await?;
    ensure!(!said.stderr.contains("plain text"), "{}", said.stderr);
    let saved = std::fs::read(bench.dir.join("last.backup"))?;
    ensure!(
        !saved.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()),
        "no secret in the backup"
    );
    println!("  restored to raft with encryption");

    // Rotation: the new key with the old one, then alone.
    std::fs::write(&keys, format!("{new}{old}"))?;
    let last = bench.restart_after_kill("last", last).await?;
    let sealed = "secrets are encrypted with this key from this snapshot on";
    last.process.wait_for_log(sealed, LIMIT).await?;
    std::fs::write(&keys, &new)?;
    let last = bench.restart_after_kill("last", last).await?;
    ensure!(bench.contents(&last).await? == contents, "the old key is not needed any more");
    let said = bench.grat(&last, &["restore", "last.backup", "--force"]).await?;
    says(&said, 1, &["encrypted with the key \"old\"", "nothing was changed"])?;
    println!("  rotated");
    refusals(&bench, first, &contents).await?;
    drop((memory, last));
    std::fs::remove_dir_all(&bench.dir)?;
    Ok(())
}

async fn refusals(bench: &Bench, first: Global, contents: &[Value]) -> Result<()> {
    ensure!(bench.put(&first, "/meshes/default/meshtimeouts/later", &timeout("later", "6s")).await? == 201);
    let good = std::fs::read(bench.dir.join("first.backup"))?;
    let mut damaged = good.clone();
    let middle = good.len() / 2;
    damaged[middle] ^= 0x10;
    let mut newer = good.clone();
    newer[8] = 200;
    for (name, bytes, parts) in [
        ("damaged", &damaged[..], &["damaged at offset", "nothing was changed"][..]),
        ("short", &good[..middle], &["damaged at offset", "the file ends early"]),
        ("newer", &newer[..], &["format 200", "a newer version wrote it"]),
        ("foreign", b"type: Mesh\nname: default\n", &["this is no backup"]),
        ("late", &good[..], &["is at revision", "--force"]),
    ] {
        std::fs::write(bench.dir.join(name), bytes)?;
        let flags: &[&str] = if name == "late" { &[] } else { &["--force"] };
        let said = bench.grat(&first, &[&["restore", name], flags].concat()).await?;
        says(&said, 1, parts).with_context(|| name.to_owned())?;
    }
    ensure!(bench.contents(&first).await?.len() == contents.len() + 1, "nothing was changed");
    bench.grat_ok(&first, &["restore", "late", "--force"]).await?;
    ensure!(bench.contents(&first).await? == contents, "back in time");
    println!("  what cannot be used is refused");
    Ok(())
}

/// A file system of its own, gone with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(dir: PathBuf, size: &str) -> Result<Option<SmallDisk>> {
        std::fs::create_dir_all(&dir)?;
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(&dir).output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Some(SmallDisk(dir))),
            _ => Ok(None),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_survived_without_a_restart() -> Result<()> {
    let Some(bench) = bench("full-disk")? else { return Ok(()) };
    let Some(disk) = SmallDisk::mount(bench.dir.join("disk"), "40m")? else {
        println!("skipped: a small file system cannot be mounted here (root is needed)");
        return Ok(());
    };
    let ballast = disk.0.join("ballast");
    let mut global = bench.start_in("global", &disk.0.join("data"), &[]).await?;
    std::fs::write(&ballast, vec![1; 14 << 20])?;
    let large = "QUFB".repeat(150_000);
    let mut written = 0;
    let refusal = loop {
        let name = format!("large-{written}");
        let url = format!("{}/meshes/default/secrets/{name}", global.api);
        let answer = bench.rest.put(&url, &secret(&name, &large)).await?;
        if answer.status != 201 {
            break answer;
        }
        written += 1;
        ensure!(written < 200, "the disk does not fill");
    };
    println!("  full after {written} writes: {}", refusal.body);
    ensure!(
        refusal.status == 503 && refusal.body.contains("disk is full"),
        "{} {}",
        refusal.status,
        refusal.body
    );
    ensure!(written > 2, "it was not full at once");
    let last = format!("{}/meshes/default/secrets/large-{}", global.api, written - 1);
    ensure!(bench.rest.get(&last).await?.status == 200, "reads go on");
    let ready = bench.rest.get(&format!("{}/ready", global.diagnostics)).await?;
    ensure!(ready.status == 200 && ready.body.contains("takes no writes"), "{} {}", ready.status, ready.body);
    let index = bench.rest.get(&format!("{}/", global.api)).await?.json()?;
    ensure!(index["store"]["state"] == "readOnly", "{index}");
    let said = bench.grat(&global, &["delete", "secret", "large-0"]).await?;
    says(&said, 1, &["store unavailable"])?;

    std::fs::remove_file(&ballast)?;
    let url = format!("{}/meshes/default/secrets/after", global.api);
    let (_, took) = wait::until("writes work again", LIMIT, || async {
        let answer =
            bench.rest.put(&url, &secret("after", SECRET)).await.map_err(|error| error.to_string())?;
        if matches!(answer.status, 200 | 201) { Ok(()) } else { Err(answer.body) }
    })
    .await?;
    println!("  writes again {took:?} after there was room");
    global.process.check_running()?;
    let index = bench.rest.get(&format!("{}/", global.api)).await?.json()?;
    ensure!(index["store"].is_null(), "{index}");
    let global = bench.restart_after_kill("global", global).await?;
    for name in ["after".to_owned(), format!("large-{}", written - 1)] {
        let url = format!("{}/meshes/default/secrets/{name}", global.api);
        ensure!(bench.rest.get(&url).await?.status == 200, "{name} was acknowledged");
    }
    drop(global);
    drop(disk);
    std::fs::remove_dir_all(&bench.dir)?;
    Ok(())
}
