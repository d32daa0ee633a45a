//! Encryption of secrets at rest: [`Sealer`] turns the spec of a secret into bytes that only the keys of a file open.
//!
//! AES-256-GCM. What is authenticated beside the value is the resource's kind, mesh and name, so that a sealed value
//! under another name does not open. The nonce is made from the value with a second key (as in SIV): it needs no
//! randomness, every replica writes the same bytes, and it repeats only for the same value of the same resource.
//!
//! A key file is text: one key per line, `ID BASE64` (32 bytes). The first key seals, every key opens. Empty lines and
//! lines that begin with `#` count for nothing.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use graticule_model::{Key, Kind};

/// Bytes of a key.
pub const KEY_LEN: usize = 32;
/// Keys in one file.
pub const KEYS_MAX: usize = 16;
/// Characters in the id of a key.
pub const KEY_ID_LEN_MAX: usize = 64;

/// What the first key is expanded with: one key for values, one for nonces.
const FOR_VALUES: &[u8] = b"graticule secrets at rest: values";
const FOR_NONCES: &[u8] = b"graticule secrets at rest: nonces";
/// Begins what is authenticated; another form gets another number.
const FORM: &[u8] = b"graticule sealed spec 1";

/// Whether the spec of a kind is secret.
pub fn is_secret(kind: Kind) -> bool {
    kind.descriptor().capabilities.admin_only
}

/// Seals and opens secrets.
#[derive(Default)]
pub struct Sealer {
    /// The first seals.
    keys: Vec<SealKey>,
}

struct SealKey {
    id: String,
    values: LessSafeKey,
    nonces: hmac::Key,
}

/// A sealed value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Id of the key.
    pub key_id: String,
    /// Nonce, then the encrypted value with its tag.
    pub bytes: Vec<u8>,
}

/// Why a key file cannot be used. Never holds anything of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// A line is not of the form `ID BASE64`.
    #[error("line {line}: {reason}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// Two keys have one id.
    #[error("line {line}: a key with the id {id:?} is there already")]
    Repeated {
        /// The second line.
        line: usize,
        /// The id.
        id: String,
    },
    /// There is no key.
    #[error("there is no key in it; `grat generate encryption-key` makes one")]
    Empty,
    /// There are too many.
    #[error("there are more than {KEYS_MAX} keys in it")]
    TooMany,
}

/// Why a sealed value does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    /// Its key is not there.
    #[error(
        "it is encrypted with the key {0:?}, which is not in the file that store.encryption.keyFile names"
    )]
    NoKey(String),
    /// No key at all is there.
    #[error("it is encrypted with the key {0:?}, and store.encryption.keyFile is not set")]
    NoKeys(String),
    /// The key does not fit, or the value is not what was sealed.
    #[error(
        "the key {0:?} does not open it: the key file has another key under this id, or the value was altered or belongs to another resource"
    )]
    Refused(String),
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}

impl Sealer {
    /// Without a key: seals nothing and opens nothing. The default.
    pub const NONE: Sealer = Sealer { keys: Vec::new() };

