//! Test harness: real processes, free ports, real Envoys, waiting on conditions.
