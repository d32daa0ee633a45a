//! Zones: one that knows several replicas of global, and one that has several replicas itself.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use graticule_testkit::federation::{ControlPlane, Federation, START_LIMIT};
use graticule_testkit::http::{Client, expect};
use graticule_testkit::net::{Subnet, free_port};
use graticule_testkit::replicas::Site;
use graticule_testkit::{Binaries, Process, Replicas, wait};
use serde_json::{Value, json};

/// Makes a token for a zone.
pub(crate) async fn zone_token(client: &Client, api: &str, zone: &str) -> Result<String> {
    let body = json!({"zone": zone, "scope": [], "validFor": "24h"});
    Ok(expect(client.post(&format!("{api}/tokens/zone"), &body).await?, &[200], "zone token")?.body)
}

/// A zone with one replica that knows all replicas of global.
pub(crate) async fn start_zone(
    binaries: &Binaries,
    globals: &Replicas,
    name: &str,
    dir: &Path,
) -> Result<ControlPlane> {
    let workdir = dir.join(name);
    std::fs::create_dir_all(&workdir)?;
    let (token_file, ca_file) = (workdir.join("zone.token"), workdir.join("global.crt"));
    std::fs::write(&token_file, zone_token(&globals.rest, &globals.url(0, ""), name).await?)?;
    // Each replica made a certificate of its own.
    let mut certificates = String::new();
    let mut addresses = Vec::new();
    for replica in &globals.replicas {
        certificates.push_str(&std::fs::read_to_string(replica.control_plane.certificate())?);
        addresses.push(format!("grpcs://127.0.0.1:{}", replica.control_plane.port));
    }
    std::fs::write(&ca_file, certificates)?;
    let (api_port, port) = (free_port("127.0.0.1")?, free_port("127.0.0.1")?);
    let mut command = Command::new(binaries.program("zone-cp")?);
    command
        .arg("run")
        .arg("--config-file")
        .arg(binaries.demo_file("zone-cp.yaml"))
        .env("GRATICULE_MULTIZONE_ZONE_NAME", name)
        .env("GRATICULE_MULTIZONE_ZONE_GLOBAL_ADDRESS", addresses.join(","))
        .env("GRATICULE_MULTIZONE_ZONE_KDS_ROOT_CA_FILE", &ca_file)
        .env("GRATICULE_MULTIZONE_ZONE_KDS_TOKEN_FILE", &token_file)
        .env("GRATICULE_GENERAL_WORK_DIR", &workdir)
        .env("GRATICULE_API_SERVER_HTTP_PORT", api_port.to_string())
        .env("GRATICULE_DIAGNOSTICS_SERVER_PORT", free_port("127.0.0.1")?.to_string())
        .env("GRATICULE_DP_SERVER_PORT", port.to_string());
    let process = Process::spawn(name, dir, &mut command)?;
    Ok(ControlPlane {
        name: name.into(),
        process,
        api: format!("http://127.0.0.1:{api_port}"),
        port,
        workdir,
    })
}

/// Whether global shows the zone with an open connection.
fn is_online(overview: &Value) -> bool {
    let subscriptions = overview["zoneInsight"]["subscriptions"].as_array().cloned().unwrap_or_default();
    subscriptions.iter().any(|one| one.get("connectTime").is_some() && one.get("disconnectTime").is_none())
}

/// The replica of global that a zone is connected to: the one whose log says so.
pub(crate) async fn replica_of(globals: &Replicas, zone: &ControlPlane) -> Result<usize> {
    let (found, _) = wait::until("a replica has the zone", START_LIMIT, || async {
        for index in 0..globals.replicas.len() {
            let url = globals.url(index, &format!("/zones/{}/_overview", zone.name));
            let answer = globals.rest.get(&url).await.map_err(|error| error.to_string())?;
            if answer.json().is_ok_and(|overview| is_online(&overview)) {
                return Ok(index);
            }
        }
        Err("none".to_owned())
    })
    .await?;
    Ok(found)
}

