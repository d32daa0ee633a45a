//! Plain log lines on standard error or in a file.

use std::fs::OpenOptions;

use tracing::level_filters::LevelFilter;

use crate::cli::{LogArgs, LogLevel};

/// Why logs cannot be written as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("--log-output-path {path}: cannot be opened")]
    Open {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{0} is not available: let logrotate (copytruncate) or the service manager rotate logs")]
    Rotation(&'static str),
}

/// Sets up logging for the whole process.
pub(crate) fn init(args: &LogArgs) -> Result<(), Error> {
    let rotation = [
        (args.max_size.is_some(), "--log-max-size"),
        (args.max_retained_files.is_some(), "--log-max-retained-files"),
        (args.max_age.is_some(), "--log-max-age"),
    ];
    if let Some((_, flag)) = rotation.into_iter().find(|(given, _)| *given) {
        return Err(Error::Rotation(flag));
    }
    let level = match args.level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let builder = tracing_subscriber::fmt().with_max_level(level).with_target(false);
    match &args.output_path {
        None => builder.with_writer(std::io::stderr).with_ansi(false).init(),
        Some(path) => {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map_err(|source| Error::Open { path: path.display().to_string(), source })?;
            builder.with_writer(file).with_ansi(false).init();
        }
    }
    Ok(())
}
