//! Scripted conversations. A script has one step per line:
//! `snap REVISION type:name=version …` (types `c e l s`), `> TYPE [+name] [-name] [have:name=version] [ack=NONCE]
//! [nack=NONCE:reason]`, `wait MILLISECONDS`. The transcript repeats each step, followed by what it caused:
//! `<` responses (`nonce type name@version … -removed`), `!` events.

use std::fmt::Write;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::google::rpc::Status;
use expect_test::{Expect, expect};

use super::*;

pub(super) fn mk_snapshot(revision: u64, resources: &str) -> Arc<Snapshot> {
    let mut snapshot = Snapshot { revision, ..Snapshot::default() };
    for word in resources.split_whitespace() {
        let (kind, rest) = word.split_once(':').expect("type:name=version");
        let (name, version) = rest.split_once('=').expect("name=version");
        let resource = EnvoyResource {
            name: name.into(),
            version: version.into(),
            body: format!("{name}={version}").into_bytes().into(),
        };
        let map = match kind {
            "c" => &mut snapshot.clusters,
            "e" => &mut snapshot.endpoints,
            "l" => &mut snapshot.listeners,
            "s" => &mut snapshot.secrets,
            other => panic!("unknown type {other}"),
        };
        map.insert(name.into(), Arc::new(resource));
    }
    Arc::new(snapshot)
}

fn mk_request(words: &str) -> discovery::DeltaDiscoveryRequest {
    let mut request = discovery::DeltaDiscoveryRequest::default();
    for word in words.split_whitespace() {
        let kind = ResourceType::ALL.into_iter().find(|kind| kind.to_string() == word);
        if let Some(kind) = kind {
            request.type_url = kind.type_url().into();
        } else if let Some(name) = word.strip_prefix('+') {
            request.resource_names_subscribe.push(name.into());
        } else if let Some(name) = word.strip_prefix('-') {
            request.resource_names_unsubscribe.push(name.into());
        } else if let Some((name, version)) = word.strip_prefix("have:").and_then(|rest| rest.split_once('='))
        {
            request.initial_resource_versions.insert(name.into(), version.into());
        } else if let Some(nonce) = word.strip_prefix("ack=") {
            request.response_nonce = nonce.into();
        } else if let Some((nonce, reason)) = word.strip_prefix("nack=").and_then(|rest| rest.split_once(':'))
        {
            request.response_nonce = nonce.into();
            let message = reason.replace('~', " ");
            request.error_detail = Some(Status { code: 13, message, ..Default::default() });
        } else {
            // A type that is not served.
            request.type_url = word.into();
        }
    }
    request
}

fn show_event(event: &Event) -> Option<String> {
    match event {
        Event::Sent { .. } => None,
        Event::Acked { kind, revision } => Some(format!("acked {kind} of {revision}")),
        Event::Nacked { kind, revision, names, message } => {
            Some(format!("nacked {kind} of {revision}: {} ({message})", names.join(" ")))
        }
        Event::Synced { revision, rejected: 0 } => Some(format!("synced {revision}")),
        Event::Synced { revision, rejected } => Some(format!("synced {revision} but {rejected} rejected")),
        Event::Serving => Some("serving".into()),
    }
}

fn show_response(response: &discovery::DeltaDiscoveryResponse) -> String {
    let kind = ResourceType::from_type_url(&response.type_url).expect("a served type");
    let mut line = format!("{} {kind}", response.nonce);
    for resource in &response.resources {
        let body = resource.resource.as_ref().expect("a body");
        assert_eq!(body.type_url, response.type_url);
        assert_eq!(body.value, format!("{}={}", resource.name, resource.version).into_bytes());
        let _ = write!(line, " {}@{}", resource.name, resource.version);
    }
    for name in &response.removed_resources {
        let _ = write!(line, " -{name}");
    }
    assert_eq!(response.control_plane.as_ref().expect("set").identifier, "cp-1");
    line
}

fn check(script: &str, transcript: Expect) {
    transcript.assert_eq(&run(script));
}

