//! Stands in for `protoc` where a build script of a dependency calls it, so that building needs nothing that cargo
//! does not fetch. It understands the arguments that such build scripts pass, and no others.

use std::ffi::OsString;
use std::path::PathBuf;

/// What one call asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Directories in which imports are looked up.
    pub includes: Vec<PathBuf>,
    /// Where the descriptor set goes.
    pub output: PathBuf,
    /// What is compiled.
    pub files: Vec<PathBuf>,
    /// Whether the set holds what the files import.
    pub with_imports: bool,
    /// Whether the set holds comments.
    pub with_source_info: bool,
}

/// Whether a command line is a call of `protoc` by a build script: these begin so.
pub fn is_call(arguments: &[OsString]) -> bool {
    arguments.first().is_some_and(|first| first == "--include_imports")
}

impl Call {
    /// Reads a command line, without the name of the program.
    ///
    /// # Errors
    /// An argument is not known, or a value is missing.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Call, String> {
        let mut call = Call::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value =
                || arguments.next().ok_or_else(|| format!("{} needs a value", argument.display()));
            match argument.to_str() {
                Some("--include_imports") => call.with_imports = true,
                Some("--include_source_info") => call.with_source_info = true,
                // proto3 has them since long.
                Some("--experimental_allow_proto3_optional") => {}
                Some("-o") => call.output = value()?.into(),
                Some("-I") => call.includes.push(value()?.into()),
                Some(text) if text.starts_with('-') => {
                    return Err(format!("{text} is not understood; set PROTOC to a real protoc"));
                }
                _ => call.files.push(argument.into()),
            }
        }
        if call.files.is_empty() || call.output.as_os_str().is_empty() {
            return Err(
                "usage: --include_imports [--include_source_info] -o FILE [-I DIR]... PROTO...".into()
            );
        }
        Ok(call)
    }

    /// Compiles, and writes the descriptor set.
    ///
    /// # Errors
    /// A definition is wrong, or a file cannot be read or written.
    pub fn run(&self) -> Result<(), String> {
        let mut compiler = protox::Compiler::new(&self.includes).map_err(|error| error.to_string())?;
        compiler.include_imports(self.with_imports).include_source_info(self.with_source_info);
        for file in &self.files {
            compiler.open_file(file).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        std::fs::write(&self.output, compiler.encode_file_descriptor_set())
            .map_err(|error| format!("{}: {error}", self.output.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Call, String> {
        Call::parse(text.split(' ').map(OsString::from))
    }

    #[test]
    fn understands_what_build_scripts_pass() {
        let call = parse("--include_imports --include_source_info -o out -I a -I b x.proto y.proto");
        let wanted = Call {
            includes: vec!["a".into(), "b".into()],
            output: "out".into(),
            files: vec!["x.proto".into(), "y.proto".into()],
            with_imports: true,
            with_source_info: true,
        };
        assert_eq!(call, Ok(wanted));
    }

    #[test]
    fn refuses_the_rest() {
        for text in ["--include_imports -o", "--include_imports x.proto", "--version", "-o out"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn compiles() {
        let dir = std::env::temp_dir().join(format!("graticule-protoc-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let file = dir.join("x.proto");
        std::fs::write(&file, "syntax = \"proto3\"; package x; message M { optional string a = 1; }")
            .expect("written");
        let output = dir.join("set");
        let call = Call {
            includes: vec![dir.clone()],
            output: output.clone(),
            files: vec![file],
            ..Call::default()
        };
        assert_eq!(call.run(), Ok(()));
        let set = std::fs::read(&output).expect("written");
        assert!(set.windows(7).any(|window| window == b"x.proto"), "the set names its file");
        let broken = dir.join("broken.proto");
        std::fs::write(&broken, "message {").expect("written");
        let call = Call { files: vec![broken], ..call };
        assert!(call.run().is_err_and(|error| error.contains("broken.proto")));
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
