//! `POST /bootstrap`: the Envoy bootstrap of a proxy (dataplane-agent.md §1.2). Not authenticated: what is answered
//! holds nothing that the agent did not bring, and the token is checked when the proxy connects.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use graticule_envoygen::bootstrap::{BootstrapRequest, DataplaneFacts, bootstrap};
use graticule_model::kinds::dataplane::Dataplane;
use graticule_model::{Resource, Violations, labels, yaml};
use graticule_policy::ProxyId;
use graticule_runtime::tls::Sans;
use serde_json::{Value, json};
use x509_parser::pem::Pem;

use super::server::Shared;
use crate::core::{DataplaneError, read_dataplane};

/// Bytes of a request.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Time for a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) const TOKEN_REQUIRED: &str = "Dataplane Token is required. Generate token using 'kumactl generate dataplane-token > /path/file' and provide it via --dataplane-token-file=/path/file argument to Kuma DP";
pub(super) const NOT_A_CA: &str = "A data plane proxy cannot verify the control plane: the certificate that it is given as CA is none (basicConstraints CA:FALSE). Give the agent the CA that signed the certificate of the control plane with --ca-cert-file or KUMA_CONTROL_PLANE_CA_CERT_FILE";

/// Answers that agents tell apart: an empty 404 means "try again", a 4xx with a text is final, 5xx is tried again.
#[derive(Debug)]
enum Refused {
    /// 400 with nothing: not JSON.
    NotJson,
    /// 400 with a text.
    Final(String),
    /// 413.
    TooLarge,
    /// 422 with a text.
    Invalid(String),
    /// 404 with nothing: not there yet.
    NotYet,
    /// 500 with nothing; the text is for the log.
    Failed(String),
}

