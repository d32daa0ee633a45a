//! Generates `proto/src/gen` from `proto/protos`, without any installed compiler.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

const FILES: [&str; 9] = [
    "graticule/kds/v1/ordered.proto",
    "kuma/mesh/v1alpha1/dataplane.proto",
    "kuma/mesh/v1alpha1/dataplane_insight.proto",
    "kuma/mesh/v1alpha1/kds.proto",
    "kuma/mesh/v1alpha1/mesh.proto",
    "kuma/mesh/v1alpha1/service_insight.proto",
    "kuma/system/v1alpha1/config.proto",
    "kuma/system/v1alpha1/secret.proto",
    "kuma/system/v1alpha1/zone.proto",
];

/// Folders of the Envoy package that our protos import from.
const ENVOY_INCLUDES: [&str; 8] = [
    "data-plane-api",
    "googleapis",
    "protoc-gen-validate",
    "xds",
    "cel-spec/proto",
    "client_model",
    "opentelemetry-proto",
    "ratelimit",
];

/// Generates and writes.
///
/// # Errors
/// A proto does not compile, or a file cannot be written.
pub(crate) fn protos() -> anyhow::Result<()> {
    let out = gen_dir();
    std::fs::create_dir_all(&out)?;
    for (name, text) in generate()? {
        std::fs::write(out.join(&name), text).with_context(|| name)?;
    }
    Ok(())
}

/// Checks that the checked-in code is what [`protos`] would write.
///
/// # Errors
/// It is not.
pub(crate) fn protos_fresh() -> anyhow::Result<()> {
    for (name, text) in generate()? {
        let found = std::fs::read_to_string(gen_dir().join(&name)).with_context(|| name.clone())?;
        ensure!(found == text, "proto/src/gen/{name} is stale; generate it again");
    }
    Ok(())
}

fn generate() -> anyhow::Result<BTreeMap<String, String>> {
    let envoy = envoy_protos()?;
    let mut includes = vec![root().join("proto/protos")];
    includes.extend(ENVOY_INCLUDES.iter().map(|folder| envoy.join(folder)).filter(|folder| folder.is_dir()));
    let descriptors = protox::compile(FILES, includes).context("protos do not compile")?;
    let scratch = root().join("target/codegen-protos");
    std::fs::create_dir_all(&scratch)?;
    let mut config = tonic_prost_build::Config::new();
    config
        .compile_well_known_types()
        .btree_map(["."])
        .extern_path(".google.protobuf", "::envoy_types::pb::google::protobuf")
        .extern_path(".google.rpc", "::envoy_types::pb::google::rpc")
        .extern_path(".envoy", "::envoy_types::pb::envoy")
        .skip_debug([".kuma.system.v1alpha1.Secret"]);
    tonic_prost_build::configure().out_dir(&scratch).compile_fds_with_config(descriptors, config)?;
    let mut out = BTreeMap::new();
    for package in ["graticule.kds.v1", "kuma.mesh.v1alpha1", "kuma.system.v1alpha1"] {
        let name = format!("{package}.rs");
        let text = std::fs::read_to_string(scratch.join(&name)).with_context(|| name.clone())?;
        out.insert(name, text);
    }
    Ok(out)
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

fn gen_dir() -> PathBuf {
    root().join("proto/src/gen")
}

/// The protos that the Envoy package carries.
fn envoy_protos() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1"])
        .current_dir(root())
        .output()
        .context("cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let manifest = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "envoy-types")
        .and_then(|package| package["manifest_path"].as_str())
        .context("envoy-types is not among the dependencies")?;
    let folder = Path::new(manifest).parent().context("a manifest has a folder")?.join("proto");
    ensure!(folder.is_dir(), "envoy-types carries no protos");
    Ok(folder)
}
