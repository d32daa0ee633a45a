//! The store over an existing etcd, in programs that were built with it (feature `etcd`).

#[cfg(feature = "etcd")]
pub(crate) use with::{Etcd, check};
#[cfg(not(feature = "etcd"))]
pub(crate) use without::{Etcd, check};

#[cfg(feature = "etcd")]
mod with {
    use std::path::Path;
    use std::sync::Arc;

    use anyhow::{Context as _, Result};
    use graticule_runtime::settings::EtcdSettings;
    use graticule_runtime::{Clock, Random, host};
    use graticule_store::Store;
    use graticule_store::seal::Sealer;
    use graticule_store_etcd::{Credentials, Deps, EtcdStore, Options, Tls};

    /// The store.
    pub(crate) struct Etcd(Arc<EtcdStore>);

    impl Etcd {
        pub(crate) async fn open(
            settings: &EtcdSettings,
            name: &str,
            sealer: Arc<Sealer>,
            clock: &Clock,
            random: &Random,
        ) -> Result<Etcd> {
            let options = Options { sealer, ..options(settings, name).map_err(anyhow::Error::msg)? };
            tracing::info!(
                endpoints = options.endpoints.join(", "),
                prefix = options.prefix,
                "opening the store"
            );
            let deps = Deps { clock: clock.clone(), random: random.clone() };
            Ok(Etcd(Arc::new(EtcdStore::open(options, deps).await.context("store")?)))
        }

        pub(crate) fn store(&self) -> Arc<dyn Store> {
            self.0.clone()
        }

        pub(crate) async fn close(self) {
            self.0.close().await;
        }
    }

    /// What is wrong with the settings, as far as it shows without etcd.
    pub(crate) fn check(settings: &EtcdSettings) -> Result<(), String> {
        options(settings, "name").map(drop)
    }

    fn options(settings: &EtcdSettings, name: &str) -> Result<Options, String> {
        let tls = &settings.tls;
        let files = [&tls.ca_file, &tls.cert_file, &tls.key_file];
        let is_https = settings.endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
        let is_tls = is_https || files.iter().any(|file| !file.is_empty()) || !tls.server_name.is_empty();
        let prefix = match settings.prefix.as_str() {
            "" => format!("/graticule/{name}"),
            prefix => prefix.to_owned(),
        };
        let options = Options {
            endpoints: settings.endpoints.clone(),
            prefix,
            name: host::name(),
            credentials: credentials(settings)?,
            tls: if is_tls { Some(read_tls(settings)?) } else { None },
            lease: settings.lease_ttl.to_std(),
            request_len_max: usize::try_from(settings.max_request_bytes).unwrap_or(usize::MAX),
            ..Options::default()
        };
        options.check().map_err(|reason| format!("store.etcd: {reason}"))?;
        Ok(options)
    }

    fn credentials(settings: &EtcdSettings) -> Result<Option<Credentials>, String> {
        match (settings.username.as_str(), settings.password_file.as_str()) {
            ("", "") => Ok(None),
            ("", _) => Err("store.etcd.username: is required by store.etcd.passwordFile".into()),
            (_, "") => Err("store.etcd.passwordFile: is required by store.etcd.username".into()),
            (user, file) => {
                let bytes = read("passwordFile", file)?;
                let password = String::from_utf8(bytes)
                    .map_err(|_| format!("store.etcd.passwordFile: {file} is not UTF-8"))?;
                let password = password.trim_end_matches(['\r', '\n']).to_owned();
                Ok(Some(Credentials { user: user.to_owned(), password }))
            }
        }
    }

    fn read_tls(settings: &EtcdSettings) -> Result<Tls, String> {
        let tls = &settings.tls;
        let authorities = match tls.ca_file.as_str() {
            "" => None,
            file => Some(read_pem("tls.caFile", file)?),
        };
        let identity = match (tls.cert_file.as_str(), tls.key_file.as_str()) {
            ("", "") => None,
            ("", _) => return Err("store.etcd.tls.certFile: is required by store.etcd.tls.keyFile".into()),
            (_, "") => return Err("store.etcd.tls.keyFile: is required by store.etcd.tls.certFile".into()),
            (cert, key) => Some((read_pem("tls.certFile", cert)?, read_pem("tls.keyFile", key)?)),
        };
        let server_name = (!tls.server_name.is_empty()).then(|| tls.server_name.clone());
        Ok(Tls { authorities, identity, server_name })
    }

