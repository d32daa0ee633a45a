//! `grat`, the command line client of the control planes: a thin client of the REST API.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people at a terminal")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

mod apply;
mod client;
mod get;
mod settings;
mod token;

use client::Client;

#[derive(Parser)]
#[command(name = "grat", version, about = "Client of Graticule's control planes")]
struct Arguments {
    /// URL of a control plane's REST API.
    #[arg(long, global = true, env = "GRATICULE_ADDRESS", default_value = "http://localhost:5681")]
    address: String,
    /// PEM file with the authority of an https address.
    #[arg(long, global = true, env = "GRATICULE_CA_CERT_FILE")]
    ca_cert_file: Option<PathBuf>,
    /// User token.
    #[arg(long, global = true, env = "GRATICULE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Creates or updates the resources of files.
    Apply(apply::Arguments),
    /// Shows resources: `grat get meshtimeouts`, `grat get meshtimeout NAME`.
    Get(get::Arguments),
    /// Deletes a resource: `grat delete meshtimeout NAME`.
    Delete(DeleteArguments),
    /// Lists the flags that all commands have, with their variables.
    Settings(graticule_settings::List),
    /// Makes tokens.
    #[command(subcommand)]
    Generate(token::Command),
}

#[derive(Args)]
struct DeleteArguments {
    /// Kind, singular or plural.
    kind: String,
    /// Name.
    name: String,
    /// Mesh.
    #[arg(short, long, default_value = "default")]
    mesh: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    if let Command::Settings(list) = &arguments.command {
        print!("{}", settings::to_text::<Arguments>(list.output)?);
        return Ok(());
    }
    let client = Client::new(&arguments.address, arguments.ca_cert_file.as_deref(), arguments.token)?;
    match arguments.command {
        Command::Apply(arguments) => apply::run(&client, &arguments).await,
        Command::Get(arguments) => get::run(&client, &arguments).await,
        Command::Delete(DeleteArguments { kind, name, mesh }) => {
            let kind = get::kind_argument(&kind)?;
            client.delete(&client::resource_path(kind, &mesh, &name)).await?;
            println!("{} {name} deleted", kind.name());
            Ok(())
        }
        Command::Generate(command) => token::run(&client, command).await,
        Command::Settings(_) => Ok(()),
    }
}
