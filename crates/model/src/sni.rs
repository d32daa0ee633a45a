//! SNI of a destination port, the routing key between zones (xds.md §2.4).

use crate::{Kri, name};

/// Why a destination port cannot be encoded as an SNI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SniError {
    /// Some part is not an RFC 1123 label.
    #[error("segment \"{0}\" is not an RFC 1123 label")]
    Segment(String),
    /// Longer than 253 characters.
    #[error("SNI is longer than 253 characters")]
    TooLong,
}

/// The SNI of a destination; `destination.section` is the port's name (or decimal number when unnamed).
pub fn sni(destination: &Kri) -> Result<String, SniError> {
    let mut parts = vec!["sni", destination.kind.descriptor().short_name, &destination.mesh];
    if !destination.zone.is_empty() {
        parts.push(&destination.zone);
        if !destination.namespace.is_empty() {
            parts.push(&destination.namespace);
        }
    }
    parts.push(&destination.name);
    parts.push(&destination.section);
    if let Some(bad) = parts.iter().find(|part| !name::is_dns1123_label(part)) {
        return Err(SniError::Segment((*bad).into()));
    }
    let sni = parts.join(".");
    if sni.len() > name::NAME_LEN_MAX { Err(SniError::TooLong) } else { Ok(sni) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (kri, want) in [
            ("kri_msvc_prod_east_shop_cart_http", "sni.msvc.prod.east.shop.cart.http"),
            ("kri_msvc_prod_east__cart_http", "sni.msvc.prod.east.cart.http"),
            ("kri_mzsvc_prod___cart_8080", "sni.mzsvc.prod.cart.8080"),
            ("kri_extsvc_prod_east__stripe_443", "sni.extsvc.prod.east.stripe.443"),
        ] {
            assert_eq!(sni(&Kri::parse(kri).expect(kri)).expect(kri), want);
        }
        let bad = Kri::parse("kri_msvc_prod_east__a.b_http").expect("parses");
        assert_eq!(sni(&bad), Err(SniError::Segment("a.b".into())));
    }
}
