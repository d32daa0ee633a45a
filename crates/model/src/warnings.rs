//! What is accepted but should be changed: the warnings that a write answers (resources.md §8.1).

use crate::kinds::mesh_rate_limit::{Conf, MeshRateLimit};
use crate::{Resource, Spec, sni};

/// Answers below this status tell a client that its request was served.
const ERROR_STATUS_MIN: u32 = 400;

impl Resource {
    /// What should be changed about the resource although it is valid, in sentences for people.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        match &self.spec {
            Spec::MeshService(service)
                if service.selector.dataplane_ref.is_none()
                    && service.selector.dataplane_labels.is_none() =>
            {
                warnings.push(format!(
                    "MeshService '{}' selects no proxies: set 'spec.selector.dataplaneLabels' or \
                     'spec.selector.dataplaneRef' ('spec.selector.dataplaneTags' does not exist any more)",
                    self.meta.name
                ));
            }
            Spec::MeshRateLimit(limit) => warnings.extend(rate_limit(limit)),
            _ => {}
        }
        warnings.extend(self.sni_warnings());
        warnings
    }

    /// Ports that clients of other zones cannot ask for.
    fn sni_warnings(&self) -> Vec<String> {
        let Some(kri) = self.kri() else { return Vec::new() };
        let ports = self.ports().into_iter();
        let broken = ports.filter_map(|port| {
            let reason = sni(&kri.clone().with_section(port.section.clone())).err()?;
            Some(format!(
                "Invalid {} SNI (port \"{}\"): {reason}. This is deprecated.",
                self.kind(),
                port.section
            ))
        });
        broken.collect()
    }
}

fn rate_limit(limit: &MeshRateLimit) -> Vec<String> {
    let rules = limit.rules.iter().flatten().map(|rule| &rule.default);
    let to = limit.to.iter().flatten().map(|item| &item.default);
    let confs = rules
        .enumerate()
        .map(|(index, conf)| (format!("rules[{index}]"), conf))
        .chain(to.enumerate().map(|(index, conf)| (format!("to[{index}]"), conf)));
    let low = confs.filter(|(_, conf)| status(conf).is_some_and(|status| status < ERROR_STATUS_MIN));
    low.map(|(path, _)| {
        format!(
            "'spec.{path}.default.local.http.onRateLimit.status' should be {ERROR_STATUS_MIN} or higher: \
             clients take anything lower for success"
        )
    })
    .collect()
}

fn status(conf: &Conf) -> Option<u32> {
    conf.local.as_ref()?.http.as_ref()?.on_rate_limit.as_ref()?.status
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::{Kind, Resource};

    #[test]
    fn warnings() {
        let of = |kind: Kind, mesh: &str, spec: Value| {
            let document = json!({"type": kind.name(), "mesh": mesh, "name": "a", "spec": spec});
            Resource::from_rest(kind, &document).expect("valid").warnings()
        };
        let selector = json!({"dataplaneLabels": {"matchLabels": {"app": "a"}}});
        let ports = json!([{"port": 80, "name": "http"}, {"port": 81}]);
        assert!(
            of(Kind::MeshService, "m", json!({"selector": selector.clone(), "ports": ports.clone()}))
                .is_empty()
        );
        let bad_mesh = of(Kind::MeshService, "m_1", json!({"selector": selector, "ports": ports}));
        assert_eq!(bad_mesh.len(), 2, "{bad_mesh:?}");
        assert!(bad_mesh[0].starts_with("Invalid MeshService SNI (port \"http\"): "), "{bad_mesh:?}");
        let tags =
            of(Kind::MeshService, "m", json!({"selector": {"dataplaneTags": {"a": "b"}}, "ports": []}));
        assert!(matches!(&tags[..], [text] if text.contains("selects no proxies")), "{tags:?}");

        let limit = |status: u32| {
            json!({"local": {"http": {
                "requestRate": {"num": 1, "interval": "1s"}, "onRateLimit": {"status": status},
            }}})
        };
        let to = json!({"to": [
            {"targetRef": {"kind": "Mesh"}, "default": limit(429)},
            {"targetRef": {"kind": "Mesh"}, "default": limit(200)},
        ]});
        let low = of(Kind::MeshRateLimit, "m", to);
        assert!(matches!(&low[..], [text] if text.starts_with("'spec.to[1].")), "{low:?}");
        let rules = of(Kind::MeshRateLimit, "m", json!({"rules": [{"default": limit(399)}]}));
        assert!(matches!(&rules[..], [text] if text.starts_with("'spec.rules[0].")), "{rules:?}");
    }
}
