//! Paths: which resource or endpoint a path means (rest-api.md §5–§7). Derived from the kind registry.

use graticule_model::Kind;

use crate::respond::Format;

/// What a path means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) target: Target,
    /// The path with `{parameters}`.
    pub(crate) template: String,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Index,
    WhoAmI,
    Config,
    Resources,
    Policies,
    GlobalInsight,
    GlobalInsights,
    Kri(String),
    /// The OpenAPI document.
    OpenApi(Format),
    /// The JSON Schema of a kind, by file name.
    Schema(String),
    /// Everything that the store holds.
    Backup,
    /// Replaces everything that the store holds.
    Restore,
    Tokens(Tokens),
    /// The replicas of the control plane.
    Cluster(ClusterPart),
    /// Resources of a kind; `mesh` absent: of all meshes, or of a global-scoped kind.
    List {
        kind: Kind,
        mesh: Option<String>,
        form: Form,
    },
    One {
        kind: Kind,
        mesh: Option<String>,
        name: String,
        form: Form,
    },
    /// The connection between global and a zone.
    ZoneStatus {
        zone: String,
    },
    /// Gives up copies that the other side no longer has.
    AcceptDeletions {
        zone: String,
    },
    /// The id of the federation.
    ClusterId,
    /// What becomes of a zone that leaves its global; does it; takes it back.
    LeaveGlobal {
        zone: String,
    },
    /// A kind of the past: there are none.
    ServiceInsights {
        mesh: Option<String>,
    },
    ServiceInsight {
        mesh: String,
        name: String,
    },
    /// What concerns one proxy beyond its resource (rest-api.md §8).
    Proxy {
        mesh: String,
        name: String,
        view: ProxyView,
    },
    /// The Dataplanes that a policy selects.
    PolicyDataplanes {
        kind: Kind,
        mesh: String,
        name: String,
        shape: PolicyDataplanes,
    },
    /// The Dataplanes behind a MeshService.
    ServiceDataplanes {
        mesh: String,
        name: String,
    },
    /// What a PUT of a resource would do.
    DryRun {
        kind: Kind,
        mesh: Option<String>,
        name: String,
    },
    /// The hostnames of a service; `path` is the segment of its kind, which may be wrong.
    Hostnames {
        mesh: String,
        path: String,
        name: String,
    },
    /// `/gui` itself, which redirects.
    GuiRoot,
    /// What is below `/gui/`.
    Gui,
}

/// A view of one proxy; identifiers as they were sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProxyView {
    Layout,
    Rules,
    Policies,
    InboundPolicies {
        inbound: String,
    },
    OutboundPolicies {
        outbound: String,
    },
    OutboundRoutes {
        outbound: String,
    },
    RoutePolicies {
        outbound: String,
        route: String,
    },
    /// The form of older clients.
    MatchedPolicies,
    Config,
    /// What its Envoy says: `xds`, `stats`, `clusters`, or a word that means nothing.
    Admin(String),
}

/// How the Dataplanes of a policy are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PolicyDataplanes {
    /// Paged metadata.
    Paged,
    /// The form of older clients.
    Attachments,
}

/// How resources are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    /// With the insight.
    Overview,
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tokens {
    Dataplane,
    Zone,
    User,
}

/// What is below `/_cluster`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClusterPart {
    Status,
    Members,
    /// Id, address or name.
    Member(String),
    Transfer,
    Recover,
}

impl Target {
    /// The methods that the path has, as the header `Allow` names them.
    pub(crate) fn allow(&self) -> &'static str {
        match self {
            Target::Tokens(_)
            | Target::Restore
            | Target::AcceptDeletions { .. }
            | Target::Cluster(ClusterPart::Members | ClusterPart::Transfer | ClusterPart::Recover) => "POST",
            Target::Cluster(ClusterPart::Member(_)) => "DELETE",
            Target::DryRun { .. } | Target::ClusterId => "PUT",
            Target::LeaveGlobal { .. } => "GET, POST, DELETE",
            Target::One { form: Form::Plain, .. } | Target::ServiceInsight { .. } => "PUT, DELETE, GET",
            _ => "GET",
        }
    }
}

