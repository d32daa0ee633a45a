//! The agent's settings: one table for flags, variables, defaults, `--help`, the command `settings` and the
//! documentation (DESIGN decision 13). Keys are Kuma's; the agent has no configuration file.

use clap::{Command, CommandFactory as _};
use graticule_settings::Fate::{self, Replaced};
use graticule_settings::{Foreign, Output, Page, Row, Setting, flag_rows, rows, setting};
use serde_json::{Value, json};

use crate::cli::Cli;

/// What the agent reads.
pub(crate) const SETTINGS: &[Setting] = &[
    setting("controlPlane.url", "CONTROL_PLANE_URL", "").flag("--cp-address"),
    setting("controlPlane.caCert", "CONTROL_PLANE_CA_CERT", "the authority itself, PEM"),
    setting("controlPlane.caCertFile", "CONTROL_PLANE_CA_CERT_FILE", "").flag("--ca-cert-file"),
    setting("controlPlane.tlsSkipVerify", "CONTROL_PLANE_TLS_SKIP_VERIFY", "").flag("--skip-verify"),
    setting(
        "controlPlane.retry.backoff",
        "CONTROL_PLANE_RETRY_BACKOFF",
        "pause between two attempts to get the bootstrap",
    ),
    setting(
        "controlPlane.retry.maxDuration",
        "CONTROL_PLANE_RETRY_MAX_DURATION",
        "time after which the agent gives up to get the bootstrap",
    ),
    setting("dataplane.name", "DATAPLANE_NAME", "").flag("--name"),
    setting("dataplane.mesh", "DATAPLANE_MESH", "").flag("--mesh"),
    setting("dataplane.proxyType", "DATAPLANE_PROXY_TYPE", "").flag("--proxy-type"),
    setting("dataplane.drainTime", "DATAPLANE_DRAIN_TIME", "").flag("--drain-time"),
    setting("dataplane.readinessPort", "READINESS_PORT", "port of /ready"),
    setting("dataplaneRuntime.resourcePath", "DATAPLANE_RUNTIME_RESOURCE_PATH", "").flag("--dataplane-file"),
    setting("dataplaneRuntime.resource", "DATAPLANE_RUNTIME_RESOURCE", "").flag("--dataplane"),
    setting("dataplaneRuntime.dataplaneTokenPath", "DATAPLANE_RUNTIME_TOKEN_PATH", "")
        .flag("--dataplane-token-file"),
    setting("dataplaneRuntime.dataplaneToken", "DATAPLANE_RUNTIME_TOKEN", "").flag("--dataplane-token"),
    setting("dataplaneRuntime.binaryPath", "DATAPLANE_RUNTIME_BINARY_PATH", "").flag("--binary-path"),
    setting("dataplaneRuntime.workDir", "DATAPLANE_RUNTIME_WORK_DIR", "").flag("--work-dir"),
    setting("dataplaneRuntime.concurrency", "DATAPLANE_RUNTIME_CONCURRENCY", "").flag("--concurrency"),
    setting("dataplaneRuntime.envoyLogLevel", "DATAPLANE_RUNTIME_ENVOY_LOG_LEVEL", "")
        .flag("--envoy-log-level"),
    setting("dataplaneRuntime.envoyComponentLogLevel", "DATAPLANE_RUNTIME_ENVOY_COMPONENT_LOG_LEVEL", "")
        .flag("--envoy-component-log-level"),
    setting("dataplaneRuntime.metrics.metricsCertPath", "DATAPLANE_RUNTIME_METRICS_CERT_PATH", "")
        .flag("--metrics-cert-path"),
    setting("dataplaneRuntime.metrics.metricsKeyPath", "DATAPLANE_RUNTIME_METRICS_KEY_PATH", "")
        .flag("--metrics-key-path"),
    setting("dataplaneRuntime.bindOutbounds", "DATAPLANE_RUNTIME_BIND_OUTBOUNDS", "")
        .flag("--bind-outbounds"),
    setting(
        "dataplaneRuntime.systemCaPath",
        "DATAPLANE_RUNTIME_DYNAMIC_SYSTEM_CA_PATH",
        "file of the host's authorities",
    ),
    setting("dataplaneRuntime.IPv6Enabled", "DATAPLANE_RUNTIME_IPV6_ENABLED", "the host has IPv6"),
    setting(
        "dataplaneRuntime.spire.supported",
        "DATAPLANE_RUNTIME_SPIRE_SUPPORTED",
        "a SPIRE agent runs on the host",
    ),
    setting(
        "dataplaneRuntime.spire.socketPath",
        "DATAPLANE_RUNTIME_SPIRE_SOCKET_PATH",
        "socket of the SPIRE agent",
    ),
    setting(
        "dataplaneRuntime.strictInboundPortsEnabled",
        "DATAPLANE_RUNTIME_STRICT_INBOUND_PORTS_ENABLED",
        "only ports of inbounds are reachable under transparent proxying",
    ),
    setting(
        "dataplaneRuntime.reusePortEnabled",
        "DATAPLANE_RUNTIME_REUSE_PORT_ENABLED",
        "each worker of Envoy listens by itself",
    ),
    setting(
        "dataplaneRuntime.otelPipeEnabled",
        "DATAPLANE_RUNTIME_OTEL_PIPE_ENABLED",
        "not available yet, true is refused: the agent takes no OpenTelemetry data from Envoy",
    ),
    setting("dataplaneRuntime.transparentProxy", "DATAPLANE_RUNTIME_TRANSPARENT_PROXY", "")
        .flag("--transparent-proxy"),
    setting(
        "dataplaneRuntime.resources.maxMemoryBytes",
        "DATAPLANE_RESOURCES_MAX_MEMORY_BYTES",
        "memory that Envoy may use, as told to the control plane, in bytes; 0: not said",
    ),
    setting("dns.enabled", "DNS_ENABLED", "").flag("--dns-enabled"),
    setting("dns.proxyPort", "DNS_PROXY_PORT", "").flag("--dns-proxy-port"),
    setting(
        "applicationProbeProxyServer.port",
        "APPLICATION_PROBE_PROXY_PORT",
        "not available yet, other values than 0 are refused: the agent has no proxy for application probes",
    ),
];