fn run(script: &str) -> String {
    let mut stream = Stream::new("m.p", "cp-1");
    let mut now = Duration::from_secs(100);
    let mut out = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let _ = writeln!(out, "{line}");
        let (word, rest) = line.split_once(' ').expect("a step");
        let mut events = Vec::new();
        match word {
            "snap" => {
                let (revision, resources) = rest.split_once(' ').unwrap_or((rest, ""));
                stream.on_snapshot(mk_snapshot(revision.parse().expect("a number"), resources));
            }
            ">" => match stream.on_request(&mk_request(rest)) {
                Ok(happened) => events = happened,
                Err(error) => {
                    let _ = writeln!(out, "    end: {error}");
                    continue;
                }
            },
            "wait" => now += Duration::from_millis(rest.parse().expect("a number")),
            other => panic!("unknown step {other}"),
        }
        let step = stream.poll(now);
        events.extend(step.events);
        for line in step.responses.iter().map(show_response) {
            let _ = writeln!(out, "    < {line}");
        }
        for line in events.iter().filter_map(show_event) {
            let _ = writeln!(out, "    ! {line}");
        }
        if let Some(at) = step.wake_at {
            let _ = writeln!(out, "    wake in {} ms", at.saturating_sub(now).as_millis());
        }
    }
    out
}

/// Brings a fresh client up to `c:a=1 e:a=1 l:x=1 s:k=1` of revision 1; nonces 1 to 4 are used.
const STARTED: &str = "
    snap 1 c:a=1 e:a=1 l:x=1 s:k=1
    > CDS
    > EDS +a
    > CDS ack=1
    > EDS ack=2
    > SDS +k
    > SDS ack=3
    > LDS
    > LDS ack=4";

fn check_started(script: &str, transcript: Expect) {
    let start = run(STARTED);
    let all = run(&format!("{STARTED}\n{script}"));
    transcript.assert_eq(all.strip_prefix(&start).expect("the same start"));
}

