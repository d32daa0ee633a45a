//! `grat`, the command line client of the control planes: a thin client of the REST API (rest-api.md appendix A).
//!
//! Commands read and check everything that they are given before the first call. Rendering, selection, diffs and
//! order are functions of values; calls and output are at the edge. Exit codes: [`failure`].

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};

mod age;
mod apply;
mod backup;
mod certificate;
mod client;
mod cluster;
mod config;
mod contexts;
mod delete;
mod describe;
mod diff;
mod documents;
mod export;
mod failure;
mod generate;
mod get;
mod inspect;
mod kinds;
mod output;
mod overview;
mod prune;
mod revoke;
mod screen;
mod selector;
mod session;
mod settings;
mod table;
mod tls;
mod version;
mod views;
mod watch;
mod zone;

use screen::Screen;
use session::Session;

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 an error, 2 the command line is wrong, 3 differences were found (--exit-code).
Colours are left out when the output is no terminal, or NO_COLOR is set.";

#[derive(Debug, Parser)]
#[command(name = "grat", version, about = "Client of Graticule's control planes", after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    options: session::Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Creates and updates the resources of files; shows what would change; prunes.
    Apply(apply::Arguments),
    /// Shows resources: `grat get meshtimeouts`, `grat get meshtimeout NAME`.
    Get(get::Arguments),
    /// Shows everything that is known about one resource.
    Describe(describe::Arguments),
    /// Deletes resources: `grat delete meshtimeout NAME`.
    Delete(delete::Arguments),
    /// Shows what control planes observe: proxies, zones, whom a policy affects.
    Inspect(inspect::Arguments),
    /// Lists the flags that all commands have, with their variables.
    Settings(graticule_settings::List),
    /// Makes tokens, keys and certificates.
    #[command(subcommand)]
    Generate(generate::Command),
    /// Revokes tokens.
    #[command(subcommand)]
    Revoke(revoke::Command),
    /// The replicas of a control plane on the embedded store.
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// The connections between global and zones.
    #[command(subcommand)]
    Zone(zone::Command),
    /// Writes resources out, for another control plane.
    Export(export::Arguments),
    /// Applies what `grat export` wrote.
    Import(export::ImportArguments),
    /// Writes everything that a control plane stores into one file.
    Backup(backup::BackupArguments),
    /// Replaces everything that a control plane stores by what a backup holds.
    Restore(backup::RestoreArguments),
    #[command(flatten)]
    Views(views::Command),
    /// The control planes that you work with.
    #[command(subcommand)]
    Config(config::Command),
    /// Versions of grat and of the control plane.
    Version(version::Arguments),
    /// Completion for a shell: `source <(grat completion bash)`.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Arguments { command, options } = Arguments::parse();
    let session = Session { screen: Screen::of_process(), options, now: jiff::Timestamp::now() };
    match run(&session, command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => end(&session, &error),
    }
}

fn end(session: &Session, error: &anyhow::Error) -> ExitCode {
    if failure::is_closed_pipe(error) {
        return ExitCode::SUCCESS;
    }
    if error.is::<failure::Different>() {
        return ExitCode::from(failure::DIFFERENT);
    }
    if error.is::<session::Usage>() {
        Arguments::command().error(ErrorKind::ValueValidation, error).exit();
    }
    session.screen.note(&format!("{} {error:#}", session.screen.notes.bad("Error:")));
    ExitCode::from(failure::ERROR)
}

