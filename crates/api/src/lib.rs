//! The REST API: resources, errors, authentication, tokens.
