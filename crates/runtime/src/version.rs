//! What this build calls itself.

/// Name of the product.
pub const PRODUCT: &str = "Graticule";

/// Version of the product, semantic versioning.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Version of Kuma whose interfaces this build speaks.
pub const KUMA_COMPATIBLE: &str = "3.0.0";

/// One line for `--version` and the first log line.
pub fn banner(program: &str) -> String {
    format!("{program} {VERSION} ({PRODUCT}, speaks Kuma {KUMA_COMPATIBLE})")
}
