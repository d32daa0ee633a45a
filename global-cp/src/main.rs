//! The global control plane.

fn main() {}