const NOT_POLLED: Fate =
    Fate::NotYet("it polls no dynamic configuration (it has neither DNS proxy nor metrics server)");
const NOT_RESTARTED: Fate = Replaced("no part of the agent is restarted");

/// Settings of kuma-dp that change nothing here.
pub(crate) const FOREIGN: &[Foreign] = &[
    Foreign {
        path: "dataplaneRuntime.dynamicConfiguration",
        env: "DATAPLANE_RUNTIME_DYNAMIC_CONFIGURATION",
        fate: NOT_POLLED,
    },
    Foreign {
        path: "dataplaneRuntime.dynamicConfiguration.refreshInterval",
        env: "DATAPLANE_RUNTIME_DYNAMIC_CONFIGURATION_REFRESH_INTERVAL",
        fate: NOT_POLLED,
    },
    Foreign {
        path: "dataplane.resilientComponentBaseBackoff",
        env: "DATAPLANE_RESILIENT_COMPONENT_BASE_BACKOFF",
        fate: NOT_RESTARTED,
    },
    Foreign {
        path: "dataplane.resilientComponentMaxBackoff",
        env: "DATAPLANE_RESILIENT_COMPONENT_MAX_BACKOFF",
        fate: NOT_RESTARTED,
    },
];

/// What counts when nothing is given.
pub(crate) fn defaults() -> Value {
    json!({
        "controlPlane": {
            "url": "https://localhost:5678",
            "caCert": "",
            "caCertFile": "",
            "tlsSkipVerify": false,
            "retry": {"backoff": "3s", "maxDuration": "5m0s"},
        },
        "dataplane": {
            "name": "",
            "mesh": "",
            "proxyType": "dataplane",
            "drainTime": "30s",
            "readinessPort": 9902,
        },
        "dataplaneRuntime": {
            "resourcePath": "",
            "resource": "",
            "dataplaneTokenPath": "",
            "dataplaneToken": "",
            "binaryPath": "envoy",
            "workDir": "",
            "concurrency": 0,
            "envoyLogLevel": "",
            "envoyComponentLogLevel": "",
            "metrics": {"metricsCertPath": "", "metricsKeyPath": ""},
            "bindOutbounds": false,
            "systemCaPath": "",
            "IPv6Enabled": true,
            "spire": {"supported": false, "socketPath": ""},
            "strictInboundPortsEnabled": true,
            "reusePortEnabled": true,
            "otelPipeEnabled": false,
            "transparentProxy": null,
            "resources": {"maxMemoryBytes": 0},
        },
        "dns": {"enabled": false, "proxyPort": 15053},
        "applicationProbeProxyServer": {"port": 0},
    })
}

