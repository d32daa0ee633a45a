//! Names of keys in etcd.

use graticule_model::{Key, Kind};

/// The names of the keys of one store, and of its resources in one generation of them.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    prefix: String,
    generation: String,
}

/// What a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// The revision of the store.
    Head,
    /// Who leads.
    Leader,
    /// A resource.
    Resource(Key),
    /// A resource of a kind that this version does not know.
    UnknownKind {
        /// The kind.
        kind: String,
        /// The resource.
        name: String,
    },
    /// Nothing of this store.
    Other,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Keys {
        Keys { prefix: prefix.to_owned(), generation: String::new() }
    }

    /// The same with the resources of another generation; the first one, which every store begins with, has no name.
    pub(crate) fn of(&self, generation: &str) -> Keys {
        Keys { prefix: self.prefix.clone(), generation: generation.to_owned() }
    }

    /// What all keys begin with.
    pub(crate) fn all(&self) -> String {
        format!("{}/", self.prefix)
    }

    pub(crate) fn head(&self) -> String {
        format!("{}/head", self.prefix)
    }

    pub(crate) fn leader(&self) -> String {
        format!("{}/leader", self.prefix)
    }

    /// Which generation is being prepared.
    pub(crate) fn staging(&self) -> String {
        format!("{}/staging", self.prefix)
    }

    /// What the keys of the resources of this generation begin with.
    pub(crate) fn resources(&self) -> String {
        match self.generation.as_str() {
            "" => format!("{}/r/", self.prefix),
            generation => format!("{}/g/{generation}/", self.prefix),
        }
    }

    /// The ranges of keys, the second one not included, that hold resources of any generation.
    pub(crate) fn generations(&self) -> [(String, String); 2] {
        ["r", "g"].map(|part| (format!("{}/{part}/", self.prefix), format!("{}/{part}0", self.prefix)))
    }

    pub(crate) fn resource(&self, key: &Key) -> String {
        let [mesh, name] = [&key.mesh, &key.name].map(|part| escape(part));
        format!("{}{}/{mesh}/{name}", self.resources(), key.kind.name())
    }

    pub(crate) fn place(&self, key: &[u8]) -> Place {
        let text = std::str::from_utf8(key).ok();
        let Some(rest) = text.and_then(|text| text.strip_prefix(&self.prefix)?.strip_prefix('/')) else {
            return Place::Other;
        };
        match rest {
            "head" => return Place::Head,
            "leader" => return Place::Leader,
            _ => {}
        }
        let rest = text.and_then(|text| text.strip_prefix(&self.resources()));
        let parts: Vec<&str> = rest.into_iter().flat_map(|rest| rest.split('/')).collect();
        let &[kind, mesh, name] = parts.as_slice() else { return Place::Other };
        match Kind::from_name(kind) {
            Ok(kind) => Place::Resource(Key { kind, mesh: unescape(mesh), name: unescape(name) }),
            Err(_) => Place::UnknownKind { kind: kind.to_owned(), name: unescape(name) },
        }
    }
}

/// The first key behind those that begin with `prefix`, which ends with a slash.
pub(crate) fn after(prefix: &str) -> String {
    // '0' is the character after '/'.
    format!("{}0", prefix.trim_end_matches('/'))
}

fn escape(part: &str) -> String {
    part.replace('%', "%25").replace('/', "%2F")
}

fn unescape(part: &str) -> String {
    part.replace("%2F", "/").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive() {
        let keys = Keys::new("/graticule/global");
        for (mesh, name) in [("", "a"), ("default", "a.b-c"), ("default", "a/b%2F%25"), ("m%", "ü/")] {
            let key = Key::new(Kind::MeshTimeout, mesh, name);
            assert_eq!(keys.place(keys.resource(&key).as_bytes()), Place::Resource(key));
        }
        assert_eq!(keys.place(keys.head().as_bytes()), Place::Head);
        assert_eq!(keys.place(keys.leader().as_bytes()), Place::Leader);
        let newer = Place::UnknownKind { kind: "MeshWormhole".into(), name: "a".into() };
        assert_eq!(keys.place(b"/graticule/global/r/MeshWormhole/default/a"), newer);
        for other in ["/graticule/globally/head", "/graticule/global", "/x", "/graticule/global/r/Mesh/a", ""]
        {
            assert_eq!(keys.place(other.as_bytes()), Place::Other, "{other}");
        }
        assert_eq!(keys.place(&[0xff]), Place::Other);
    }

    #[test]
    fn generations_are_apart() {
        let first = Keys::new("/s");
        let [second, third] = ["2f", "3a"].map(|generation| first.of(generation));
        let key = Key::new(Kind::Mesh, "", "a");
        assert_eq!(second.resource(&key), "/s/g/2f/Mesh//a");
        for (keys, other) in [(&first, &second), (&second, &first), (&second, &third)] {
            let name = keys.resource(&key);
            assert_eq!(keys.place(name.as_bytes()), Place::Resource(key.clone()));
            assert_eq!(other.place(name.as_bytes()), Place::Other);
        }
    }
}
