//! What comes over a connection and should not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use graticule_model::kinds::mesh::Mesh;
use graticule_model::{Meta, Resource};
use graticule_runtime::{Clock, Connection, Drain, Peer, Random};
use graticule_store::{Store as _, Txn};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinSet;

use super::rpc::{self, Answer, Call};
use crate::{Deps, Form, LogOptions, MemoryDisk, Options, RaftStore, wire};

const DEADLINE: Duration = Duration::from_secs(30);

struct Served {
    store: Arc<RaftStore>,
    connections: tokio::sync::mpsc::Sender<Connection>,
    _tasks: JoinSet<()>,
}

async fn serve(form: Form) -> Served {
    let deps = Deps {
        disk: Arc::new(MemoryDisk::new()),
        clock: Clock::system(),
        random: Random::system(),
        connector: None,
    };
    let log = LogOptions { segment_len: 64 << 10, inline: false };
    let store = RaftStore::open(Options { form, log, ..Options::default() }, deps).await.expect("opens");
    let store = Arc::new(store);
    let (connections, accepted) = tokio::sync::mpsc::channel(8);
    let incoming = futures::stream::unfold(accepted, |mut accepted| async move {
        accepted.recv().await.map(|connection| (Ok(connection), accepted))
    });
    let mut tasks = JoinSet::new();
    let served = store.clone();
    tasks.spawn(async move { served.serve(incoming.boxed(), Drain::never()).await });
    Served { store, connections, _tasks: tasks }
}

impl Served {
    async fn connect(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(64 << 10);
        let address = ([127, 0, 0, 1], 1).into();
        let peer = Peer { address, local: address, tls: false };
        self.connections.send(Connection::from_io(far, peer)).await.expect("it accepts");
        near
    }

    fn hello(&self) -> rpc::Hello {
        let cluster = self.store.cluster();
        rpc::Hello { protocol: rpc::PROTOCOL, cluster, from: 7, to: self.store.id() }
    }

    async fn greeted(&self) -> DuplexStream {
        let mut io = self.connect().await;
        let answer = call(&mut io, Call::Hello(self.hello())).await;
        assert_eq!(answer, Answer::Welcome(true));
        io
    }

    async fn works(&self) {
        let mesh = Resource::new(Meta::new("", "m"), Mesh::default());
        self.store.commit(Txn::put(mesh)).await.expect("it goes on");
    }
}

async fn call(io: &mut DuplexStream, call: Call) -> Answer {
    rpc::send(io, &rpc::Request { call: Some(call) }).await.expect("sent");
    let answer = tokio::time::timeout(DEADLINE, rpc::receive::<rpc::Response>(io, rpc::MESSAGE_LEN_MAX));
    let answer = answer.await.expect("in time").expect("readable").expect("open");
    answer.answer.expect("an answer")
}

