//! Query parameters: paging and filters of lists (rest-api.md §4).

use std::collections::BTreeMap;
use std::sync::Arc;

use graticule_model::{Resource, Spec, Violations};

use crate::error::{Error, title};

const PAGE_SIZE_DEFAULT: usize = 100;
const PAGE_SIZE_MAX: usize = 1000;

/// Decoded parameters in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(raw: Option<&str>) -> Query {
        let pairs = raw.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Query(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(&key.replace('+', " ")), decode(&value.replace('+', " ")))
                })
                .collect(),
        )
    }

    /// The first value that is given and not empty.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let first = self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str());
        first.filter(|value| !value.is_empty())
    }

    fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// The same query with another offset, keys sorted, encoded.
    fn at_offset(&self, offset: usize) -> String {
        let mut pairs: Vec<(String, String)> =
            self.0.iter().filter(|(k, _)| k != "offset").cloned().collect();
        pairs.push(("offset".into(), offset.to_string()));
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        let pairs: Vec<String> = pairs.iter().map(|(k, v)| format!("{}={}", encode(k), encode(v))).collect();
        pairs.join("&")
    }
}

/// Percent-decoding; what is no valid escape or no UTF-8 stays or is replaced.
pub(crate) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while let Some(&byte) = bytes.get(index) {
        let escape = bytes.get(index + 1..index + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) if byte == b'%' => {
                out.push(decoded);
                index += 3;
            }
            _ => {
                out.push(byte);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) size: usize,
    pub(crate) offset: usize,
}

impl Page {
    pub(crate) fn parse(query: &Query) -> Result<Page, Error> {
        Ok(Page { size: page_size(query)?, offset: page_offset(query)? })
    }

    /// Everything on one page.
    pub(crate) fn all() -> Page {
        Page { size: usize::MAX, offset: 0 }
    }

    /// The query of the next page, if there is one.
    pub(crate) fn next(self, query: &Query, total: usize) -> Option<String> {
        let next = self.offset.saturating_add(self.size);
        (next < total).then(|| query.at_offset(next))
    }
}

fn page_size(query: &Query) -> Result<usize, Error> {
    let invalid = |message: String| {
        let mut violations = Violations::default();
        violations.add("size", message);
        Error::with_parameters(title::LIST, "Invalid page size", violations)
    };
    let Some(text) = query.get("size") else { return Ok(PAGE_SIZE_DEFAULT) };
    let size: i64 = text.parse().map_err(|_| invalid("invalid format".into()))?;
    match usize::try_from(size) {
        Err(_) | Ok(0) => Err(invalid("must be greater than 0".into())),
        Ok(size) if size > PAGE_SIZE_MAX => {
            Err(invalid(format!("invalid page size of {size}. Maximum page size is {PAGE_SIZE_MAX}")))
        }
        Ok(size) => Ok(size),
    }
}

fn page_offset(query: &Query) -> Result<usize, Error> {
    let invalid = |reason: String| {
        let detail = format!("invalid: invalid offset: {reason}");
        Error::new(http::StatusCode::BAD_REQUEST, title::LIST, detail)
    };
    let Some(text) = query.get("offset") else { return Ok(0) };
    let offset: i64 =
        text.parse().map_err(|_| invalid(format!("strconv.Atoi: parsing \"{text}\": invalid syntax")))?;
    usize::try_from(offset).map_err(|_| invalid("must be non-negative".into()))
}

/// Which resources of a list are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    name: Option<String>,
    labels: BTreeMap<String, String>,
    gateway: Option<bool>,
    tags: Vec<(String, String)>,
}

impl Filter {
    /// `template` is the route's path with `{parameters}`: errors name it.
    pub(crate) fn parse(query: &Query, template: &str, is_dataplane: bool) -> Result<Filter, Error> {
        let mut filter = Filter { name: query.get("name").map(str::to_owned), ..Filter::default() };
        let mut violations = Violations::default();
        for (key, value) in &query.0 {
            let Some(inner) = key.strip_prefix("filter[") else { continue };
            let Some((inner, rest)) = inner.split_once(']') else { continue };
            match inner.strip_prefix("labels.") {
                None => {
                    violations.add(format!("{template}.{key}"), "filters are only supported on labels");
                }
                Some(_) if !rest.is_empty() => {
                    violations.add(format!("{template}.{key}"), "advanced filters are not supported");
                }
                Some(label) => {
                    filter.labels.insert(label.to_owned(), value.clone());
                }
            }
        }
        if is_dataplane {
            filter.gateway = gateway(query, template, &mut violations);
            let tags = query.all("tag").filter_map(|tag| tag.split_once(':'));
            filter.tags = tags.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        }
        violations.into_result().map_err(|violations| Error::invalid(title::LIST, violations))?;
        Ok(filter)
    }

