//! Tokens of zones, proxies and users.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use graticule_testkit::Process;
use graticule_testkit::http::expect;
use graticule_testkit::net::free_port;
use serde_json::{Value, json};

use crate::{Bench, LIMIT, says};

/// One case: name, headers, wanted status, what the answer says.
type Write<'a> = (&'a str, &'a [(&'a str, &'a str)], u16, &'a str);

/// Asks a control plane for a token.
async fn issue(bench: &mut Bench, control_plane: &str, kind: &str, body: &Value) -> Result<String> {
    let url = bench.url(control_plane, &format!("/tokens/{kind}"))?;
    let token = expect(bench.federation.rest.post(&url, body).await?, &[200], kind)?.body;
    bench.secrets.push(token.clone());
    Ok(token)
}

/// The claims of one token with the signature of another one.
fn forged(token: &str, other: &str) -> String {
    let head = token.rsplit_once('.').map_or(token, |(head, _)| head);
    let signature = other.rsplit_once('.').map_or(other, |(_, signature)| signature);
    format!("{head}.{signature}")
}

pub(crate) async fn zones(bench: &mut Bench) -> Result<()> {
    println!("zone tokens");
    let good =
        issue(bench, "global", "zone", &json!({"zone": "north", "scope": [], "validFor": "1h"})).await?;
    let other =
        issue(bench, "global", "zone", &json!({"zone": "east", "scope": [], "validFor": "1h"})).await?;
    let expired =
        issue(bench, "global", "zone", &json!({"zone": "north", "scope": [], "validFor": "1ms"})).await?;
    bench.secrets.push("garbage-that-is-no-token".into());
    let cases = [
        ("garbage", Some("garbage-that-is-no-token".to_owned()), "invalid number of segments"),
        ("forged", Some(forged(&good, &other)), "token signature is invalid"),
        ("expired", Some(expired), "token is expired"),
        ("of another zone", Some(other), "the token is for zone"),
        ("none", None, "a zone token is required"),
    ];
    for (index, (name, token, reason)) in cases.into_iter().enumerate() {
        let outcome = refused_zone(bench, index, token, reason).await;
        bench.note(name, outcome);
    }
    // The same zone with a good token joins.
    let outcome = bench.federation.start_zone("north").await;
    let joined = match outcome {
        Ok(()) => bench.federation.wait_zone_joined("north").await.map(|_| ()),
        Err(error) => Err(error),
    };
    bench.note("the zone joins with a good token", joined);
    // Another authority than global's.
    let authority = bench.federation.zones["east"].certificate();
    let outcome = strange_global(
        bench,
        "ca",
        &[("GRATICULE_MULTIZONE_ZONE_KDS_ROOT_CA_FILE", authority.display().to_string())],
        "rootCaFile",
    )
    .await;
    bench.note("other authority than global's", outcome);
    let rest = bench.federation.global.api.replace("http://", "grpcs://");
    let outcome =
        strange_global(bench, "rest", &[("GRATICULE_MULTIZONE_ZONE_GLOBAL_ADDRESS", rest)], "5685").await;
    bench.note("port of global's REST API", outcome);
    let plain = format!("grpc://127.0.0.1:{}", bench.federation.global.port);
    let outcome =
        strange_global(bench, "plain", &[("GRATICULE_MULTIZONE_ZONE_GLOBAL_ADDRESS", plain)], "grpcs://")
            .await;
    bench.note("no TLS towards global", outcome);
    Ok(())
}

async fn start_north(
    bench: &mut Bench,
    label: &str,
    token: Option<&str>,
    variables: &[(&str, String)],
) -> Result<(Process, String)> {
    let workdir = bench.dir.join(label);
    std::fs::create_dir_all(&workdir)?;
    let file = match token {
        Some(token) => bench.file(&format!("{label}.token"), token)?,
        None => PathBuf::new(),
    };
    let ports = (free_port("127.0.0.1")?, free_port("127.0.0.1")?);
    let mut command = bench.federation.zone_command("north", &workdir, &file, ports)?;
    command.envs(variables.iter().cloned());
    Ok((Process::spawn(label, &bench.dir, &mut command)?, format!("http://127.0.0.1:{}/", ports.0)))
}

async fn refused_zone(bench: &mut Bench, index: usize, token: Option<String>, reason: &str) -> Result<()> {
    let label = format!("bad-token-{index}");
    let (mut zone, api) = start_north(bench, &label, token.as_deref(), &[]).await?;
    let line = zone.wait_for_log(reason, LIMIT).await?;
    says(&line, &["not connected to global", "Unauthenticated", "multizone.zone.kds.tokenFile", "retry_in"])?;
    let line = bench.federation.global.process.wait_for_log(reason, LIMIT).await?;
    says(&line, &["zone refused", "zone=\"north\"", "zone-token"])?;
    // It comes back on its own, and its API is there meanwhile.
    let retried = || std::fs::read_to_string(zone.log()).unwrap_or_default().matches("not connected").count();
    graticule_testkit::wait::until("the zone tries again", LIMIT, || {
        let count = retried();
        std::future::ready(if count > 2 { Ok(()) } else { Err(format!("{count} times")) })
    })
    .await?;
    zone.wait_for_log("zone control plane runs", LIMIT).await?;
    expect(bench.federation.rest.get(&api).await?, &[200], "its API")?;
    let log = std::fs::read_to_string(bench.federation.global.process.log())?;
    let lines = log.lines().filter(|line| line.contains(reason)).count();
    ensure!(lines == 1, "{lines} lines in global's log say {reason:?}");
    zone.check_running()
}

