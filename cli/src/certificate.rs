//! `grat generate tls-certificate`.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use graticule_identity::self_signed::{self, KeyType, Usage};

use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Who shows it.
    #[arg(long, value_enum)]
    r#type: Side,
    /// DNS name or address of the server; repeatable, or separated by commas.
    #[arg(long, value_delimiter = ',', required_if_eq("type", "server"))]
    hostname: Vec<String>,
    /// Where the key goes; `-` is standard output.
    #[arg(long, default_value = "key.pem", value_name = "FILE")]
    key_file: PathBuf,
    /// Where the certificate goes; `-` is standard output.
    #[arg(long, default_value = "cert.pem", value_name = "FILE")]
    cert_file: PathBuf,
    /// Key.
    #[arg(long, value_enum, default_value = "ecdsa")]
    key_type: Algorithm,
}

/// Sides of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Side {
    Server,
    Client,
}

/// Algorithms of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Algorithm {
    /// 2048 bits.
    Rsa,
    /// P-256.
    Ecdsa,
}

/// Writes certificate and key.
pub(crate) fn run(session: &Session, arguments: &Arguments) -> Result<()> {
    let usage = match arguments.r#type {
        Side::Server => Usage::Server,
        Side::Client => Usage::Client,
    };
    let key_type = match arguments.key_type {
        Algorithm::Rsa => KeyType::Rsa2048,
        Algorithm::Ecdsa => KeyType::P256,
    };
    let made = self_signed::generate(usage, &arguments.hostname, key_type, session.now, rand::random())
        .context("the certificate cannot be made")?;
    save(session, &arguments.key_file, &made.key_pem, "Private key", 0o600)?;
    save(session, &arguments.cert_file, &made.cert_pem, "Certificate", 0o644)
}

fn save(session: &Session, path: &Path, pem: &str, what: &str, mode: u32) -> Result<()> {
    if path.as_os_str() == "-" {
        return session.screen.print(pem);
    }
    std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(pem.as_bytes()))
        .with_context(|| path.display().to_string())?;
    session.screen.line(&format!("{what} saved in {}", path.display()))
}
