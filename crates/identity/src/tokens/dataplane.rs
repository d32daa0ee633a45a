//! Whether a dataplane token is good for a Dataplane (tokens-and-access.md §8.1).

use std::collections::BTreeMap;

use graticule_model::labels;

use super::DataplaneClaims;

/// Why a valid token is not good for this Dataplane.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DataplaneTokenError {
    /// It is for another name.
    #[error("proxy name from requestor: {actual} is different than in token: {token}")]
    Name {
        /// The Dataplane's name.
        actual: String,
        /// The token's.
        token: String,
    },
    /// It is for another mesh.
    #[error("proxy mesh from requestor: {actual} is different than in token: {token}")]
    Mesh {
        /// The Dataplane's mesh.
        actual: String,
        /// The token's.
        token: String,
    },
    /// The Dataplane lacks a label that the token names.
    #[error("dataplane has no label {label:?} required by the token")]
    LabelMissing {
        /// The label.
        label: String,
    },
    /// A label has a value that the token does not allow.
    #[error("dataplane label {label:?} has the value {actual:?}, the token allows {}", allowed.join(", "))]
    LabelValue {
        /// The label.
        label: String,
        /// The Dataplane's value.
        actual: String,
        /// What the token allows.
        allowed: Vec<String>,
    },
    /// It is for another workload.
    #[error("dataplane belongs to workload {actual:?}, the token is bound to {token:?}")]
    Workload {
        /// The Dataplane's workload; empty: it has none.
        actual: String,
        /// The token's.
        token: String,
    },
    /// The identity of the Dataplane follows from its workload label, which the token does not vouch for.
    #[error(
        "dataplane has label \"kuma.io/workload\" and its identity derives from it: a token bound to the workload is required"
    )]
    WorkloadRequired,
}

/// Checks the claims against a Dataplane. `identity_needs_workload`: the MeshIdentity that selects the
/// Dataplane derives the SPIFFE id from the workload label.
///
/// # Errors
/// The first rule that the token breaks.
pub fn check_dataplane(
    claims: &DataplaneClaims,
    name: &str,
    mesh: &str,
    dataplane_labels: &BTreeMap<String, String>,
    identity_needs_workload: bool,
) -> Result<(), DataplaneTokenError> {
    if !claims.name.is_empty() && claims.name != name {
        return Err(DataplaneTokenError::Name { actual: name.into(), token: claims.name.clone() });
    }
    if !claims.mesh.is_empty() && claims.mesh != mesh {
        return Err(DataplaneTokenError::Mesh { actual: mesh.into(), token: claims.mesh.clone() });
    }
    for (label, allowed) in &claims.tags {
        match dataplane_labels.get(label) {
            None => return Err(DataplaneTokenError::LabelMissing { label: label.clone() }),
            Some(value) if allowed.contains(value) => {}
            Some(value) => {
                let (label, actual, allowed) = (label.clone(), value.clone(), allowed.clone());
                return Err(DataplaneTokenError::LabelValue { label, actual, allowed });
            }
        }
    }
    let workload = dataplane_labels.get(labels::WORKLOAD);
    match (claims.workload.as_str(), workload) {
        ("", Some(_)) if identity_needs_workload => Err(DataplaneTokenError::WorkloadRequired),
        ("", _) => Ok(()),
        (token, Some(actual)) if token == actual => Ok(()),
        (token, actual) => Err(DataplaneTokenError::Workload {
            actual: actual.cloned().unwrap_or_default(),
            token: token.into(),
        }),
    }
}
