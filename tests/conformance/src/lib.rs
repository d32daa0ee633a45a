//! Runs the public conformance data against our control planes.
