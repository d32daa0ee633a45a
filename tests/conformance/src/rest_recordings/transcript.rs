//! The recorded transcripts: which there are, what their steps say, and which control planes each file needs.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::accepted::glob;

/// Files of the directory that are no transcripts.
const OTHER: [&str; 2] = ["kumactl", "metrics"];

/// One file.
#[derive(Debug, Clone)]
pub(super) struct Transcript {
    /// Its name without extension.
    pub(super) name: String,
    /// Whether a zone control plane answers, where a step says nothing else.
    pub(super) is_zone: bool,
    /// What its tokens are, by placeholder.
    pub(super) tokens: Value,
    pub(super) steps: Vec<Step>,
}

/// A request and the recorded answer.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) number: usize,
    pub(super) note: String,
    /// Whether it goes to the federated zone of a file about global.
    pub(super) at_zone: bool,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) request: Value,
    pub(super) response: Value,
}

impl Step {
    /// `<file>#<number> <method> <path>`.
    pub(super) fn case(&self, file: &str) -> String {
        format!("{file}#{} {} {}", self.number, self.method, self.path)
    }

    /// The recorded status; a crash of the reference is a bad request.
    pub(super) fn status(&self) -> u64 {
        match self.response.get("status").and_then(Value::as_u64) {
            Some(0) => 400,
            status => status.unwrap_or_default(),
        }
    }
}

/// What runs for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// A global control plane.
    Global,
    /// A zone control plane of its own.
    Zone,
    /// A global control plane with one zone.
    Federation,
    /// The same with a proxy in the zone.
    Connected,
}

/// Files that run in the same processes, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) layout: Layout,
    /// Settings beside the defaults, as environment variables without their prefix.
    pub(super) settings: &'static [(&'static str, &'static str)],
    pub(super) transcripts: Vec<Transcript>,
}

struct Setup {
    files: &'static str,
    /// One process for all of the files.
    together: bool,
    layout: Option<Layout>,
    settings: &'static [(&'static str, &'static str)],
}

/// What the files say in `about`; the first that fits. Everything else: a fresh control plane of the file's role.
const SETUPS: &[Setup] = &[
    together("05-policy-*", None),
    together("06-kind-*-global", None),
    // In ours the MeshIdentities of another file have MeshTrusts at once.
    alone("06-kind-meshtrust-zone", None, &[]),
    together("06-kind-*-zone", None),
    // In the reference everybody may write what is no secret.
    alone(
        "17-authn-*",
        None,
        &[("API_SERVER_AUTHN_LOCALHOST_IS_ADMIN", "false"), ("COMPAT_ANONYMOUS_WRITES", "true")],
    ),
    alone("20-read-only-*", None, &[("API_SERVER_READ_ONLY", "true")]),
    // The second continues where the first ends.
    together("21-federation", Some(Layout::Federation)),
    together("22-zone-overview", Some(Layout::Federation)),
    alone("23-inspect-connected", Some(Layout::Connected), &[]),
    alone(
        "25-base-path-and-cors-*",
        None,
        &[("API_SERVER_BASE_PATH", "/api"), ("API_SERVER_CORS_ALLOWED_DOMAINS", "https://gui.example.com")],
    ),
    alone(
        "26-issuer-and-gui-off-*",
        None,
        &[
            ("API_SERVER_AUTHN_TOKENS_ENABLE_ISSUER", "false"),
            ("DP_SERVER_AUTHN_DP_PROXY_DP_TOKEN_ENABLE_ISSUER", "false"),
            ("DP_SERVER_AUTHN_ZONE_PROXY_ZONE_TOKEN_ENABLE_ISSUER", "false"),
            ("API_SERVER_GUI_ENABLED", "false"),
            ("API_SERVER_AUTHN_TOKENS_BOOTSTRAP_ADMIN_TOKEN", "false"),
        ],
    ),
    alone(
        "28-origin-validation-off",
        Some(Layout::Federation),
        &[("MULTIZONE_ZONE_DISABLE_ORIGIN_LABEL_VALIDATION", "true")],
    ),
    alone("30-*", Some(Layout::Federation), &[]),
];

const fn alone(
    files: &'static str,
    layout: Option<Layout>,
    settings: &'static [(&'static str, &'static str)],
) -> Setup {
    Setup { files, together: false, layout, settings }
}

const fn together(files: &'static str, layout: Option<Layout>) -> Setup {
    Setup { files, together: true, layout, settings: &[] }
}

/// The transcripts of the data set, in groups; those with a case whose name contains `part`.
pub(super) fn groups(data: &Path, part: Option<&str>) -> Result<Vec<Group>> {
    let dir = data.join("recordings/rest");
    let mut names: Vec<String> = std::fs::read_dir(&dir)
        .with_context(|| dir.display().to_string())?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".json").map(ToOwned::to_owned))
        .filter(|name| !OTHER.contains(&name.as_str()))
        .collect();
    names.sort();
    ensure!(!names.is_empty(), "no transcripts in {}", dir.display());
    let mut groups: Vec<(&'static str, Group)> = Vec::new();
    for name in names {
        let transcript = read(&dir, &name).with_context(|| name.clone())?;
        let setup = SETUPS.iter().find(|setup| glob(setup.files, &name));
        let role = if transcript.is_zone { Layout::Zone } else { Layout::Global };
        let layout = setup.and_then(|setup| setup.layout).unwrap_or(role);
        let settings = setup.map(|setup| setup.settings).unwrap_or_default();
        let key = match setup.filter(|setup| setup.together) {
            Some(setup) if setup.layout == Some(Layout::Federation) => "federation",
            Some(setup) => setup.files,
            None => "",
        };
        match groups.iter_mut().find(|(other, _)| !key.is_empty() && *other == key) {
            Some((_, group)) => group.transcripts.push(transcript),
            None => groups.push((key, Group { layout, settings, transcripts: vec![transcript] })),
        }
    }
    let mut groups: Vec<Group> = groups.into_iter().map(|(_, group)| group).collect();
    if let Some(part) = part {
        groups.retain(|group| group.has_case(part));
    }
    Ok(groups)
}

impl Group {
    fn has_case(&self, part: &str) -> bool {
        self.transcripts
            .iter()
            .any(|transcript| transcript.steps.iter().any(|step| step.case(&transcript.name).contains(part)))
    }
}

fn read(dir: &Path, name: &str) -> Result<Transcript> {
    let text = std::fs::read_to_string(dir.join(format!("{name}.json")))?;
    let document: Value = serde_json::from_str(&text)?;
    let is_zone = document.get("role").and_then(Value::as_str) == Some("zone");
    let steps = document.get("steps").and_then(Value::as_array).context("no steps")?;
    let steps = steps.iter().enumerate().map(|(number, step)| read_step(number, step));
    let tokens = document.get("tokens").cloned().unwrap_or_default();
    Ok(Transcript { name: name.into(), is_zone, tokens, steps: steps.collect::<Result<_>>()? })
}

fn read_step(number: usize, step: &Value) -> Result<Step> {
    let text = |pointer: &str| step.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let request = step.get("request").cloned().context("a step without request")?;
    let response = step.get("response").cloned().context("a step without response")?;
    ensure!(response.get("status").is_some_and(Value::is_u64), "step {number} has no status");
    Ok(Step {
        number,
        note: text("/note"),
        at_zone: text("/at") == "zone",
        method: text("/request/method"),
        path: text("/request/path"),
        request,
        response,
    })
}
