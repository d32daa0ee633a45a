//! Names of keys in etcd.

use graticule_model::{Key, Kind};

/// The names of the keys of one store.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    prefix: String,
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
        Keys { prefix: prefix.to_owned() }
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

    /// What the keys of all resources begin with.
    pub(crate) fn resources(&self) -> String {
        format!("{}/r/", self.prefix)
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
        let parts: Vec<&str> = rest.strip_prefix("r/").into_iter().flat_map(|rest| rest.split('/')).collect();
        let &[kind, mesh, name] = parts.as_slice() else { return Place::Other };
        match Kind::from_name(kind) {
            Ok(kind) => Place::Resource(Key { kind, mesh: unescape(mesh), name: unescape(name) }),
            Err(_) => Place::UnknownKind { kind: kind.to_owned(), name: unescape(name) },
        }
    }
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
}
