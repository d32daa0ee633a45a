//! Wire types: KDS, the data plane server and our own RPCs; re-exports the Envoy API types.
