//! Texts that have a chance to be valid, by the name of the member.

pub(crate) const KEYS: &[&str] = &["app", "team", "kuma.io/display-name", "k8s.kuma.io/namespace"];
pub(crate) const DURATIONS: &[&str] = &["10s", "1m30s", "250ms", "2h", "1s", "0s"];
pub(crate) const TIMES: &[&str] =
    &["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z", "2031-12-31T23:59:59.000000001Z"];

const CERTIFICATE: &str =
    "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUexampleexampleexample\n-----END CERTIFICATE-----\n";

/// The texts for members of a name; names that are not listed are like the empty one.
pub(crate) const ALL: &[(&str, &[&str])] = &[
    ("", &["web", "a.b", "web-1", "é", "x y"]),
    ("address", &["10.0.0.9", "db.example.com", "127.0.0.1:5000", "::1"]),
    ("serviceAddress", &["10.0.0.9", "127.0.0.1"]),
    ("appProtocol", &["tcp", "http", "http2", "grpc"]),
    ("authority", &["web", "web.example.com"]),
    ("config", &["5f9a", "{}"]),
    ("data", &["dGVzdA==", "AQID", ""]),
    ("eventLogPath", &["/tmp/events.log"]),
    ("from", &["/a", "/a/b"]),
    ("hostname", &["web.example.com", "a.b"]),
    ("hostnames", &["web.example.com", "a.b"]),
    ("interval", &["5s", "1.500s", "10s"]),
    ("key", &["app", "team", "http.status"]),
    ("kind", &["MeshService", "MeshExternalService", "MeshMultiZoneService"]),
    ("limit", &["50 kbps", "1 Mbps", "2.5 Gbps"]),
    ("listenerName", &["web", "inbound:10.0.0.1:80"]),
    ("origin", &["inbound", "outbound"]),
    ("path", &["/", "/a", "/metrics", "/a/b.log"]),
    ("plain", &["%START_TIME%", "x"]),
    ("protocol", &["tcp", "http"]),
    ("receive", &["AQID", "dGVzdA=="]),
    ("replaceFullPath", &["/", "/x"]),
    ("replacePrefixMatch", &["/", "/x"]),
    ("retryOn", &["5xx", "503", "Reset", "HttpMethodGet", "ConnectFailure"]),
    ("sectionName", &["main", "8080"]),
    ("send", &["AQID", "dGVzdA=="]),
    ("serverName", &["db.example.com"]),
    ("skipCreatingInitialPolicies", &["*", "MeshRetry"]),
    ("template", &["{{ .DisplayName }}.mesh.local", "{{ .Name }}.{{ .Zone }}.mesh.local"]),
    ("timeout", &["2s", "0.250s"]),
    ("trustDomain", &["east.example.com", "{{ .Mesh }}.{{ .Zone }}.mesh.local"]),
    ("url", &["http://127.0.0.1:8126", "http://zipkin:9411/api/v2/spans"]),
    (
        "value",
        &[
            "web",
            "/",
            "/a/b",
            "10.0.0.9",
            "10.0.0.0/8",
            "example.com",
            "*.example.com",
            "spiffe://east.example.com/web",
            "{name: x}",
            CERTIFICATE,
        ],
    ),
    ("zones", &["east", "west"]),
];

pub(crate) fn of(name: &str) -> &'static [&'static str] {
    let of = |wanted: &str| ALL.iter().find(|(listed, _)| *listed == wanted).map(|(_, texts)| *texts);
    of(name).or_else(|| of("")).unwrap_or_default()
}
