//! Which meshes a zone takes part in: of the others it gets nothing (federation.md §8, weakness 15).

use std::collections::BTreeSet;
use std::sync::Arc;

use graticule_model::name::mesh_name_error;
use graticule_model::{Key, Kind};
use graticule_proto::discovery::Node;

use super::member::{self, MESHES_MEMBER};

/// Meshes that a peer may name; who takes part in more is told about all.
const MESHES_MAX: usize = 4096;

/// The meshes of a zone (`multizone.zone.meshes`); all unless said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meshes(Option<Arc<BTreeSet<String>>>);

impl Meshes {
    /// These; all if there are none.
    pub fn of(names: impl IntoIterator<Item = String>) -> Meshes {
        let names: BTreeSet<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
        Meshes((!names.is_empty()).then(|| names.into()))
    }

    /// These and more.
    #[must_use]
    pub fn and(&self, more: impl IntoIterator<Item = String>) -> Meshes {
        match &self.0 {
            None => Meshes(None),
            Some(names) => Meshes::of(names.iter().cloned().chain(more)),
        }
    }

    /// Whether it is all of them.
    pub fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Their names; none if it is all of them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|names| names.iter().map(String::as_str))
    }

    /// Whether this mesh is one of them.
    pub fn has(&self, mesh: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.contains(mesh))
    }

    /// Whether a resource is of one of them. What belongs to no mesh is for everybody.
    pub fn include(&self, key: &Key) -> bool {
        if key.kind == Kind::Mesh { self.has(&key.name) } else { key.mesh.is_empty() || self.has(&key.mesh) }
    }

    /// What the sender of a first request says. Whatever is no list of so many names of meshes stands for all: a peer drops
    /// what it does not want.
    pub(super) fn told_by(node: &Node) -> Meshes {
        let names: BTreeSet<String> = member::texts(node, MESHES_MEMBER).take(MESHES_MAX + 1).collect();
        if names.len() > MESHES_MAX || names.iter().any(|name| mesh_name_error(name).is_some()) {
            return Meshes::default();
        }
        Meshes::of(names)
    }

    /// Says it in a first request.
    pub(super) fn tell(&self, node: &mut Node) {
        if self.is_all() {
            return;
        }
        member::tell_texts(node, MESHES_MEMBER, self.names());
    }
}

#[cfg(test)]
mod tests {
    use graticule_proto::google::protobuf::ListValue;
    use graticule_proto::google::protobuf::value::Kind as ValueKind;

    use super::*;

    #[test]
    fn what_is_of_a_mesh() {
        let some = Meshes::of(["a".to_owned(), String::new()]);
        for (kind, mesh, name, of_some) in [
            (Kind::Mesh, "", "a", true),
            (Kind::Mesh, "", "b", false),
            (Kind::MeshTimeout, "a", "b", true),
            (Kind::MeshTimeout, "b", "a", false),
            (Kind::Secret, "b", "a", false),
            (Kind::GlobalSecret, "", "b", true),
            (Kind::HostnameGenerator, "", "b", true),
        ] {
            let key = Key::new(kind, mesh, name);
            assert_eq!(some.include(&key), of_some, "{key}");
            assert!(Meshes::default().include(&key), "{key}");
            assert!(Meshes::of([String::new()]).include(&key), "{key}");
        }
        assert_eq!(some.and(["b".to_owned()]).names().collect::<Vec<_>>(), ["a", "b"]);
        assert!(Meshes::default().and(["b".to_owned()]).is_all());
    }

    #[test]
    fn it_is_told_and_understood() {
        for meshes in [Meshes::default(), Meshes::of(["a".to_owned(), "b".to_owned()])] {
            let mut node = Node::default();
            meshes.tell(&mut node);
            assert_eq!(node.metadata.is_none(), meshes.is_all());
            assert_eq!(Meshes::told_by(&node), meshes);
        }
        for other in [ValueKind::BoolValue(true), ValueKind::ListValue(ListValue::default())] {
            let mut node = Node::default();
            member::tell(&mut node, MESHES_MEMBER, other);
            assert!(Meshes::told_by(&node).is_all());
        }
        let many = (0..=MESHES_MAX).map(|n| format!("m{n}")).collect::<Vec<_>>();
        for (names, is_all) in [
            (&many[..], true),
            (&many[1..], false),
            (&["x".repeat(1000)][..], true),
            (&["A b".to_owned()], true),
        ] {
            let mut node = Node::default();
            member::tell_texts(&mut node, MESHES_MEMBER, names.iter().map(String::as_str));
            assert_eq!(Meshes::told_by(&node).is_all(), is_all, "{}", names[0]);
        }
    }
}
