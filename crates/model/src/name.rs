//! Names: syntax rules and the federation name hash (resources.md §4, federation.md §3.5).

/// Longest stored name, in bytes.
pub const NAME_LEN_MAX: usize = 253;
/// Longest DNS label, in bytes.
pub const LABEL_LEN_MAX: usize = 63;

const HASH_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const HASHED_STEM_LEN_MAX: usize = 236;

/// Name of the copy of a resource on other control planes: `<display name>-<16 characters>`.
///
/// `extra` are the values of the labels zone and namespace, as far as they exist, in this order.
pub fn hashed(mesh: &str, display_name: &str, extra: &[&str]) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let parts = [mesh, display_name].into_iter().chain(extra.iter().copied());
    for byte in parts.flat_map(str::bytes) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    let mut stem_len = display_name.len().min(HASHED_STEM_LEN_MAX);
    while !display_name.is_char_boundary(stem_len) {
        stem_len -= 1;
    }
    let mut name = String::with_capacity(stem_len + 17);
    name.push_str(&display_name[..stem_len]);
    name.push('-');
    for digit in format!("{hash:016x}").bytes() {
        name.push(char::from(HASH_ALPHABET[usize::from(digit) % HASH_ALPHABET.len()]));
    }
    name
}

/// `[a-z]([-a-z0-9]*[a-z0-9])?`, at most 63 bytes.
pub fn is_dns1035_label(text: &str) -> bool {
    text.len() <= LABEL_LEN_MAX && is_dns1035_shape(text)
}

fn is_dns1035_shape(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase()) && is_label_shape(text)
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`, at most 63 bytes.
pub fn is_dns1123_label(text: &str) -> bool {
    text.len() <= LABEL_LEN_MAX && is_label_shape(text)
}

fn is_label_shape(text: &str) -> bool {
    let alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => {
            alphanumeric(first) && alphanumeric(last) && bytes.iter().all(|&c| alphanumeric(c) || c == b'-')
        }
        _ => false,
    }
}

/// Dot separated DNS-1123 shapes, at most 253 bytes in all (labels are not limited to 63 here).
pub fn is_dns1123_subdomain(text: &str) -> bool {
    text.len() <= NAME_LEN_MAX && text.split('.').all(is_label_shape)
}

/// The message for a text that is no DNS-1123 subdomain.
pub const DNS1123_SUBDOMAIN_ERROR: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// First broken rule of a resource name, if any.
pub fn resource_name_error(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("cannot be empty")
    } else if name.len() > NAME_LEN_MAX {
        Some("value length must less or equal 253")
    } else if !is_dns1123_subdomain(name) {
        Some(
            "invalid characters. A lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
        )
    } else {
        None
    }
}

/// First broken rule of a mesh name in the metadata of a mesh-scoped resource, if any.
pub fn mesh_name_error(mesh: &str) -> Option<&'static str> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_' | b'.');
    if mesh.is_empty() {
        Some("cannot be empty")
    } else if mesh.len() > NAME_LEN_MAX {
        Some("value length must less or equal 253")
    } else if !mesh.bytes().all(allowed) {
        Some(
            "invalid characters. Valid characters are numbers, lowercase latin letters and '-', '_', '.' symbols.",
        )
    } else {
        None
    }
}

/// The joined message for names that must be DNS-1035 labels, if the name breaks the rule.
pub fn dns1035_error(name: &str) -> Option<String> {
    let mut messages = Vec::new();
    if name.len() > LABEL_LEN_MAX {
        messages.push("must be no more than 63 characters");
    }
    if !is_dns1035_shape(name) {
        messages.push(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
        );
    }
    if messages.is_empty() { None } else { Some(messages.join(", ")) }
}

fn is_qualified_shape(text: &str) -> bool {
    let edge = |c: u8| c.is_ascii_alphanumeric();
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => {
            edge(first) && edge(last) && bytes.iter().all(|&c| edge(c) || matches!(c, b'-' | b'_' | b'.'))
        }
        _ => false,
    }
}

/// What is wrong with a label key.
pub fn label_key_errors(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let mut parts = key.split('/');
    let (prefix, name) = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, _) => (None, name),
        (Some(prefix), Some(name), None) => (Some(prefix), name),
        _ => {
            errors.push("a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')".into());
            return errors;
        }
    };
    if let Some(prefix) = prefix {
        if prefix.is_empty() {
            errors.push("prefix part must be non-empty".into());
        } else if prefix.len() > NAME_LEN_MAX {
            errors.push("prefix part must be no more than 253 bytes".into());
        } else if !is_dns1123_subdomain(prefix) {
            errors.push("prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')".into());
        }
    }
    if name.is_empty() {
        errors.push("name part must be non-empty".into());
    } else if name.len() > LABEL_LEN_MAX {
        errors.push("name part must be no more than 63 bytes".into());
    }
    if !is_qualified_shape(name) {
        errors.push("name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')".into());
    }
    errors
}

/// What is wrong with a label value.
pub fn label_value_errors(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_LEN_MAX {
        errors.push("must be no more than 63 bytes".into());
    }
    if !value.is_empty() && !is_qualified_shape(value) {
        errors.push("a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')".into());
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_vectors() {
        for (mesh, name, extra, want) in [
            ("default", "default-timeout-global", &[][..], "default-timeout-global-54dbd4c66zwbcf9c"),
            ("default", "default-timeout-zone-1", &["zone-1"], "default-timeout-zone-1-c58w24w4vw27f454"),
            ("default", "redis-zone-1", &["zone-1"], "redis-zone-1-2v6wfvvcvbc9f55d"),
            ("default", "backend", &["east", "shop"], "backend-wdcfc962fb6f8x4c"),
            ("", "synced-kube-mesh-service", &[], "synced-kube-mesh-service-8xc5x6c9f588fzz9"),
        ] {
            assert_eq!(hashed(mesh, name, extra), want);
        }
        let long = "x".repeat(240);
        assert_eq!(hashed("default", &long, &["east"]), format!("{}-4f8x8zfx4b7w828c", "x".repeat(236)));
    }

    #[test]
    fn hashing_never_splits_a_character() {
        let name = hashed("m", &"é".repeat(200), &[]);
        assert!(name.len() <= NAME_LEN_MAX);
    }

    #[test]
    fn labels_and_names() {
        assert!(
            is_dns1035_label("a-1")
                && !is_dns1035_label("1a")
                && !is_dns1035_label("a-")
                && !is_dns1035_label("")
        );
        assert!(is_dns1123_label("1a") && !is_dns1123_label(&"a".repeat(64)));
        assert_eq!(resource_name_error("a.b-c"), None);
        assert!(resource_name_error("A").is_some() && resource_name_error("a..b").is_some());
        assert!(label_key_errors("kuma.io/zone").is_empty() && !label_key_errors("a/b/c").is_empty());
        assert!(label_value_errors("").is_empty() && !label_value_errors("-a").is_empty());
    }
}