/// The command line, with the variable and the default of each flag in its help.
pub(crate) fn command() -> Command {
    Cli::command().mut_subcommand("run", |run| {
        rows(SETTINGS, &defaults()).into_iter().filter(|row| !row.flag.is_empty()).fold(run, |run, row| {
            let id = row.flag.trim_start_matches('-').replace('-', "_");
            run.mut_arg(id, |arg| {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                let default = match &row.default {
                    Value::Null => String::new(),
                    Value::String(text) if text.is_empty() => String::new(),
                    default => format!(" [default: {}]", default.to_string().trim_matches('"')),
                };
                arg.help(format!("{help} [env: {}]{default}", row.variable))
            })
        })
    })
}

/// All settings; what a flag means is taken from its help.
pub(crate) fn list() -> Vec<Row> {
    let cli = Cli::command();
    let Some(run) = cli.find_subcommand("run") else { return Vec::new() };
    let flags = flag_rows(run, &[]);
    let mut settings = rows(SETTINGS, &defaults());
    for row in settings.iter_mut().filter(|row| row.meaning.is_empty()) {
        if let Some(flag) = flags.iter().find(|flag| flag.flag == row.flag) {
            row.meaning.clone_from(&flag.meaning);
        }
    }
    let is_alone = |flag: &Row| !settings.iter().any(|row| row.flag == flag.flag);
    let mut list: Vec<Row> =
        flag_rows(&cli, &[]).into_iter().chain(flags.iter().filter(|f| is_alone(f)).cloned()).collect();
    list.append(&mut settings);
    list
}

/// The list in some form.
///
/// # Errors
/// It does not serialise.
pub(crate) fn to_text(output: Output) -> anyhow::Result<String> {
    let about = "The agent beside each workload. It has no configuration file: a flag wins over the variable. Keys are \
        the names that Kuma uses for the same settings.";
    let page = Page { program: "dp-agent", about, rows: list(), foreign: FOREIGN };
    page.to_text(output).map_err(|error| anyhow::anyhow!(error))
}

#[cfg(test)]
mod tests {
    use graticule_settings::reference::{Own, differences};
    use graticule_settings::uncovered;

    use super::*;

    #[test]
    fn table_defaults_and_flags_agree() {
        assert_eq!(uncovered(SETTINGS, &defaults()), [""; 0]);
        for row in list() {
            assert!(!row.meaning.is_empty(), "{row:?}");
        }
        let help = command().find_subcommand_mut("run").expect("run").render_long_help().to_string();
        assert!(help.contains("[env: GRATICULE_DATAPLANE_DRAIN_TIME] [default: 30s]"), "{help}");
        assert!(
            help.contains("[env: GRATICULE_CONTROL_PLANE_URL] [default: https://localhost:5678]"),
            "{help}"
        );
    }

    #[test]
    fn every_setting_of_kuma_is_known() {
        let path = std::env::var_os("GRATICULE_CONFORMANCE_DIR")
            .map(|dir| std::path::PathBuf::from(dir).join("../reference/kuma-settings.tsv"));
        let Some(table) = path.and_then(|path| std::fs::read_to_string(path).ok()) else {
            eprintln!("skipped: GRATICULE_CONFORMANCE_DIR names no data with a table of settings beside it");
            return;
        };
        let own = Own {
            settings: SETTINGS,
            foreign: FOREIGN,
            defaults: &defaults(),
            // Kuma has these on, and this version does not have them.
            other_defaults: &["dataplaneRuntime.otelPipeEnabled", "dns.enabled"],
        };
        let found = differences(&table, "dp", &own);
        assert!(found.is_empty(), "{found:#?}");
    }

    #[test]
    fn the_documentation_is_current() {
        let section = to_text(Output::Markdown).expect("a section");
        let page = include_str!("../../docs/settings.md");
        assert!(page.contains(&section), "docs/settings.md is not what `cargo xtask codegen` makes");
    }
}