/// A zone loses its disk; the replica of global that it is not connected to is asked, and decides.
pub(crate) async fn decided_elsewhere(binaries: &Binaries, dir: &Path) -> Result<()> {
    let globals = Replicas::start(binaries, dir, Site::Global, 2).await?;
    let zone = start_zone(binaries, &globals, "east", dir).await?;
    let policy = json!({"type": "MeshTimeout", "mesh": "default", "name": "own", "labels": {"kuma.io/origin": "zone"},
        "spec": {"to": [{"targetRef": {"kind": "Mesh"}, "default": {"idleTimeout": "9s"}}]}});
    let (url, rest) = (format!("{}/meshes/default/meshtimeouts/own", zone.api), &globals.rest);
    wait::until("the zone takes a policy", START_LIMIT, || async {
        let answer = rest.put(&url, &policy).await.map_err(|error| error.to_string())?;
        if matches!(answer.status, 200 | 201) { Ok(()) } else { Err(answer.body) }
    })
    .await?;
    let copies = globals.url(0, "/meshes/default/meshtimeouts");
    let of_east = |list: &Value| {
        let all = list["items"].as_array().into_iter().flatten();
        all.filter(|one| one["labels"]["kuma.io/zone"] == "east").count()
    };
    until_shown(rest, "global has it", &copies, |list| of_east(list) == 1).await?;
    let workdir = zone.workdir.clone();
    drop(zone);
    std::fs::remove_dir_all(workdir.join("data"))?;

    // Its name is reserved for the one that it was, for half a minute.
    let _zone = start_zone(binaries, &globals, "east", dir).await?;
    let is_held = |status: &Value| status["protection"]["heldBack"].as_u64().unwrap_or(0) > 0;
    for replica in 0..2 {
        let url = globals.url(replica, "/zones/east/_status");
        wait::until(&format!("replica {replica} says what is held back"), 3 * START_LIMIT, || async {
            let answer = rest.get(&url).await.map_err(|error| error.to_string())?;
            if answer.json().is_ok_and(|status| is_held(&status)) { Ok(()) } else { Err(answer.body) }
        })
        .await?;
    }
    let status = rest.get(&globals.url(0, "/zones/east/_status")).await?.json()?;
    let serving = &status["instances"][0]["globalInstance"];
    let mut other = None;
    for replica in 0..2 {
        let index = rest.get(&globals.url(replica, "/")).await?.json()?;
        ensure!(index["instanceId"].is_string(), "{index}");
        if index["instanceId"] != *serving {
            other = Some(replica);
        }
    }
    let other = other.context("both replicas have the same id")?;
    let answer = rest.post(&globals.url(other, "/zones/east/_accept-deletions"), &json!({})).await?;
    let given_up = expect(answer, &[200], "a decision at the other replica")?.json()?;
    ensure!(given_up["givenUp"].as_u64().unwrap_or(0) > 0, "{given_up}");
    until_shown(rest, "it goes", &copies, |list| of_east(list) == 0).await?;
    let url = globals.url(other, "/zones/east/_status");
    until_shown(rest, "nothing is held back", &url, |status| status["protection"]["state"] == "clear")
        .await?;
    Ok(())
}

/// An agent with its Envoy.
struct Proxy {
    _agent: Process,
    readiness: String,
}

async fn start_proxy(
    federation: &Federation,
    replica: &ControlPlane,
    name: &str,
    address: &str,
) -> Result<Proxy> {
    let body = json!({"mesh": "default", "name": name, "workload": "echo", "validFor": "24h"});
    // The mesh comes from global before its signing key.
    let url = format!("{}/tokens/dataplane", replica.api);
    let (token, _) = wait::until("a dataplane token", START_LIMIT, || async {
        let answer = federation.rest.post(&url, &body).await.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(answer.body) } else { Err(answer.body) }
    })
    .await?;
    let token_file = federation.dir.join(format!("{name}.token"));
    std::fs::write(&token_file, token)?;
    let readiness = free_port("127.0.0.1")?;
    let mut command = federation.agent_command(replica, name)?;
    command
        .arg(format!("--dataplane-file={}", federation.binaries.demo_file("dp-echo.yaml").display()))
        .args(["-v", &format!("name={name}"), "-v", &format!("address={address}")])
        .arg(format!("--dataplane-token-file={}", token_file.display()))
        .env("GRATICULE_READINESS_PORT", readiness.to_string());
    let agent = Process::spawn(name, &federation.dir, &mut command)?;
    Ok(Proxy { _agent: agent, readiness: format!("http://127.0.0.1:{readiness}/ready") })
}

async fn until_shown(
    client: &Client,
    what: &str,
    url: &str,
    is_good: impl Fn(&Value) -> bool,
) -> Result<Duration> {
    let ((), took) = wait::until(what, START_LIMIT, || async {
        let answer = client.get(url).await.map_err(|error| error.to_string())?;
        let document = answer.json().unwrap_or_default();
        if answer.status == 200 && is_good(&document) { Ok(()) } else { Err(answer.body) }
    })
    .await?;
    Ok(took)
}

fn total(document: &Value) -> u64 {
    document["total"].as_u64().unwrap_or_default()
}

