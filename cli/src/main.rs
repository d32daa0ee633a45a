//! grat, the command line client of the control planes.

fn main() {}