    /// The keys of a file.
    ///
    /// # Errors
    /// The file is not of the form that the module describes.
    pub fn parse(text: &str) -> Result<Sealer, KeyFileError> {
        let mut keys: Vec<SealKey> = Vec::new();
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |reason| KeyFileError::Line { line: number, reason };
            let (id, key) = line
                .split_once(char::is_whitespace)
                .ok_or_else(|| wrong("write the key's id, a space and the key"))?;
            if !is_id(id) {
                return Err(wrong("the id has up to 64 letters, digits, '-', '_' and '.'"));
            }
            let bytes = STANDARD.decode(key.trim()).map_err(|_| wrong("the key is no base64"))?;
            let bytes: [u8; KEY_LEN] = bytes.try_into().map_err(|_| wrong("the key has not 32 bytes"))?;
            if keys.iter().any(|known| known.id == id) {
                return Err(KeyFileError::Repeated { line: number, id: id.into() });
            }
            if keys.len() == KEYS_MAX {
                return Err(KeyFileError::TooMany);
            }
            keys.push(SealKey::new(id, &bytes));
        }
        if keys.is_empty() {
            return Err(KeyFileError::Empty);
        }
        Ok(Sealer { keys })
    }

    /// Id of the key that seals; none: nothing is sealed.
    pub fn key_id(&self) -> Option<&str> {
        self.keys.first().map(|key| key.id.as_str())
    }

    /// Seals the spec of a secret; none when there is no key, or when the kind is no secret.
    pub fn seal(&self, of: &Key, spec: &[u8]) -> Option<Sealed> {
        let key = self.keys.first().filter(|_| is_secret(of.kind))?;
        let bound = bound_to(of);
        let nonce = key.nonce(&bound, spec);
        let mut bytes = Vec::with_capacity(NONCE_LEN + spec.len() + AES_256_GCM.tag_len());
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(spec);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key.values.seal_in_place_separate_tag(nonce, Aad::from(&bound), &mut bytes[NONCE_LEN..]);
        bytes.extend_from_slice(tag.expect("a value has fewer than 64 GiB").as_ref());
        Some(Sealed { key_id: key.id.clone(), bytes })
    }

    /// Opens a sealed spec.
    ///
    /// # Errors
    /// The key is not there, or it does not open the value.
    pub fn open(&self, of: &Key, key_id: &str, sealed: &[u8]) -> Result<Vec<u8>, UnsealError> {
        if self.keys.is_empty() {
            return Err(UnsealError::NoKeys(key_id.into()));
        }
        let Some(key) = self.keys.iter().find(|key| key.id == key_id) else {
            return Err(UnsealError::NoKey(key_id.into()));
        };
        let refused = || UnsealError::Refused(key_id.into());
        let (nonce, value) = sealed.split_at_checked(NONCE_LEN).ok_or_else(refused)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| refused())?;
        let mut value = value.to_vec();
        let len = key
            .values
            .open_in_place(nonce, Aad::from(bound_to(of)), &mut value)
            .map_err(|_| refused())?
            .len();
        value.truncate(len);
        Ok(value)
    }

    /// Whether a stored spec should be written again: there is a key, and another one (or none) sealed it.
    pub fn is_outdated(&self, kind: Kind, key_id: Option<&str>) -> bool {
        is_secret(kind) && self.key_id().is_some_and(|current| key_id != Some(current))
    }
}

impl SealKey {
    fn new(id: &str, key: &[u8; KEY_LEN]) -> SealKey {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let values = UnboundKey::new(&AES_256_GCM, hmac::sign(&key, FOR_VALUES).as_ref());
        let nonces = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, FOR_NONCES).as_ref());
        let values = LessSafeKey::new(values.expect("HMAC-SHA256 gives the 32 bytes that AES-256 takes"));
        SealKey { id: id.into(), values, nonces }
    }

    fn nonce(&self, bound: &[u8], spec: &[u8]) -> [u8; NONCE_LEN] {
        let mut all = hmac::Context::with_key(&self.nonces);
        all.update(&(bound.len() as u64).to_le_bytes());
        all.update(bound);
        all.update(spec);
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&all.sign().as_ref()[..NONCE_LEN]);
        nonce
    }
}

fn is_id(id: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    id.len() <= KEY_ID_LEN_MAX && id.bytes().all(fits)
}