    fn read_pem(setting: &str, file: &str) -> Result<Vec<u8>, String> {
        let bytes = read(setting, file)?;
        if bytes.windows(11).any(|window| window == b"-----BEGIN ") {
            Ok(bytes)
        } else {
            Err(format!("store.etcd.{setting}: {file} holds no PEM"))
        }
    }

    fn read(setting: &str, file: &str) -> Result<Vec<u8>, String> {
        std::fs::read(Path::new(file)).map_err(|error| format!("store.etcd.{setting}: {file}: {error}"))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        type Change = fn(&mut EtcdSettings);

        #[test]
        fn mistakes_name_their_setting() {
            let good = || EtcdSettings {
                endpoints: vec!["http://127.0.0.1:2379".into()],
                ..EtcdSettings::default()
            };
            assert_eq!(check(&good()), Ok(()));
            let with = |change: Change| {
                let mut settings = good();
                change(&mut settings);
                check(&settings).expect_err("a mistake")
            };
            let cases: [(Change, &str); 9] = [
                (|s| s.endpoints.clear(), "store.etcd: no endpoints"),
                (|s| s.prefix = "x".into(), "store.etcd: prefix \"x\" must begin with /"),
                (|s| s.username = "u".into(), "store.etcd.passwordFile: is required"),
                (|s| s.password_file = "/nonexistent".into(), "store.etcd.username: is required"),
                (
                    |s| (s.username, s.password_file) = ("u".into(), "/nonexistent".into()),
                    "store.etcd.passwordFile: /nonexistent: ",
                ),
                (|s| s.tls.ca_file = "/nonexistent".into(), "store.etcd.tls.caFile: /nonexistent: "),
                (|s| s.tls.cert_file = "/nonexistent".into(), "store.etcd.tls.keyFile: is required"),
                (|s| s.tls.key_file = "/nonexistent".into(), "store.etcd.tls.certFile: is required"),
                (|s| s.lease_ttl = graticule_model::GoDuration(0), "store.etcd: the lease"),
            ];
            for (change, wanted) in cases {
                let found = with(change);
                assert!(found.starts_with(wanted), "{found:?} does not begin with {wanted:?}");
            }
        }

        #[test]
        fn every_control_plane_has_keys_of_its_own() {
            let settings = EtcdSettings { endpoints: vec!["a:1".into()], ..EtcdSettings::default() };
            let prefix = |name: &str| options(&settings, name).expect("fine").prefix;
            assert_eq!(
                (prefix("global"), prefix("zone-east")),
                ("/graticule/global".into(), "/graticule/zone-east".into())
            );
        }
    }
}

#[cfg(not(feature = "etcd"))]
mod without {
    use std::convert::Infallible;
    use std::sync::Arc;

    use anyhow::Result;
    use graticule_runtime::settings::EtcdSettings;
    use graticule_runtime::{Clock, Random};
    use graticule_store::Store;
    use graticule_store::seal::Sealer;

    /// There is none.
    pub(crate) struct Etcd(Infallible);

    impl Etcd {
        pub(crate) async fn open(
            settings: &EtcdSettings,
            _: &str,
            _: Arc<Sealer>,
            _: &Clock,
            _: &Random,
        ) -> Result<Etcd> {
            match check(settings) {
                Err(reason) => Err(anyhow::Error::msg(reason)),
                Ok(never) => match never {},
            }
        }

        pub(crate) fn store(&self) -> Arc<dyn Store> {
            match self.0 {}
        }

        pub(crate) async fn close(self) {
            match self.0 {}
        }
    }

    /// Always an error.
    pub(crate) fn check(_: &EtcdSettings) -> Result<Infallible, String> {
        let program = std::env::args().next().unwrap_or_default();
        let program =
            std::path::Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
        Err(format!(
            "store.type: this {program} was built without etcd; build it with `cargo build --release --package \
             graticule-{program} --features etcd`"
        ))
    }
}