/// Three replicas of a zone, a proxy at each.
pub(crate) async fn proxies_at_every_replica(binaries: &Binaries, dir: &Path) -> Result<()> {
    let mut federation = Federation::start(binaries.clone(), dir).await?;
    federation.apply_file("global", "identity.yaml", &[]).await?;
    let token_file = dir.join("zone.token");
    std::fs::write(&token_file, zone_token(&federation.rest, &federation.global.api, "east").await?)?;
    let variables = [
        ("GRATICULE_MULTIZONE_ZONE_NAME", "east".to_owned()),
        ("GRATICULE_MULTIZONE_ZONE_GLOBAL_ADDRESS", format!("grpcs://127.0.0.1:{}", federation.global.port)),
        ("GRATICULE_MULTIZONE_ZONE_KDS_ROOT_CA_FILE", federation.global.certificate().display().to_string()),
        ("GRATICULE_MULTIZONE_ZONE_KDS_TOKEN_FILE", token_file.display().to_string()),
    ];
    let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let mut replicas = Replicas::start(binaries, &dir.join("east"), Site::Zone(variables), 3).await?;
    let client = replicas.rest.clone();
    for index in 0..3 {
        until_shown(&client, "the mesh is everywhere", &replicas.url(index, "/meshes/default"), |_| true)
            .await?;
    }
    let subnet = Subnet::pick();
    let mut proxies = Vec::new();
    for index in 0..3_u8 {
        let replica = &replicas.replicas[usize::from(index)].control_plane;
        let address = subnet.host(index + 1).to_string();
        proxies.push(start_proxy(&federation, replica, &format!("echo-{index}"), &address).await?);
    }
    for (index, proxy) in proxies.iter().enumerate() {
        wait::until(&format!("proxy {index} is ready"), START_LIMIT, || async {
            let answer = client.get(&proxy.readiness).await.map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(answer.body) }
        })
        .await?;
    }
    for index in 0..3 {
        let url = replicas.url(index, "/meshes/default/dataplanes");
        until_shown(&client, "all replicas show all proxies", &url, |list| total(list) == 3).await?;
        let url = replicas.url(index, "/meshes/default/meshservices");
        until_shown(&client, "one service", &url, |list| total(list) == 1).await?;
    }
    let made = authorities(&replicas)?;
    ensure!(made == 1, "the authority was made {made} times");
    println!("three replicas of a zone serve a proxy each; the authority and the service were made once");

    // Another replica leads: it derives and federates.
    let (leader, _) = replicas.leader(0, None).await?;
    replicas.kill(leader)?;
    let survivor = (leader + 1) % 3;
    let (next, _) = replicas.leader(survivor, Some(leader)).await?;
    let extra = json!({"type": "Dataplane", "mesh": "default", "name": "other-1",
        "labels": {"kuma.io/workload": "other", "kuma.io/origin": "zone"},
        "networking": {"address": subnet.host(9).to_string(),
            "inbound": [{"port": 8080, "servicePort": 8081, "name": "http", "protocol": "http"}]}});
    let url = replicas.url(survivor, "/meshes/default/dataplanes/other-1");
    expect(client.put(&url, &extra).await?, &[200, 201], "PUT of a Dataplane")?;
    let url = replicas.url(survivor, "/meshes/default/workloads");
    let took = until_shown(&client, "the new leader derives", &url, |list| {
        list["items"].as_array().is_some_and(|items| items.iter().any(|item| item["name"] == "other"))
    })
    .await?;
    println!("replica {leader} killed, {next} leads: a new Dataplane was derived from after {took:?}");
    let url = format!("{}/meshes/default/dataplanes", federation.global.api);
    let took = until_shown(&client, "the new leader federates", &url, |list| total(list) == 4).await?;
    println!("global shows it after {took:?}");
    replicas.start_again(leader)?;
    replicas.wait_ready(leader).await?;
    // Its proxy comes back to it; nobody removes it meanwhile, or afterwards.
    let url = replicas.url(leader, "/meshes/default/dataplanes/_overview");
    let name = format!("echo-{leader}");
    until_shown(&client, "the proxy is back at its replica", &url, |list| {
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.iter().any(|item| {
            let insight = item["dataplaneInsight"]["subscriptions"].as_array().cloned().unwrap_or_default();
            item["name"] == name.as_str() && insight.iter().any(|one| one.get("disconnectTime").is_none())
        })
    })
    .await?;
    let made = authorities(&replicas)?;
    ensure!(made == 1, "the authority was made {made} times");
    federation.check_running().context("global")?;
    drop((proxies, replicas));
    Ok(())
}

/// How often a certificate authority was made, over all replicas.
fn authorities(replicas: &Replicas) -> Result<usize> {
    let mut count = 0;
    for replica in &replicas.replicas {
        let log = std::fs::read_to_string(replica.control_plane.process.log())?;
        count += log.matches("certificate authority made").count();
    }
    Ok(count)
}
