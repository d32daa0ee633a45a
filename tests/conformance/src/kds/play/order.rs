//! What a recording says before and after an event.

use std::collections::BTreeSet;

use super::super::recording::{Event, Message, Recording, Rpc, What};
use super::super::sides::Next;
use super::{Link, is_rival};

/// Whether global ends the stream of an event later, on the same connection.
pub(super) fn is_closed_later(recording: &Recording, event: &Event, rpc: Rpc) -> bool {
    let after = recording.events.iter().filter(|other| other.conn == event.conn && other.index > event.index);
    let mut ends = after.take_while(|other| !matches!(&other.what, What::Open(opened, _) if *opened == rpc));
    ends.any(|other| matches!(&other.what, What::Closed(closed, _) if *closed == rpc))
}

/// Whether the other side says nothing on the stream of a message, on this connection.
pub(super) fn is_never_answered(recording: &Recording, event: &Event, message: &Message) -> bool {
    let answers = |other: &&Event| match &other.what {
        What::Message(other) => other.rpc == message.rpc && other.by_zone != message.by_zone,
        What::Closed(rpc, _) => *rpc == message.rpc,
        _ => false,
    };
    let of_connection = |other: &&Event| other.conn == event.conn;
    !recording.events.iter().filter(of_connection).any(|other| answers(&other))
}

/// Connections that are open when a recording begins.
pub(super) fn already_joined(recording: &Recording) -> BTreeSet<Link> {
    let (mut opened, mut joined) = (BTreeSet::new(), BTreeSet::new());
    for event in &recording.events {
        let Some(zone) = event.zone.clone() else { continue };
        let link = (zone, event.conn);
        match &event.what {
            What::Open(..) => {
                opened.insert(link);
            }
            What::Message(_) if !opened.contains(&link) => {
                joined.insert(link);
            }
            _ => {}
        }
    }
    joined
}

/// Whether a recording of a connected zone begins with first requests: on a stream that it does not show.
pub(super) fn speaks_first(recording: &Recording, link: &Link) -> bool {
    recording
        .events
        .iter()
        .filter(|event| event.conn == link.1)
        .find_map(|event| match &event.what {
            What::Message(message) => Some(!message.is_response() && message.response_nonce().is_none()),
            _ => None,
        })
        .unwrap_or_default()
}

/// Kinds that the other side asks for in the stream that opens with `event`.
pub(super) fn kinds_asked(recording: &Recording, event: &Event, rpc: Rpc) -> BTreeSet<String> {
    let of_link = |other: &&Event| other.conn == event.conn && other.index >= event.index;
    let after = recording.events.iter().filter(of_link);
    after
        .filter_map(|event| match &event.what {
            What::Message(message) if message.rpc == rpc && !message.is_response() => Some(message),
            _ => None,
        })
        .filter(|message| message.response_nonce().is_none())
        .map(|message| message.kind().to_owned())
        .collect()
}

/// What our global says, in the recording, after an event of a connection, until the played zone says something about
/// the kind.
pub(super) fn next_responses(recording: &Recording, index: usize, conn: u64) -> Next {
    let (mut next, mut closed) = (Next::default(), BTreeSet::new());
    for event in recording.events.iter().filter(|event| event.index >= index && event.conn == conn) {
        match &event.what {
            What::Message(message) => {
                let is_expected =
                    !message.by_zone && message.is_response() && !closed.contains(message.kind());
                // What comes after an answer needs the answer.
                if is_expected {
                    next.responses.entry(message.kind().to_owned()).or_default().push(message.clone());
                } else if message.by_zone && !message.is_response() {
                    let is_first = closed.insert(message.kind());
                    if is_first && message.error().is_some() {
                        next.refused.insert(message.kind().to_owned());
                    }
                }
            }
            What::Open(..) | What::Disconnected => break,
            _ => {}
        }
    }
    next
}

/// What our zone says, in the recording, after an event, also on later connections, until its program ends. What it
/// derives does not wait for global, and it is faster than the recorded one.
pub(super) fn next_of_zone(recording: &Recording, index: usize, zone: &str) -> Next {
    let mut next = Next::default();
    for event in recording.events.iter().filter(|event| event.index >= index) {
        match &event.what {
            What::Message(message)
                if event.zone.as_deref() == Some(zone)
                    && !is_rival(recording, event)
                    && message.by_zone
                    && message.is_response() =>
            {
                next.responses.entry(message.kind().to_owned()).or_default().push(message.clone());
            }
            What::Process(_, name) if name == zone => break,
            _ => {}
        }
    }
    next
}
