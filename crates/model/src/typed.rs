//! Documents of one kind, for programs that deal with no other: nothing here pulls the registry's other kinds in.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::kinds::Validate;
use crate::resource::{add_spec, checked_members, read_meta, read_spec, spec_of, to_value, write_meta};
use crate::{DecodeError, Meta, TypedSpec, Violations};

/// A resource whose kind is known at compile time; without status.
#[derive(Debug, Clone, PartialEq)]
pub struct Typed<S> {
    /// Metadata.
    pub meta: Meta,
    /// Spec.
    pub spec: S,
}

impl<S: TypedSpec + Validate + DeserializeOwned + Serialize> Typed<S> {
    /// As [`Resource::from_rest`](crate::Resource::from_rest).
    ///
    /// # Errors
    /// The same.
    pub fn from_rest(value: &Value) -> Result<Typed<S>, DecodeError> {
        let members = checked_members(S::KIND, Some(S::SCHEMA), value)?;
        let descriptor = S::KIND.descriptor();
        Ok(Typed { meta: read_meta(descriptor, members), spec: read_spec(&spec_of(descriptor, members))? })
    }

    /// As [`Resource::validate`](crate::Resource::validate).
    ///
    /// # Errors
    /// All violations.
    pub fn validate(&self) -> Result<(), Violations> {
        let mut violations = Violations::default();
        self.spec.validate(&self.meta, &mut violations);
        violations.into_result()
    }

    /// As [`Resource::to_rest`](crate::Resource::to_rest), without SNIs and status.
    pub fn to_rest(&self) -> Value {
        let mut out = write_meta(S::KIND, &self.meta);
        add_spec(&mut out, S::KIND.descriptor(), to_value(&self.spec));
        Value::Object(out)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::dataplane::Dataplane;
    use crate::kinds::mesh_timeout::MeshTimeout;
    use crate::{Kind, Resource};

    #[test]
    fn says_the_same_as_any_kind() {
        let dataplane = json!({"type": "Dataplane", "mesh": "m", "name": "d", "labels": {"a": "b"},
            "networking": {"address": "10.0.0.1", "inbound": [{"port": 80}]}});
        let typed = Typed::<Dataplane>::from_rest(&dataplane).expect("reads");
        let any = Resource::from_rest(Kind::Dataplane, &dataplane).expect("reads");
        assert_eq!(typed.to_rest(), any.to_rest());
        assert_eq!(typed.validate(), any.validate());

        let timeout = json!({"type": "MeshTimeout", "mesh": "m", "name": "t", "spec": {"to": 1}});
        let typed = Typed::<MeshTimeout>::from_rest(&timeout).expect_err("refused");
        let any = Resource::from_rest(Kind::MeshTimeout, &timeout).expect_err("refused");
        assert_eq!(typed.to_string(), any.to_string());
    }
}
