//! Resources: apply, dry runs, lists, watching, pruning, moving.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::ChildStdout;

use crate::bench::Bench;

const LIMIT: Duration = Duration::from_secs(20);

fn mk_timeout(name: &str, team: &str, idle: &str) -> String {
    format!(
        "type: MeshTimeout\nmesh: demo\nname: {name}\nlabels: {{team: {team}}}\nspec:\n  to:\n  - targetRef: {{kind: Mesh}}\n    default: {{idleTimeout: {idle}}}\n"
    )
}

const MESH: &str = "type: Mesh\nname: demo\nskipCreatingInitialPolicies: ['*']\n";

pub(crate) async fn apply(bench: &Bench) -> Result<()> {
    println!("apply");
    // The policy's file comes before that of its mesh.
    bench.file("all/a.yaml", &mk_timeout("{{ name }}", "a", "20s"))?;
    let dir = bench.file("all/b.yaml", MESH)?;
    let dir = dir.trim_end_matches("/b.yaml");
    bench.file("all/notes.txt", "not: [read")?;
    let first = bench.grat(&["apply", "-f", dir, "-v", "name=t1"]).await?.ended_with(0)?;
    let wanted = "resource type=\"Mesh\" mesh=\"\" name=\"demo\" Created\nresource type=\"MeshTimeout\" mesh=\"demo\" name=\"t1\" Created\n";
    assert_eq!(first.out, wanted);
    assert_eq!(first.err, "2 created\n");
    let second = bench.grat(&["apply", "-f", dir, "-v", "name=t1"]).await?.ended_with(0)?;
    assert_eq!(second.err, "2 unchanged\n");
    let changed =
        bench.grat_with(&["apply", "-f", "-"], &mk_timeout("t1", "a", "30s")).await?.ended_with(0)?;
    assert_eq!(changed.out, "resource type=\"MeshTimeout\" mesh=\"demo\" name=\"t1\" Updated\n");
    // From a URL, with a member that nobody reads.
    let text = format!("{}    unknown: 1\n", mk_timeout("t2", "b", "5s"));
    let url = serve(text).await?;
    let from_url = bench.grat(&["apply", "-f", &url]).await?.ended_with(0)?;
    assert!(from_url.err.contains("nobody reads `spec.to[0].unknown`"), "{}", from_url.err);
    // Nothing of a file with one bad document is applied.
    let bad = format!("{}---\n{}", mk_timeout("t3", "a", "1s"), mk_timeout("t4", "a", "soon"));
    let refused = bench.grat_with(&["apply", "-f", "-"], &bad).await?.ended_with(1)?;
    assert!(refused.err.contains("MeshTimeout t4 is not valid"), "{}", refused.err);
    bench.grat(&["get", "meshtimeout", "t3", "-m", "demo"]).await?.ended_with(1)?;
    Ok(())
}

/// A server that gives one answer to everybody.
async fn serve(text: String) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/file.yaml", listener.local_addr()?);
    #[expect(clippy::disallowed_methods, reason = "ends with the runtime of the test")]
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _request = stream.read(&mut [0; 4096]).await;
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", text.len());
            let _gone = stream.write_all(format!("{head}{text}").as_bytes()).await;
        }
    });
    Ok(url)
}

pub(crate) async fn dry_run(bench: &Bench) -> Result<()> {
    for place in ["client", "server"] {
        dry_run_by(bench, place).await?;
    }
    // Only the control plane knows that there is no such mesh.
    let stray = mk_timeout("t1", "a", "1s").replace("demo", "nowhere");
    bench.grat_with(&["apply", "-f", "-", "--dry-run=client"], &stray).await?.ended_with(0)?;
    let said = bench.grat_with(&["apply", "-f", "-", "--dry-run=server"], &stray).await?.ended_with(1)?;
    ensure!(said.err.contains("is there a mesh \"nowhere\"?"), "{}", said.err);
    Ok(())
}

