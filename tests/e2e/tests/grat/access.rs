//! Which control plane, as whom, and what is said when that is wrong.

use anyhow::{Context as _, Result};

use crate::bench::Bench;

pub(crate) async fn contexts(bench: &Bench) -> Result<()> {
    println!("contexts");
    let add = ["config", "control-planes", "add", "--name"];
    for (name, control_plane) in [("b", &bench.b), ("a", &bench.a)] {
        let arguments = [&add[..], &[name, "--address", &control_plane.api]].concat();
        let said = bench.grat(&arguments).await?.ended_with(0)?;
        assert_eq!(
            said.out,
            format!("added Control Plane \"{name}\"\nswitched active Control Plane to \"{name}\"\n")
        );
    }
    let again = bench.grat(&[&add[..], &["a", "--address", &bench.a.api]].concat()).await?.ended_with(1)?;
    assert!(again.err.contains("--overwrite"), "{}", again.err);
    let dead = bench
        .grat(&[&add[..], &["dead", "--address", "http://127.0.0.1:1"]].concat())
        .await?
        .ended_with(1)?;
    assert!(dead.err.contains("no control plane answers at http://127.0.0.1:1"), "{}", dead.err);
    let list = bench.grat(&["config", "control-planes", "list"]).await?.ended_with(0)?.out;
    let active: Vec<&str> = list.lines().filter(|line| line.starts_with('*')).collect();
    assert_eq!((active.len(), list.contains("dead")), (1, false), "{list}");
    assert!(active[0].contains(&bench.a.api), "{list}");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(bench.dir.join("config"))?.permissions());
    assert_eq!(mode & 0o777, 0o600, "it may hold tokens");
    Ok(())
}

pub(crate) async fn mistakes(bench: &Bench) -> Result<()> {
    println!("mistakes");
    for (arguments, code, wanted) in [
        (&["get", "meshtimout"][..], 2, "unknown kind \"meshtimout\"; did you mean meshtimeout?"),
        (&["get", "meshtimeouts", "-m", "nope"], 1, "Failed to retrieve Mesh (Not found)"),
        (&["get", "mesh", "dem"], 1, "there is no Mesh with name \"dem\"; did you mean demo?"),
        (
            &["get", "meshes", "--address", "http://127.0.0.1:1"],
            1,
            "no control plane answers at http://127.0.0.1:1",
        ),
        (
            &["get", "meshes", "--context", "x"],
            1,
            "there is no Control Plane with name \"x\"; there are: local, b, a",
        ),
        (&["inspect", "dataplane"], 2, "`grat inspect dataplanes` shows all"),
        (&["apply"], 2, "--file"),
        (&["kri", "nonsense"], 1, "invalid identifier"),
        (&["get", "meshes", "--ca-cert-file", "/nowhere.pem"], 1, "--ca-cert-file /nowhere.pem"),
    ] {
        let said = bench.grat(arguments).await?.ended_with(code)?;
        assert!(said.err.contains(wanted), "{arguments:?}: {}", said.err);
    }
    let unknown_mesh = "type: MeshTimeout\nmesh: nope\nname: x\nspec: {to: [{targetRef: {kind: Mesh}, default: {idleTimeout: 1s}}]}";
    let said = bench.grat_with(&["apply", "-f", "-"], unknown_mesh).await?.ended_with(1)?;
    assert!(said.err.contains("is there a mesh \"nope\"?"), "{}", said.err);
    Ok(())
}

