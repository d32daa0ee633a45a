//! `grat backup` and `grat restore`: everything that a control plane stores, as one file.

use std::fs::{self, File, OpenOptions};
use std::io::IsTerminal as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use reqwest::Response;
use serde_json::Value;

use crate::session::{Session, counted, usage};
use crate::table::Table;

/// Bytes of the checksum at the end of a file.
const HASH_LEN: usize = blake3::OUT_LEN;

#[derive(Debug, Args)]
pub(crate) struct BackupArguments {
    /// File; `-` is standard output. [default: graticule-global-REVISION.backup, or with the zone's name]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    /// File that `grat backup` wrote.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replaces a store that is newer than the backup, or that the backup is not of.
    #[arg(long)]
    force: bool,
    /// Shows what would change and changes nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Writes a backup. A file appears under its name once it is complete.
pub(crate) async fn backup(session: &Session, arguments: &BackupArguments) -> Result<()> {
    let to_screen = arguments.output.as_deref() == Some(Path::new("-"));
    if to_screen && std::io::stdout().is_terminal() {
        return Err(usage("a backup is no text: redirect standard output, or name a file with --output"));
    }
    let client = session.checked_client().await?;
    let response = client.download("/_backup").await?;
    let header =
        |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (Some(revision), Some(origin)) = (header("graticule-revision"), header("graticule-origin")) else {
        bail!("{} answered no backup: is it a control plane of Graticule?", client.address());
    };
    let plain: usize = header("graticule-plain-secrets").and_then(|count| count.parse().ok()).unwrap_or(0);
    if to_screen {
        receive(session, response, &mut std::io::stdout().lock()).await?;
    } else {
        let default = || PathBuf::from(format!("graticule-{}-{revision}.backup", file_name_of(&origin)));
        let file = arguments.output.clone().unwrap_or_else(default);
        let len = save(session, response, &file).await?;
        session.screen.note(&format!("{}: revision {revision} of {origin}, {len} bytes", file.display()));
    }
    if plain > 0 {
        session.screen.warn(&format!(
            "the file holds {} as plain text, keys and tokens among them: keep it as safe as the control plane itself. With store.encryption.keyFile they are encrypted",
            counted(plain, "secret")
        ));
    }
    Ok(())
}

/// What comes from outside is no path.
fn file_name_of(origin: &str) -> String {
    origin.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect()
}

/// Under another name first, readable by nobody else.
async fn save(session: &Session, response: Response, file: &Path) -> Result<u64> {
    let mut name =
        file.file_name().with_context(|| format!("--output {} is no file", file.display()))?.to_owned();
    name.push(".part");
    let part = file.with_file_name(name);
    let what = || part.display().to_string();
    // One of an earlier run may have other permissions.
    let _absent = fs::remove_file(&part);
    let mut out =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).with_context(what)?;
    let written = async {
        let len = receive(session, response, &mut out).await?;
        out.sync_all().with_context(what)?;
        fs::rename(&part, file).with_context(|| file.display().to_string())?;
        Ok(len)
    };
    let written = written.await;
    if written.is_err() {
        let _nothing_left = fs::remove_file(&part);
    }
    written
}

/// Writes an answer out while it arrives; its end must be the checksum of the rest.
async fn receive(session: &Session, mut response: Response, out: &mut impl std::io::Write) -> Result<u64> {
    let (mut hasher, mut tail, mut len) = (blake3::Hasher::new(), Vec::new(), 0_u64);
    while let Some(piece) =
        session.in_time(response.chunk()).await?.context("the backup broke off; try again")?
    {
        out.write_all(&piece)?;
        len += piece.len() as u64;
        tail.extend_from_slice(&piece);
        let sure = tail.len().saturating_sub(HASH_LEN);
        hasher.update(&tail[..sure]);
        tail.drain(..sure);
    }
    out.flush()?;
    ensure!(tail == hasher.finalize().as_bytes(), "the backup did not arrive whole; try again");
    Ok(len)
}

/// Restores a backup, or shows what that would change.
pub(crate) async fn restore(session: &Session, arguments: &RestoreArguments) -> Result<()> {
    let what = || arguments.file.display().to_string();
    let file = File::open(&arguments.file).with_context(what)?;
    ensure!(file.metadata().with_context(what)?.is_file(), "{} is no file", arguments.file.display());
    let client = session.checked_client().await?;
    let flags = [("force", arguments.force), ("dryRun", arguments.dry_run)];
    let query: Vec<(String, String)> = flags
        .into_iter()
        .filter(|(_, is_set)| *is_set)
        .map(|(name, _)| (name.to_owned(), "true".to_owned()))
        .collect();
    let answer =
        client.upload("/_restore", &query, tokio::fs::File::from_std(file)).await.with_context(what)?;
    session.screen.print(&text(&answer))
}

/// What a restore changed, or would.
fn text(answer: &Value) -> String {
    let number = |value: &Value, name: &str| value[name].as_u64().unwrap_or_default();
    let mut table = Table::new(&["KIND", "CREATED", "UPDATED", "DELETED", "UNCHANGED"]);
    for kind in answer["kinds"].as_array().into_iter().flatten() {
        let count = |name| number(kind, name).to_string();
        table.row(vec![
            kind["kind"].as_str().unwrap_or_default().to_owned(),
            count("created"),
            count("updated"),
            count("deleted"),
            count("unchanged"),
        ]);
    }
    let is_dry = answer["dryRun"].as_bool().unwrap_or_default();
    let changes = usize::try_from(number(answer, "changes")).unwrap_or(usize::MAX);
    let (backup, revision) = (&answer["backup"], number(answer, "revision"));
    let of = format!(
        "the backup of revision {} of {}",
        number(backup, "revision"),
        backup["created"].as_str().unwrap_or_default()
    );
    let mut out = table.render();
    out.push_str(&match (is_dry, changes) {
        (_, 0) => format!("The store holds what {of} holds; nothing to do.\n"),
        (true, _) => format!("{} would change to {of}; nothing was changed.\n", counted(changes, "resource")),
        (false, _) => {
            format!(
                "{} changed to {of}; the store is at revision {revision}.\n",
                counted(changes, "resource")
            )
        }
    });
    if let (true, Some(reason)) = (is_dry, answer["needsForce"].as_str()) {
        out.push_str(&format!("It needs --force: {reason}.\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn what_changed() {
        let backup = json!({"revision": 41, "created": "2026-01-02T03:04:05Z"});
        let kinds = json!([{"kind": "Mesh", "created": 1, "updated": 0, "deleted": 2, "unchanged": 3}]);
        let answer = |dry: bool, changes: u64, force: Value| {
            text(&json!({
                "dryRun": dry, "changes": changes, "kinds": kinds, "backup": backup, "revision": 42, "needsForce": force,
            }))
        };
        expect![[r#"
            KIND   CREATED   UPDATED   DELETED   UNCHANGED
            Mesh   1         0         2         3
            3 resources would change to the backup of revision 41 of 2026-01-02T03:04:05Z; nothing was changed.
            It needs --force: the store is newer.
        "#]]
        .assert_eq(&answer(true, 3, json!("the store is newer")));
        assert!(answer(false, 3, Value::Null).ends_with("the store is at revision 42.\n"));
        assert!(answer(false, 0, Value::Null).ends_with("nothing to do.\n"));
    }

    #[test]
    fn names_of_files() {
        assert_eq!(file_name_of("zone-east"), "zone-east");
        assert_eq!(file_name_of("zone-../../etc/x y"), "zone-....etcxy");
    }
}
