//! Views that the API computes: documents that are shown as they are.

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use graticule_model::Kind;
use serde_json::Value;

use crate::client::{resource_path, segment, with_query};
use crate::output::{self, Output};
use crate::session::Session;
use crate::table::Table;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Who the control plane takes you for.
    WhoAmI(Form),
    /// Numbers over all meshes and zones.
    GlobalInsight(Form),
    /// The resource with a KRI.
    Kri {
        /// Such as `kri_mt_default_east__t1_`.
        kri: String,
        /// As it would be on Kubernetes.
        #[arg(long)]
        kubernetes: bool,
        #[command(flatten)]
        form: Form,
    },
    /// Inbounds, listeners and outbounds of a proxy.
    Layout(OfProxy),
    /// Rules that apply to a proxy, with the policies they come from.
    Rules(OfProxy),
    /// Routes of an outbound of a proxy.
    Routes {
        #[command(flatten)]
        proxy: OfProxy,
        /// KRI of the outbound, as `grat layout` shows it.
        #[arg(long)]
        outbound: String,
    },
    /// Host names of a service.
    Hostnames {
        /// Kind of the service.
        #[arg(value_enum)]
        kind: Service,
        /// Name of the service.
        name: String,
        /// Mesh. [default: that of the context, or default]
        #[arg(short, long)]
        mesh: Option<String>,
        #[command(flatten)]
        form: Form,
    },
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Form {
    /// How to show it.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct OfProxy {
    /// Name of the Dataplane.
    name: String,
    /// Mesh. [default: that of the context, or default]
    #[arg(short, long)]
    mesh: Option<String>,
    #[command(flatten)]
    form: Form,
}

/// Kinds that have host names.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Service {
    #[value(name = "meshservice", alias = "meshservices", alias = "msvc")]
    Internal,
    #[value(name = "meshexternalservice", alias = "meshexternalservices", alias = "extsvc")]
    External,
    #[value(name = "meshmultizoneservice", alias = "meshmultizoneservices", alias = "mzsvc")]
    MultiZone,
}

/// A table of a document, where one shows it better than YAML.
type Render = fn(&Value) -> Option<Table>;

/// Asks and shows.
pub(crate) async fn run(session: &Session, command: Command) -> Result<()> {
    let client = session.client()?;
    let of_proxy = |proxy: &OfProxy, suffix: &str| -> Result<String> {
        let mesh = session.mesh(proxy.mesh.as_deref())?;
        Ok(format!("{}/{suffix}", resource_path(Kind::Dataplane, &mesh, &proxy.name)))
    };
    let (path, form, table): (String, Form, Render) = match &command {
        Command::WhoAmI(form) => ("/who-am-i".into(), *form, |_| None),
        Command::GlobalInsight(form) => ("/global-insight".into(), *form, |_| None),
        Command::Kri { kri, kubernetes, form } => {
            let path = format!("/_kri/{}", segment(kri));
            let query: &[(String, String)] = &[("format".into(), "k8s".into())];
            (with_query(&path, if *kubernetes { query } else { &[] }), *form, |_| None)
        }
        Command::Layout(proxy) => (of_proxy(proxy, "_layout")?, proxy.form, layout),
        Command::Rules(proxy) => (of_proxy(proxy, "_rules")?, proxy.form, |_| None),
        Command::Routes { proxy, outbound } => {
            (of_proxy(proxy, &format!("_outbounds/{}/_routes", segment(outbound)))?, proxy.form, |_| None)
        }
        Command::Hostnames { kind, name, mesh, form } => {
            let kind = match kind {
                Service::Internal => Kind::MeshService,
                Service::External => Kind::MeshExternalService,
                Service::MultiZone => Kind::MeshMultiZoneService,
            };
            let mesh = session.mesh(mesh.as_deref())?;
            (format!("{}/_hostnames", resource_path(kind, &mesh, name)), *form, hostnames)
        }
    };
    let document = client.get(&path).await?;
    let text = match form.output {
        Output::Yaml | Output::Json => output::document(&document, form.output)?,
        _ => match table(&document) {
            Some(table) => table.render(),
            None => output::document(&document, Output::Yaml)?,
        },
    };
    session.screen.print(&text)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Everything that a proxy listens on and can call.
fn layout(document: &Value) -> Option<Table> {
    let mut table = Table::new(&["WHAT", "PORT", "PROTOCOL", "KRI"]);
    for (what, list) in [("inbound", "inbounds"), ("listener", "listeners"), ("outbound", "outbounds")] {
        for item in document[list].as_array()? {
            let protocol = item["protocol"].as_str().or_else(|| item["type"].as_str()).unwrap_or("-");
            let port = item["port"].to_string();
            table.row(vec![what.into(), port, protocol.into(), text(&item["kri"])]);
        }
    }
    Some(table)
}

fn hostnames(document: &Value) -> Option<Table> {
    let mut table = Table::new(&["HOSTNAME", "ZONES"]);
    for item in document["items"].as_array()? {
        let zones: Vec<String> =
            item["zones"].as_array().into_iter().flatten().map(|z| text(&z["name"])).collect();
        table.row(vec![text(&item["hostname"]), zones.join(", ")]);
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn tables() {
        let document = json!({
            "inbounds": [{"kri": "kri_dp_default_east__web-1_main", "port": 8080, "protocol": "http"}],
            "listeners": [{"kri": "k", "type": "ZoneIngress", "port": 10001}],
            "outbounds": [{"kri": "kri_msvc_default_east__backend_80", "port": 80, "protocol": "tcp"}],
        });
        expect![[r#"
            WHAT       PORT    PROTOCOL      KRI
            inbound    8080    http          kri_dp_default_east__web-1_main
            listener   10001   ZoneIngress   k
            outbound   80      tcp           kri_msvc_default_east__backend_80
        "#]]
        .assert_eq(&layout(&document).expect("a layout").render());
        let document =
            json!({"items": [{"hostname": "a.mesh.local", "zones": [{"name": "east"}, {"name": "west"}]}]});
        expect![[r#"
            HOSTNAME       ZONES
            a.mesh.local   east, west
        "#]]
        .assert_eq(&hostnames(&document).expect("a list").render());
    }
}
