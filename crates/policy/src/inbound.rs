//! Rules of one inbound or zone proxy listener (policy-engine.md §3.3).

use std::cmp::Reverse;
use std::sync::Arc;

use graticule_model::Kind;
use graticule_model::targetref::{Match, MatchType};
use serde::Serialize;
use serde_json::Value;

use crate::body::{Origin, Policy};
use crate::inputs::Permission;
use crate::merge::merge;
use crate::typed::{Typed, read};

/// One entry of a rule list; entries are not merged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InboundRule {
    /// Condition; none = everything.
    pub r#match: Option<Match>,
    /// Configuration.
    pub conf: Arc<Value>,
    /// Where it comes from.
    pub origin: Origin,
}

/// The rule list of a listener, most specific condition first, and what follows from it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct InboundRules {
    /// The list.
    pub rules: Vec<InboundRule>,
    /// Merge of the entries without condition; none if there is no such entry.
    pub catch_all: Option<Value>,
    pub(crate) typed: Typed,
    pub(crate) permissions: Vec<Permission>,
}

impl InboundRules {
    /// Builds the list from policies that select the listener, ascending by priority. Fails if the merged
    /// configuration is none of the kind.
    pub fn build(kind: Kind, policies: &[Arc<Policy>]) -> Result<InboundRules, String> {
        let rules = expand(policies);
        let unconditional = rules.iter().filter(|rule| rule.r#match.is_none()).map(|rule| &*rule.conf);
        let catch_all = merge(kind.name(), unconditional).into_iter().next();
        let typed = Typed::new(kind, catch_all.as_ref())?;
        let permissions = match kind {
            Kind::MeshTrafficPermission => permissions(&rules)?,
            _ => Vec::new(),
        };
        Ok(InboundRules { rules, catch_all, typed, permissions })
    }
}

/// The list of policies that are ascending by priority.
pub(crate) fn expand(policies: &[Arc<Policy>]) -> Vec<InboundRule> {
    let mut rules = Vec::new();
    for policy in policies {
        for (rule_index, item) in policy.body.rules.iter().enumerate() {
            let origin = Origin { policy: policy.clone(), rule_index };
            let matches = item.matches.iter().cloned().map(Some);
            let matches = matches.chain(item.matches.is_empty().then_some(None));
            rules.extend(matches.map(|condition| InboundRule {
                r#match: condition,
                conf: item.conf.clone(),
                origin: origin.clone(),
            }));
        }
    }
    rules.sort_by_key(|rule| Reverse(specificity(rule.r#match.as_ref())));
    rules
}

/// Values and lengths of prefixes do not count.
fn specificity(condition: Option<&Match>) -> (bool, bool, bool) {
    let spiffe = condition.and_then(|condition| condition.spiffe_id.as_ref());
    let is_exact = spiffe.is_some_and(|spiffe| spiffe.r#type == MatchType::Exact);
    (spiffe.is_some(), is_exact, condition.is_some_and(|condition| condition.sni.is_some()))
}

fn permissions(rules: &[InboundRule]) -> Result<Vec<Permission>, String> {
    rules
        .iter()
        .map(|rule| Ok(Permission { policy: rule.origin.policy.meta.kri.clone(), conf: read(&rule.conf)? }))
        .collect()
}
