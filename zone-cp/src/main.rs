//! The zone control plane.

mod app;
mod settings;

use std::process::ExitCode;

use clap::Parser as _;
use graticule_control_plane::command::{Command, CommandLine};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let Command::Run(arguments) = CommandLine::parse().command;
    graticule_control_plane::command::main("zone-cp", &arguments, app::run)
}