impl Refused {
    /// For the log.
    fn reason(&self) -> &str {
        match self {
            Refused::NotJson => "the request is not the JSON of a bootstrap request",
            Refused::TooLarge => "the request is too large",
            Refused::NotYet => "there is no such Dataplane or mesh",
            Refused::Final(reason) | Refused::Invalid(reason) | Refused::Failed(reason) => reason,
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let text = |status: StatusCode, text: String| {
            (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
        };
        let empty = |status: StatusCode| {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = status;
            response
        };
        match self {
            Refused::NotJson => empty(StatusCode::BAD_REQUEST),
            Refused::Final(reason) => text(StatusCode::BAD_REQUEST, reason),
            Refused::TooLarge => text(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the request has more than {BODY_BYTES_MAX} bytes"),
            ),
            Refused::Invalid(reason) => text(StatusCode::UNPROCESSABLE_ENTITY, reason),
            Refused::NotYet => empty(StatusCode::NOT_FOUND),
            Refused::Failed(_) => empty(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

/// Any method, as agents may use.
pub(super) async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let host = host_of(request.headers(), request.uri());
    let wants_json = request.headers().get(header::ACCEPT).is_some_and(|accept| accept == "application/json");
    match answer(&shared, host, request.into_body()).await {
        Ok((bootstrap, address)) => respond(&bootstrap, &address, wants_json),
        Err(refused) => {
            tracing::warn!(reason = refused.reason(), "bootstrap refused");
            refused.into_response()
        }
    }
}

fn respond(bootstrap: &Value, address: &str, wants_json: bool) -> Response {
    let text = match yaml::to_string(bootstrap) {
        Ok(text) => text,
        Err(error) => return Refused::Failed(error.to_string()).into_response(),
    };
    if !wants_json {
        return ([(header::CONTENT_TYPE, "text/x-yaml")], text).into_response();
    }
    let answer = json!({
        "bootstrap": base64::engine::general_purpose::STANDARD.encode(text),
        "kumaSidecarConfiguration": {"networking": {"address": address}, "metrics": {"aggregate": null}},
    });
    axum::Json(answer).into_response()
}

async fn answer(shared: &Shared, host: Option<String>, body: Body) -> Result<(Value, String), Refused> {
    let body = read(shared, body).await?;
    let request: BootstrapRequest = serde_json::from_slice(&body).map_err(|_| Refused::NotJson)?;
    if !matches!(request.proxy_type.as_str(), "" | "dataplane") {
        return Err(Refused::Failed(format!("unknown proxy type {:?}", request.proxy_type)));
    }
    let has_token = !request.dataplane_token.is_empty() || !request.dataplane_token_path.is_empty();
    if !shared.options.authn.is_none() && !has_token {
        return Err(Refused::Invalid(TOKEN_REQUIRED.into()));
    }
    let mut settings = shared.deps.bootstrap.clone();
    if settings.xds_host.is_empty() {
        let host = host.ok_or_else(|| Refused::Final("the request has no host".into()))?;
        check_host(&host, &shared.deps.cert.sans())?;
        settings.xds_host = host;
    }
    let resource = dataplane_of(shared, &request).await?;
    let Some(dataplane) = resource.spec_as::<Dataplane>() else {
        return Err(Refused::Failed("not a Dataplane".into()));
    };
    settings.ca_pem = shared.deps.cert.chain_pem();
    check_ca(if request.ca_cert.is_empty() { &settings.ca_pem } else { &request.ca_cert })?;
    let networking = dataplane.networking();
    let facts = DataplaneFacts {
        workload: resource.meta.label(labels::WORKLOAD).map(str::to_owned),
        admin_port: networking.admin.as_ref().map(|admin| admin.port),
    };
    let bootstrap =
        bootstrap(&request, &settings, &facts).map_err(|error| Refused::Failed(error.to_string()))?;
    Ok((bootstrap, networking.address.clone()))
}

async fn read(shared: &Shared, body: Body) -> Result<axum::body::Bytes, Refused> {
    use axum::body::HttpBody;
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(Refused::TooLarge);
    }
    tokio::select! {
        read = to_bytes(body, BODY_BYTES_MAX) => match read {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.to_string().contains("length limit") => Err(Refused::TooLarge),
            Err(error) => Err(Refused::Failed(format!("cannot read the body: {error}"))),
        },
        () = shared.deps.clock.sleep(BODY_TIMEOUT) => Err(Refused::Failed("the body did not come in time".into())),
    }
}

/// The Dataplane that the agent brings, validated, or the stored one.
async fn dataplane_of(shared: &Shared, request: &BootstrapRequest) -> Result<Arc<Resource>, Refused> {
    let proxies = &shared.deps.proxies;
    if request.dataplane_resource.is_empty() {
        let id = ProxyId { mesh: request.mesh.clone(), name: request.name.clone() };
        let stored = proxies.stored_dataplane(&id).await.ok_or(Refused::NotYet)?;
        return if proxies.has_mesh(&id.mesh).await { Ok(stored) } else { Err(Refused::NotYet) };
    }
    let resource = read_dataplane(&request.dataplane_resource).map_err(|error| match error {
        DataplaneError::Malformed(reason) => Refused::Failed(reason),
        DataplaneError::Invalid(violations) => Refused::Invalid(violations.to_string()),
    })?;
    let mut violations = Violations::default();
    let has_outbounds = resource.spec_as::<Dataplane>().is_some_and(|d| !d.networking().outbound.is_empty());
    if has_outbounds && is_redirected(request) {
        violations.add("outbound", "should be empty since dataplane is in Transparent Proxying mode");
    }
    let id = ProxyId { mesh: resource.meta.mesh.clone(), name: resource.meta.name.clone() };
    if let Some(refusal) = proxies.refusal(&id).await {
        violations.add("mesh", refusal);
    } else if !proxies.has_mesh(&resource.meta.mesh).await {
        violations.add("mesh", format!("mesh {:?} does not exist", resource.meta.mesh));
    }
    violations.into_result().map_err(|violations| Refused::Invalid(violations.to_string()))?;
    Ok(Arc::new(resource))
}

fn is_redirected(request: &BootstrapRequest) -> bool {
    let redirect = request.dataplane_config.as_ref().and_then(|config| config.get("redirect"));
    let enabled = |direction: &str| {
        redirect.and_then(|r| r.get(direction)).and_then(|d| d.get("enabled")).and_then(Value::as_bool)
            == Some(true)
    };
    enabled("inbound") || enabled("outbound")
}

/// Host of the request without port: the `Host` header, or the authority in HTTP/2.
fn host_of(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let authority = match headers.get(header::HOST) {
        Some(host) => host.to_str().ok()?,
        None => uri.authority()?.as_str(),
    };
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => match authority.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') && port.bytes().all(|c| c.is_ascii_digit()) => host,
            _ => authority,
        },
    };
    (!host.is_empty()).then(|| host.to_owned())
}

fn check_host(host: &str, sans: &Sans) -> Result<(), Refused> {
    let is_named = match host.parse::<IpAddr>() {
        Ok(ip) => sans.ips.contains(&ip),
        Err(_) => sans.dns.iter().any(|pattern| covers(pattern, host)),
    };
    if is_named {
        return Ok(());
    }
    let names = sans.ips.iter().map(IpAddr::to_string).chain(sans.dns.iter().cloned());
    let names: Vec<String> = names.map(|name| format!("{name:?}")).collect();
    // The host is the client's text: quoted, so that it cannot break the line.
    Err(Refused::Final(format!(
        "A data plane proxy is trying to connect to the control plane using {host:?} address, but the certificate in the control plane has the following SANs [{}]. Either change the --cp-address of the agent to one of those or execute the following steps:\n1) Generate a new certificate with the address you are trying to use. It is recommended to use a trusted certificate authority; a self-signed certificate can be generated with 'kumactl generate tls-certificate --type=server --hostname={host}'\n2) Set KUMA_GENERAL_TLS_CERT_FILE and KUMA_GENERAL_TLS_KEY_FILE or the same settings in the configuration file to the new certificate.\n3) Start the agent, the control plane picks up the new certificate on its own.",
        names.join(" ")
    )))
}

/// RFC 6125: `*` stands for exactly one label, the leftmost.
fn covers(pattern: &str, host: &str) -> bool {
    let (pattern, host) = (pattern.trim_end_matches('.'), host.trim_end_matches('.'));
    match pattern.strip_prefix("*.") {
        None => pattern.eq_ignore_ascii_case(host),
        Some(parent) => host
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent)),
    }
}

