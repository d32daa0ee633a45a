//! The data plane server: delta ADS, SDS, HDS and the bootstrap endpoint.
