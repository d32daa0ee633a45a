//! Members of the metadata of nodes: what the sender of a request says besides (federation.md §1.6). Our own ones are ignored
//! by Kuma peers.

use graticule_proto::discovery::Node;
use graticule_proto::google::protobuf::value::Kind as ValueKind;
use graticule_proto::google::protobuf::{ListValue, Struct, Value};

/// Numbers up to this one are exact, and large enough for whatever is counted.
const NUMBER_MAX: f64 = 1e15;

/// Member of the node metadata of requests: how many removals of the kind the sender holds back. Kuma peers ignore it.
pub(super) const HELD_BACK_MEMBER: &str = "graticule-held-back";

/// Member of the node metadata of first requests: the sender presents what it holds, so that a first state may come in
/// parts. Kuma peers ignore it.
pub(super) const TAKES_PARTS_MEMBER: &str = "graticule-takes-parts";

/// Member of the node metadata of first requests: the meshes of which the sender wants to have resources. Kuma peers ignore
/// it.
pub(super) const MESHES_MEMBER: &str = "graticule-meshes";

/// Member of the node metadata of a further request for a kind on a living stream, with a number that grows: the sender
/// presents what it holds and wants the rest again. Sent only to who marks its responses ([`stamp`](super::stamp)).
pub(super) const AGAIN_MEMBER: &str = "graticule-again";

/// Member of the node metadata of requests: the features of the sender.
pub(super) const FEATURES_MEMBER: &str = "features";

/// Says something.
pub(super) fn tell(node: &mut Node, member: &str, value: ValueKind) {
    let metadata = node.metadata.get_or_insert_with(Struct::default);
    metadata.fields.insert(member.into(), Value { kind: Some(value) });
}

/// Says a number, unless it is 0.
pub(super) fn tell_number(node: &mut Node, member: &str, number: u64) {
    if number == 0 {
        return;
    }
    #[expect(clippy::cast_precision_loss, reason = "it counts; nobody has so many")]
    tell(node, member, ValueKind::NumberValue(number as f64));
}

/// Says some texts.
pub(super) fn tell_texts<'a>(node: &mut Node, member: &str, texts: impl Iterator<Item = &'a str>) {
    let value = |text: &str| Value { kind: Some(ValueKind::StringValue(text.into())) };
    tell(node, member, ValueKind::ListValue(ListValue { values: texts.map(value).collect() }));
}

fn told<'a>(node: &'a Node, member: &str) -> Option<&'a ValueKind> {
    node.metadata.as_ref()?.fields.get(member)?.kind.as_ref()
}

/// Whether the sender says yes.
pub(super) fn is_true(node: &Node, member: &str) -> bool {
    matches!(told(node, member), Some(ValueKind::BoolValue(true)))
}

/// The whole number that the sender says; 0: it says none, or something else.
pub(super) fn number(node: &Node, member: &str) -> u64 {
    match told(node, member) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
        Some(ValueKind::NumberValue(number)) if (1.0..NUMBER_MAX).contains(number) => *number as u64,
        _ => 0,
    }
}

/// The texts that the sender lists; what is no text is left out.
pub(super) fn texts(node: &Node, member: &str) -> impl Iterator<Item = String> {
    let values = match told(node, member) {
        Some(ValueKind::ListValue(list)) => list.values.as_slice(),
        _ => &[],
    };
    values.iter().filter_map(|value| match &value.kind {
        Some(ValueKind::StringValue(text)) => Some(text.clone()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let mut node = Node::default();
        tell_number(&mut node, "n", 0);
        assert_eq!((node.metadata.is_none(), number(&node, "n")), (true, 0));
        tell_number(&mut node, "n", 7);
        tell_texts(&mut node, "t", ["a", "b"].into_iter());
        tell(&mut node, "b", ValueKind::BoolValue(true));
        assert_eq!(number(&node, "n"), 7);
        assert_eq!(texts(&node, "t").collect::<Vec<_>>(), ["a", "b"]);
        assert!(is_true(&node, "b") && !is_true(&node, "n"));
        for odd in [f64::NAN, -1.0, 0.5, f64::INFINITY, NUMBER_MAX] {
            tell(&mut node, "n", ValueKind::NumberValue(odd));
            assert_eq!(number(&node, "n"), 0, "{odd}");
        }
        assert_eq!((number(&node, "t"), texts(&node, "n").count()), (0, 0));
    }
}