/// Envoy trusts this certificate, so it has to be an authority unless it says nothing about that.
fn check_ca(pem: &str) -> Result<(), Refused> {
    let not_pem = || Refused::Failed("the CA is not a PEM certificate".into());
    let first = Pem::iter_from_buffer(pem.as_bytes()).next().ok_or_else(not_pem)?.map_err(|_| not_pem())?;
    let certificate = first.parse_x509().map_err(|_| not_pem())?;
    match certificate.basic_constraints() {
        Ok(Some(constraints)) if !constraints.value.ca => Err(Refused::Final(NOT_A_CA.into())),
        Ok(_) => Ok(()),
        Err(_) => Err(not_pem()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let of = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().expect("a header"));
            host_of(&headers, &Uri::from_static("/bootstrap"))
        };
        for (header, host) in [
            ("localhost:5678", "localhost"),
            ("localhost", "localhost"),
            ("[::1]:5678", "::1"),
            ("10.0.0.1:1", "10.0.0.1"),
            ("::1", "::1"),
        ] {
            assert_eq!(of(header).as_deref(), Some(host), "{header}");
        }
        assert_eq!(of(""), None);
        assert_eq!(
            host_of(&HeaderMap::new(), &Uri::from_static("https://cp:5678/bootstrap")).as_deref(),
            Some("cp")
        );
    }

    #[test]
    fn names_in_certificates() {
        for (pattern, host, expected) in [
            ("cp.example.org", "CP.example.org", true),
            ("*.example.org", "cp.example.org", true),
            ("*.example.org", "a.cp.example.org", false),
            ("*.example.org", "example.org", false),
            ("cp.example.org", "cp.example.com", false),
        ] {
            assert_eq!(covers(pattern, host), expected, "{pattern} {host}");
        }
        let sans =
            Sans { dns: vec!["localhost".into()], ips: vec!["127.0.0.1".parse().expect("an address")] };
        assert!(check_host("127.0.0.1", &sans).is_ok() && check_host("localhost", &sans).is_ok());
        let Err(Refused::Final(text)) = check_host("cp\nx", &sans) else { panic!("refused") };
        assert!(
            text.contains(r#"using "cp\nx" address"#) && text.contains(r#"SANs ["127.0.0.1" "localhost"]"#),
            "{text}"
        );
    }
}
