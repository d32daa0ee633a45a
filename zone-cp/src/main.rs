//! The zone control plane.

fn main() {}
