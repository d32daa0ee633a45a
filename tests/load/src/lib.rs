//! Measurements of running control planes; `cargo xtask load` runs them. Development only.

pub mod api;
mod connection;
mod figures;
pub mod store;
pub mod zones;

pub use figures::Figures;