/// Finds the route of a path; segments are decoded, a slash at the end is ignored.
pub(crate) fn resolve(path: &str) -> Option<Route> {
    let path = path.strip_prefix('/')?;
    // Below the GUI the slash at the end matters.
    if path.starts_with("gui/") {
        return Some(Route { target: Target::Gui, template: "/gui/{path}".into() });
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Some(Route { target: Target::Index, template: "/".into() });
    }
    let segments: Vec<String> = path.split('/').map(crate::query::decode).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    if segments.contains(&"") {
        return None;
    }
    system(&segments)
        .or_else(|| dry_run(&segments))
        .or_else(|| inspection(&segments))
        .or_else(|| resources(&segments))
}

/// `/_dry-run` before the path of a resource.
fn dry_run(segments: &[&str]) -> Option<Route> {
    let ["_dry-run", rest @ ..] = segments else { return None };
    match resources(rest)? {
        Route { target: Target::One { kind, mesh, name, form: Form::Plain }, template } => Some(Route {
            target: Target::DryRun { kind, mesh, name },
            template: format!("/_dry-run{template}"),
        }),
        _ => None,
    }
}

fn system(segments: &[&str]) -> Option<Route> {
    if let ["zones", zone, word @ ("_status" | "_accept-deletions" | "_leave-global")] = *segments {
        let zone = zone.to_owned();
        let target = match word {
            "_status" => Target::ZoneStatus { zone },
            "_leave-global" => Target::LeaveGlobal { zone },
            _ => Target::AcceptDeletions { zone },
        };
        return Some(Route { target, template: format!("/zones/{{name}}/{word}") });
    }
    let target = match *segments {
        ["who-am-i"] => Target::WhoAmI,
        ["config"] => Target::Config,
        ["_resources"] => Target::Resources,
        ["policies"] => Target::Policies,
        ["global-insight"] => Target::GlobalInsight,
        ["global-insights"] => Target::GlobalInsights,
        ["_kri", kri] => Target::Kri(kri.into()),
        ["openapi.json"] => Target::OpenApi(Format::Json),
        ["openapi.yaml"] => Target::OpenApi(Format::Yaml),
        ["schemas", file] => Target::Schema(file.into()),
        ["_cluster-id"] => Target::ClusterId,
        ["_backup"] => Target::Backup,
        ["_restore"] => Target::Restore,
        ["tokens", "dataplane"] => Target::Tokens(Tokens::Dataplane),
        ["tokens", "zone"] => Target::Tokens(Tokens::Zone),
        ["tokens", "user"] => Target::Tokens(Tokens::User),
        ["_cluster"] => Target::Cluster(ClusterPart::Status),
        ["_cluster", "members"] => Target::Cluster(ClusterPart::Members),
        ["_cluster", "members", member] => Target::Cluster(ClusterPart::Member(member.into())),
        ["_cluster", "transfer"] => Target::Cluster(ClusterPart::Transfer),
        ["_cluster", "recover"] => Target::Cluster(ClusterPart::Recover),
        ["service-insights"] => Target::ServiceInsights { mesh: None },
        ["meshes", mesh, "service-insights"] => Target::ServiceInsights { mesh: Some(mesh.into()) },
        ["meshes", mesh, "service-insights", name] => {
            Target::ServiceInsight { mesh: mesh.into(), name: name.into() }
        }
        ["gui"] => Target::GuiRoot,
        _ => return None,
    };
    Some(Route { target, template: format!("/{}", segments.join("/")) })
}

/// Answers about resources that are made of more than the resource.
fn inspection(segments: &[&str]) -> Option<Route> {
    let ["meshes", mesh, path, name, rest @ ..] = segments else { return None };
    let (mesh, path, name) = ((*mesh).to_owned(), *path, (*name).to_owned());
    let kind = Kind::from_path(path);
    let is_policy = kind.is_some_and(|kind| kind.descriptor().is_policy());
    let target = match (rest, kind) {
        (["_hostnames"], _) => Target::Hostnames { mesh, path: path.to_owned(), name },
        (["_dataplanes"], Some(Kind::MeshService)) => Target::ServiceDataplanes { mesh, name },
        // The dash is what the `--new-api` of stock kumactl asks for (rest-api.md §8.6).
        (["_resources" | "-resources", "dataplanes"], Some(kind)) if is_policy => {
            Target::PolicyDataplanes { kind, mesh, name, shape: PolicyDataplanes::Paged }
        }
        (["dataplanes"], Some(kind)) if is_policy => {
            Target::PolicyDataplanes { kind, mesh, name, shape: PolicyDataplanes::Attachments }
        }
        (_, Some(Kind::Dataplane)) => Target::Proxy { mesh, name, view: proxy_view(rest)? },
        _ => return None,
    };
    let rest = rest.join("/");
    Some(Route { target, template: format!("/meshes/{{mesh}}/{path}/{{name}}/{rest}") })
}