async fn is_closed(io: &mut DuplexStream) {
    let mut rest = Vec::new();
    let end = tokio::time::timeout(DEADLINE, io.read_to_end(&mut rest)).await.expect("closed in time");
    assert_eq!(end.expect("closed"), 0, "without an answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused() {
    let served = serve(Form::Alone).await;
    let good = served.hello();
    for (what, hello) in [
        ("cluster \"other\"", rpc::Hello { cluster: "other".into(), ..good.clone() }),
        ("cluster \"\"", rpc::Hello { cluster: String::new(), ..good.clone() }),
        ("was meant", rpc::Hello { to: 1, ..good.clone() }),
        ("protocol 9", rpc::Hello { protocol: 9, ..good }),
    ] {
        let mut io = served.connect().await;
        let answer = call(&mut io, Call::Hello(hello)).await;
        assert!(matches!(&answer, Answer::Failed(reason) if reason.contains(what)), "{what}: {answer:?}");
        is_closed(&mut io).await;
    }
    let mut io = served.connect().await;
    rpc::send(&mut io, &rpc::Request { call: Some(Call::ReadIndex(true)) }).await.expect("sent");
    is_closed(&mut io).await;
    served.works().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_waits_takes_the_first_cluster() {
    let served = serve(Form::Join).await;
    let hello = rpc::Hello { cluster: "one".into(), ..served.hello() };
    let mut io = served.connect().await;
    assert_eq!(call(&mut io, Call::Hello(hello.clone())).await, Answer::Welcome(true));
    assert_eq!(served.store.cluster(), "one");
    let mut io = served.connect().await;
    let other = rpc::Hello { cluster: "two".into(), ..hello };
    assert!(matches!(call(&mut io, Call::Hello(other)).await, Answer::Failed(_)));
    assert!(served.store.initialize().await.is_err(), "it is promised");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_no_messages_end_the_connection() {
    let served = serve(Form::Alone).await;
    let too_long = u32::try_from(rpc::MESSAGE_LEN_MAX + 1).expect("fits").to_be_bytes();
    let cases: [(&str, bool, Vec<u8>); 5] = [
        ("too long before the greeting", false, vec![0, 1, 0, 0]),
        ("garbage before the greeting", false, [vec![0, 0, 0, 4], vec![0xff; 4]].concat()),
        ("too long", true, too_long.to_vec()),
        ("garbage", true, [vec![0, 0, 0, 4], vec![0xff; 4]].concat()),
        ("ends early", true, vec![0, 0, 0, 9, 1, 2]),
    ];
    for (what, is_greeted, bytes) in cases {
        let mut io = if is_greeted { served.greeted().await } else { served.connect().await };
        io.write_all(&bytes).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        io.shutdown().await.unwrap_or_else(|error| panic!("{what}: {error}"));
        is_closed(&mut io).await;
    }
    served.works().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_make_no_sense_get_an_error() {
    let served = serve(Form::Alone).await;
    let vote = wire::Vote { term: 9, member: 7, committed: true };
    let entry = |term, index| wire::Entry { id: Some(wire::LogId { term, index }), payload: None };
    let append = |entries| rpc::Append {
        vote: Some(vote),
        previous: Some(wire::LogId { term: 1, index: 5 }),
        entries,
        committed: None,
    };
    let part = |offset, bytes: &'static [u8], is_last| {
        Call::Snapshot(rpc::SnapshotPart {
            vote: Some(vote),
            offset,
            bytes: Bytes::from_static(bytes),
            is_last,
        })
    };
    let cases = [
        ("a second greeting", Call::Hello(served.hello())),
        ("no vote", Call::Append(rpc::Append { vote: None, ..append(vec![]) })),
        ("a gap", Call::Append(append(vec![entry(9, 7)]))),
        ("a fall of the term", Call::Append(append(vec![entry(9, 6), entry(8, 7)]))),
        ("a term of the future", Call::Append(append(vec![entry(10, 6)]))),
        ("the end of all indexes", {
            let previous = Some(wire::LogId { term: 1, index: u64::MAX });
            Call::Append(rpc::Append { previous, ..append(vec![entry(9, 0)]) })
        }),
        ("an entry without number", Call::Append(append(vec![wire::Entry { id: None, payload: None }]))),
        ("a ballot without vote", Call::Vote(rpc::VoteCall { vote: None, last: None, is_transfer: false })),
        ("a transfer without vote", Call::Transfer(rpc::Transfer { from: None, to: 1, last: None })),
        ("no proposal", Call::Forward(Bytes::from_static(&[0xff; 8]))),
        ("a proposal without identity", Call::Forward(Bytes::new())),
        ("a snapshot that begins in the middle", part(5, b"12345", false)),
        ("no snapshot", part(0, b"this is no snapshot, whatever is said", true)),
    ];
    for (what, wrong) in cases {
        let mut io = served.greeted().await;
        let answer = call(&mut io, wrong).await;
        assert!(matches!(answer, Answer::Failed(_)), "{what}: {answer:?}");
        // The connection goes on.
        let answer = call(&mut io, Call::ReadIndex(true)).await;
        assert!(
            matches!(answer, Answer::ReadIndex(rpc::ReadIndexAnswer { index: Some(_) })),
            "{what}: {answer:?}"
        );
    }
    let mut io = served.greeted().await;
    rpc::send(&mut io, &rpc::Request { call: None }).await.expect("sent");
    let answer: Option<rpc::Response> = rpc::receive(&mut io, 1000).await.expect("answered");
    assert!(matches!(answer.and_then(|a| a.answer), Some(Answer::Failed(_))), "a call of a newer version");
    served.works().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_writes_nothing() {
    let served = serve(Form::Alone).await;
    let mut io = served.greeted().await;
    let proposal = wire::Proposal { id: Bytes::from_static(&[1; 16]), ..wire::Proposal::default() };
    let answer = call(&mut io, Call::Forward(crate::codec::bytes(&proposal))).await;
    assert_eq!(answer, Answer::Forward(rpc::ForwardAnswer::Removed.into()), "7 is no member");
    served.works().await;
}

/// A connection that is kept may break after the request was taken; what the second request is told says nothing about
/// the first one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_after_a_lost_one_is_told_apart() {
    use rpc::ForwardAnswer::{Applied, NotLeader};
    let (near, mut far) = tokio::sync::mpsc::channel(4);
    let network = super::Network {
        connector: Some(Arc::new(move |_| {
            let near = near.clone();
            Box::pin(async move {
                let (io, other) = tokio::io::duplex(64 << 10);
                near.try_send(other).map_err(std::io::Error::other)?;
                Ok(Box::new(io) as Box<dyn graticule_runtime::listen::Io>)
            })
        })),
        from: 1,
        cluster: Arc::default(),
        members: Arc::default(),
        is_removed: Arc::default(),
        lost: Arc::default(),
        inline: false,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        // Each connection: what each call is answered; none = the connection ends instead.
        for answers in [vec![Some(Applied), None], vec![Some(NotLeader)]] {
            let mut io: DuplexStream = far.recv().await.expect("connects");
            let mut answers = answers.into_iter();
            while let Ok(Some(request)) = rpc::receive::<rpc::Request>(&mut io, rpc::MESSAGE_LEN_MAX).await {
                let answer = match request.call {
                    Some(Call::Hello(_)) => Answer::Welcome(true),
                    _ => match answers.next().flatten() {
                        Some(answer) => Answer::Forward(answer.into()),
                        None => break,
                    },
                };
                rpc::send(&mut io, &rpc::Response { answer: Some(answer) }).await.expect("sent");
            }
        }
    });
    let peer = network.peer(2, crate::Member::default());
    for (wanted, wants_repeated) in [(Applied, false), (NotLeader, true)] {
        let mut is_repeated = false;
        let answer = peer.forward(Bytes::from_static(b"x"), DEADLINE, &mut is_repeated).await;
        assert_eq!((answer.expect("answered"), is_repeated), (wanted, wants_repeated));
    }
}