    /// Everything matches.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Filter::default()
    }

    /// One of the labels that are asked for, to look up in an index: the one with the longest value, which few
    /// resources share more likely than a short one.
    pub(crate) fn a_label(&self) -> Option<(&str, &str)> {
        let longest = self.labels.iter().max_by_key(|(_, value)| value.len());
        longest.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// How many of `resources` match, and those of them that are on the page.
    pub(crate) fn page<'a>(
        &self,
        page: Page,
        resources: impl Iterator<Item = &'a Arc<Resource>>,
    ) -> (usize, Vec<&'a Arc<Resource>>) {
        let (mut total, mut found) = (0, Vec::new());
        for resource in resources.filter(|resource| self.matches(resource)) {
            if total >= page.offset && found.len() < page.size {
                found.push(resource);
            }
            total += 1;
        }
        (total, found)
    }

    pub(crate) fn matches(&self, resource: &Resource) -> bool {
        self.name.as_ref().is_none_or(|name| resource.meta.name.contains(name))
            && self.labels.iter().all(|(key, value)| resource.meta.label(key) == Some(value))
            && self.matches_dataplane(resource)
    }

    fn matches_dataplane(&self, resource: &Resource) -> bool {
        let Spec::Dataplane(dataplane) = &resource.spec else { return true };
        if self.gateway.is_some_and(|wanted| wanted != dataplane.is_gateway()) {
            return false;
        }
        if self.tags.is_empty() {
            return true;
        }
        let all_in = |pairs: &BTreeMap<String, String>| {
            self.tags.iter().all(|(key, wanted)| {
                pairs.get(key).is_some_and(|value| wanted == "*" || value.contains(wanted.as_str()))
            })
        };
        let gateway = dataplane.networking.as_ref().and_then(|networking| networking.gateway.as_ref());
        gateway.is_some_and(|gateway| all_in(&gateway.tags)) || all_in(&resource.meta.labels)
    }
}

fn gateway(query: &Query, template: &str, violations: &mut Violations) -> Option<bool> {
    let text = query.get("gateway")?;
    match text.to_ascii_lowercase().as_str() {
        "true" | "delegated" => Some(true),
        "false" => Some(false),
        _ => {
            let message = format!("should use `true`, `false` or `delegated` instead of {text}");
            violations.add(format!("{template}.gateway"), message);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        let page = |raw| Page::parse(&Query::parse(Some(raw))).ok().map(|page| (page.size, page.offset));
        for (raw, want) in [
            ("", Some((100, 0))),
            ("size=&offset=", Some((100, 0))),
            ("size=2&size=3&offset=7", Some((2, 7))),
            ("size=1001", None),
            ("size=0", None),
            ("size=x", None),
            ("offset=-1", None),
            ("offset=1.5", None),
        ] {
            assert_eq!(page(raw), want, "{raw}");
        }
    }

    #[test]
    fn next_query() {
        let query = Query::parse(Some("size=2&filter[labels.kuma.io/mesh]=a&name=%C3%A9"));
        let page = Page::parse(&query).expect("valid");
        let want = "filter%5Blabels.kuma.io%2Fmesh%5D=a&name=%C3%A9&offset=2&size=2";
        assert_eq!(page.next(&query, 3).as_deref(), Some(want));
        assert_eq!(page.next(&query, 2), None);
    }

    #[test]
    fn escapes() {
        for (text, want) in [("a%2Fb", "a/b"), ("%", "%"), ("%zz", "%zz"), ("%4", "%4"), ("%ff", "\u{fffd}")]
        {
            assert_eq!(decode(text), want);
        }
    }

    #[test]
    fn filters() {
        let parse = |raw| Filter::parse(&Query::parse(Some(raw)), "/t", true);
        let filter = parse("filter[labels.a]=1&filter[labels.a]=2&filter=x&tag=k:v:w&tag=bad&gateway=TRUE");
        let filter = filter.expect("valid");
        assert_eq!(filter.labels, BTreeMap::from([("a".into(), "2".into())]));
        assert_eq!((filter.tags, filter.gateway), (vec![("k".into(), "v:w".into())], Some(true)));
        for raw in ["filter[name]=a", "filter[labels.a][eq]=1", "filter[]=", "gateway=maybe"] {
            assert!(parse(raw).is_err(), "{raw}");
        }
    }
}