async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Apply(arguments) => apply::run(session, &arguments).await,
        Command::Get(arguments) => get::run(session, arguments).await,
        Command::Describe(arguments) => describe::run(session, arguments).await,
        Command::Delete(arguments) => delete::run(session, arguments).await,
        Command::Inspect(arguments) => inspect::run(session, arguments).await,
        Command::Generate(command) => generate::run(session, command).await,
        Command::Revoke(command) => revoke::run(session, command).await,
        Command::Cluster(command) => cluster::run(session, command).await,
        Command::Zone(command) => zone::run(session, command).await,
        Command::Export(arguments) => export::run(session, &arguments).await,
        Command::Import(arguments) => export::import(session, &arguments).await,
        Command::Backup(arguments) => backup::backup(session, &arguments).await,
        Command::Restore(arguments) => backup::restore(session, &arguments).await,
        Command::Views(command) => views::run(session, command).await,
        Command::Config(command) => config::run(session, command).await,
        Command::Settings(list) => session.screen.print(&settings::to_text::<Arguments>(list.output)?),
        Command::Version(arguments) => version::run(session, &arguments).await,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "grat", &mut script);
            session.screen.print(&String::from_utf8_lossy(&script))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn command_lines() {
        for (line, is_good) in [
            ("grat get meshtimeouts", true),
            ("grat get mt t1 -m demo -o wide", true),
            ("grat get nope", false),
            ("grat get meshtimeouts --offset 1", false),
            ("grat get meshtimeouts -A -m x", false),
            ("grat apply", false),
            ("grat apply -f - --dry-run", true),
            ("grat apply -f - --dry-run=server --exit-code", true),
            ("grat apply -f - --prune", false),
            ("grat apply -f - --prune -l team=a", true),
            ("grat apply -f - --exit-code", false),
            ("grat delete meshtimeout", false),
            ("grat delete meshtimeout x -l a=b", false),
            ("grat delete -f x.yaml", true),
            ("grat generate zone-token --valid-for 1h", false),
            ("grat generate user-token --name a --valid-for 30d", true),
            ("grat inspect dataplane web-1 --type config-dump --include-eds", true),
            ("grat inspect secret x", false),
            ("grat backup", true),
            ("grat backup -o -", true),
            ("grat restore", false),
            ("grat restore x --force --dry-run", true),
            ("grat generate encryption-key --id 2026", true),
            ("grat revoke user-token", false),
            ("grat revoke user-token --id x", true),
            ("grat --context g get meshes --address http://x", true),
            ("grat config control-planes add --name g --address http://x --headers a=b", true),
            ("grat generate cluster-token", true),
            ("grat cluster status -o json", true),
            ("grat cluster add", false),
            ("grat cluster remove cp-3", true),
            ("grat cluster transfer --to cp-2", true),
            ("grat cluster recover --yes", true),
            ("grat zone status", true),
            ("grat zone status east -o json", true),
            ("grat zone accept-deletions", false),
            ("grat zone join east", false),
            ("grat zone join east --global https://global:5682 --yes", true),
            ("grat zone accept-deletions east --yes", true),
            ("grat zone rebuild-global", false),
            ("grat zone rebuild-global --from east --from https://west:5682 --prune --yes", true),
            ("grat zone leave east", false),
            ("grat zone leave east --without-global", true),
            ("grat zone leave east --without-global --global x", false),
            ("grat zone leave east --global https://global:5682 --yes", true),
            ("grat generate tls-certificate --type server", false),
        ] {
            let parsed = Arguments::try_parse_from(line.split_whitespace());
            assert_eq!(parsed.is_ok(), is_good, "{line}: {:?}", parsed.err().map(|error| error.to_string()));
        }
    }

    /// The page of the documentation names every command, every option of all commands, and every variable.
    #[test]
    fn the_documentation_is_complete() {
        let page = include_str!("../../docs/cli.md");
        let command = Arguments::command();
        for subcommand in command.get_subcommands() {
            let name = subcommand.get_name();
            let is_named = page.contains(&format!("`grat {name}")) || page.contains(&format!("`{name}`"));
            assert!(is_named, "docs/cli.md says nothing about `grat {name}`");
        }
        for argument in command.get_arguments() {
            let variable = argument.get_env().map(|name| name.to_string_lossy().into_owned());
            let Some(long) = argument.get_long().filter(|long| !["help", "version"].contains(long)) else {
                continue;
            };
            let row =
                format!("| `--{long}` | {}|", variable.map(|name| format!("`{name}` ")).unwrap_or_default());
            assert!(page.contains(&row), "docs/cli.md has no row {row:?}");
        }
    }
}
