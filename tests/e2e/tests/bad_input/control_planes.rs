//! Control planes that cannot start.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use graticule_testkit::net::free_port;
use graticule_testkit::process::finish;

use crate::{Bench, LIMIT, says};

/// One case: name, more variables, text of a configuration file, more arguments, what the error says.
type Case<'a> = (&'a str, Vec<(&'a str, String)>, &'a str, &'a [&'a str], Vec<String>);

pub(crate) async fn starts(bench: &mut Bench) -> Result<()> {
    let taken = TcpListener::bind("0.0.0.0:0")?;
    let port = taken.local_addr()?.port();
    println!("global-cp");
    global(bench, port).await?;
    println!("zone-cp");
    zone(bench, port).await
}

fn in_use(port: u16, setting: &str) -> Vec<String> {
    vec![format!(":{port} is already in use"), setting.to_owned()]
}

async fn global(bench: &mut Bench, port: u16) -> Result<()> {
    let text = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
    let number = port.to_string();
    let check: &[&str] = &["--check-config"];
    let data_dir = bench.federation.global.workdir.join("data").display().to_string();
    let cases: Vec<Case<'_>> = vec![
        (
            "REST port taken",
            vec![("GRATICULE_API_SERVER_HTTP_PORT", number.clone())],
            "",
            &[],
            in_use(port, "apiServer.http.port"),
        ),
        (
            "HTTPS port taken",
            vec![
                ("GRATICULE_API_SERVER_HTTPS_ENABLED", "true".into()),
                ("GRATICULE_API_SERVER_HTTPS_PORT", number.clone()),
            ],
            "",
            &[],
            in_use(port, "apiServer.https.port"),
        ),
        (
            "KDS port taken",
            vec![("GRATICULE_MULTIZONE_GLOBAL_KDS_GRPC_PORT", number.clone())],
            "",
            &[],
            in_use(port, "multizone.global.kds.grpcPort"),
        ),
        (
            "diagnostics port taken",
            vec![("GRATICULE_DIAGNOSTICS_SERVER_PORT", number)],
            "",
            &[],
            in_use(port, "diagnostics.serverPort"),
        ),
        (
            "unknown variable",
            vec![("GRATICULE_API_SERVER_HTP_PORT", "1".into())],
            "",
            check,
            text(&["did you mean GRATICULE_API_SERVER_HTTP_PORT?"]),
        ),
        (
            "unknown setting",
            vec![],
            "apiServer: {http: {prt: 1}}",
            check,
            text(&["apiServer.http.prt", "did you mean apiServer.http.port?"]),
        ),
        ("bad file", vec![], "apiServer:\n  http: [\n", check, text(&["config.yaml", "line 2"])),
        (
            "wrong type",
            vec![],
            "apiServer: {http: {port: hello}}",
            check,
            text(&["apiServer.http.port", "hello"]),
        ),
        (
            "no file",
            vec![],
            "",
            &["--check-config", "--config-file", "/nonexistent.yaml"],
            text(&["/nonexistent.yaml", "No such file"]),
        ),
        (
            "unknown store",
            vec![],
            "store: {type: postgres}",
            check,
            text(&["store.type", "use raft or etcd or memory"]),
        ),
        (
            "data directory in use",
            vec![("GRATICULE_STORE_DATA_DIR", data_dir)],
            "",
            &[],
            text(&["store.dataDir", "in use by another process", "--data-dir"]),
        ),
        ("unknown log level", vec![], "", &["--log-level", "loud"], text(&["log level \"loud\"", "debug"])),
        (
            "no certificate",
            vec![
                ("GRATICULE_GENERAL_TLS_CERT_FILE", "/nonexistent".into()),
                ("GRATICULE_GENERAL_TLS_KEY_FILE", "/nonexistent".into()),
            ],
            "",
            &[],
            text(&["certificate of", "/nonexistent"]),
        ),
    ];
    let program = bench.federation.binaries.program("global-cp")?;
    for (index, (name, variables, file, arguments, parts)) in cases.into_iter().enumerate() {
        let label = format!("bad-global-{index}");
        let workdir = bench.dir.join(&label);
        std::fs::create_dir_all(&workdir)?;
        let mut command = Command::new(&program);
        command
            .arg("run")
            .env("GRATICULE_GENERAL_WORK_DIR", &workdir)
            .env("GRATICULE_API_SERVER_HTTP_PORT", free_port("0.0.0.0")?.to_string())
            .env("GRATICULE_API_SERVER_HTTPS_ENABLED", "false")
            .env("GRATICULE_DIAGNOSTICS_SERVER_PORT", free_port("0.0.0.0")?.to_string())
            .env("GRATICULE_MULTIZONE_GLOBAL_KDS_GRPC_PORT", free_port("0.0.0.0")?.to_string());
        run(bench, name, &label, command, (variables, file, arguments), &parts).await?;
    }
    Ok(())
}