#[test]
fn fresh_envoy() {
    check(
        "> CDS
         snap 7 c:a=1 c:b=1 e:a=1 l:x=1 s:k=1 s:t=1
         > EDS +a
         > CDS ack=1
         > SDS +k
         > SDS +t
         > EDS ack=2
         > SDS ack=3
         > LDS
         > SDS ack=4
         > LDS ack=5",
        expect![[r#"
            > CDS
            snap 7 c:a=1 c:b=1 e:a=1 l:x=1 s:k=1 s:t=1
                < 1 CDS a@1 b@1
                wake in 1000 ms
            > EDS +a
                < 2 EDS a@1
                wake in 1000 ms
            > CDS ack=1
                ! acked CDS of 7
                wake in 1000 ms
            > SDS +k
                < 3 SDS k@1
                wake in 1000 ms
            > SDS +t
                < 4 SDS t@1
                wake in 1000 ms
            > EDS ack=2
                ! acked EDS of 7
            > SDS ack=3
                ! acked SDS of 7
            > LDS
                < 5 LDS x@1
            > SDS ack=4
                ! acked SDS of 7
            > LDS ack=5
                ! acked LDS of 7
                ! serving
                ! synced 7
        "#]],
    );
}

#[test]
fn one_unanswered_response_per_type_and_merging() {
    check_started(
        "snap 2 c:a=1 e:a=2 l:x=1 s:k=1
         snap 3 c:a=1 e:a=3 l:x=1 s:k=1
         snap 4 c:a=1 e:a=4 l:x=2 s:k=1
         > EDS ack=5
         > LDS ack=6
         > EDS ack=7",
        expect![[r#"
            snap 2 c:a=1 e:a=2 l:x=1 s:k=1
                < 5 EDS a@2
            snap 3 c:a=1 e:a=3 l:x=1 s:k=1
            snap 4 c:a=1 e:a=4 l:x=2 s:k=1
                < 6 LDS x@2
            > EDS ack=5
                < 7 EDS a@4
                ! acked EDS of 2
            > LDS ack=6
                ! acked LDS of 4
            > EDS ack=7
                ! acked EDS of 4
                ! synced 4
        "#]],
    );
}

#[test]
fn subscriptions_are_answered_although_a_response_is_unanswered() {
    check_started(
        "snap 2 c:a=1 e:a=2 e:b=1 l:x=1 s:k=1
         > EDS +b
         > EDS ack=5
         > EDS ack=6
         > CDS +*",
        expect![[r#"
            snap 2 c:a=1 e:a=2 e:b=1 l:x=1 s:k=1
                < 5 EDS a@2
            > EDS +b
                < 6 EDS b@1
            > EDS ack=5
                ! acked EDS of 2
            > EDS ack=6
                ! acked EDS of 2
                ! synced 2
            > CDS +*
                < 7 CDS
        "#]],
    );
}

#[test]
fn stale_nonce_neither_accepts_nor_rejects_but_subscribes() {
    check_started(
        "snap 2 c:a=1 e:a=2 l:x=1 s:k=1
         > EDS ack=999
         > EDS +a nack=999:no
         > EDS +a ack=2",
        expect![[r#"
            snap 2 c:a=1 e:a=2 l:x=1 s:k=1
                < 5 EDS a@2
            > EDS ack=999
            > EDS +a nack=999:no
                < 6 EDS a@2
            > EDS +a ack=2
                < 7 EDS a@2
        "#]],
    );
}

#[test]
fn unknown_names_wait_until_they_exist() {
    check_started(
        "> EDS +later
         > SDS +never
         snap 2 c:a=1 e:a=1 e:later=1 l:x=1 s:k=1",
        expect![[r#"
            > EDS +later
            > SDS +never
            snap 2 c:a=1 e:a=1 e:later=1 l:x=1 s:k=1
                < 5 EDS later@1
        "#]],
    );
}

#[test]
fn unused_types_are_never_answered() {
    check_started(
        "> type.googleapis.com/envoy.config.route.v3.RouteConfiguration +x",
        expect![[r#"
        > type.googleapis.com/envoy.config.route.v3.RouteConfiguration +x
    "#]],
    );
}

#[test]
fn unsubscribed_is_silent() {
    check_started(
        "> EDS -a
         snap 2 c:a=1 e:a=2 l:x=1 s:k=1
         > EDS +a",
        expect![[r#"
            > EDS -a
            snap 2 c:a=1 e:a=2 l:x=1 s:k=1
                ! synced 2
            > EDS +a
                < 5 EDS a@2
        "#]],
    );
}

#[test]
fn endpoints_follow_their_cluster() {
    check_started(
        "snap 2 c:a=2 c:b=1 e:a=1 l:x=1 s:k=1
         > CDS ack=5
         > EDS ack=6",
        expect![[r#"
            snap 2 c:a=2 c:b=1 e:a=1 l:x=1 s:k=1
                < 5 CDS a@2 b@1
                < 6 EDS a@1
                wake in 1000 ms
            > CDS ack=5
                ! acked CDS of 2
            > EDS ack=6
                ! acked EDS of 2
                ! synced 2
        "#]],
    );
}

#[test]
fn rejected_content_is_not_sent_again_until_it_changes() {
    check_started(
        "snap 2 c:a=1 e:a=1 l:x=bad l:y=1 s:k=1
         > LDS nack=5:Error~adding/updating~listener(s)~x:~malformed
         wait 10000
         snap 3 c:a=2 e:a=1 l:x=bad l:y=2 s:k=1
         > LDS ack=8
         > CDS ack=6
         > EDS ack=7
         snap 4 c:a=2 e:a=1 l:x=1 l:y=2 s:k=1
         > LDS ack=9",
        expect![[r#"
            snap 2 c:a=1 e:a=1 l:x=bad l:y=1 s:k=1
                < 5 LDS x@bad y@1
            > LDS nack=5:Error~adding/updating~listener(s)~x:~malformed
                ! nacked LDS of 2: x (Error adding/updating listener(s) x: malformed)
                ! synced 2 but 1 rejected
            wait 10000
            snap 3 c:a=2 e:a=1 l:x=bad l:y=2 s:k=1
                < 6 CDS a@2
                < 7 EDS a@1
                < 8 LDS y@2
            > LDS ack=8
                ! acked LDS of 3
            > CDS ack=6
                ! acked CDS of 3
            > EDS ack=7
                ! acked EDS of 3
                ! synced 3 but 1 rejected
            snap 4 c:a=2 e:a=1 l:x=1 l:y=2 s:k=1
                < 9 LDS x@1
            > LDS ack=9
                ! acked LDS of 4
                ! synced 4
        "#]],
    );
}

#[test]
fn culprit_of_a_response_is_found_and_the_others_flow() {
    check_started(
        "> EDS +b +c +d
         snap 2 c:a=1 e:a=2 e:b=2 e:c=bad e:d=2 l:x=1 s:k=1
         > EDS nack=5:Proto~constraint~validation~failed
         > EDS ack=6
         > EDS nack=7:Proto~constraint~validation~failed
         > EDS nack=8:Proto~constraint~validation~failed
         > EDS ack=9",
        expect![[r#"
            > EDS +b +c +d
            snap 2 c:a=1 e:a=2 e:b=2 e:c=bad e:d=2 l:x=1 s:k=1
                < 5 EDS a@2 b@2 c@bad d@2
            > EDS nack=5:Proto~constraint~validation~failed
                < 6 EDS a@2 b@2
                ! nacked EDS of 2:  (Proto constraint validation failed)
            > EDS ack=6
                < 7 EDS c@bad d@2
                ! acked EDS of 2
            > EDS nack=7:Proto~constraint~validation~failed
                < 8 EDS c@bad
                ! nacked EDS of 2:  (Proto constraint validation failed)
            > EDS nack=8:Proto~constraint~validation~failed
                < 9 EDS d@2
                ! nacked EDS of 2: c (Proto constraint validation failed)
            > EDS ack=9
                ! acked EDS of 2
                ! synced 2 but 1 rejected
        "#]],
    );
}

#[test]
fn resume_sends_only_what_differs() {
    check(
        "snap 9 c:a=1 c:b=2 e:a=1 e:b=1 l:x=1 s:k=1
         > CDS have:a=1 have:b=1 have:gone=1
         > EDS +a +b have:a=1 have:b=1
         > SDS +k have:k=1
         > LDS have:x=1
         > CDS ack=1
         > EDS ack=2
         > LDS ack=3
         > CDS ack=4",
        expect![[r#"
            snap 9 c:a=1 c:b=2 e:a=1 e:b=1 l:x=1 s:k=1
            > CDS have:a=1 have:b=1 have:gone=1
                < 1 CDS b@2
                wake in 1000 ms
            > EDS +a +b have:a=1 have:b=1
                < 2 EDS b@1
                wake in 1000 ms
            > SDS +k have:k=1
                wake in 1000 ms
            > LDS have:x=1
                < 3 LDS
                wake in 1000 ms
            > CDS ack=1
                ! acked CDS of 9
                wake in 1000 ms
            > EDS ack=2
                ! acked EDS of 9
                wake in 1000 ms
            > LDS ack=3
                < 4 CDS -gone
                ! acked LDS of 9
                ! serving
            > CDS ack=4
                ! acked CDS of 9
                ! synced 9
        "#]],
    );
}

#[test]
fn resume_with_nothing_new() {
    check(
        "snap 9 c:a=1 e:a=1 l:x=1 s:k=1
         > CDS have:a=1
         > EDS +a have:a=1
         > SDS +k have:k=1
         > LDS have:x=1
         > CDS ack=1
         > LDS ack=2",
        expect![[r#"
            snap 9 c:a=1 e:a=1 l:x=1 s:k=1
            > CDS have:a=1
                < 1 CDS
            > EDS +a have:a=1
            > SDS +k have:k=1
            > LDS have:x=1
                < 2 LDS
            > CDS ack=1
                ! acked CDS of 9
            > LDS ack=2
                ! acked LDS of 9
                ! serving
                ! synced 9
        "#]],
    );
}

#[test]
fn resume_removes_secrets_that_are_gone() {
    check(
        "snap 9 l:x=1
         > CDS
         > SDS +old have:old=1
         > LDS have:x=1
         > CDS ack=1
         > LDS ack=2
         > SDS ack=3",
        expect![[r#"
            snap 9 l:x=1
            > CDS
                < 1 CDS
            > SDS +old have:old=1
                wake in 1000 ms
            > LDS have:x=1
                < 2 LDS
                wake in 1000 ms
            > CDS ack=1
                ! acked CDS of 9
                wake in 1000 ms
            > LDS ack=2
                < 3 SDS -old
                ! acked LDS of 9
            > SDS ack=3
                ! acked SDS of 9
                ! synced 9
        "#]],
    );
}

#[test]
fn make_before_break() {
    check_started(
        "snap 2 c:b=1 e:b=1 l:x=2 s:k2=1
         > SDS +k2
         > EDS +b
         > CDS ack=5
         > EDS ack=7
         > SDS ack=6
         > LDS ack=8
         > EDS -a
         > CDS ack=9
         > SDS ack=10",
        expect![[r#"
            snap 2 c:b=1 e:b=1 l:x=2 s:k2=1
                < 5 CDS b@1
                wake in 1000 ms
            > SDS +k2
                < 6 SDS k2@1
                wake in 1000 ms
            > EDS +b
                < 7 EDS b@1
                wake in 1000 ms
            > CDS ack=5
                ! acked CDS of 2
                wake in 1000 ms
            > EDS ack=7
                < 8 LDS x@2
                ! acked EDS of 2
                wake in 1000 ms
            > SDS ack=6
                ! acked SDS of 2
                wake in 1000 ms
            > LDS ack=8
                < 9 CDS -a
                ! acked LDS of 2
                wake in 1000 ms
            > EDS -a
                wake in 1000 ms
            > CDS ack=9
                < 10 SDS -k
                ! acked CDS of 2
            > SDS ack=10
                ! acked SDS of 2
                ! synced 2
        "#]],
    );
}

#[test]
fn holds_end_after_a_second() {
    check_started(
        "snap 2 c:b=1 e:b=1 l:x=2 s:k=1
         > CDS ack=5
         wait 999
         wait 1
         > CDS ack=7
         > LDS ack=6",
        expect![[r#"
            snap 2 c:b=1 e:b=1 l:x=2 s:k=1
                < 5 CDS b@1
                wake in 1000 ms
            > CDS ack=5
                ! acked CDS of 2
                wake in 1000 ms
            wait 999
                wake in 1 ms
            wait 1
                < 6 LDS x@2
                wake in 1000 ms
            > CDS ack=7
                wake in 1000 ms
            > LDS ack=6
                < 7 CDS -a
                ! acked LDS of 2
        "#]],
    );
}

#[test]
fn emptied_type_is_a_removal() {
    check_started(
        "snap 2 c:a=1 e:a=1 s:k=1
         > LDS ack=5",
        expect![[r#"
            snap 2 c:a=1 e:a=1 s:k=1
                < 5 LDS -x
            > LDS ack=5
                ! acked LDS of 2
                ! synced 2
        "#]],
    );
}

#[test]
fn nothing_changed_sends_nothing() {
    check_started(
        "snap 2 c:a=1 e:a=1 l:x=1 s:k=1",
        expect![[r#"
        snap 2 c:a=1 e:a=1 l:x=1 s:k=1
            ! synced 2
    "#]],
    );
}

#[test]
fn serving_waits_for_secrets() {
    check(
        "snap 1 l:x=1
         > CDS
         > CDS ack=1
         > LDS
         > SDS +k
         > LDS ack=2
         snap 2 l:x=1 s:k=1
         > SDS ack=3",
        expect![[r#"
            snap 1 l:x=1
            > CDS
                < 1 CDS
            > CDS ack=1
                ! acked CDS of 1
            > LDS
                < 2 LDS x@1
            > SDS +k
            > LDS ack=2
                ! acked LDS of 1
                ! synced 1
            snap 2 l:x=1 s:k=1
                < 3 SDS k@1
            > SDS ack=3
                ! acked SDS of 2
                ! serving
                ! synced 2
        "#]],
    );
}

#[test]
fn one_stream_is_one_node() {
    let mut stream = Stream::new("m.p", "cp-1");
    let mut request = mk_request("CDS");
    for (id, is_fine) in [("m.p", true), ("", true), ("m.q", false)] {
        request.node = Some(Node { id: id.into(), ..Default::default() });
        assert_eq!(stream.on_request(&request).is_ok(), is_fine, "{id}");
    }
}

#[test]
fn subscriptions_are_bounded() {
    let mut stream = Stream::new("m.p", "cp-1");
    let mut request = mk_request("EDS");
    request.resource_names_subscribe = (0..=NAMES_MAX).map(|n| n.to_string()).collect();
    let error = stream.on_request(&request).expect_err("too many");
    assert_eq!(error, StreamError::TooManyNames { kind: ResourceType::Endpoint });
}

#[test]
fn large_changes_are_split() {
    let mut snapshot = Snapshot { revision: 1, ..Snapshot::default() };
    for name in ["a", "b", "c", "d"] {
        let body = vec![b'x'; RESPONSE_BYTES_MAX / 2 - 100].into();
        let resource = EnvoyResource { name: name.into(), version: "1".into(), body };
        snapshot.clusters.insert(name.into(), Arc::new(resource));
    }
    let mut stream = Stream::new("m.p", "cp-1");
    stream.on_snapshot(Arc::new(snapshot));
    stream.on_request(&mk_request("CDS")).expect("fine");
    let sizes: Vec<usize> = stream.poll(Duration::ZERO).responses.iter().map(|r| r.resources.len()).collect();
    assert_eq!(sizes, [2, 2]);
}
