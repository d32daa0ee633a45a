//! Agents that cannot start, or wait for their control plane.

use anyhow::{Result, ensure};
use graticule_testkit::Process;
use graticule_testkit::net::free_port;
use graticule_testkit::process::finish;

use crate::{Bench, LIMIT, says};

pub(crate) async fn starts(bench: &mut Bench) -> Result<()> {
    println!("dp-agent");
    let demo =
        format!("--dataplane-file={}", bench.federation.binaries.demo_file("dp-client.yaml").display());
    let good = [demo, "-vname=x".into(), "-vaddress=127.0.0.1".into(), "-vport=1".into()];
    let token = format!("--dataplane-token-file={}", bench.dir.join("client-1.token").display());
    let dataplane = |text: &str| vec![format!("--dataplane={text}"), token.clone()];
    let with = |more: &[&str]| {
        let more = more.iter().map(|argument| (*argument).to_owned());
        good.iter().cloned().chain([token.clone()]).chain(more).collect::<Vec<_>>()
    };
    let junk = bench.file("junk", "junk")?.display().to_string();
    let port =
        "type: Dataplane\nmesh: default\nname: x\nnetworking: {address: 127.0.0.1, inbound: [{port: 99999}]}";
    let cases: Vec<(&str, Vec<String>, i32, &[&str])> = vec![
        ("bad YAML", dataplane("type: Dataplane\nname: ["), 1, &["line 2"]),
        ("invalid Dataplane", dataplane(port), 1, &["networking.inbound[0].port", "[1, 65535]"]),
        ("not a Dataplane", dataplane("type: Mesh\nname: x"), 1, &["expected Dataplane", "Mesh"]),
        (
            "missing file",
            vec!["--dataplane-file=/nonexistent".into(), token.clone()],
            1,
            &["/nonexistent", "No such file"],
        ),
        (
            "missing variable",
            vec![good[0].clone(), "-vname=x".into(), token.clone()],
            1,
            &["variable \"address\"", "--dataplane-var address=VALUE"],
        ),
        ("no Dataplane", vec![], 1, &["--dataplane-file"]),
        (
            "no Envoy",
            with(&["--binary-path=/nonexistent/envoy"]),
            1,
            &["Envoy was not found", "--binary-path"],
        ),
        ("not Envoy", with(&["--binary-path=/bin/true"]), 1, &["/bin/true", "is this Envoy?"]),
        ("no token file", with(&["--dataplane-token-file=/nonexistent"]), 1, &["token file /nonexistent"]),
        (
            "junk as token",
            with(&[&format!("--dataplane-token-file={junk}")]),
            1,
            &["not a JWT", "generate dataplane-token"],
        ),
        ("no token", good.to_vec(), 1, &["Dataplane Token is required", "--dataplane-token-file"]),
        (
            "junk as authority",
            with(&[&format!("--ca-cert-file={junk}")]),
            1,
            &["--ca-cert-file", "no certificate"],
        ),
        ("no authority", with(&["--ca-cert-file=/nonexistent"]), 1, &["--ca-cert-file /nonexistent"]),
        ("no URL", with(&["--cp-address=foo"]), 1, &["--cp-address", "https://"]),
        ("unknown flag", with(&["--nope"]), 2, &["--nope"]),
    ];
    for (index, (name, arguments, wanted, parts)) in cases.into_iter().enumerate() {
        let label = format!("bad-agent-{index}");
        let mut command = bench.federation.agent_command(&bench.federation.zones["west"], &label)?;
        command.args(arguments).env("GRATICULE_READINESS_PORT", free_port("127.0.0.1")?.to_string());
        let (code, said) = finish(&label, &bench.dir, &mut command, LIMIT).await?;
        let outcome = says(&said, parts).and_then(|()| {
            ensure!(code == wanted, "exit code {code}");
            Ok(())
        });
        bench.note(name, outcome);
    }
    let mut command =
        bench.federation.agent_command(&bench.federation.zones["west"], "bad-agent-variable")?;
    command.args(with(&[])).env("GRATICULE_DATAPLANE_RUNTIME_TOKN_PATH", "x");
    let (code, said) = finish("bad-agent-variable", &bench.dir, &mut command, LIMIT).await?;
    let outcome = says(&said, &["did you mean GRATICULE_DATAPLANE_RUNTIME_TOKEN_PATH?"]);
    let outcome = outcome.and_then(|()| {
        ensure!(code == 1, "exit code {code}");
        Ok(())
    });
    bench.note("unknown variable", outcome);

    let rest = format!("--cp-address={}", bench.federation.zones["west"].api);
    let plain = format!("--cp-address=http://127.0.0.1:{}", bench.federation.zones["west"].port);
    let other = format!("--ca-cert-file={}", bench.federation.zones["east"].certificate().display());
    let waiting: [(&str, &str, &[&str]); 4] = [
        ("control plane down", "--cp-address=https://127.0.0.1:1", &["Connection refused", "backoff"]),
        ("port of the REST API", &rest, &["5678"]),
        ("no TLS", &plain, &["https://"]),
        ("other authority", &other, &["--ca-cert-file"]),
    ];
    for (index, (name, argument, parts)) in waiting.into_iter().enumerate() {
        let label = format!("waiting-agent-{index}");
        let mut command = bench.federation.agent_command(&bench.federation.zones["west"], &label)?;
        command.args(with(&[argument])).env("GRATICULE_READINESS_PORT", free_port("127.0.0.1")?.to_string());
        let mut agent = Process::spawn(&label, &bench.dir, &mut command)?;
        let outcome = match agent.wait_for_log("trying again", LIMIT).await {
            Ok(line) => says(&line, parts).and_then(|()| agent.check_running()),
            Err(error) => Err(error),
        };
        bench.note(name, outcome);
    }
    Ok(())
}