async fn dry_run_by(bench: &Bench, place: &str) -> Result<()> {
    println!("dry run by {place}");
    let before = bench.grat(&["get", "mt", "t1", "-m", "demo", "-o", "json"]).await?.ended_with(0)?.out;
    let text = format!("{}---\n{}", mk_timeout("t1", "a", "40s"), mk_timeout("new", "a", "1s"));
    let place = format!("--dry-run={place}");
    let arguments = ["apply", "-f", "-", &place, "--exit-code"];
    let said = bench.grat_with(&arguments, &text).await?.ended_with(3)?;
    for line in [
        "~ MeshTimeout t1 in mesh \"demo\" would be updated",
        "  -       idleTimeout: 30s",
        "  +       idleTimeout: 40s",
        "+ MeshTimeout new in mesh \"demo\" would be created",
    ] {
        ensure!(said.out.lines().any(|found| found == line), "no line {line:?} in\n{}", said.out);
    }
    assert_eq!(said.err, "1 to create, 1 to update\n");
    ensure!(!said.out.contains('\x1b'), "colours although nobody looks at a terminal");
    let after = bench.grat(&["get", "mt", "t1", "-m", "demo", "-o", "json"]).await?.ended_with(0)?.out;
    assert_eq!(before, after, "a dry run writes nothing");
    let same = mk_timeout("t1", "a", "30s");
    bench.grat_with(&arguments, &same).await?.ended_with(0)?;
    Ok(())
}

pub(crate) async fn get(bench: &Bench) -> Result<()> {
    println!("get, describe");
    let names = bench.grat(&["get", "meshtimeouts", "-m", "demo", "-o", "name"]).await?.ended_with(0)?;
    assert_eq!(names.out, "meshtimeout/t1\nmeshtimeout/t2\n");
    for (selector, wanted) in [("team=a", "meshtimeout/t1\n"), ("team!=a", "meshtimeout/t2\n"), ("!team", "")]
    {
        let arguments = ["get", "MeshTimeout", "-m", "demo", "-o", "name", "-l", selector];
        assert_eq!(bench.grat(&arguments).await?.ended_with(0)?.out, wanted, "{selector}");
    }
    let page = bench.grat(&["get", "mt", "-m", "demo", "--size", "1"]).await?.ended_with(0)?;
    assert!(page.out.contains("--offset=1"), "{}", page.out);
    let list = bench.grat(&["get", "mt", "-m", "demo", "-o", "json"]).await?.ended_with(0)?;
    let list: serde_json::Value = serde_json::from_str(&list.out)?;
    assert_eq!(list["total"], 2);
    // What get writes can be applied.
    let yaml = bench.grat(&["get", "mt", "-m", "demo", "-o", "yaml"]).await?.ended_with(0)?.out;
    let applied = bench.grat_with(&["apply", "-f", "-"], &yaml).await?.ended_with(0)?;
    assert_eq!(applied.err, "2 unchanged\n");
    let described = bench.grat(&["describe", "meshtimeout", "t1", "-m", "demo"]).await?.ended_with(0)?;
    assert!(described.out.contains("KRI:          kri_mt_demo___t1_"), "{}", described.out);
    Ok(())
}

async fn next_line(lines: &mut Lines<BufReader<ChildStdout>>) -> Result<String> {
    let line = tokio::time::timeout(LIMIT, lines.next_line()).await.context("nothing changes")??;
    line.context("the watch ended")
}

pub(crate) async fn watch(bench: &Bench) -> Result<()> {
    println!("watch");
    let command = bench.command(&["get", "mt", "-m", "demo", "-o", "name", "--watch"]);
    let mut command = tokio::process::Command::from(command);
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("standard output")?).lines();
    assert_eq!(next_line(&mut lines).await?, "added meshtimeout/t1");
    assert_eq!(next_line(&mut lines).await?, "added meshtimeout/t2");
    bench.grat_with(&["apply", "-f", "-"], &mk_timeout("t5", "b", "1s")).await?.ended_with(0)?;
    assert_eq!(next_line(&mut lines).await?, "added meshtimeout/t5");
    bench.grat_with(&["apply", "-f", "-"], &mk_timeout("t5", "b", "2s")).await?.ended_with(0)?;
    assert_eq!(next_line(&mut lines).await?, "modified meshtimeout/t5");
    bench.grat(&["delete", "mt", "t5", "-m", "demo"]).await?.ended_with(0)?;
    assert_eq!(next_line(&mut lines).await?, "deleted meshtimeout/t5");
    child.kill().await?;
    Ok(())
}

