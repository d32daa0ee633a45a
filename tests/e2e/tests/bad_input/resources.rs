//! Resources that are none, over REST and through `grat apply`.

use std::process::Command;

use anyhow::{Result, ensure};
use graticule_testkit::process::finish;
use serde_json::{Value, json};

use crate::{Bench, LIMIT, says};

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
/// Larger than the largest body that is taken.
const TOO_MUCH: usize = 5 * 1024 * 1024;

/// One case: name, path, content type, body, wanted status, what the answer says.
type Put<'a> = (&'a str, &'a str, &'a str, Vec<u8>, u16, &'a [&'a str]);

fn mk_timeout(name: &str, mesh: &str, connect: Value) -> Value {
    let to = json!([{"targetRef": {"kind": "Mesh"}, "default": {"connectionTimeout": connect}}]);
    json!({"type": "MeshTimeout", "name": name, "mesh": mesh, "spec": {"to": to}})
}

/// Deep nesting, and aliases that grow exponentially.
fn mk_deep() -> String {
    format!("{{\"type\": \"MeshTimeout\", \"spec\": {}{}}}", "[".repeat(10_000), "]".repeat(10_000))
}

fn mk_alias_bomb() -> String {
    let row = |name: usize| format!("a{0}: &a{0} [{1}]\n", name + 1, vec![format!("*a{name}"); 9].join(","));
    format!("a0: &a0 [x]\n{}", (0..12).map(row).collect::<String>())
}

fn mk_noise() -> Vec<u8> {
    (0..4096_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 | 0x80).collect()
}

pub(crate) async fn rest(bench: &mut Bench) -> Result<()> {
    println!("REST");
    let path = "/meshes/default/meshtimeouts/x";
    let body = |value: &Value| serde_json::to_vec(value);
    let good = mk_timeout("x", "default", json!("3s"));
    let good_bytes = body(&good)?;
    let cases: Vec<Put<'_>> = vec![
        ("unknown kind", "/meshes/default/meshthings/x", JSON, good_bytes.clone(), 404, &["Not Found"]),
        (
            "unknown mesh",
            "/meshes/nope/meshtimeouts/x",
            JSON,
            body(&mk_timeout("x", "nope", json!("3s")))?,
            404,
            &["Failed to retrieve Mesh"],
        ),
        (
            "wrong type",
            path,
            JSON,
            body(&mk_timeout("x", "default", json!(3)))?,
            400,
            &["spec.to[0].default.connectionTimeout", "must be of type string"],
        ),
        (
            "invalid spec",
            path,
            JSON,
            body(&mk_timeout("x", "default", json!("-3s")))?,
            400,
            &["spec.to[0].default.connectionTimeout"],
        ),
        (
            "other kind in the body",
            path,
            JSON,
            body(&json!({"type": "MeshRetry", "name": "x", "mesh": "default", "spec": {}}))?,
            400,
            &["MeshTimeout"],
        ),
        (
            "other name than the URL",
            path,
            JSON,
            body(&mk_timeout("y", "default", json!("3s")))?,
            400,
            &["\"name\""],
        ),
        (
            "other mesh than the URL",
            path,
            JSON,
            body(&mk_timeout("x", "two", json!("3s")))?,
            400,
            &["\"mesh\""],
        ),
        (
            "impossible name",
            "/meshes/default/meshtimeouts/X_",
            JSON,
            body(&mk_timeout("X_", "default", json!("3s")))?,
            400,
            &["\"name\""],
        ),
        ("too large", path, JSON, vec![b'a'; TOO_MUCH], 413, &["larger than"]),
        ("JSON syntax", path, JSON, b"{\"type\": }".to_vec(), 400, &["invalid MeshTimeout object"]),
        ("YAML syntax", path, YAML, b"type: MeshTimeout\nname: [\n".to_vec(), 400, &["line 2"]),
        ("noise as JSON", path, JSON, mk_noise(), 400, &["invalid MeshTimeout object"]),
        ("noise as YAML", path, YAML, mk_noise(), 400, &["utf-8"]),
        ("deep JSON", path, JSON, mk_deep().into_bytes(), 400, &["recursion limit"]),
        ("deep YAML", path, YAML, mk_deep().into_bytes(), 400, &["invalid MeshTimeout object"]),
        ("alias bomb", path, YAML, mk_alias_bomb().into_bytes(), 400, &["aliases"]),
        ("null", path, JSON, b"null".to_vec(), 400, &["null"]),
        ("a list", path, JSON, b"[1]".to_vec(), 400, &["array"]),
        ("empty body", path, JSON, Vec::new(), 400, &["unexpected end"]),
        ("no content type", path, "", good_bytes.clone(), 415, &["Unsupported Media Type"]),
        ("wrong content type", path, "text/html", good_bytes.clone(), 415, &["Unsupported Media Type"]),
    ];
    let good_url = bench.url("global", path)?;
    for (name, path, content_type, bytes, status, parts) in cases {
        let url = bench.url("global", path)?;
        let rest = bench.federation.rest.clone();
        let outcome = async {
            let answer = rest.put_bytes(&url, content_type, bytes).await?;
            ensure!(answer.status == status, "status {}: {}", answer.status, answer.body);
            says(&answer.body, parts)?;
            if !matches!(status, 415) && name != "unknown kind" {
                let document = answer.json()?;
                ensure!(document["title"].is_string() && document["detail"].is_string(), "{document}");
            }
            let answer = rest.put(&good_url, &good).await?;
            ensure!(matches!(answer.status, 200 | 201), "then a valid one: {}", answer.status);
            Ok(())
        };
        let outcome = outcome.await;
        bench.note(name, outcome);
    }
    Ok(())
}

