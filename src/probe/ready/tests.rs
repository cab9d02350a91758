use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;
use std::thread::JoinHandle;

use socket2::Socket;

use super::*;
use crate::sockets::{Listeners, Pick};

/// Two lanes on one address of each kind that has connections, all weight on lane 0.
fn listeners(folder: &tempfile::TempDir) -> Vec<Listeners> {
    let path = folder.path().join("app.sock");
    let addrs = ["127.0.0.1:0".to_owned(), format!("unix:{}", path.display())];
    let bind = |addr: String| {
        let addrs = BTreeMap::from([("http".to_owned(), addr.parse().expect("is an address"))]);
        Listeners::bind(&addrs, 2, Pick::Random).expect("both are free")
    };
    addrs.into_iter().map(bind).collect()
}

fn lane_1(listeners: &Listeners) -> Socket {
    let copy = listeners.lane(1)[0].1.try_clone_to_owned().expect("descriptors are left");
    let socket = Socket::from(copy);
    socket.set_nonblocking(false).expect("is a socket");
    socket
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn http() -> ReadyCheck {
    ReadyCheck::Http(HttpCheck {
        method: "GET".to_owned(),
        path: "/".to_owned(),
        host: "localhost".to_owned(),
        expect: 200..=299,
    })
}

/// Accepts one connection, says `words`, and keeps it.
fn server(lane: Socket, words: &'static str) -> JoinHandle<Socket> {
    std::thread::spawn(move || {
        let (mut accepted, _) = lane.accept().expect("a probe comes");
        accepted.write_all(words.as_bytes()).expect("the prober is there");
        accepted
    })
}

fn own() -> Vec<Pid> {
    vec![Pid(std::process::id())]
}

#[tokio::test]
async fn a_worker_that_accepts_on_its_lane_is_proven() {
    let folder = tempfile::tempdir().expect("there is room");
    for mut listeners in listeners(&folder) {
        let worker = server(lane_1(&listeners), "");
        let probe = listeners.start_probe("http", 1).expect("a probe starts");
        let id = probe.id;
        assert_eq!(steered(probe, &ReadyCheck::Accepts, own, soon()).await.expect("accepts"), Proof::Accepted);
        listeners.finish_probe(id);
        worker.join().expect("the worker accepted");
    }
}

#[tokio::test]
async fn an_answer_on_its_lane_proves_a_worker_and_a_bad_one_does_not() {
    let folder = tempfile::tempdir().expect("there is room");
    for mut listeners in listeners(&folder) {
        for (words, good) in [("HTTP/1.1 200 OK\r\n\r\n", true), ("HTTP/1.1 500 Oh No\r\n\r\n", false)] {
            let worker = server(lane_1(&listeners), words);
            let probe = listeners.start_probe("http", 1).expect("a probe starts");
            let (id, decided) = (probe.id, steered(probe, &http(), own, soon()).await);
            listeners.finish_probe(id);
            worker.join().expect("the worker accepted");
            match decided {
                Ok(Proof::Answered(status)) => assert!(good && status.code == 200),
                Err(error) => assert!(!good && error.to_string() == "answered 500 Oh No", "{error}"),
                Ok(Proof::Accepted) => panic!("an answer was asked for"),
            }
        }
    }
}

#[tokio::test]
async fn a_worker_that_does_not_accept_is_named_with_what_it_listens_on() {
    let folder = tempfile::tempdir().expect("there is room");
    for mut listeners in listeners(&folder) {
        let elsewhere = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let elsewhere = elsewhere.local_addr().map(|addr| (elsewhere, ListenAddr::Tcp(addr))).expect("is bound");
        for check in [ReadyCheck::Accepts, http()] {
            let probe = listeners.start_probe("http", 1).expect("a probe starts");
            let (id, deadline) = (probe.id, Instant::now() + Duration::from_millis(80));
            let error = steered(probe, &check, own, deadline).await.expect_err("nobody accepts");
            listeners.finish_probe(id);
            let NotReady::NotAccepted { elsewhere: found, .. } = &error else { panic!("{error}") };
            assert!(found.contains(&elsewhere.1), "{error}");
            assert!(error.to_string().contains("socket; it listens on "), "{error}");
            let own = listeners.local_addr("http").expect("is bound");
            assert!(!found.contains(&own), "{error}");
        }
    }
}

#[tokio::test]
async fn a_stranger_who_accepts_proves_nothing() {
    let folder = tempfile::tempdir().expect("there is room");
    for mut listeners in listeners(&folder) {
        let worker = server(lane_1(&listeners), "");
        let probe = listeners.start_probe("http", 1).expect("a probe starts");
        let decided =
            steered(probe, &ReadyCheck::Accepts, || vec![Pid(std::os::unix::process::parent_id())], soon()).await;
        assert!(matches!(decided, Err(NotReady::AcceptedElsewhere)), "{decided:?}");
        worker.join().expect("somebody accepted");
    }
}

#[tokio::test]
async fn a_worker_that_closes_at_once_proves_nothing() {
    let folder = tempfile::tempdir().expect("there is room");
    for mut listeners in listeners(&folder) {
        let probe = listeners.start_probe("http", 1).expect("a probe starts");
        drop(server(lane_1(&listeners), "").join().expect("the worker accepted"));
        let decided = steered(probe, &ReadyCheck::Accepts, own, soon()).await;
        assert!(matches!(decided, Err(NotReady::ClosedAtOnce)), "{decided:?}");
    }
}
