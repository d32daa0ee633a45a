//! TLS, users and permissions.

use std::path::Path;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, Permission, PermissionType, TlsOptions};
use graticule_store::{CommitError, Store, Txn};
use graticule_store_etcd::{Credentials, OpenError, Options, Tls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::harness::{Etcd, eventually, mesh, number, open, options, try_open, unwell, well};

/// An authority, and certificates of it.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("signed").pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// Certificate and key.
    fn issue(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.issuer).expect("signed").pem(), key.serialize_pem())
    }
}

fn install_provider() {
    // Another test of this process may have done it.
    graticule_runtime::tls::install_crypto_provider();
}

async fn start_with_tls(authority: &Authority) -> Option<Etcd> {
    let (certificate, key) = authority.issue("127.0.0.1");
    let arguments = |dir: &Path| {
        let file = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).expect("written");
            path.display().to_string()
        };
        [
            ("--cert-file", file("server.crt", &certificate)),
            ("--key-file", file("server.key", &key)),
            ("--trusted-ca-file", file("ca.crt", &authority.pem)),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .chain(["--client-cert-auth".to_owned()])
        .collect()
    };
    Etcd::start_with(arguments, "https").await
}

fn tls(authority: &Authority, client: Option<&Authority>) -> Tls {
    Tls {
        authorities: Some(authority.pem.clone().into_bytes()),
        identity: client.map(|client| {
            let (certificate, key) = client.issue("control-plane");
            (certificate.into_bytes(), key.into_bytes())
        }),
        server_name: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_in_both_directions() {
    install_provider();
    let authority = Authority::new();
    let Some(mut etcd) = start_with_tls(&authority).await else { return };
    let options = Options { tls: Some(tls(&authority, Some(&authority))), ..options(etcd.endpoint()) };
    let store = open(options.clone()).await;
    store.commit(Txn::put(mesh("m", 1))).await.expect("written");
    etcd.kill();
    unwell(&store).await;
    etcd.run();
    well(&store).await;
    store.commit(Txn::put(mesh("m", 2))).await.expect("written");

    let stranger = Authority::new();
    let quick = std::time::Duration::from_secs(3);
    for (what, tls) in [
        ("no client certificate", tls(&authority, None)),
        ("a client certificate of another authority", tls(&authority, Some(&stranger))),
        ("a server of another authority", tls(&stranger, Some(&authority))),
        (
            "another name",
            Tls { server_name: Some("example.org".into()), ..tls(&authority, Some(&authority)) },
        ),
    ] {
        let options = Options { tls: Some(tls), open_timeout: quick, ..options.clone() };
        let error = try_open(options).await.err().unwrap_or_else(|| panic!("{what} is accepted"));
        assert!(matches!(error, OpenError::Unreachable { .. }), "{what}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_have_what_they_are_granted() {
    install_provider();
    let authority = Authority::new();
    let Some(etcd) = start_with_tls(&authority).await else { return };
    let secured = tls(&authority, Some(&authority));
    let (certificate, key) = authority.issue("admin");
    let connect = ConnectOptions::new().with_tls(
        TlsOptions::new()
            .ca_certificate(Certificate::from_pem(&authority.pem))
            .identity(Identity::from_pem(certificate, key)),
    );
    let mut admin = Client::connect([etcd.endpoint()], Some(connect)).await.expect("connects");
    let mine = options(etcd.endpoint());
    admin.user_add("root", "secret", None).await.expect("added");
    admin.role_add("root").await.expect("added");
    admin.user_grant_role("root", "root").await.expect("granted");
    admin.user_add("control-plane", "hunter2", None).await.expect("added");
    admin.role_add("writer").await.expect("added");
    let all = Permission::new(PermissionType::Readwrite, format!("{}/", mine.prefix)).with_prefix();
    admin.role_grant_permission("writer", all).await.expect("granted");
    admin.user_grant_role("control-plane", "writer").await.expect("granted");
    admin.auth_enable().await.expect("enabled");

    let credentials =
        |password: &str| Some(Credentials { user: "control-plane".into(), password: password.into() });
    let mine = Options { tls: Some(secured), credentials: credentials("hunter2"), ..mine };
    let store = open(mine.clone()).await;
    store.commit(Txn::put(mesh("m", 1))).await.expect("written");
    let mut leadership = store.leadership();
    let leads = leadership.wait_for(|now| now.own_term().is_some());
    let term =
        tokio::time::timeout(crate::harness::DEADLINE, leads).await.expect("in time").expect("open").term;
    store.commit_as(term, Txn::put(mesh("m", 2))).await.expect("the leader writes");

    // Rights that change meanwhile make tokens invalid; new ones are asked for.
    admin.update_user(Some(("root".into(), "secret".into()))).await.expect("logged in");
    admin.role_add("more").await.expect("added");
    admin.user_grant_role("control-plane", "more").await.expect("granted");
    store.commit(Txn::put(mesh("m", 3))).await.expect("with a new token");
    let other = open(Options { name: "b".into(), ..mine.clone() }).await;
    store.commit(Txn::put(mesh("m", 4))).await.expect("written");
    eventually("the other follows", || number(&other, "m") == Some(4)).await;

    let error = try_open(Options { credentials: credentials("wrong"), ..mine.clone() }).await.err();
    let error = error.expect("a wrong password is refused");
    assert!(matches!(error, OpenError::Refused(_)), "{error}");
    let error = try_open(Options { prefix: "/test/elsewhere".into(), ..mine }).await.err();
    let error = error.expect("other keys are not granted");
    assert!(matches!(&error, OpenError::Refused(reason) if reason.contains("permission denied")), "{error}");

    // A right that is taken away is named.
    admin.user_revoke_role("control-plane", "writer").await.expect("revoked");
    let error = store.commit(Txn::put(mesh("m", 5))).await.expect_err("no right any more");
    assert!(
        matches!(&error, CommitError::Unavailable(reason) if reason.contains("permission denied")),
        "{error}"
    );
}
