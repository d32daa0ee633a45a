//! The public half of an RSA private key in PEM form: just enough DER, nothing cryptographic.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Longest private key that is read.
const PEM_LEN_MAX: usize = 64 * 1024;
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;

/// PKCS#1 PEM of the public key; `None` when the input is no PEM RSA private key (PKCS#1 or PKCS#8).
pub(super) fn of_private_pem(pem: &[u8]) -> Option<String> {
    if pem.len() > PEM_LEN_MAX {
        return None;
    }
    let text = std::str::from_utf8(pem).ok()?;
    let (der, is_pkcs8) = match body(text, "RSA PRIVATE KEY") {
        Some(der) => (der, false),
        None => (body(text, "PRIVATE KEY")?, true),
    };
    let (modulus, exponent) = if is_pkcs8 {
        let (outer, _) = element(&der, SEQUENCE)?;
        let (_version, rest) = element(outer, INTEGER)?;
        let (_algorithm, rest) = element(rest, SEQUENCE)?;
        let (key, _) = element(rest, OCTET_STRING)?;
        rsa_numbers(key)?
    } else {
        rsa_numbers(&der)?
    };
    let mut numbers = encode(INTEGER, modulus);
    numbers.extend(encode(INTEGER, exponent));
    let der = encode(SEQUENCE, &numbers);
    let mut out = String::from("-----BEGIN RSA PUBLIC KEY-----\n");
    let text = STANDARD.encode(der);
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out.push_str("-----END RSA PUBLIC KEY-----\n");
    Some(out)
}

fn body(text: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let compact: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(compact).ok()
}

fn rsa_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (key, _) = element(der, SEQUENCE)?;
    let (_version, rest) = element(key, INTEGER)?;
    let (modulus, rest) = element(rest, INTEGER)?;
    let (exponent, rest) = element(rest, INTEGER)?;
    // A private exponent must follow; otherwise this is no private key.
    element(rest, INTEGER)?;
    (!modulus.is_empty() && !exponent.is_empty()).then_some((modulus, exponent))
}

/// Content of the first element, which must have this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let octets = usize::from(first & 0x7f);
        if octets == 0 || octets > 4 || rest.len() < octets {
            return None;
        }
        let (len, rest) = rest.split_at(octets);
        (len.iter().fold(0, |len, octet| len << 8 | usize::from(*octet)), rest)
    };
    (found == tag && len <= rest.len()).then(|| rest.split_at(len))
}

fn encode(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        len @ 0..0x80 => out.push(len as u8),
        len => {
            let octets: Vec<u8> = len.to_be_bytes().into_iter().skip_while(|octet| *octet == 0).collect();
            out.push(0x80 | octets.len() as u8);
            out.extend(octets);
        }
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_pem(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    }

    #[test]
    fn public_half() {
        let modulus = [vec![0], vec![0xab; 256]].concat();
        let numbers: Vec<u8> = [&[0][..], &modulus, &[1, 0, 1], &[7; 30]]
            .into_iter()
            .flat_map(|number| encode(INTEGER, number))
            .collect();
        let pkcs1 = encode(SEQUENCE, &numbers);
        let pkcs8 = [encode(INTEGER, &[0]), encode(SEQUENCE, &[5, 0]), encode(OCTET_STRING, &pkcs1)].concat();
        let pkcs8 = encode(SEQUENCE, &pkcs8);
        let want = encode(SEQUENCE, &[encode(INTEGER, &modulus), encode(INTEGER, &[1, 0, 1])].concat());
        for pem in [mk_pem("RSA PRIVATE KEY", &pkcs1), mk_pem("PRIVATE KEY", &pkcs8)] {
            let public = of_private_pem(pem.as_bytes()).unwrap();
            assert_eq!(body(&public, "RSA PUBLIC KEY").unwrap(), want);
            assert!(public.lines().all(|line| line.len() <= 64));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let numbers = [encode(INTEGER, &[5]), encode(INTEGER, &[7]), encode(INTEGER, &[3])].concat();
        let public = mk_pem("RSA PRIVATE KEY", &encode(SEQUENCE, &numbers));
        for pem in
            ["", "hello", "-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----", &public]
        {
            assert_eq!(of_private_pem(pem.as_bytes()), None, "{pem}");
        }
        let overlong = mk_pem("RSA PRIVATE KEY", &[SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff, 1]);
        assert_eq!(of_private_pem(overlong.as_bytes()), None);
    }
}
