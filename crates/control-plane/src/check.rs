//! What the types of settings do not say, and what can be found out without starting anything: names out of a few,
//! addresses, files. One line for each finding, beginning with the setting.

use std::net::IpAddr;
use std::path::Path;

use graticule_api::{Access, ApiServer};
use graticule_runtime::settings::{Diagnostics, General, StoreSettings};
use graticule_runtime::supervisor::chain;
use graticule_runtime::tls::{self, CertOptions, ServerCert};
use graticule_runtime::{Clock, Random};

use crate::serve::{client_authorities, tls_versions};
use crate::settings::Environment;
use crate::{etcd, keys};

/// What was found, in order.
#[derive(Debug, Default)]
pub struct Findings(Vec<String>);

/// The TLS settings of one server.
#[derive(Debug, Clone, Copy)]
pub struct ServerFiles<'a> {
    /// The section.
    pub setting: &'static str,
    /// Certificate and key.
    pub files: (&'a str, &'a str),
    /// Lowest and highest version.
    pub versions: (&'a str, &'a str),
}

impl Findings {
    /// All lines.
    pub fn into_lines(self) -> Vec<String> {
        self.0
    }

    /// One line.
    pub fn add(&mut self, line: impl Into<String>) {
        self.0.push(line.into());
    }

    /// The outcome of something.
    pub fn outcome<T, E: std::error::Error + 'static>(&mut self, outcome: Result<T, E>) {
        if let Err(error) = outcome {
            self.add(chain(&error));
        }
    }

    /// The value must be one of a few.
    pub fn one_of(&mut self, setting: &str, value: &str, allowed: &[&str]) {
        if !allowed.contains(&value) {
            let allowed: Vec<&str> = allowed.iter().copied().filter(|one| !one.is_empty()).collect();
            self.add(format!(
                "{setting}: {value:?} is not supported by this version; use {}",
                allowed.join(" or ")
            ));
        }
    }

    /// `mode` and `environment`: a configuration for another program is a mistake.
    pub fn site(&mut self, mode: &str, expected: &str, environment: &Environment) {
        if mode != expected {
            self.add(format!("mode: {mode:?} is run by another program; this one is {expected}-cp"));
        }
        self.one_of("environment", &environment.0, &["universal"]);
    }

    /// `store.type`, and what it needs.
    pub fn store(&mut self, store: &StoreSettings) {
        self.one_of("store.type", &store.r#type, &crate::store::TYPES);
        if store.r#type == "etcd"
            && let Err(error) = etcd::check(&store.etcd)
        {
            self.add(error);
        }
    }

    /// An IP address.
    pub fn ip(&mut self, setting: &str, value: &str) {
        if value.parse::<IpAddr>().is_err() {
            self.add(format!("{setting}: {value:?} is not an IP address"));
        }
    }

    /// Certificate files that are named must fit together, and versions must be known.
    pub fn server(&mut self, server: &ServerFiles<'_>, general: &General) {
        let named = match server.files {
            ("", "") => (general.tls_cert_file.as_str(), general.tls_key_file.as_str()),
            own => own,
        };
        if named != ("", "") {
            let options = CertOptions {
                cert_file: named.0,
                key_file: named.1,
                work_dir: Path::new(""),
                hostnames: &[],
            };
            let loaded = ServerCert::load_or_generate(&options, Clock::system().now(), &Random::system());
            if let Err(error) = loaded {
                self.add(format!("certificate of {}: {}", server.setting, chain(&error)));
            }
        }
        for (min, max) in
            [server.versions, (general.tls_min_version.as_str(), general.tls_max_version.as_str())]
        {
            if let Err(error) = tls::check_versions(min, max) {
                self.add(format!("{}: {}", server.setting, chain(&error)));
                return;
            }
        }
        let both = tls_versions(server.versions, general);
        if let Err(error) = tls::check_versions(&both.min_version, &both.max_version) {
            self.add(format!("{} together with general: {}", server.setting, chain(&error)));
        }
    }

    /// What both control planes have.
    pub fn common(&mut self, general: &General, api: &ApiServer, access: &Access, diagnostics: &Diagnostics) {
        self.one_of("apiServer.authn.type", &api.authn.r#type, &["tokens"]);
        self.one_of("access.type", &access.r#type, &["static"]);
        if !api.base_path.starts_with('/') {
            self.add(format!("apiServer.basePath: {:?} does not begin with /", api.base_path));
        }
        if api.http.enabled {
            self.ip("apiServer.http.interface", &api.http.interface);
        }
        if api.https.enabled {
            let https = &api.https;
            self.ip("apiServer.https.interface", &https.interface);
            let server = ServerFiles {
                setting: "apiServer.https",
                files: (&https.tls_cert_file, &https.tls_key_file),
                versions: (&https.tls_min_version, &https.tls_max_version),
            };
            self.server(&server, general);
            self.outcome(client_authorities(https));
        }
        if diagnostics.tls_enabled {
            let server = ServerFiles {
                setting: "diagnostics",
                files: (&diagnostics.tls_cert_file, &diagnostics.tls_key_file),
                versions: (&diagnostics.tls_min_version, &diagnostics.tls_max_version),
            };
            self.server(&server, general);
        }
        self.outcome(user_token_keys(api));
    }
}

/// Setting of the keys that check user tokens.
const USER_KEYS: &str = "apiServer.authn.tokens.validator.publicKeys";

/// Configured keys that check user tokens.
///
/// # Errors
/// The first that cannot be used.
pub fn user_token_keys(api: &ApiServer) -> Result<Vec<graticule_identity::tokens::StaticKey>, keys::Error> {
    keys::load(USER_KEYS, api.authn.tokens.validator.public_keys.iter().map(|key| ("", key.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(
        change: impl FnOnce(&mut General, &mut ApiServer, &mut Access, &mut Diagnostics),
    ) -> Vec<String> {
        let mut parts = (General::default(), ApiServer::default(), Access::default(), Diagnostics::default());
        change(&mut parts.0, &mut parts.1, &mut parts.2, &mut parts.3);
        let mut findings = Findings::default();
        findings.common(&parts.0, &parts.1, &parts.2, &parts.3);
        findings.into_lines()
    }

    #[test]
    fn everything_is_found() {
        assert_eq!(found(|_, _, _, _| {}), [""; 0]);
        let lines = found(|general, api, access, diagnostics| {
            api.authn.r#type = "ldap".into();
            access.r#type = "rbac".into();
            api.base_path = "api".into();
            api.http.interface = "localhost".into();
            api.https.tls_cert_file = "/nonexistent.crt".into();
            api.https.tls_key_file = "/nonexistent.key".into();
            api.https.require_client_cert = true;
            general.tls_max_version = "TLSv1_2".into();
            api.https.tls_min_version = "TLSv1_3".into();
            diagnostics.tls_enabled = true;
            diagnostics.tls_min_version = "TLSv9".into();
        });
        let starts = [
            "apiServer.authn.type: \"ldap\" is not supported by this version; use tokens",
            "access.type: \"rbac\" is not supported",
            "apiServer.basePath: \"api\" does not begin with /",
            "apiServer.http.interface: \"localhost\" is not an IP address",
            "certificate of apiServer.https: /nonexistent.crt",
            "apiServer.https together with general: TLS versions: the lowest is above the highest",
            "apiServer.https.tlsCaFile: is required by apiServer.https.requireClientCert",
            "diagnostics: TLS version \"TLSv9\"",
        ];
        assert_eq!(lines.len(), starts.len(), "{lines:#?}");
        for (line, start) in lines.iter().zip(starts) {
            assert!(line.starts_with(start), "{line:?} does not start with {start:?}");
        }
    }

    #[test]
    fn a_configuration_of_another_program() {
        let mut findings = Findings::default();
        findings.site("zone", "global", &Environment("kubernetes".into()));
        assert_eq!(
            findings.into_lines(),
            [
                "mode: \"zone\" is run by another program; this one is global-cp",
                "environment: \"kubernetes\" is not supported by this version; use universal",
            ]
        );
    }
}
