//! Hostnames of services, from HostnameGenerators (xds.md §5.7).

use std::collections::BTreeMap;
use std::sync::Arc;

use graticule_model::kinds::hostname_generator::HostnameGenerator;
use graticule_model::kinds::mesh_service::{
    Address, Condition, HostnameGeneratorRef, HostnameGeneratorStatus,
};
use graticule_model::template::Template;
use graticule_model::{Resource, Status, labels, name};

use super::{DeriveState, Draft};

/// Rewrites addresses and generator outcomes of all services (given in order of creation time and name).
pub(super) fn refresh(state: &DeriveState<'_>, mesh: &str, services: &mut [Draft]) {
    let mut generators: Vec<(&Arc<Resource>, &HostnameGenerator)> =
        state.resources.typed::<HostnameGenerator>("").collect();
    generators.sort_by(|(a, _), (b, _)| {
        let rank = |resource: &Resource| (!resource.meta.is_local_to_zone(), resource.meta.creation_time);
        rank(a).cmp(&rank(b)).then_with(|| a.meta.name.cmp(&b.meta.name))
    });
    // Per service: generator name → outcome.
    let mut outcomes: Vec<BTreeMap<&str, Result<String, Refusal>>> =
        services.iter().map(|_| BTreeMap::new()).collect();
    let mut claims: BTreeMap<String, usize> = BTreeMap::new();
    for (resource, generator) in generators {
        let Some(selector) = &generator.selector.mesh_service else { continue };
        let template =
            Template::parse(&generator.template).map_err(|error| Refusal::Template(error.to_string()));
        for (index, service) in services.iter().enumerate() {
            if !selector.matches(&service.resource.meta.labels) {
                continue;
            }
            let outcome = template
                .clone()
                .and_then(|template| render(state, mesh, &template, &service.resource))
                .and_then(|hostname| match *claims.entry(hostname.clone()).or_insert(index) {
                    holder if holder == index => Ok(hostname),
                    _ => Err(Refusal::Collision(hostname)),
                });
            outcomes[index].insert(&resource.meta.name, outcome);
        }
    }
    for (service, outcomes) in services.iter_mut().zip(outcomes) {
        let Status::MeshService(status) = &mut service.resource.status else { continue };
        status.addresses.clear();
        status.hostname_generators.clear();
        for (generator, outcome) in outcomes {
            let reference = HostnameGeneratorRef { core_name: generator.into() };
            status.hostname_generators.push(HostnameGeneratorStatus {
                hostname_generator_ref: reference.clone(),
                conditions: vec![condition(&outcome)],
            });
            if let Ok(hostname) = outcome {
                let origin = "HostnameGenerator".into();
                status.addresses.push(Address { hostname, origin, hostname_generator_ref: reference });
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Refusal {
    Template(String),
    Collision(String),
}

fn render(
    state: &DeriveState<'_>,
    mesh: &str,
    template: &Template,
    service: &Resource,
) -> Result<String, Refusal> {
    let meta = &service.meta;
    let fields = [
        ("Name", meta.name.as_str()),
        ("DisplayName", meta.display_name()),
        ("Namespace", meta.label(labels::NAMESPACE).unwrap_or_default()),
        ("Mesh", mesh),
        ("Zone", meta.zone().unwrap_or(state.zone)),
    ];
    let hostname =
        template.render(&fields, &meta.labels).map_err(|error| Refusal::Template(error.to_string()))?;
    if name::is_dns1123_subdomain(&hostname) {
        Ok(hostname)
    } else {
        Err(Refusal::Template(format!("\"{hostname}\" is not a valid DNS name")))
    }
}

fn condition(outcome: &Result<String, Refusal>) -> Condition {
    let (status, reason, message) = match outcome {
        Ok(_) => ("True", "Generated", String::new()),
        Err(Refusal::Template(message)) => ("False", "TemplateError", message.clone()),
        Err(Refusal::Collision(hostname)) => {
            ("False", "Collision", format!("hostname \"{hostname}\" belongs to another service"))
        }
    };
    Condition { r#type: "Generated".into(), status: status.into(), reason: reason.into(), message }
}
