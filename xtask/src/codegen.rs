//! Generated files that are checked in.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use protox::prost::Message;
use protox::prost_reflect::prost_types;

/// Where the descriptors of Envoy's messages are checked in, relative to the workspace.
pub(crate) const DESCRIPTORS: &str = "crates/envoygen/src/descriptors.bin";

/// Roots of the descriptor set: everything that configuration made by this workspace can hold, also inside `Any`.
const ROOTS: [&str; 21] = [
    "envoy/config/bootstrap/v3/bootstrap.proto",
    "envoy/config/cluster/v3/cluster.proto",
    "envoy/config/endpoint/v3/endpoint.proto",
    "envoy/config/grpc_credential/v3/file_based_metadata.proto",
    "envoy/config/listener/v3/listener.proto",
    "envoy/config/rbac/v3/rbac.proto",
    "envoy/config/route/v3/route.proto",
    "envoy/extensions/access_loggers/file/v3/file.proto",
    "envoy/extensions/filters/http/grpc_stats/v3/config.proto",
    "envoy/extensions/filters/http/rbac/v3/rbac.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/filters/network/rbac/v3/rbac.proto",
    "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto",
    "envoy/extensions/matching/common_inputs/network/v3/network_inputs.proto",
    "envoy/extensions/matching/common_inputs/ssl/v3/ssl_inputs.proto",
    "envoy/extensions/regex_engines/v3/google_re2.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
];

/// Roots that only retries use.
const RETRY_ROOTS: [&str; 3] = [
    "envoy/extensions/retry/host/omit_host_metadata/v3/omit_host_metadata_config.proto",
    "envoy/extensions/retry/host/previous_hosts/v3/previous_hosts.proto",
    "envoy/extensions/retry/priority/previous_priorities/v3/previous_priorities_config.proto",
];

/// Compiles the descriptor set of Envoy's messages from the definitions that the `envoy-types` package ships.
///
/// Encoded `FileDescriptorSet` without comments and options, in a fixed order.
pub(crate) fn descriptors(workspace: &Path) -> Result<Vec<u8>> {
    let folder = package_folder(workspace, "envoy-types")?.join("proto");
    let includes = ["data-plane-api", "googleapis", "protoc-gen-validate", "xds", "cel-spec/proto"]
        .map(|part| folder.join(part));
    let mut compiler = protox::Compiler::new(includes).context("open the definitions")?;
    compiler.include_imports(true).include_source_info(false);
    for root in ROOTS.iter().chain(&RETRY_ROOTS) {
        compiler.open_file(root).with_context(|| format!("compile {root}"))?;
    }
    let mut set = compiler.file_descriptor_set();
    for file in &mut set.file {
        strip(file);
    }
    Ok(set.encode_to_vec())
}

/// Removes what the JSON form does not need: options (validation rules, annotations), which are most of the bytes.
fn strip(file: &mut prost_types::FileDescriptorProto) {
    file.options = None;
    file.source_code_info = None;
    file.service.clear();
    file.extension.clear();
    file.message_type.iter_mut().for_each(strip_message);
    file.enum_type.iter_mut().for_each(strip_enum);
}

fn strip_message(message: &mut prost_types::DescriptorProto) {
    // Map entries are recognised by an option.
    let map_entry = message.options.as_ref().and_then(|options| options.map_entry);
    message.options =
        map_entry.map(|entry| prost_types::MessageOptions { map_entry: Some(entry), ..Default::default() });
    message.extension.clear();
    for field in &mut message.field {
        let packed = field.options.as_ref().and_then(|options| options.packed);
        field.options =
            packed.map(|packed| prost_types::FieldOptions { packed: Some(packed), ..Default::default() });
    }
    message.oneof_decl.iter_mut().for_each(|oneof| oneof.options = None);
    message.nested_type.iter_mut().for_each(strip_message);
    message.enum_type.iter_mut().for_each(strip_enum);
}

fn strip_enum(declared: &mut prost_types::EnumDescriptorProto) {
    let alias = declared.options.as_ref().and_then(|options| options.allow_alias);
    declared.options =
        alias.map(|alias| prost_types::EnumOptions { allow_alias: Some(alias), ..Default::default() });
    declared.value.iter_mut().for_each(|value| value.options = None);
}

/// Folder of a dependency's source.
fn package_folder(workspace: &Path, package: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(workspace)
        .output()
        .context("run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("read cargo metadata")?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let manifest = packages
        .iter()
        .find(|found| found["name"] == package)
        .and_then(|found| found["manifest_path"].as_str())
        .with_context(|| format!("package {package} is no dependency"))?;
    Ok(Path::new(manifest).parent().context("a manifest has a folder")?.to_owned())
}
