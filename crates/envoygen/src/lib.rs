//! ProxyInputs to named Envoy resources, and the bootstrap; nothing else knows Envoy's configuration messages.
