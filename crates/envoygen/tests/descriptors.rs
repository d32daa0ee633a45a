//! The checked-in descriptors are those of the `envoy-types` package in use.
//!
//! `UPDATE_DESCRIPTORS=1 cargo test -p graticule-envoygen --test descriptors` writes them anew.

use std::path::Path;

#[path = "../../../xtask/src/codegen.rs"]
mod codegen;

#[test]
fn descriptors_are_fresh() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let file = workspace.join(codegen::DESCRIPTORS);
    let fresh = codegen::descriptors(&workspace).expect("compiled");
    if std::env::var_os("UPDATE_DESCRIPTORS").is_some() {
        std::fs::write(&file, &fresh).expect("written");
    }
    let known = std::fs::read(&file).expect("checked in");
    assert!(
        known == fresh,
        "{} is stale: {} bytes, should be {}",
        codegen::DESCRIPTORS,
        known.len(),
        fresh.len()
    );
}
