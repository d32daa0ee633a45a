//! `POST /tokens/*` (rest-api.md §7, tokens-and-access.md §4).

use std::collections::BTreeMap;

use axum::body::Body;
use axum::response::Response;
use graticule_identity::tokens::{DataplaneClaims, TokenError, TokenKind, UserClaims, ZoneClaims};
use graticule_model::{GoDuration, Violations};
use graticule_runtime::supervisor::chain;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::audit::Done;
use crate::error::{Error, title};
use crate::route::Tokens;
use crate::{Call, Context, access, body, read, respond};

/// Ten years.
const VALID_FOR_DEFAULT: GoDuration = GoDuration::from_secs(10 * 365 * 24 * 3600);

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DataplaneRequest {
    name: Option<String>,
    mesh: Option<String>,
    tags: Option<BTreeMap<String, Vec<String>>>,
    r#type: Option<String>,
    workload: Option<String>,
    valid_for: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ZoneRequest {
    zone: Option<String>,
    scope: Option<Vec<String>>,
    valid_for: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct UserRequest {
    name: Option<String>,
    groups: Option<Vec<String>>,
    valid_for: Option<String>,
}

pub(crate) async fn issue(
    context: &Context,
    call: &Call,
    kind: Tokens,
    body: Body,
) -> Result<Response, Error> {
    let (token, issued) = match kind {
        Tokens::Dataplane => dataplane(context, call, body).await?,
        Tokens::Zone => zone(context, call, body).await?,
        Tokens::User => user(context, call, body).await?,
    };
    Ok(issued.beside(respond::text(StatusCode::OK, "text/plain", HeaderMap::new(), token)))
}

async fn dataplane(context: &Context, call: &Call, body: Body) -> Result<(String, Done), Error> {
    let request: DataplaneRequest = request(context, call, body).await?;
    let mut violations = Violations::default();
    let mesh = request.mesh.unwrap_or_default();
    if mesh.is_empty() {
        violations.add("mesh", "cannot be empty");
    }
    let valid_for = optional_duration(request.valid_for.as_deref(), &mut violations);
    let r#type = request.r#type.unwrap_or_default();
    if !matches!(r#type.as_str(), "" | "dataplane") {
        violations.add("type", format!("{} is not a valid proxy type", r#type));
    }
    read::check(title::REQUEST, violations)?;
    access::dataplane_token(&context.options, &call.user)?;
    require_issuer(context.options.rules.issue_dataplane_tokens)?;
    let claims = DataplaneClaims {
        name: request.name.unwrap_or_default(),
        mesh: mesh.clone(),
        tags: request.tags.unwrap_or_default(),
        r#type,
        workload: request.workload.unwrap_or_default(),
    };
    let subject = format!("name {:?} mesh {mesh:?} workload {:?}", claims.name, claims.workload);
    sign(context, TokenKind::Dataplane { mesh: &mesh }, &claims, subject, valid_for)
}

async fn zone(context: &Context, call: &Call, body: Body) -> Result<(String, Done), Error> {
    let request: ZoneRequest = request(context, call, body).await?;
    let zone = request.zone.unwrap_or_default();
    access::zone_token(&context.options, &call.user, &zone)?;
    let mut violations = Violations::default();
    if zone.is_empty() {
        // The reference signs a token for no zone, which nothing can use.
        violations.add("zone", "cannot be empty");
    }
    let valid_for = optional_duration(request.valid_for.as_deref(), &mut violations);
    read::check(title::REQUEST, violations)?;
    require_issuer(context.options.rules.issue_zone_tokens)?;
    let subject = zone.clone();
    sign(context, TokenKind::Zone, &ZoneClaims { zone, scope: request.scope }, subject, valid_for)
}

async fn user(context: &Context, call: &Call, body: Body) -> Result<(String, Done), Error> {
    access::user_token(&context.options, &call.user)?;
    let request: UserRequest = request(context, call, body).await?;
    let mut violations = Violations::default();
    let name = request.name.unwrap_or_default();
    if name.is_empty() {
        violations.add("name", "cannot be empty");
    }
    let mut valid_for = GoDuration(0);
    match request.valid_for.as_deref() {
        None | Some("") => violations.add("validFor", "cannot be empty"),
        Some(text) => {
            match text.parse() {
                Ok(duration) => valid_for = duration,
                Err(error) => violations.add("validFor", format!("is invalid: {error}")),
            }
            if valid_for.0 == 0 {
                violations.add("validFor", "cannot be empty or nil");
            }
        }
    }
    read::check(title::REQUEST, violations)?;
    require_issuer(context.options.server.authn.tokens.enable_issuer)?;
    let subject = name.clone();
    sign(context, TokenKind::User, &UserClaims { name, groups: request.groups }, subject, valid_for)
}

/// What cannot be read is 400 without a body; `null` counts as `{}`.
async fn request<T: DeserializeOwned + Default>(
    context: &Context,
    call: &Call,
    body: Body,
) -> Result<T, Error> {
    let bytes = body::read(context, body).await?;
    let unreadable = |error: String| {
        tracing::debug!(error, "a token request cannot be read");
        Error::Empty(StatusCode::BAD_REQUEST)
    };
    match body::parse(call.body_format, &bytes).map_err(unreadable)? {
        Value::Null => Ok(T::default()),
        value @ Value::Object(_) => {
            serde_json::from_value(value).map_err(|error| unreadable(error.to_string()))
        }
        _ => Err(Error::Empty(StatusCode::BAD_REQUEST)),
    }
}

fn optional_duration(text: Option<&str>, violations: &mut Violations) -> GoDuration {
    match text {
        None | Some("") => VALID_FOR_DEFAULT,
        Some(text) => text.parse().unwrap_or_else(|error| {
            violations.add("validFor", format!("is invalid: {error}"));
            VALID_FOR_DEFAULT
        }),
    }
}

fn require_issuer(is_enabled: bool) -> Result<(), Error> {
    if is_enabled {
        return Ok(());
    }
    let detail = "issuing tokens using the control plane is disabled.";
    Err(Error::new(StatusCode::BAD_REQUEST, title::TOKEN, detail))
}

/// Signs; gives the token and what the audit log says about it.
fn sign<C: Serialize>(
    context: &Context,
    kind: TokenKind<'_>,
    claims: &C,
    subject: String,
    valid_for: GoDuration,
) -> Result<(String, Done), Error> {
    let jti = context.random.uuid();
    let signed = context.token_keys.sign(kind, claims, context.clock.now(), valid_for, &jti);
    let token = signed.map_err(|error| match error {
        TokenError::NoSigningKey { .. } => {
            Error::new(StatusCode::NOT_FOUND, "Signing Key not found", error.to_string())
        }
        error => {
            tracing::error!(error = chain(&error), ?kind, "cannot issue a token");
            Error::new(StatusCode::INTERNAL_SERVER_ERROR, title::TOKEN, "Internal Server Error")
        }
    })?;
    Ok((token, Done::Issued { jti, subject }))
}
