//! Who is calling: the administrator on the same machine, a user with a token, or nobody
//! (tokens-and-access.md §5).

use std::fmt;
use std::net::IpAddr;

use graticule_identity::tokens::UserClaims;
use graticule_runtime::Peer;
use graticule_runtime::supervisor::chain;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};

use crate::Context;
use crate::error::Error;

/// The administrator: name and group.
pub const ADMIN: &str = "mesh-system:admin";
/// Name of callers without credential.
pub const ANONYMOUS: &str = "mesh-system:anonymous";
/// Group of callers with credential.
pub const AUTHENTICATED: &str = "mesh-system:authenticated";
/// Group of callers without credential.
pub const UNAUTHENTICATED: &str = "mesh-system:unauthenticated";

/// A caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// Groups.
    pub groups: Vec<String>,
}

impl User {
    /// The administrator.
    pub fn admin() -> User {
        User { name: ADMIN.into(), groups: vec![ADMIN.into(), AUTHENTICATED.into()] }
    }

    /// Nobody in particular.
    pub fn anonymous() -> User {
        User { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()] }
    }

    fn from_claims(claims: UserClaims) -> User {
        let mut groups = claims.groups.unwrap_or_default();
        groups.push(AUTHENTICATED.into());
        User { name: claims.name, groups }
    }

    /// Whether no credential was shown.
    pub fn is_anonymous(&self) -> bool {
        !self.groups.iter().any(|group| group == AUTHENTICATED)
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.groups.join(","))
    }
}

/// Decides who calls, before the path is looked at. The index and the GUI ignore tokens.
pub(crate) fn authenticate(context: &Context, parts: &Parts) -> Result<User, Error> {
    let peer = parts.extensions.get::<Peer>().map(|peer| peer.address.ip());
    if context.options.server.authn.localhost_is_admin
        && peer.is_some_and(|peer| is_local_admin(peer, host(parts), &parts.headers))
    {
        return Ok(User::admin());
    }
    let path = parts.uri.path();
    let is_index = path.trim_matches('/') == context.options.server.base_path.trim_matches('/');
    if is_index || path == "/gui" || path.starts_with("/gui/") {
        return Ok(User::anonymous());
    }
    let Some(token) = bearer(&parts.headers) else { return Ok(User::anonymous()) };
    let validated = context.token_keys.user(token, context.clock.now()).map_err(|error| {
        tracing::info!(error = chain(&error), "a user token is refused");
        Error::new(StatusCode::UNAUTHORIZED, "Invalid authentication data", "Unauthenticated")
    })?;
    Ok(User::from_claims(validated.claims))
}

/// The host that the client asked for: the header of HTTP/1.1, the authority of HTTP/2.
pub(crate) fn host(parts: &Parts) -> &str {
    let header = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    header.or_else(|| parts.uri.authority().map(|authority| authority.as_str())).unwrap_or_default()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ").filter(|token| !token.is_empty())
}

/// The rule "localhost is admin": a loopback peer, no proxy in between, and no page of another site that
/// uses the administrator's browser.
fn is_local_admin(peer: IpAddr, host: &str, headers: &HeaderMap) -> bool {
    let is_given = |name: &str| headers.get_all(name).iter().any(|value| !value.is_empty());
    let is_forwarded = ["forwarded", "x-forwarded-for", "x-real-ip"].into_iter().any(is_given);
    let fetch_sites = headers.get_all("sec-fetch-site");
    let is_foreign_fetch =
        fetch_sites.iter().any(|site| !matches!(site.as_bytes(), b"" | b"same-origin" | b"none"));
    let mut origins = headers.get_all(header::ORIGIN).iter().filter(|origin| !origin.is_empty());
    peer.to_canonical().is_loopback()
        && !is_forwarded
        && !is_foreign_fetch
        && is_local_host(host)
        && origins.all(|origin| origin.to_str().is_ok_and(|origin| is_same_origin(origin, host)))
}

fn is_local_host(host: &str) -> bool {
    let Some((name, port)) = split_host(host) else { return false };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return false;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    match name.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok_and(|ip| ip.is_loopback()),
        None => {
            name.eq_ignore_ascii_case("localhost")
                || name.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        }
    }
}

/// Host and port of `host[:port]`, brackets kept; `None`: not of this form.
fn split_host(host: &str) -> Option<(&str, Option<&str>)> {
    let (name, port) = match host.rfind(']') {
        Some(end) => {
            let (name, rest) = host.split_at(end + 1);
            match rest.strip_prefix(':') {
                Some(port) => (name, Some(port)),
                None if rest.is_empty() => (name, None),
                None => return None,
            }
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    (!name.is_empty()).then_some((name, port))
}

fn is_same_origin(origin: &str, host: &str) -> bool {
    let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    // A path, query, fragment or user would make the texts differ.
    rest == Some(host)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn localhost_is_admin() {
        let check = |peer: &str, host: &str, extra: &[(&str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in extra {
                headers.append(HeaderName::try_from(*name).expect("a name"), value.parse().expect("a value"));
            }
            is_local_admin(peer.parse().expect("an address"), host, &headers)
        };
        for (host, want) in [
            ("localhost", true),
            ("localhost:1", true),
            ("LOCALHOST:5681", true),
            ("localhost.", true),
            ("localhost.:5681", true),
            ("127.0.0.2", true),
            ("[::1]:5681", true),
            ("[::1]", true),
            ("127.0.0.1:99999", false),
            ("127.0.0.1:", false),
            ("::1", false),
            ("example.com", false),
            ("127.0.0.1.nip.io", false),
            ("localhost:abc", false),
            ("0.0.0.0", false),
            ("10.0.0.1", false),
            ("user@localhost", false),
            ("localhost/x", false),
            ("", false),
            ("[::1]x", false),
        ] {
            assert_eq!(check("127.0.0.1", host, &[]), want, "Host {host}");
        }
        for (peer, want) in
            [("127.0.0.1", true), ("::1", true), ("::ffff:127.0.0.1", true), ("192.0.2.10", false)]
        {
            assert_eq!(check(peer, "localhost", &[]), want, "peer {peer}");
        }
        let host = "127.0.0.1:5681";
        for (name, value, want) in [
            ("x-forwarded-for", "", true),
            ("x-forwarded-for", "127.0.0.1", false),
            ("forwarded", "for=1", false),
            ("x-real-ip", "127.0.0.1", false),
            ("via", "x", true),
            ("sec-fetch-site", "same-origin", true),
            ("sec-fetch-site", "none", true),
            ("sec-fetch-site", "", true),
            ("sec-fetch-site", "cross-site", false),
            ("sec-fetch-site", "same-site", false),
            ("origin", "", true),
            ("origin", "http://127.0.0.1:5681", true),
            ("origin", "https://127.0.0.1:5681", true),
            ("origin", "http://localhost:5681", false),
            ("origin", "http://127.0.0.1", false),
            ("origin", "http://127.0.0.1:5681/x", false),
            ("origin", "null", false),
        ] {
            assert_eq!(check("127.0.0.1", host, &[(name, value)]), want, "{name}: {value}");
        }
        assert!(!check("127.0.0.1", host, &[("origin", "http://127.0.0.1:5681"), ("origin", "null")]));
    }

    #[test]
    fn bearer_tokens() {
        for (value, want) in [
            ("Bearer x", Some("x")),
            ("Bearer  x", Some(" x")),
            ("bearer x", None),
            ("Bearer ", None),
            ("x", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().expect("a value"));
            assert_eq!(bearer(&headers), want, "{value}");
        }
    }
}