async fn strange_global(
    bench: &mut Bench,
    label: &str,
    variables: &[(&str, String)],
    hint: &str,
) -> Result<()> {
    let (mut zone, api) = start_north(bench, &format!("strange-{label}"), Some("a.b.c"), variables).await?;
    says(&zone.wait_for_log("not connected to global", LIMIT).await?, &[hint])?;
    zone.wait_for_log("zone control plane runs", LIMIT).await?;
    expect(bench.federation.rest.get(&api).await?, &[200], "its API")?;
    zone.check_running()
}

pub(crate) async fn proxies(bench: &mut Bench) -> Result<()> {
    println!("dataplane tokens");
    let rest = bench.federation.rest.clone();
    let url = bench.url("global", "/meshes/two")?;
    expect(rest.put(&url, &json!({"type": "Mesh", "name": "two"})).await?, &[200, 201], "mesh two")?;
    let url = bench.url("west", "/tokens/dataplane")?;
    let body = json!({"mesh": "two", "name": "late", "workload": "client", "validFor": "1h"});
    let (other_mesh, _) = graticule_testkit::wait::until("mesh two is in the zone", LIMIT, || async {
        let answer = rest.post(&url, &body).await.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(answer.body) } else { Err(answer.body) }
    })
    .await?;
    bench.secrets.push(other_mesh.clone());
    let mk = |name: &str, workload: &str, valid: &str| json!({"mesh": "default", "name": name, "workload": workload, "validFor": valid});
    let good = issue(bench, "west", "dataplane", &mk("late", "client", "1h")).await?;
    let cases = [
        (
            "of another name",
            issue(bench, "west", "dataplane", &mk("other", "client", "1h")).await?,
            "different than in token: other",
        ),
        (
            "of another workload",
            issue(bench, "west", "dataplane", &mk("late", "other", "1h")).await?,
            "bound to",
        ),
        ("of another mesh", other_mesh.clone(), "authentication failed"),
        (
            "expired",
            issue(bench, "west", "dataplane", &mk("late", "client", "1ms")).await?,
            "token is expired",
        ),
        ("forged", forged(&good, &other_mesh), "token signature is invalid"),
    ];
    for (index, (name, token, reason)) in cases.into_iter().enumerate() {
        let outcome = refused_proxy(bench, index, &token, reason).await;
        bench.note(name, outcome);
    }
    Ok(())
}

async fn refused_proxy(bench: &mut Bench, index: usize, token: &str, reason: &str) -> Result<()> {
    let label = format!("bad-proxy-{index}");
    let file = bench.file(&format!("{label}.token"), token)?;
    let address = bench.federation.subnet.host(200).to_string();
    let seen = std::fs::read_to_string(bench.federation.zones["west"].process.log())?.len();
    let mut command = bench.federation.agent_command(&bench.federation.zones["west"], &label)?;
    command
        .arg(format!("--dataplane-file={}", bench.federation.binaries.demo_file("dp-client.yaml").display()))
        .args(["-vname=late", &format!("-vaddress={address}"), "-vport=19999"])
        .arg(format!("--dataplane-token-file={}", file.display()))
        .env("GRATICULE_READINESS_PORT", free_port("127.0.0.1")?.to_string());
    let agent = Process::spawn(&label, &bench.dir, &mut command)?;
    let line =
        bench.federation.zones["west"].process.wait_for_log_after(seen, "xDS stream refused", LIMIT).await?;
    says(&line, &["node=\"default.late\"", "authentication failed: ", reason])?;
    ensure!(!line.contains("authentication failed: authentication failed"), "said twice: {line}");
    // Envoy shows the message percent-encoded.
    agent.wait_for_log("authentication%20failed", LIMIT).await?;
    let url = bench.url("west", "/meshes/default/dataplanes/late")?;
    let status = bench.federation.rest.get(&url).await?.status;
    ensure!(status == 404, "a refused proxy is registered: {status}");
    Ok(())
}

pub(crate) async fn users(bench: &mut Bench) -> Result<()> {
    println!("user tokens");
    let url = bench.url("global", "/meshes/by-nobody")?;
    let body = json!({"type": "Mesh", "name": "by-nobody"});
    // A request for another host name is not the administrator's, wherever it comes from.
    let host = ("host", "evil.example");
    let cases: [Write<'_>; 3] = [
        ("anonymous write", &[host], 403, "send a user token"),
        ("garbage", &[host, ("authorization", "Bearer garbage")], 401, "Invalid authentication data"),
        ("another page in the browser", &[("origin", "http://evil.example")], 403, "send a user token"),
    ];
    for (name, headers, status, part) in cases {
        let answer = bench.federation.rest.put_with(&url, headers, &body).await?;
        let outcome = says(&answer.body, &[part]).and_then(|()| {
            ensure!(answer.status == status, "status {}", answer.status);
            Ok(())
        });
        bench.note(name, outcome);
    }
    let status = bench.federation.rest.get(&url).await?.status;
    bench.note(
        "nothing was written",
        if status == 404 { Ok(()) } else { Err(anyhow::anyhow!("status {status}")) },
    );
    Ok(())
}
