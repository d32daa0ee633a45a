//! What a recording says before and after an event.

use std::collections::BTreeSet;

use super::super::recording::{Event, Message, Recording, Rpc, What};
use super::super::sides::Next;
use super::Link;

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

/// What is recorded after an event of a connection, until the played side says something about the kind.
pub(super) fn next_responses(recording: &Recording, index: usize, conn: u64, is_by_zone: bool) -> Next {
    let (mut next, mut closed) = (Next::new(), BTreeSet::new());
    for event in recording.events.iter().filter(|event| event.index >= index && event.conn == conn) {
        match &event.what {
            What::Message(message) => {
                let is_played = message.by_zone != is_by_zone;
                let is_expected = !is_played && message.is_response() && !closed.contains(message.kind());
                // What comes after an answer needs the answer; a zone of ours is faster than the recorded one all
                // the same, and says in one response what that one said in several.
                let is_answer = is_played && !is_by_zone && !message.is_response();
                if is_expected {
                    next.entry(message.kind().to_owned()).or_default().push(message.clone());
                } else if is_answer {
                    closed.insert(message.kind());
                }
            }
            What::Open(..) | What::Disconnected => break,
            _ => {}
        }
    }
    next
}
