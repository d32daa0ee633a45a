//! KRI: the identifier of a resource that is the same on every control plane (resources.md §2.4).

use std::fmt;

use crate::{Key, Kind, Meta};

/// `kri_<short>_<mesh>_<zone>_<namespace>_<name>_<section>`; empty parts stay empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kri {
    /// The kind; only kinds with a short name have a KRI.
    pub kind: Kind,
    /// Mesh, empty for global-scoped kinds.
    pub mesh: String,
    /// Zone of origin, or empty.
    pub zone: String,
    /// Namespace of origin, or empty.
    pub namespace: String,
    /// Display name.
    pub name: String,
    /// Port, inbound, listener or rule; empty for the whole resource.
    pub section: String,
}

/// Why a text is no KRI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KriError {
    /// Fewer than seven parts.
    #[error("invalid identifier string: \"{0}\"")]
    Parts(String),
    /// Does not start with `kri`.
    #[error("identifier must start with 'kri': \"{0}\"")]
    Prefix(String),
    /// No kind has this short name.
    #[error("unknown short name of resource type: \"{0}\"")]
    ShortName(String),
}

impl Kri {
    /// The KRI of a resource; `None` when its kind has no short name.
    pub fn of(kind: Kind, meta: &Meta) -> Option<Kri> {
        if kind.descriptor().short_name.is_empty() {
            return None;
        }
        Some(Kri {
            kind,
            mesh: if kind.descriptor().is_global_scoped() { String::new() } else { meta.mesh.clone() },
            zone: meta.zone().unwrap_or_default().into(),
            namespace: meta.namespace().unwrap_or_default().into(),
            name: meta.display_name().into(),
            section: String::new(),
        })
    }

    /// The same resource with another section.
    pub fn with_section(mut self, section: impl Into<String>) -> Kri {
        self.section = section.into();
        self
    }

    /// The whole resource.
    pub fn without_section(mut self) -> Kri {
        self.section.clear();
        self
    }

    /// Reads the text form. Sections may contain `_`: unlike the reference, they survive.
    pub fn parse(text: &str) -> Result<Kri, KriError> {
        let parts: Vec<&str> = text.splitn(7, '_').collect();
        let [prefix, short, mesh, zone, namespace, name, section] = parts[..] else {
            return Err(KriError::Parts(text.into()));
        };
        if prefix != "kri" {
            return Err(KriError::Prefix(text.into()));
        }
        let kind = Kind::from_short_name(short).ok_or_else(|| KriError::ShortName(short.into()))?;
        Ok(Kri {
            kind,
            mesh: mesh.into(),
            zone: zone.into(),
            namespace: namespace.into(),
            name: name.into(),
            section: section.into(),
        })
    }

    /// The key of a copy that federation brought: mesh and hashed name.
    pub fn hashed_key(&self) -> Key {
        let extra: Vec<&str> =
            [&self.zone, &self.namespace].into_iter().filter(|p| !p.is_empty()).map(String::as_str).collect();
        Key::new(self.kind, self.mesh.clone(), crate::name::hashed(&self.mesh, &self.name, &extra))
    }

    /// The key of a resource that was written on this control plane.
    pub fn plain_key(&self) -> Key {
        Key::new(self.kind, self.mesh.clone(), self.name.clone())
    }
}

impl fmt::Display for Kri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = self.kind.descriptor().short_name;
        write!(f, "kri_{short}_{}_{}_{}_{}_{}", self.mesh, self.zone, self.namespace, self.name, self.section)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for text in
            ["kri_m____default_", "kri_msvc_default_west_demo_backend_http", "kri_mhttpr_default___r1_rule_0"]
        {
            assert_eq!(Kri::parse(text).expect(text).to_string(), text);
        }
    }

    #[test]
    fn errors() {
        assert_eq!(Kri::parse("kri_m"), Err(KriError::Parts("kri_m".into())));
        assert_eq!(Kri::parse("x_m____default_"), Err(KriError::Prefix("x_m____default_".into())));
        assert_eq!(Kri::parse("kri_zz____default_"), Err(KriError::ShortName("zz".into())));
    }
}
