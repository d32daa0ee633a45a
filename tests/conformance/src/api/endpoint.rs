//! Which endpoints need the policy engine: decided by the path alone.

use graticule_model::Kind;

/// The template of an endpoint whose answer needs policies to be matched; `None` for all others.
pub(crate) fn needing_policies(path: &str) -> Option<String> {
    let path = path.split('?').next().unwrap_or_default();
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let ["meshes", _, kind, _, rest @ ..] = segments.as_slice() else { return None };
    let is_policy = Kind::from_path(kind).is_some_and(|kind| kind.descriptor().is_policy());
    let rest = match rest {
        ["_rules" | "_policies" | "policies" | "_config"] if *kind == "dataplanes" => rest[0].to_owned(),
        ["_inbounds", _, "_policies"] if *kind == "dataplanes" => "_inbounds/{kri}/_policies".into(),
        ["_outbounds", _, last @ ("_policies" | "_routes")] if *kind == "dataplanes" => {
            format!("_outbounds/{{kri}}/{last}")
        }
        ["_outbounds", _, "_routes", _, "_policies"] if *kind == "dataplanes" => {
            "_outbounds/{kri}/_routes/{kri}/_policies".into()
        }
        ["_resources" | "-resources", "dataplanes"] if is_policy => "_resources/dataplanes".into(),
        ["dataplanes"] if is_policy => "dataplanes".into(),
        _ => return None,
    };
    let kind = if is_policy { "{policy}" } else { kind };
    Some(format!("/meshes/{{mesh}}/{kind}/{{name}}/{rest}"))
}

#[cfg(test)]
mod tests {
    use super::needing_policies;

    #[test]
    fn endpoints() {
        for (path, want) in [
            ("/meshes/m/dataplanes/d/_rules", Some("/meshes/{mesh}/dataplanes/{name}/_rules")),
            ("/meshes/m/dataplanes/d/_config?shadow=true", Some("/meshes/{mesh}/dataplanes/{name}/_config")),
            ("/meshes/m/meshtimeouts/t/dataplanes", Some("/meshes/{mesh}/{policy}/{name}/dataplanes")),
            ("/meshes/m/meshservices/t/dataplanes", None),
            ("/meshes/m/dataplanes/d/_layout", None),
            ("/meshes/m/dataplanes/d/_overview", None),
            ("/meshes/m/dataplanes/_rules", None),
            ("/meshes/m/meshservices/s/_dataplanes", None),
            ("/policies", None),
        ] {
            assert_eq!(needing_policies(path).as_deref(), want, "{path}");
        }
    }
}
