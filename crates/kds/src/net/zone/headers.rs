//! What every call says about the zone that makes it.

use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Status};

use super::ZoneOptions;
use crate::core::{HEADER_FEATURES, INSTANCE_HEADER, TERM_HEADER, ZONE_IDENTITY_HEADER};

/// The headers of every call (federation.md §1.3).
#[derive(Clone)]
pub(super) struct Headers {
    zone: MetadataValue<Ascii>,
    version: MetadataValue<Ascii>,
    instance: Option<MetadataValue<Ascii>>,
    identity: Option<MetadataValue<Ascii>>,
    term: Option<MetadataValue<Ascii>>,
    authorization: Option<MetadataValue<Ascii>>,
}

impl Headers {
    pub(super) fn new(
        options: &ZoneOptions,
        identity: Option<&str>,
        instance: &str,
        term: Option<u64>,
    ) -> std::io::Result<Headers> {
        let invalid = |what: &str| std::io::Error::other(format!("{what} cannot be sent as a header"));
        let own = |text: Option<&str>, what: &str| {
            text.map(|text| text.parse::<MetadataValue<Ascii>>().map_err(|_| invalid(what))).transpose()
        };
        let authorization = match options.token.read()? {
            None => None,
            Some(token) => {
                let mut value = MetadataValue::try_from(format!("Bearer {token}"))
                    .map_err(|_| invalid("the zone token"))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Headers {
            zone: options.zone.parse().map_err(|_| invalid("the zone name"))?,
            version: options.version.parse().map_err(|_| invalid("the version"))?,
            instance: own(Some(instance).filter(|instance| !instance.is_empty()), "the instance id")?,
            identity: own(identity, "the zone's identity")?,
            term: term.map(MetadataValue::from),
            authorization,
        })
    }
}

impl tonic::service::Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert("version", self.version.clone());
        metadata.insert("client-id", self.zone.clone());
        metadata.insert("kds-version", MetadataValue::from_static("v3"));
        metadata.insert("zone-version", MetadataValue::from_static("v3"));
        for feature in HEADER_FEATURES {
            metadata.append("features", MetadataValue::from_static(feature));
        }
        let own = [
            (INSTANCE_HEADER, &self.instance),
            (ZONE_IDENTITY_HEADER, &self.identity),
            (TERM_HEADER, &self.term),
        ];
        for (key, value) in own {
            if let Some(value) = value {
                metadata.insert(key, value.clone());
            }
        }
        if let Some(authorization) = &self.authorization {
            metadata.insert("authorization", authorization.clone());
        }
        Ok(request)
    }
}