async fn zone(bench: &mut Bench, port: u16) -> Result<()> {
    let text = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
    let empty = bench.file("empty.token", "")?.display().to_string();
    let number = port.to_string();
    const TOKEN: &str = "GRATICULE_MULTIZONE_ZONE_KDS_TOKEN_FILE";
    const AUTHORITY: &str = "GRATICULE_MULTIZONE_ZONE_KDS_ROOT_CA_FILE";
    const GLOBAL: &str = "GRATICULE_MULTIZONE_ZONE_GLOBAL_ADDRESS";
    let cases: Vec<Case<'_>> = vec![
        (
            "REST port taken",
            vec![("GRATICULE_API_SERVER_HTTP_PORT", number.clone())],
            "",
            &[],
            in_use(port, "apiServer.http.port"),
        ),
        (
            "data plane port taken",
            vec![("GRATICULE_DP_SERVER_PORT", number.clone())],
            "",
            &[],
            in_use(port, "dpServer.port"),
        ),
        (
            "diagnostics port taken",
            vec![("GRATICULE_DIAGNOSTICS_SERVER_PORT", number)],
            "",
            &[],
            in_use(port, "diagnostics.serverPort"),
        ),
        (
            "invalid zone name",
            vec![("GRATICULE_MULTIZONE_ZONE_NAME", "West_1".into())],
            "",
            &["--check-config"],
            text(&["multizone.zone.name", "lower-case"]),
        ),
        (
            "no token file",
            vec![(TOKEN, "/nonexistent".into())],
            "",
            &[],
            text(&["multizone.zone.kds.tokenFile", "/nonexistent"]),
        ),
        (
            "empty token file",
            vec![(TOKEN, empty.clone())],
            "",
            &[],
            text(&["multizone.zone.kds.tokenFile", "is empty"]),
        ),
        (
            "a directory as token file",
            vec![(TOKEN, "/".into())],
            "",
            &[],
            text(&["multizone.zone.kds.tokenFile", "directory"]),
        ),
        (
            "no authority file",
            vec![(AUTHORITY, "/nonexistent".into())],
            "",
            &[],
            text(&["multizone.zone.kds.rootCaFile", "/nonexistent"]),
        ),
        (
            "no authority in the file",
            vec![(AUTHORITY, empty)],
            "",
            &[],
            text(&["multizone.zone.kds.rootCaFile", "no PEM certificate"]),
        ),
        (
            "wrong scheme",
            vec![(GLOBAL, "http://127.0.0.1:1".into())],
            "",
            &[],
            text(&["multizone.zone.globalAddress", "grpcs://host:port"]),
        ),
        (
            "port out of range",
            vec![("GRATICULE_DP_SERVER_PORT", "99999".into())],
            "",
            &["--check-config"],
            text(&["GRATICULE_DP_SERVER_PORT", "99999"]),
        ),
        (
            "no interface",
            vec![("GRATICULE_API_SERVER_HTTP_INTERFACE", "300.1.1.1".into())],
            "",
            &[],
            text(&["apiServer.http.interface", "300.1.1.1"]),
        ),
        (
            "unknown variable",
            vec![("GRATICULE_DP_SERVR_PORT", "1".into())],
            "",
            &["--check-config"],
            text(&["did you mean GRATICULE_DP_SERVER_PORT?"]),
        ),
    ];
    let token = bench.federation.zones["east"].workdir.join("zone.token");
    for (index, (name, variables, file, arguments, parts)) in cases.into_iter().enumerate() {
        let label = format!("bad-zone-{index}");
        let workdir = bench.dir.join(&label);
        std::fs::create_dir_all(&workdir)?;
        let ports = (free_port("0.0.0.0")?, free_port("0.0.0.0")?);
        let command = bench.federation.zone_command("north", &workdir, &token, ports)?;
        run(bench, name, &label, command, (variables, file, arguments), &parts).await?;
    }
    Ok(())
}

async fn run(
    bench: &mut Bench,
    name: &str,
    label: &str,
    mut command: Command,
    (variables, file, arguments): (Vec<(&str, String)>, &str, &[&str]),
    parts: &[String],
) -> Result<()> {
    if !file.is_empty() {
        let path = Path::new(label).join("config.yaml");
        let path = bench.file(&path.display().to_string(), file)?;
        command.arg("--config-file").arg(path);
    }
    command.args(arguments).envs(variables);
    let (code, said) = finish(label, &bench.dir, &mut command, LIMIT).await?;
    // A zone has perhaps begun to talk to global; that is not what is looked at here.
    let is_log = |line: &&str| line.contains(" INFO ") || line.contains(" WARN ");
    // What `--check-config` says comes before the errors.
    let errors = said.rsplit_once("\nErrors:\n").map_or(said.as_str(), |(_, errors)| errors);
    let errors: Vec<&str> = errors.lines().filter(|line| !is_log(line)).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let outcome = says(&errors.join("\n"), &parts).and_then(|()| {
        ensure!(code == 1, "exit code {code}");
        // What a YAML parser says shows the lines around the place.
        ensure!(errors.len() == 1 || name == "bad file", "more than one line: {said}");
        Ok(())
    });
    bench.note(name, outcome);
    Ok(())
}
