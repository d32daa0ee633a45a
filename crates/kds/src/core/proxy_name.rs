//! What a zone calls its proxies.

use graticule_model::Meta;
use graticule_model::kinds::zone::ZoneInsight;
use serde_json::Value;

/// The name in its zone of a resource that global has a copy of (federation.md §1.5): the display name, with the
/// namespace if the zone says that it keeps its resources in Kubernetes.
pub fn name_in_zone(copy: &Meta, zone: Option<&ZoneInsight>) -> String {
    let name = copy.display_name();
    let is_legacy = copy.zone().is_some_and(|zone| copy.name.starts_with(zone));
    match copy.namespace() {
        Some(namespace) if !is_legacy && zone.is_some_and(keeps_in_kubernetes) => {
            format!("{name}.{namespace}")
        }
        _ => name.to_owned(),
    }
}

/// By the configuration that the zone told when it last connected.
fn keeps_in_kubernetes(zone: &ZoneInsight) -> bool {
    let last = zone.subscriptions.last();
    let config: Option<Value> = last.and_then(|last| serde_json::from_str(&last.config).ok());
    config.is_some_and(|config| config["store"]["type"] == "kubernetes")
}

#[cfg(test)]
mod tests {
    use graticule_model::kinds::zone::KdsSubscription;
    use graticule_model::labels;

    use super::*;

    #[test]
    fn names() {
        let kubernetes = r#"{"store": {"type": "kubernetes"}}"#;
        for (name, namespace, config, want) in [
            ("web-54dbd4c66zwbcf9c", "", kubernetes, "web"),
            ("web-54dbd4c66zwbcf9c", "shop", kubernetes, "web.shop"),
            ("web-54dbd4c66zwbcf9c", "shop", r#"{"store": {"type": "memory"}}"#, "web"),
            ("web-54dbd4c66zwbcf9c", "shop", "no JSON", "web"),
            ("east.web", "shop", kubernetes, "web"),
        ] {
            let mut copy = Meta::new("default", name);
            for (key, value) in
                [(labels::DISPLAY_NAME, "web"), (labels::ZONE, "east"), (labels::NAMESPACE, namespace)]
            {
                copy.labels.insert(key.into(), value.into());
            }
            let subscription = KdsSubscription { config: config.into(), ..KdsSubscription::default() };
            let insight = ZoneInsight { subscriptions: vec![subscription], ..ZoneInsight::default() };
            assert_eq!(name_in_zone(&copy, Some(&insight)), want, "{name} {namespace} {config}");
        }
        assert_eq!(name_in_zone(&Meta::new("default", "web"), None), "web", "nothing is known");
    }
}
