//! What is read from the recording.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

/// The directory of the recording.
#[derive(Debug, Clone)]
pub(super) struct Recording(PathBuf);

/// A recorded proxy.
#[derive(Debug, Clone)]
pub(super) struct RecordedProxy {
    pub(super) name: String,
    pub(super) zone: String,
    pub(super) workload: String,
    /// Port that the application beside it listens on, with its address.
    pub(super) app: Option<(String, u16)>,
    pub(super) readiness_port: u16,
    /// Port of the zone's data plane server when it was recorded.
    pub(super) server_port: u16,
    /// Work directory in the recording.
    pub(super) workdir: String,
    pub(super) dataplane_file: PathBuf,
}

impl Recording {
    pub(super) fn open(data: &Path) -> Result<Recording> {
        let dir = data.join("recordings/dataplane/two-zones");
        anyhow::ensure!(
            dir.is_dir(),
            "{} is no directory: is {} the data set?",
            dir.display(),
            data.display()
        );
        Ok(Recording(dir))
    }

    pub(super) fn text(&self, path: &str) -> Result<String> {
        let path = self.0.join(path);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    pub(super) fn json(&self, path: &str) -> Result<Value> {
        serde_json::from_str(&self.text(path)?).with_context(|| path.to_owned())
    }

    /// The documents of an input file.
    pub(super) fn inputs(&self, file: &str) -> Result<Vec<Value>> {
        graticule_model::yaml::parse_all(&self.text(&format!("inputs/{file}"))?)
            .with_context(|| file.to_owned())
    }

    /// The decoded bootstrap of a proxy.
    pub(super) fn bootstrap(&self, proxy: &str) -> Result<Value> {
        let file = format!("proxies/{proxy}/bootstrap.yaml");
        graticule_model::yaml::parse_one(&self.text(&file)?).context(file)
    }

    /// All proxies, by name.
    pub(super) fn proxies(&self) -> Result<Vec<RecordedProxy>> {
        let mut proxies = Vec::new();
        let dir = self.0.join("inputs");
        for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if file.starts_with("dp-") {
                proxies.push(self.proxy(&file, path).with_context(|| file.clone())?);
            }
        }
        proxies.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(proxies)
    }

    fn proxy(&self, file: &str, dataplane_file: PathBuf) -> Result<RecordedProxy> {
        let documents = self.inputs(file)?;
        let dataplane = documents.first().context("no document")?;
        let name = text(dataplane, "/name")?;
        let stored = self.json(&format!("proxies/{name}/zone/dataplane.json"))?;
        let request = self.json(&format!("proxies/{name}/bootstrap-request.json"))?;
        let bootstrap = self.bootstrap(&name)?;
        let inbound = dataplane.pointer("/networking/inbound/0");
        let app = inbound.and_then(|inbound| {
            let port = inbound.get("servicePort")?.as_u64()?;
            Some((inbound.get("serviceAddress")?.as_str()?.to_owned(), u16::try_from(port).ok()?))
        });
        Ok(RecordedProxy {
            zone: text(&stored, "/body/labels/kuma.io~1zone")?,
            workload: text(dataplane, "/labels/kuma.io~1workload")?,
            app,
            readiness_port: number(&request, "/body/readinessPort")?,
            server_port: server_port(&bootstrap).context("the bootstrap names no port of system_ads")?,
            workdir: text(&request, "/body/workdir")?,
            dataplane_file,
            name,
        })
    }
}

/// Port of the data plane server in a bootstrap.
fn server_port(bootstrap: &Value) -> Option<u16> {
    let clusters = bootstrap.pointer("/staticResources/clusters")?.as_array()?;
    let ads = clusters.iter().find(|cluster| cluster["name"] == "system_ads")?;
    let pointer = "/loadAssignment/endpoints/0/lbEndpoints/0/endpoint/address/socketAddress/portValue";
    u16::try_from(ads.pointer(pointer)?.as_u64()?).ok()
}

/// A string of a document.
pub(super) fn text(document: &Value, pointer: &str) -> Result<String> {
    document
        .pointer(pointer)
        .and_then(Value::as_str)
        .map(ToOwned::to_owned)
        .with_context(|| format!("no string at {pointer}"))
}

fn number(document: &Value, pointer: &str) -> Result<u16> {
    document
        .pointer(pointer)
        .and_then(Value::as_u64)
        .and_then(|number| u16::try_from(number).ok())
        .with_context(|| format!("no port at {pointer}"))
}
