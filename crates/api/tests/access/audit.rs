//! The audit log: one line for every write, refused ones too, and no contents.

use std::path::PathBuf;

use graticule_runtime::audit::{AuditLog, AuditSettings};
use serde_json::{Value, json};
use tracing_subscriber::prelude::*;

use crate::{LOCAL, REMOTE, mk_server};

struct Log {
    path: PathBuf,
    seen: usize,
}

impl Log {
    /// Lines since the last call.
    fn new_lines(&mut self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let new = lines[self.seen..].to_vec();
        self.seen = lines.len();
        new
    }
}

#[tokio::test]
async fn every_write_is_one_line() {
    let server = mk_server(|_| {});
    let dir = std::env::temp_dir().join(format!("graticule-audit-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("audit.log");
    let audit = AuditLog::default();
    let settings = AuditSettings { path: path.display().to_string(), ..AuditSettings::default() };
    audit.open(&settings, server.clock.clone()).unwrap();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(audit));
    let mut log = Log { path, seen: 0 };
    let request = json!({"name": "jane", "groups": ["team"], "validFor": "1h"}).to_string();
    let (status, token) = server.send(LOCAL, "POST", "/tokens/user", "", &request).await;
    assert_eq!(status, 200, "{token}");
    let issued = log.new_lines();
    assert_eq!(issued.len(), 1);
    assert_eq!(
        (&issued[0]["operation"], &issued[0]["kind"], &issued[0]["subject"], &issued[0]["user"]),
        (&json!("issue token"), &json!("user token"), &json!("jane"), &json!("mesh-system:admin"))
    );
    assert!(issued[0]["jti"].as_str().is_some_and(|id| id.len() == 36), "{issued:?}");

    let mesh = json!({"type": "Mesh", "name": "m"}).to_string();
    let path = "/meshes/m";
    let secret =
        json!({"type": "Secret", "mesh": "default", "name": "s", "data": "c2VjcmV0LWNvbnRlbnQ="}).to_string();
    let broken = json!({"type": "Secret", "mesh": "default", "name": "s", "data": {"c2VjcmV0": "c2VjcmV0LWNvbnRlbnQ="}})
        .to_string();
    let secrets = "/meshes/default/secrets/s";
    let done = |operation: &str, status: u16, user: &str, kind: &str, name: &str, rest: Value| {
        let mut line =
            json!({"operation": operation, "status": status, "user": user, "kind": kind, "name": name});
        line.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        line
    };
    let (admin, anonymous) = ("mesh-system:admin", "mesh-system:anonymous");
    // Peer, method, path, token, body; what the line says.
    let cases: Vec<(&str, &str, &str, &str, &str, Value)> = vec![
        (
            REMOTE,
            "PUT",
            path,
            &token,
            &mesh,
            done(
                "create",
                201,
                "jane",
                "Mesh",
                "m",
                json!({"outcome": "done", "before": null, "after": 1, "revision": 3, "changes": 1, "groups": "team,mesh-system:authenticated", "from": "192.0.2.10:40000"}),
            ),
        ),
        (
            REMOTE,
            "PUT",
            path,
            &token,
            &mesh,
            done("update", 200, "jane", "Mesh", "m", json!({"before": 1, "after": 2, "revision": 4})),
        ),
        (
            REMOTE,
            "PUT",
            path,
            "",
            &mesh,
            done(
                "put",
                403,
                anonymous,
                "Mesh",
                "m",
                json!({"outcome": "refused", "reason": "Access Denied", "revision": null}),
            ),
        ),
        (
            REMOTE,
            "DELETE",
            path,
            "",
            "",
            done("delete", 403, anonymous, "Mesh", "m", json!({"outcome": "refused"})),
        ),
        (
            REMOTE,
            "PUT",
            path,
            "not.a.token",
            &mesh,
            done(
                "put",
                401,
                "",
                "Mesh",
                "m",
                json!({"outcome": "refused", "reason": "Invalid authentication data"}),
            ),
        ),
        (
            LOCAL,
            "PUT",
            path,
            "",
            "{",
            done("put", 400, admin, "Mesh", "m", json!({"outcome": "refused", "reason": "Bad Request"})),
        ),
        (
            LOCAL,
            "DELETE",
            path,
            "",
            "",
            done("delete", 200, admin, "Mesh", "m", json!({"before": 2, "after": null, "revision": 5})),
        ),
        (
            LOCAL,
            "DELETE",
            path,
            "",
            "",
            done("delete", 404, admin, "Mesh", "m", json!({"outcome": "refused"})),
        ),
        (
            LOCAL,
            "PUT",
            secrets,
            "",
            &secret,
            done("create", 201, admin, "Secret", "s", json!({"mesh": "default"})),
        ),
        (
            LOCAL,
            "PUT",
            secrets,
            "",
            &broken,
            done("put", 400, admin, "Secret", "s", json!({"mesh": "default"})),
        ),
        (
            REMOTE,
            "PUT",
            secrets,
            &token,
            &secret,
            done("put", 403, "jane", "Secret", "s", json!({"mesh": "default"})),
        ),
        (
            REMOTE,
            "POST",
            "/tokens/user",
            "",
            &request,
            json!({"operation": "issue token", "status": 403, "kind": "user token", "jti": null}),
        ),
        (
            LOCAL,
            "PUT",
            "/_cluster-id",
            "",
            r#"{"clusterId": "new", "expected": ""}"#,
            json!({"status": 200, "path": "/_cluster-id", "old_id": "", "new_id": "new"}),
        ),
        (
            LOCAL,
            "PUT",
            "/_cluster-id",
            "",
            r#"{"clusterId": "newer", "expected": ""}"#,
            json!({"status": 409, "outcome": "refused", "old_id": null, "new_id": null}),
        ),
        (
            LOCAL,
            "DELETE",
            "/nowhere",
            "",
            "",
            json!({"operation": "delete", "status": 404, "path": "/nowhere", "kind": null}),
        ),
    ];
    for (peer, method, path, token, body, want) in cases {
        let (_, answer) = server.send(peer, method, path, token, body).await;
        let lines = log.new_lines();
        assert_eq!(lines.len(), 1, "{method} {path}: {lines:?}");
        for (field, value) in want.as_object().unwrap() {
            assert_eq!(&lines[0][field], value, "{field} of {method} {path}: {}\n{answer}", lines[0]);
        }
        assert_eq!(lines[0]["time"], json!("2026-01-01T00:00:00Z"));
    }
    for path in ["/meshes", "/meshes/default/secrets/s", "/nowhere"] {
        server.send(LOCAL, "GET", path, "", "").await;
        assert_eq!(log.new_lines(), [json!(null); 0], "reads leave no line: {path}");
    }
    let all = std::fs::read_to_string(&log.path).unwrap();
    assert!(!all.contains("c2VjcmV0") && !all.contains(&token), "no contents: {all}");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test]
async fn backups_and_restores_are_lines_too() {
    let server = mk_server(|_| {});
    let dir = std::env::temp_dir().join(format!("graticule-audit-backup-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("audit.log");
    let audit = AuditLog::default();
    let settings = AuditSettings { path: path.display().to_string(), ..AuditSettings::default() };
    audit.open(&settings, server.clock.clone()).unwrap();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(audit));
    let mut log = Log { path, seen: 0 };
    for (peer, method, path, want) in [
        (
            LOCAL,
            "GET",
            "/_backup",
            json!({"operation": "back up", "outcome": "done", "revision": 2, "kind": "backup"}),
        ),
        (REMOTE, "GET", "/_backup", json!({"operation": "back up", "outcome": "refused", "status": 403})),
        (
            REMOTE,
            "POST",
            "/_restore?force=true",
            json!({"operation": "restore", "outcome": "refused", "kind": "backup"}),
        ),
        (LOCAL, "POST", "/_restore", json!({"operation": "restore", "outcome": "refused", "status": 400})),
    ] {
        server.send(peer, method, path, "", "no backup").await;
        let lines = log.new_lines();
        assert_eq!(lines.len(), 1, "{method} {path}: {lines:?}");
        for (field, value) in want.as_object().unwrap() {
            assert_eq!(lines[0][field], *value, "{method} {path}: {field} of {}", lines[0]);
        }
    }
    std::fs::remove_dir_all(dir).unwrap();
}
