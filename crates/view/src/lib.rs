//! In-memory index of one zone: apply a batch, say which proxies are dirty, assemble ProxyInputs.