pub(crate) async fn prune(bench: &Bench) -> Result<()> {
    println!("prune");
    let text = format!("{}---\n{}", mk_timeout("p1", "p", "1s"), mk_timeout("p2", "p", "1s"));
    bench.grat_with(&["apply", "-f", "-"], &text).await?.ended_with(0)?;
    let keep = mk_timeout("p1", "p", "1s");
    let arguments = ["apply", "-f", "-", "--prune", "-l", "team=p"];
    let dry = bench.grat_with(&[&arguments[..], &["--dry-run"]].concat(), &keep).await?.ended_with(0)?;
    assert!(
        dry.out.ends_with(
            "1 resource that the files do not name would be deleted:\n- MeshTimeout p2 in mesh \"demo\"\n"
        ),
        "{}",
        dry.out
    );
    let said = bench.grat_with(&arguments, &keep).await?.ended_with(0)?;
    assert!(
        said.out
            .ends_with("will be deleted:\n- MeshTimeout p2 in mesh \"demo\"\ndeleted MeshTimeout \"p2\"\n"),
        "{}",
        said.out
    );
    let names = bench.grat(&["get", "meshtimeouts", "-m", "demo", "-o", "name"]).await?.ended_with(0)?;
    assert_eq!(names.out, "meshtimeout/p1\nmeshtimeout/t1\nmeshtimeout/t2\n");
    Ok(())
}

pub(crate) async fn delete(bench: &Bench) -> Result<()> {
    println!("delete");
    let said = bench.grat(&["delete", "meshtimeouts", "-l", "team=p", "-m", "demo"]).await?.ended_with(0)?;
    assert_eq!(said.out, "deleted MeshTimeout \"p1\"\n");
    let gone = bench.grat(&["delete", "meshtimeout", "p1", "-m", "demo"]).await?.ended_with(1)?;
    assert!(
        gone.err.contains("there is no MeshTimeout with name \"p1\" in mesh \"demo\"; did you mean t1?"),
        "{}",
        gone.err
    );
    let text = mk_timeout("p1", "p", "1s");
    bench.grat_with(&["delete", "-f", "-"], &text).await?.ended_with(1)?;
    bench.grat_with(&["delete", "-f", "-", "--ignore-not-found"], &text).await?.ended_with(0)?;
    Ok(())
}

pub(crate) async fn export_and_import(bench: &Bench) -> Result<()> {
    println!("export, import");
    let arguments = ["--context", "a", "export", "--profile", "federation-with-policies"];
    let exported = bench.grat(&arguments).await?.ended_with(0)?.out;
    assert!(exported.starts_with("# Product: Graticule, Version: "), "{exported}");
    let key = exported.find("name: user-token-signing-key-1").context("the key of user tokens")?;
    ensure!(!exported[key..].contains("---"), "the key that signs the caller's token comes last");
    let file = bench.file("export.yaml", &exported)?;
    bench.grat(&["--context", "b", "import", "-f", &file]).await?.ended_with(0)?;
    for kind in ["meshes", "meshtimeouts", "secrets", "globalsecrets", "hostnamegenerators"] {
        let names = |context: &'static str| async move {
            bench.grat(&["--context", context, "get", kind, "-m", "demo", "-o", "name"]).await?.ended_with(0)
        };
        let (a, b) = (names("a").await?.out, names("b").await?.out);
        assert_eq!(a, b, "{kind}");
    }
    let again = bench.grat(&["--context", "b", "import", "-f", &file]).await?.ended_with(0)?;
    ensure!(again.out.lines().all(|line| line.ends_with(" Unchanged")), "{}", again.out);
    Ok(())
}