pub(crate) async fn grat(bench: &mut Bench) -> Result<()> {
    println!("grat");
    let address = bench.federation.global.api.clone();
    let closed = "http://127.0.0.1:1".to_owned();
    let two = "type: MeshTimeout\nname: fine\nspec: {to: [{targetRef: {kind: Mesh}, default: {connectionTimeout: 3s}}]}\n---\ntype: MeshTimeout\nname: bad\nspec: {to: [{targetRef: {kind: Mesh}, default: {connectionTimeout: 3}}]}\n";
    let unknown_mesh = serde_json::to_vec(&mk_timeout("x", "nope", json!("3s")))?;
    let cases: Vec<(&str, &str, Vec<u8>, &[&str])> = vec![
        (
            "unknown kind",
            &address,
            b"type: MeshTimout\nname: x".to_vec(),
            &["type: unknown kind \"MeshTimout\"", "did you mean MeshTimeout?"],
        ),
        ("unknown mesh", &address, unknown_mesh, &["MeshTimeout x", "mesh \"nope\""]),
        (
            "second document invalid",
            &address,
            two.into(),
            &["MeshTimeout bad", "spec.to[0].default.connectionTimeout"],
        ),
        ("no name", &address, b"type: MeshTimeout\nspec: {}".to_vec(), &["name"]),
        (
            "form of Kubernetes",
            &address,
            b"apiVersion: kuma.io/v1alpha1\nkind: Mesh".to_vec(),
            &["write `type`"],
        ),
        ("no resource", &address, b"hello".to_vec(), &["type: <kind>"]),
        ("empty file", &address, Vec::new(), &["holds no resource"]),
        ("YAML syntax", &address, b"type: MeshTimeout\nname: [\n".to_vec(), &["line 2"]),
        ("noise", &address, mk_noise(), &["UTF-8"]),
        ("deep", &address, mk_deep().into_bytes(), &["document 1"]),
        ("alias bomb", &address, mk_alias_bomb().into_bytes(), &["aliases"]),
        (
            "no control plane",
            &closed,
            serde_json::to_vec(&mk_timeout("x", "default", json!("3s")))?,
            &["no control plane answers at http://127.0.0.1:1", "--address"],
        ),
        ("no URL", "nonsense", b"type: Mesh\nname: x".to_vec(), &["--address \"nonsense\" is not a URL"]),
    ];
    let program = bench.federation.binaries.program("grat")?;
    for (index, (name, address, content, parts)) in cases.into_iter().enumerate() {
        let label = format!("grat-{index}");
        let file = bench.file(&format!("{label}.yaml"), content)?;
        let mut command = Command::new(&program);
        command.args(["--address", address, "apply", "-f"]).arg(&file);
        let (code, said) = finish(&label, &bench.dir, &mut command, LIMIT).await?;
        let outcome = says(&said, parts).and_then(|()| {
            ensure!(code == 1, "exit code {code}");
            ensure!(address == "nonsense" || said.contains(&format!("{label}.yaml")), "no file: {said}");
            ensure!(said.starts_with("Error: "), "{said}");
            Ok(())
        });
        bench.note(name, outcome);
    }
    // The first document of a file with a bad second one was not applied either.
    let url = bench.url("global", "/meshes/default/meshtimeouts/fine")?;
    let answer = bench.federation.rest.get(&url).await?;
    let nothing =
        if answer.status == 404 { Ok(()) } else { Err(anyhow::anyhow!("status {}", answer.status)) };
    bench.note("nothing of a file with one bad document is applied", nothing);
    Ok(())
}
