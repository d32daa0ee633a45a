//! Control planes that keep their resources in a real etcd: two replicas of global and a zone, of which one replica and
//! then etcd are killed, and the way from the embedded store to etcd.

#![expect(clippy::print_stdout, reason = "the progress of a long test")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use graticule_testkit::etcd::Etcd;
use graticule_testkit::http::{Client, expect};
use graticule_testkit::net::free_port;
use graticule_testkit::{Binaries, Process, process, wait};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const LIMIT: Duration = Duration::from_secs(60);
/// How long nobody leads after a leader was killed, about.
const LEASE: &str = "2s";
/// What a leader writes into its log.
const LEADS: &str = "leader=Myself";

/// What the tests run with; none, said, when something is missing.
struct Bench {
    binaries: Binaries,
    dir: PathBuf,
    etcd: Etcd,
    rest: Client,
}

impl Bench {
    async fn start(name: &str) -> Result<Option<Bench>> {
        let Some(binaries) = Binaries::from_env() else {
            println!("skipped: run it with `cargo xtask e2e`, which builds the programs and finds Envoy");
            return Ok(None);
        };
        let Some(etcd) = graticule_testkit::etcd::binary() else {
            println!("skipped: there is no etcd; set ETCD_BIN or put one into PATH");
            return Ok(None);
        };
        let dir = binaries.dir.join(format!("../e2e/etcd-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let dir = dir.canonicalize()?;
        let mut etcd = Etcd::members(&etcd, &dir, 1, "http", &[])?.pop().context("one member")?;
        etcd.start()?;
        etcd.wait_ready(LIMIT).await?;
        let bench = Bench { binaries, dir, etcd, rest: Client::new()? };
        if !bench.knows_etcd().await? {
            println!("skipped: the programs were built without the feature `etcd`");
            std::fs::remove_dir_all(&bench.dir)?;
            return Ok(None);
        }
        Ok(Some(bench))
    }

    async fn knows_etcd(&self) -> Result<bool> {
        let mut command = Command::new(self.binaries.program("global-cp")?);
        command.args(["run", "--config-file"]).arg(self.binaries.demo_file("global-cp.yaml"));
        // No endpoints: it ends with one message or the other.
        command.env("GRATICULE_STORE_TYPE", "etcd").env("GRATICULE_GENERAL_WORK_DIR", &self.dir);
        let said = process::answer(command, "", LIMIT).await?;
        ensure!(said.code != 0, "a store without endpoints was opened");
        Ok(!format!("{}{}", said.stdout, said.stderr).contains("built without etcd"))
    }

    /// A control plane over etcd, or over the embedded store.
    fn replica(&self, program: &str, name: &str, is_on_etcd: bool) -> Result<Replica> {
        let workdir = self.dir.join(name);
        std::fs::create_dir_all(&workdir)?;
        let (api, port, diagnostics) =
            (free_port("127.0.0.1")?, free_port("127.0.0.1")?, free_port("127.0.0.1")?);
        let port_variable = match program {
            "global-cp" => "GRATICULE_MULTIZONE_GLOBAL_KDS_GRPC_PORT",
            _ => "GRATICULE_DP_SERVER_PORT",
        };
        let mut variables = vec![
            ("GRATICULE_GENERAL_WORK_DIR".to_owned(), workdir.display().to_string()),
            ("GRATICULE_API_SERVER_HTTP_PORT".to_owned(), api.to_string()),
            ("GRATICULE_DIAGNOSTICS_SERVER_PORT".to_owned(), diagnostics.to_string()),
            (port_variable.to_owned(), port.to_string()),
        ];
        if is_on_etcd {
            variables.push(("GRATICULE_STORE_TYPE".to_owned(), "etcd".to_owned()));
            variables.push(("GRATICULE_STORE_ETCD_ENDPOINTS".to_owned(), self.etcd.endpoint()));
            variables.push(("GRATICULE_STORE_ETCD_LEASE_TTL".to_owned(), LEASE.to_owned()));
        }
        Ok(Replica {
            program: self.binaries.program(program)?,
            config: self.binaries.demo_file(&format!("{program}.yaml")),
            name: name.to_owned(),
            dir: self.dir.clone(),
            variables,
            api: format!("http://127.0.0.1:{api}"),
            diagnostics: format!("http://127.0.0.1:{diagnostics}"),
            port,
            process: None,
        })
    }

    /// Starts a global control plane and waits until it serves.
    async fn global(&self, name: &str, is_on_etcd: bool) -> Result<Replica> {
        let mut global = self.replica("global-cp", name, is_on_etcd)?;
        global.start()?;
        self.wait_ready(&global).await?;
        Ok(global)
    }

    async fn wait_ready(&self, replica: &Replica) -> Result<()> {
        let url = format!("{}/ready", replica.diagnostics);
        let what = format!("{} is ready", replica.name);
        let is_up = wait::until(&what, LIMIT, || async {
            let answer = self.rest.get(&url).await.map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(answer.body) }
        });
        is_up.await.with_context(|| replica.log_tail())?;
        Ok(())
    }

    /// A zone that knows these replicas of global.
    async fn zone(&self, name: &str, globals: &[Replica]) -> Result<Replica> {
        let mut zone = self.replica("zone-cp", name, true)?;
        let (token_file, ca_file) = (self.dir.join(format!("{name}.token")), self.dir.join("globals.crt"));
        let body = json!({"zone": name, "scope": [], "validFor": "24h"});
        let token = self.rest.post(&format!("{}/tokens/zone", globals[0].api), &body).await?;
        std::fs::write(&token_file, expect(token, &[200], "zone token")?.body)?;
        let (mut certificates, mut addresses) = (String::new(), Vec::new());
        for global in globals {
            let certificate = self.dir.join(&global.name).join("kuma-cp.crt");
            certificates.push_str(&std::fs::read_to_string(certificate)?);
            addresses.push(format!("grpcs://127.0.0.1:{}", global.port));
        }
        std::fs::write(&ca_file, certificates)?;
        let of = |name: &str, value: String| (format!("GRATICULE_MULTIZONE_ZONE_{name}"), value);
        zone.variables.extend([
            of("NAME", name.to_owned()),
            of("GLOBAL_ADDRESS", addresses.join(",")),
            of("KDS_ROOT_CA_FILE", ca_file.display().to_string()),
            of("KDS_TOKEN_FILE", token_file.display().to_string()),
        ]);
        zone.start()?;
        self.wait_ready(&zone).await?;
        Ok(zone)
    }

    async fn until_shown(&self, replica: &Replica, mesh: &str) -> Result<Duration> {
        let url = format!("{}/meshes/{mesh}", replica.api);
        let what = format!("{} shows mesh {mesh}", replica.name);
        let shown = wait::until(&what, LIMIT, || async {
            let answer = self.rest.get(&url).await.map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(answer.body) }
        });
        Ok(shown.await.with_context(|| replica.log_tail())?.1)
    }