fn proxy_view(rest: &[&str]) -> Option<ProxyView> {
    Some(match *rest {
        ["_layout"] => ProxyView::Layout,
        ["_rules"] => ProxyView::Rules,
        ["_policies"] => ProxyView::Policies,
        ["_inbounds", inbound, "_policies"] => ProxyView::InboundPolicies { inbound: inbound.into() },
        ["_outbounds", outbound, "_policies"] => ProxyView::OutboundPolicies { outbound: outbound.into() },
        ["_outbounds", outbound, "_routes"] => ProxyView::OutboundRoutes { outbound: outbound.into() },
        ["_outbounds", outbound, "_routes", route, "_policies"] => {
            ProxyView::RoutePolicies { outbound: outbound.into(), route: route.into() }
        }
        ["policies"] => ProxyView::MatchedPolicies,
        ["_config"] => ProxyView::Config,
        // The overview is a form of the resource.
        ["_overview"] => return None,
        [word] => ProxyView::Admin(word.into()),
        _ => return None,
    })
}

fn resources(segments: &[&str]) -> Option<Route> {
    let (mesh, segments) = match *segments {
        ["meshes", mesh, ref rest @ ..] if !rest.is_empty() => (Some(mesh.to_owned()), rest),
        _ => (None, segments),
    };
    let (&path, rest) = segments.split_first()?;
    // The old paths of overviews.
    let (kind, is_old_overview) = match path.strip_suffix("+insights") {
        Some(base) => {
            (Kind::from_path(base).filter(|kind| kind.descriptor().capabilities.has_insight)?, true)
        }
        None => (Kind::from_path(path)?, false),
    };
    let descriptor = kind.descriptor();
    if mesh.is_some() && descriptor.is_global_scoped() {
        return None;
    }
    let prefix = if mesh.is_some() { "/meshes/{mesh}/" } else { "/" };
    let has_overview = descriptor.capabilities.has_insight && !is_old_overview;
    let form = if is_old_overview { Form::Overview } else { Form::Plain };
    let is_addressable = mesh.is_some() || descriptor.is_global_scoped();
    let (name, form, suffix) = match *rest {
        [] => (None, form, ""),
        ["_overview"] if has_overview => (None, Form::Overview, "/_overview"),
        [name] if is_addressable => (Some(name.to_owned()), form, "/{name}"),
        [name, "_overview"] if is_addressable && has_overview => {
            (Some(name.to_owned()), Form::Overview, "/{name}/_overview")
        }
        _ => return None,
    };
    let template = format!("{prefix}{path}{suffix}");
    let target = match name {
        Some(name) => Target::One { kind, mesh, name, form },
        None => Target::List { kind, mesh, form },
    };
    Some(Route { target, template })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let list =
            |kind, mesh: Option<&str>, form| Target::List { kind, mesh: mesh.map(str::to_owned), form };
        let one = |kind, mesh: Option<&str>, name: &str, form| Target::One {
            kind,
            mesh: mesh.map(str::to_owned),
            name: name.into(),
            form,
        };
        let proxy = |view| Target::Proxy { mesh: "m".into(), name: "d".into(), view };
        let selected = |shape| Target::PolicyDataplanes {
            kind: Kind::MeshTimeout,
            mesh: "m".into(),
            name: "d".into(),
            shape,
        };
        use Form::{Overview, Plain};
        for (path, want) in [
            ("/", Some(Target::Index)),
            ("/meshes", Some(list(Kind::Mesh, None, Plain))),
            ("/meshes/", Some(list(Kind::Mesh, None, Plain))),
            ("/meshes/m", Some(one(Kind::Mesh, None, "m", Plain))),
            ("/meshes/m/", Some(one(Kind::Mesh, None, "m", Plain))),
            ("/meshes/m/meshtimeouts", Some(list(Kind::MeshTimeout, Some("m"), Plain))),
            ("/meshtimeouts", Some(list(Kind::MeshTimeout, None, Plain))),
            ("/meshtimeouts/x", None),
            ("/meshes/m/meshtimeouts/a%2eb", Some(one(Kind::MeshTimeout, Some("m"), "a.b", Plain))),
            ("/meshes/m/zones", None),
            ("/global-secrets/g", Some(one(Kind::GlobalSecret, None, "g", Plain))),
            ("/globalsecrets", Some(list(Kind::GlobalSecret, None, Plain))),
            ("/zones/_overview", Some(list(Kind::Zone, None, Overview))),
            ("/zones+insights/z", Some(one(Kind::Zone, None, "z", Overview))),
            ("/dataplanes/_overview", Some(list(Kind::Dataplane, None, Overview))),
            ("/meshes/m/dataplanes+insights", Some(list(Kind::Dataplane, Some("m"), Overview))),
            ("/meshes/m/dataplanes/d/_overview", Some(one(Kind::Dataplane, Some("m"), "d", Overview))),
            ("/meshes/m/meshtimeouts/d/_overview", None),
            ("/meshes/m/dataplanes/d/_layout", Some(proxy(ProxyView::Layout))),
            ("/meshes/m/dataplanes/d/policies", Some(proxy(ProxyView::MatchedPolicies))),
            ("/meshes/m/dataplanes/d/xds", Some(proxy(ProxyView::Admin("xds".into())))),
            ("/meshes/m/dataplanes/d/_inbounds", Some(proxy(ProxyView::Admin("_inbounds".into())))),
            ("/meshes/m/dataplanes/d/_inbounds/k/nope", None),
            (
                "/meshes/m/dataplanes/d/_outbounds/o/_routes/r/_policies",
                Some(proxy(ProxyView::RoutePolicies { outbound: "o".into(), route: "r".into() })),
            ),
            ("/meshes/m/meshtimeouts/d/_resources/dataplanes", Some(selected(PolicyDataplanes::Paged))),
            ("/meshes/m/meshtimeouts/d/-resources/dataplanes", Some(selected(PolicyDataplanes::Paged))),
            ("/meshes/m/meshtimeouts/d/dataplanes", Some(selected(PolicyDataplanes::Attachments))),
            ("/meshes/m/meshtimeouts/d/_resources", None),
            ("/meshes/m/meshidentities/d/dataplanes", None),
            ("/meshes/m/secrets/d/_resources/dataplanes", None),
            ("/gui", Some(Target::GuiRoot)),
            ("/gui/", Some(Target::Gui)),
            ("/gui/a//b", Some(Target::Gui)),
            ("/_kri/kri_m____a_", Some(Target::Kri("kri_m____a_".into()))),
            ("/meshes//meshtimeouts", None),
            ("/openapi.yaml", Some(Target::OpenApi(Format::Yaml))),
            ("/schemas/Mesh.json", Some(Target::Schema("Mesh.json".into()))),
            ("/_backup", Some(Target::Backup)),
            ("/_restore", Some(Target::Restore)),
            ("/zones/z/_status", Some(Target::ZoneStatus { zone: "z".into() })),
            ("/_cluster-id", Some(Target::ClusterId)),
            ("/zones/z/_leave-global", Some(Target::LeaveGlobal { zone: "z".into() })),
            ("/zones/z/_accept-deletions", Some(Target::AcceptDeletions { zone: "z".into() })),
            ("/zones/z/_nope", None),
            ("/_restore/x", None),
            ("/configs", None),
            ("/nope", None),
        ] {
            assert_eq!(resolve(path).map(|route| route.target), want, "{path}");
        }
        let template = |path| resolve(path).map(|route| route.template).unwrap_or_default();
        assert_eq!(template("/meshes/m/dataplanes/_overview"), "/meshes/{mesh}/dataplanes/_overview");
    }

    #[test]
    fn every_kind_with_a_path_is_served() {
        // ServiceInsights have endpoints of their own.
        let has_list = |kind: &Kind| !kind.descriptor().path.is_empty() && *kind != Kind::ServiceInsight;
        for kind in Kind::all().filter(has_list) {
            let path = format!("/{}", kind.descriptor().path);
            let want = Target::List { kind, mesh: None, form: Form::Plain };
            assert_eq!(resolve(&path).map(|route| route.target), Some(want), "{path}");
        }
    }
}
