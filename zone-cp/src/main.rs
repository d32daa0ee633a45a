//! The zone control plane.

mod app;
mod envoys;
mod inspect;
mod settings;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    graticule_control_plane::command::main(&settings::program(), app::run)
}
