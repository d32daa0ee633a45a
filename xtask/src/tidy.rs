//! Structure rules: which crate may use which, what pure code may not mention, what no file may say.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cargo;

/// `(crate, the crates of the workspace that it may use)`; binaries and development crates may use anything.
const ALLOWED: &[(&str, &[&str])] = &[
    ("graticule-model", &[]),
    ("graticule-proto", &[]),
    ("graticule-policy", &["graticule-model"]),
    ("graticule-view", &["graticule-model", "graticule-policy"]),
    ("graticule-envoygen", &["graticule-model", "graticule-policy"]),
    ("graticule-identity", &["graticule-model"]),
    ("graticule-store", &["graticule-model"]),
    ("graticule-store-raft", &["graticule-model", "graticule-store", "graticule-runtime"]),
    ("graticule-store-etcd", &["graticule-model", "graticule-store", "graticule-runtime"]),
    ("graticule-tls", &[]),
    ("graticule-settings", &["graticule-model"]),
    ("graticule-runtime", &["graticule-model", "graticule-tls", "graticule-settings"]),
    (
        "graticule-control-plane",
        &[
            "graticule-model",
            "graticule-store",
            "graticule-store-raft",
            "graticule-store-etcd",
            "graticule-identity",
            "graticule-kds",
            "graticule-settings",
            "graticule-runtime",
            "graticule-api",
        ],
    ),
    ("graticule-xds", &["graticule-model", "graticule-policy", "graticule-envoygen", "graticule-runtime"]),
    ("graticule-kds", &["graticule-model", "graticule-store", "graticule-proto", "graticule-runtime"]),
    (
        "graticule-api",
        &[
            "graticule-model",
            "graticule-store",
            "graticule-policy",
            "graticule-view",
            "graticule-identity",
            "graticule-runtime",
        ],
    ),
    (
        "graticule-zone",
        &[
            "graticule-model",
            "graticule-store",
            "graticule-policy",
            "graticule-view",
            "graticule-envoygen",
            "graticule-identity",
            "graticule-xds",
            "graticule-runtime",
            "graticule-control-plane",
            "graticule-api",
        ],
    ),
    ("graticule-cli", &["graticule-model", "graticule-identity", "graticule-settings", "graticule-tls"]),
    ("graticule-dp-agent", &["graticule-model", "graticule-tls", "graticule-settings"]),
];

/// Crates whose sources must be pure.
const PURE_DIRS: &[&str] = &[
    "crates/model/src",
    "crates/policy/src",
    "crates/view/src",
    "crates/envoygen/src",
    "crates/xds/src/core",
    "crates/kds/src/core",
];

/// Words that pure code may not contain.
const IMPURE: &[&str] = &[
    "tokio::",
    "tonic::transport",
    "Instant::now",
    "SystemTime::now",
    "rand::",
    "std::env::",
    "std::fs::",
    "std::net::Tcp",
];

/// Runs every rule; fails with all findings.
pub(crate) fn run() -> Result<()> {
    let mut findings = Vec::new();
    dependencies(&mut findings)?;
    purity(&mut findings)?;
    if findings.is_empty() {
        println!("tidy: structure rules hold");
        return Ok(());
    }
    bail!("structure rules are broken:\n  {}", findings.join("\n  "))
}

fn dependencies(findings: &mut Vec<String>) -> Result<()> {
    let output = cargo::command(&["metadata", "--format-version", "1", "--no-deps"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = ALLOWED.iter().find(|(owner, _)| *owner == name) else { continue };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            let is_dev = dependency["kind"] == "dev";
            if used.starts_with("graticule-") && !is_dev && !allowed.contains(&used) {
                findings.push(format!("{name} may not use {used}"));
            }
        }
    }
    Ok(())
}

fn purity(findings: &mut Vec<String>) -> Result<()> {
    for dir in PURE_DIRS {
        visit(&cargo::root().join(dir), &mut |path, text| {
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                if let Some(word) = IMPURE.iter().find(|word| code.contains(**word)) {
                    findings.push(format!("{}:{}: pure code mentions {word}", path.display(), number + 1));
                }
            }
        })?;
    }
    Ok(())
}

/// Calls `look` with every Rust file below `dir` that is no test.
fn visit(dir: &Path, look: &mut dyn FnMut(&Path, &str)) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "tests" {
                visit(&path, look)?;
            }
        } else if name.ends_with(".rs") && name != "tests.rs" {
            let text = std::fs::read_to_string(&path)?;
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            look(&path, code);
        }
    }
    Ok(())
}