    async fn put_mesh(&self, replica: &Replica, name: &str) -> Result<()> {
        let url = format!("{}/meshes/{name}", replica.api);
        let answer = self.rest.put(&url, &json!({"type": "Mesh", "name": name})).await?;
        expect(answer, &[201], &url).map(drop)
    }

    async fn grat(&self, replica: &Replica, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.binaries.program("grat")?);
        command.args(arguments).args(["--no-config", "--address", &replica.api]).current_dir(&self.dir);
        let said = process::answer(command, "", LIMIT).await?;
        ensure!(said.code == 0, "grat {arguments:?}: {}\n{}\n{}", said.code, said.stdout, said.stderr);
        Ok(said.stdout)
    }

    /// Everything that is stored, as the API shows it: with versions and times.
    async fn contents(&self, replica: &Replica) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        for path in
            ["/meshes", "/meshtimeouts", "/secrets", "/global-secrets", "/hostnamegenerators", "/zones"]
        {
            let list = self.rest.get(&format!("{}{path}?size=1000", replica.api)).await?.json()?;
            ensure!(list["next"].is_null(), "{path} is longer than a page");
            all.extend(list["items"].as_array().context("items")?.iter().cloned());
        }
        Ok(all)
    }
}

/// A control plane process.
struct Replica {
    program: PathBuf,
    config: PathBuf,
    name: String,
    dir: PathBuf,
    variables: Vec<(String, String)>,
    api: String,
    diagnostics: String,
    port: u16,
    process: Option<Process>,
}

impl Replica {
    /// Starts it, again with the same ports and directories.
    fn start(&mut self) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("run").arg("--config-file").arg(&self.config);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::spawn(&self.name, &self.dir, &mut command)?);
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        self.process.take().context("it runs")?.kill()
    }

    fn log_tail(&self) -> String {
        self.process.as_ref().map(|process| process.log_tail(10)).unwrap_or_default()
    }

    fn check_running(&mut self) -> Result<()> {
        self.process.as_mut().context("it was started")?.check_running()
    }

    async fn leads(&self) -> Result<()> {
        self.process.as_ref().context("it runs")?.wait_for_log(LEADS, LIMIT).await.map(drop)
    }
}