/// What a sealed value belongs to; parts with their lengths, so that no two resources look the same.
fn bound_to(key: &Key) -> Vec<u8> {
    let mut bound = FORM.to_vec();
    for part in [key.kind.name(), &key.mesh, &key.name] {
        bound.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bound.extend_from_slice(part.as_bytes());
    }
    bound
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str, byte: u8) -> String {
        format!("{id} {}\n", STANDARD.encode([byte; KEY_LEN]))
    }

    fn sealer(keys: &[(&str, u8)]) -> Sealer {
        Sealer::parse(&keys.iter().map(|(id, byte)| line(id, *byte)).collect::<String>()).expect("a key file")
    }

    fn secret(name: &str) -> Key {
        Key::new(Kind::Secret, "default", name)
    }

    #[test]
    fn what_is_sealed_opens_again_and_for_its_resource_only() {
        let (old, new) = (sealer(&[("a", 1)]), sealer(&[("b", 2), ("a", 1)]));
        let spec = br#"{"data":"cGFzc3dvcmQ="}"#;
        let sealed = old.seal(&secret("s"), spec).expect("a secret");
        assert!(!sealed.bytes.windows(8).any(|part| spec.windows(8).any(|plain| plain == part)));
        for keys in [&old, &new] {
            assert_eq!(keys.open(&secret("s"), &sealed.key_id, &sealed.bytes).as_deref(), Ok(&spec[..]));
        }
        assert_eq!(new.seal(&secret("s"), spec).map(|sealed| sealed.key_id).as_deref(), Some("b"));
        let refused = Err(UnsealError::Refused("a".into()));
        for other in [
            secret("t"),
            Key::new(Kind::Secret, "other", "s"),
            Key::new(Kind::GlobalSecret, "", "s"),
            // The same characters, cut elsewhere.
            Key::new(Kind::Secret, "defaults", ""),
        ] {
            assert_eq!(old.open(&other, "a", &sealed.bytes), refused, "{other}");
        }
        for at in 0..sealed.bytes.len() {
            let mut damaged = sealed.bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(old.open(&secret("s"), "a", &damaged), refused, "byte {at}");
            assert_eq!(old.open(&secret("s"), "a", &sealed.bytes[..at]), refused, "cut at {at}");
        }
        assert_eq!(sealer(&[("a", 3)]).open(&secret("s"), "a", &sealed.bytes), refused, "another key");
        assert_eq!(
            sealer(&[("b", 1)]).open(&secret("s"), "a", &sealed.bytes),
            Err(UnsealError::NoKey("a".into()))
        );
        assert_eq!(
            Sealer::default().open(&secret("s"), "a", &sealed.bytes),
            Err(UnsealError::NoKeys("a".into()))
        );
    }

    #[test]
    fn equal_values_of_different_resources_look_different() {
        let keys = sealer(&[("a", 1)]);
        let one = keys.seal(&secret("s"), b"value").expect("sealed");
        assert_eq!(keys.seal(&secret("s"), b"value"), Some(one.clone()), "every replica writes the same");
        for other in [keys.seal(&secret("t"), b"value"), keys.seal(&secret("s"), b"Value")] {
            assert_ne!(other.expect("sealed").bytes[..NONCE_LEN], one.bytes[..NONCE_LEN]);
        }
    }

    #[test]
    fn only_secrets_are_sealed_and_only_with_a_key() {
        let keys = sealer(&[("a", 1)]);
        let mut sealed: Vec<&str> = Kind::all()
            .filter(|kind| keys.seal(&Key::new(*kind, "m", "n"), b"{}").is_some())
            .map(|kind| kind.name())
            .collect();
        sealed.sort_unstable();
        assert_eq!(sealed, ["GlobalSecret", "Secret"]);
        assert_eq!(Sealer::default().seal(&secret("s"), b"{}"), None);
        for (kind, key_id, want) in [
            (Kind::Secret, None, true),
            (Kind::Secret, Some("old"), true),
            (Kind::Secret, Some("a"), false),
            (Kind::Mesh, None, false),
        ] {
            assert_eq!(keys.is_outdated(kind, key_id), want, "{kind} {key_id:?}");
        }
        assert!(!Sealer::default().is_outdated(Kind::Secret, None));
    }

    #[test]
    fn key_files() {
        let text = format!("# two keys\n\n{}  {}", line("2026-11", 1), line("old_key.1", 2));
        let keys = Sealer::parse(&text).expect("good");
        assert_eq!(
            (keys.key_id(), format!("{keys:?}").as_str()),
            (Some("2026-11"), r#"["2026-11", "old_key.1"]"#)
        );
        let many: String = (0..=KEYS_MAX).map(|n| line(&format!("k{n}"), 1)).collect();
        for (text, want) in [
            (String::new(), "there is no key in it; `grat generate encryption-key` makes one"),
            ("# nothing".into(), "there is no key in it; `grat generate encryption-key` makes one"),
            ("justone".into(), "line 1: write the key's id, a space and the key"),
            ("a b".into(), "line 1: the key is no base64"),
            (format!("\na {}", STANDARD.encode([1; 31])), "line 2: the key has not 32 bytes"),
            (line("a/b", 1), "line 1: the id has up to 64 letters, digits, '-', '_' and '.'"),
            (line(&"x".repeat(65), 1), "line 1: the id has up to 64 letters, digits, '-', '_' and '.'"),
            (line("a", 1) + &line("a", 2), "line 2: a key with the id \"a\" is there already"),
            (many, "there are more than 16 keys in it"),
        ] {
            assert_eq!(Sealer::parse(&text).map(|_| ()).map_err(|error| error.to_string()), Err(want.into()));
        }
    }
}
