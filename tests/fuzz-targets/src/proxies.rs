//! What agents and Envoys send.

use std::time::Duration;

use graticule_envoygen::bootstrap::{BootstrapRequest, BootstrapSettings, DataplaneFacts, bootstrap as make};
use graticule_model::kinds::dataplane::Dataplane;
use graticule_model::labels;
use graticule_proto::discovery::DeltaDiscoveryRequest;
use graticule_xds::core::{Stream, read_dataplane, read_node};
use prost::Message as _;

pub(crate) fn bootstrap(data: &[u8]) {
    let Ok(request) = serde_json::from_slice::<BootstrapRequest>(data) else { return };
    let dataplane = read_dataplane(&request.dataplane_resource).ok();
    let facts = DataplaneFacts {
        workload: dataplane
            .as_ref()
            .and_then(|resource| resource.meta.label(labels::WORKLOAD).map(str::to_owned)),
        admin_port: dataplane
            .as_ref()
            .and_then(|resource| resource.spec_as::<Dataplane>())
            .and_then(|dataplane| dataplane.networking().admin.as_ref().map(|admin| admin.port)),
    };
    let _ = make(&request, &BootstrapSettings::default(), &facts);
}

pub(crate) fn xds_request(data: &[u8]) {
    let Ok(request) = DeltaDiscoveryRequest::decode(data) else { return };
    let _ = read_node(request.node.as_ref());
    let node_id = request.node.as_ref().map(|node| node.id.clone()).unwrap_or_default();
    let mut stream = Stream::new(node_id, "zone-1");
    for second in 0..2 {
        if stream.on_request(&request).is_err() {
            return;
        }
        let _ = stream.poll(Duration::from_secs(second));
    }
}