fn secret(name: &str, text: &str) -> Value {
    use base64::Engine as _;
    let data = base64::engine::general_purpose::STANDARD.encode(text);
    json!({"type": "GlobalSecret", "name": name, "data": data})
}

/// The number in a secret, once everything acknowledged is there.
async fn read(client: &Client, replica: &Replica, name: &str) -> Result<u64> {
    let url = format!("{}/global-secrets/{name}?consistent=true", replica.api);
    let answer = client.get(&url).await?;
    let text = graticule_testkit::replicas::secret_text(&answer)?;
    Ok(text.with_context(|| format!("there is no secret {name}"))?.parse()?)
}

/// Writers that count up, each in a secret of its own.
struct Writers {
    tasks: JoinSet<(String, u64)>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
}

impl Writers {
    /// Two at each replica.
    fn start(client: &Client, replicas: &[&Replica]) -> Writers {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for (number, replica) in replicas.iter().chain(replicas).enumerate() {
            let (client, stop, all) = (client.clone(), stop.clone(), acknowledged.clone());
            let name = format!("writer-{number}");
            let url = format!("{}/global-secrets/{name}", replica.api);
            tasks.spawn(async move {
                let mut acknowledged = 0;
                for count in 1_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let answer = client.put(&url, &secret(&name, &count.to_string())).await;
                    if answer.is_ok_and(|answer| matches!(answer.status, 200 | 201)) {
                        acknowledged = count;
                        all.fetch_add(1, Ordering::Relaxed);
                    }
                }
                (name, acknowledged)
            });
        }
        Writers { tasks, stop, acknowledged }
    }

    async fn wait_for(&self, more: u64) -> Result<Duration> {
        let wanted = self.acknowledged.load(Ordering::Relaxed) + more;
        let ((), took) = wait::until("writes are acknowledged", LIMIT, || async {
            let found = self.acknowledged.load(Ordering::Relaxed);
            if found >= wanted { Ok(()) } else { Err(format!("{found} of {wanted}")) }
        })
        .await?;
        Ok(took)
    }

    /// What each was told last.
    async fn stop(self) -> Vec<(String, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_and_etcd_are_killed_and_nothing_is_lost() -> Result<()> {
    let Some(mut bench) = Bench::start("kills").await? else { return Ok(()) };
    let dir = bench.dir.clone();
    scenario(&mut bench).await.with_context(|| format!("logs are in {}", dir.display()))?;
    drop(bench);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

async fn scenario(bench: &mut Bench) -> Result<()> {
    let first = bench.global("global-1", true).await?;
    first.leads().await?;
    let second = bench.global("global-2", true).await?;
    let mut globals = [first, second];
    let mut zone = bench.zone("east", &globals).await?;
    bench.until_shown(&zone, "default").await?;
    a_replica_is_killed(bench, &mut globals, &zone).await?;
    etcd_is_killed(bench, &mut globals, &mut zone).await
}

async fn a_replica_is_killed(bench: &Bench, globals: &mut [Replica; 2], zone: &Replica) -> Result<()> {
    let [first, second] = globals;
    let writers = Writers::start(&bench.rest, &[first, second]);
    writers.wait_for(40).await?;
    first.kill()?;
    let took = writers.wait_for(20).await?;
    println!("  one of two replicas killed -9: 20 more writes at the other one after {took:?}");
    second.leads().await.context("the other one leads")?;
    let written = writers.stop().await;
    for (name, acknowledged) in &written {
        let found = read(&bench.rest, second, name).await?;
        ensure!(found >= *acknowledged, "{name} = {acknowledged} is lost: it is {found}");
    }
    bench.put_mesh(second, "later").await?;
    let took = bench.until_shown(zone, "later").await?;
    println!("  the zone shows what was written at the other one after {took:?}");
    first.start()?;
    bench.wait_ready(first).await?;
    for (name, acknowledged) in &written {
        let found = read(&bench.rest, first, name).await?;
        ensure!(found >= *acknowledged, "{name} = {acknowledged} is lost: it is {found}");
    }
    Ok(())
}

async fn etcd_is_killed(bench: &mut Bench, globals: &mut [Replica; 2], zone: &mut Replica) -> Result<()> {
    bench.etcd.kill()?;
    for replica in globals.iter().chain([&*zone]) {
        let answer = bench.rest.get(&format!("{}/meshes/later", replica.api)).await?;
        ensure!(answer.status == 200, "{}: reads go on: {}", replica.name, answer.body);
    }
    let url = format!("{}/global-secrets/without-etcd", globals[0].api);
    let answer = bench.rest.put(&url, &secret("without-etcd", "1")).await?;
    ensure!(answer.status == 503 && answer.body.contains("etcd"), "{}: {}", answer.status, answer.body);
    println!("  without etcd: {}", answer.body.trim());
    let index = bench.rest.get(&format!("{}/", globals[0].api)).await?.json()?;
    let reason = index["store"]["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("etcd"), "{index}");
    bench.etcd.start()?;
    let (_, took) = wait::until("writes work again", LIMIT, || async {
        let answer = bench.rest.put(&url, &secret("without-etcd", "2")).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if matches!(answer.status, 200 | 201) { Ok(()) } else { Err(answer.body) }
    })
    .await?;
    println!("  writes again {took:?} after etcd was started");
    ensure!(read(&bench.rest, &globals[1], "without-etcd").await? == 2, "the other replica follows");
    bench.put_mesh(&globals[1], "after").await?;
    bench.until_shown(zone, "after").await?;
    for replica in globals.iter_mut().chain([zone]) {
        replica.check_running().context("nobody was restarted")?;
    }
    for replica in globals.iter() {
        let index = format!("{}/", replica.api);
        wait::until("all is well", LIMIT, || async {
            let answer = bench.rest.get(&index).await.map_err(|error| error.to_string())?;
            match answer.json() {
                Ok(index) if index["store"].is_null() => Ok(()),
                _ => Err(answer.body),
            }
        })
        .await?;
    }
    Ok(())
}

fn restored(said: &str) -> Result<()> {
    if said.contains("nothing was changed") { bail!("{said}") } else { Ok(()) }
}

/// From the embedded store to etcd and back, with everything; while another replica watches.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_embedded_store_to_etcd_and_back() -> Result<()> {
    let Some(bench) = Bench::start("migration").await? else { return Ok(()) };
    let raft = bench.global("raft", false).await?;
    for n in 0..300 {
        let timeout = json!({
            "type": "MeshTimeout", "mesh": "default", "name": format!("t{n}"),
            "spec": {"to": [{"targetRef": {"kind": "Mesh"}, "default": {"idleTimeout": "5s"}}]},
        });
        let url = format!("{}/meshes/default/meshtimeouts/t{n}", raft.api);
        expect(bench.rest.put(&url, &timeout).await?, &[201], &url)?;
    }
    bench.put_mesh(&raft, "second").await?;
    let contents = bench.contents(&raft).await?;
    bench.grat(&raft, &["backup", "-o", "raft.backup"]).await?;

    let etcd = bench.global("etcd", true).await?;
    restored(&bench.grat(&etcd, &["restore", "raft.backup"]).await?)?;
    ensure!(bench.contents(&etcd).await? == contents, "etcd holds what raft held, times included");
    let other = bench.global("etcd-2", true).await?;
    ensure!(bench.contents(&other).await? == contents, "another replica reads the same");
    bench.grat(&other, &["backup", "-o", "etcd.backup"]).await?;
    println!("  {} resources restored from raft to etcd, and backed up there", contents.len());

    // Back, and over what etcd has by now, while the other replica watches.
    let last = bench.global("last", false).await?;
    restored(&bench.grat(&last, &["restore", "etcd.backup"]).await?)?;
    ensure!(bench.contents(&last).await? == contents, "raft holds what etcd held");
    bench.put_mesh(&other, "third").await?;
    restored(&bench.grat(&etcd, &["restore", "etcd.backup", "--force"]).await?)?;
    let (_, took) = wait::until("the other replica has it", LIMIT, || async {
        let found = bench.contents(&other).await.map_err(|error| error.to_string())?;
        if found == contents { Ok(()) } else { Err(format!("{} resources", found.len())) }
    })
    .await?;
    println!("  restored over newer contents; the other replica shows it after {took:?}");
    bench.put_mesh(&other, "fourth").await?;
    bench.until_shown(&etcd, "fourth").await?;
    let dir = bench.dir.clone();
    drop((raft, etcd, other, last, bench));
    remove(&dir)
}

fn remove(dir: &Path) -> Result<()> {
    Ok(std::fs::remove_dir_all(dir)?)
}