pub(crate) async fn tokens(bench: &Bench) -> Result<()> {
    println!("tokens");
    // Whoever comes through a proxy is not the administrator of this machine.
    let remote = ["--headers", "X-Forwarded-For=192.0.2.1"];
    let as_remote = |arguments: &[&str]| -> Vec<String> {
        remote.iter().chain(arguments).map(|argument| (*argument).to_owned()).collect()
    };
    let run = |arguments: Vec<String>| async move {
        bench.grat(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    let file = bench.file("one.yaml", "type: Mesh\nname: of-jane\nskipCreatingInitialPolicies: ['*']\n")?;
    let refused = run(as_remote(&["apply", "-f", &file])).await?.ended_with(1)?;
    assert!(refused.err.contains("grat generate user-token"), "{}", refused.err);

    let generate = ["generate", "user-token", "--name", "jane", "--group", "team-a", "--valid-for", "30d"];
    let token = bench.grat(&generate).await?.ended_with(0)?.out;
    assert_eq!((token.matches('.').count(), token.trim()), (2, token.as_str()), "the token alone");
    let who = run(as_remote(&["who-am-i", "--token", &token, "-o", "json"])).await?.ended_with(0)?;
    let who: serde_json::Value = serde_json::from_str(&who.out)?;
    assert_eq!(who["name"], "jane");
    run(as_remote(&["apply", "-f", &file, "--token", &token])).await?.ended_with(0)?;
    let admins_only = run(as_remote(&["get", "globalsecrets", "--token", &token])).await?.ended_with(1)?;
    assert!(admins_only.err.contains("grat who-am-i"), "{}", admins_only.err);

    bench.grat(&["revoke", "user-token", &token]).await?.ended_with(0)?;
    let revoked = run(as_remote(&["who-am-i", "--token", &token])).await?.ended_with(1)?;
    assert!(revoked.err.contains("the token is not accepted here"), "{}", revoked.err);
    let twice = bench.grat(&["revoke", "user-token", &token]).await?.ended_with(0)?;
    assert!(twice.out.contains("was revoked before"), "{}", twice.out);

    // A key of our own, signed without a control plane.
    let data = bench.grat(&["generate", "signing-key"]).await?.ended_with(0)?.out;
    let key = bench.file("key.base64", &data)?;
    let secret = format!("type: GlobalSecret\nname: user-token-signing-key-2\ndata: {data}\n");
    bench.grat_with(&["apply", "-f", "-"], &secret).await?.ended_with(0)?;
    let offline = ["--no-config", "generate", "user-token", "--name", "eve", "--valid-for", "1h"];
    let signed = [&offline[..], &["--signing-key-path", &key, "--kid", "2"]].concat();
    let token = bench.grat(&signed).await?.ended_with(0)?.out;
    let who = run(as_remote(&["who-am-i", "--token", &token, "-o", "yaml"])).await?.ended_with(0)?;
    assert!(who.out.contains("name: eve"), "{}", who.out);
    let public =
        bench.grat(&["generate", "public-key", "--signing-key-path", &key]).await?.ended_with(0)?.out;
    assert!(public.starts_with("-----BEGIN RSA PUBLIC KEY-----"), "{public}");
    bench.grat(&[&offline[..], &["--signing-key-path", &key]].concat()).await?.ended_with(2)?;
    bench.grat(&["delete", "globalsecret", "user-token-signing-key-2"]).await?.ended_with(0)?;

    let dataplane = ["generate", "dataplane-token", "--name", "web-1", "-m", "demo", "--valid-for", "24h"];
    let token = bench.grat(&dataplane).await?.ended_with(0)?.out;
    bench.grat_with(&["revoke", "dataplane-token", "-"], &token).await?.ended_with(0)?;
    let secret = ["get", "secret", "dataplane-token-revocations-demo", "-m", "demo", "-o", "name"];
    bench.grat(&secret).await?.ended_with(0)?;
    let paths = [bench.dir.join("k.pem"), bench.dir.join("c.pem")];
    let paths: Vec<&str> = paths.iter().map(|path| path.to_str().context("UTF-8")).collect::<Result<_>>()?;
    let certificate = ["generate", "tls-certificate", "--type", "server", "--hostname", "a.b"];
    let files = ["--key-file", paths[0], "--cert-file", paths[1]];
    bench.grat(&[&certificate[..], &files].concat()).await?.ended_with(0)?;
    Ok(())
}
