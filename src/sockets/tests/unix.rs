//! Lanes of Unix sockets.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use camino::{Utf8Path, Utf8PathBuf};
use tempfile::TempDir;

use super::given::*;
use crate::sockets::{Acceptance, BindError, Holder, ListenAddr, Listeners, SockDiag, StartProbeError};

fn folder() -> (TempDir, Utf8PathBuf) {
    let folder = tempfile::tempdir().expect("there is room");
    let path = Utf8PathBuf::from_path_buf(folder.path().join("app.sock")).expect("is UTF-8");
    (folder, path)
}

fn entries(folder: &TempDir) -> usize {
    fs::read_dir(folder.path()).expect("is a folder").count()
}

fn queues(listeners: &Listeners) -> Vec<u32> {
    (0..listeners.lanes()).map(|lane| listeners.queued(lane).expect("the lane exists")).collect()
}

#[test]
fn new_connections_go_to_the_heaviest_lane() {
    let (_folder, path) = folder();
    let mut listeners = bind(&format!("unix:{path}"), 3);
    let connect = || UnixStream::connect(&path).expect("some lane listens");
    let mut clients = vec![connect()];
    assert_eq!(queues(&listeners), [1, 0, 0]);
    for (weights, expected) in [([1, 9, 0], [1, 1, 0]), ([0, 0, 1], [1, 1, 1]), ([2, 0, 2], [2, 1, 1])] {
        listeners.set_weights(&weights).expect("one lane is published");
        listeners.set_weights(&weights).expect("the same again is nothing new");
        clients.push(connect());
        assert_eq!(queues(&listeners), expected);
    }
}

#[test]
fn fifteen_swaps_under_load_refuse_nobody() {
    let (_folder, path) = folder();
    let mut listeners = bind(&format!("unix:{path}"), 2);
    let (stop, connected) = (AtomicBool::new(false), AtomicUsize::new(0));
    let lanes = [0, 1].map(|lane| listeners.lane(lane)[0].1.try_clone_to_owned().expect("descriptors are left"));
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let client = UnixStream::connect(&path);
                    client.expect("refused during a swap");
                    connected.fetch_add(1, Ordering::Relaxed);
                    lanes.iter().for_each(|fd| while accept(fd.as_fd()).is_some() {});
                }
            });
        }
        for swap in 1..=15 {
            let before = connected.load(Ordering::Relaxed);
            until("clients connect", || (connected.load(Ordering::Relaxed) > before + 50).then_some(()));
            listeners.set_weights(if swap % 2 == 0 { &[1, 0] } else { &[0, 1] }).expect("a lane is published");
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn nothing_is_left_at_the_end_and_nothing_of_others_is_removed() {
    let (folder, path) = folder();
    let listeners = bind(&format!("unix:{path}"), 3);
    assert!(entries(&folder) > 3);
    drop(listeners);
    assert_eq!(entries(&folder), 0);

    let listeners = bind(&format!("unix:{path}"), 1);
    fs::remove_file(&path).expect("is there");
    let _other = UnixListener::bind(&path).expect("the path is free");
    drop(listeners);
    UnixStream::connect(&path).expect("the other's socket is still there");
}

#[test]
fn a_file_that_nobody_listens_on_is_replaced() {
    let (_folder, path) = folder();
    drop(UnixListener::bind(&path).expect("the path is free"));
    assert!(path.exists());
    bind(&format!("unix:{path}"), 1);
}

#[test]
fn a_path_in_use_names_its_holder_and_stays() {
    let (_folder, path) = folder();
    let mut worker = Worker::start(None);
    worker.does(&format!("s = socket.socket(socket.AF_UNIX); s.bind('{path}'); s.listen()"));
    let error = Listeners::bind(&named(&format!("unix:{path}")), 2, Default::default()).expect_err("it is taken");
    let BindError::InUse { holder: Holder::Process(holder), .. } = &error else { panic!("{error}") };
    assert_eq!(holder.pid, worker.pid());
    let datagrams = named(&format!("unix-dgram:{path}"));
    let error = Listeners::bind(&datagrams, 2, Default::default()).expect_err("by a socket of another kind too");
    assert!(matches!(error, BindError::InUse { holder: Holder::Process(_), .. }), "{error}");
    UnixStream::connect(&path).expect("the worker still listens");
}

#[test]
fn a_path_that_is_no_socket_is_refused_and_stays() {
    let (_folder, path) = folder();
    fs::write(&path, "precious").expect("there is room");
    let error = Listeners::bind(&named(&format!("unix:{path}")), 1, Default::default()).expect_err("it is a file");
    assert!(matches!(&error, BindError::NotASocket { path: named, .. } if *named == path), "{error}");
    assert_eq!(fs::read_to_string(&path).expect("is still there"), "precious");
}

#[test]
fn a_path_with_no_room_for_the_lanes_names_is_refused() {
    let path = Utf8Path::new("/tmp").join("x".repeat(100));
    let error = Listeners::bind(&named(&format!("unix:{path}")), 1, Default::default()).expect_err("too long");
    assert!(matches!(error, BindError::LanePathTooLong { .. }), "{error}");
}

#[test]
fn a_name_that_a_worker_removed_comes_back() {
    let (folder, path) = folder();
    let mut listeners = bind(&format!("unix:{path}"), 2);
    let mut worker = Worker::start(Some(listeners.lane(1)[0].1));
    let before = entries(&folder);
    worker.does("import os; os.unlink(listener.getsockname())");
    assert_eq!(entries(&folder), before - 1);
    listeners.set_weights(&[0, 1]).expect("the lane is published all the same");
    let _client = UnixStream::connect(&path).expect("lane 1 listens");
    assert_eq!(queues(&listeners), [0, 1]);
    listeners.reassert_listen(1).expect("the lane exists");
    assert_eq!(entries(&folder), before);
    worker.does("os.unlink(listener.getsockname())");
}

#[test]
fn a_probe_reaches_an_unpublished_lane_and_who_accepted_it_is_known() {
    let (_folder, path) = folder();
    let mut listeners = bind(&format!("unix:{path}"), 2);
    let mut worker = Worker::start(Some(listeners.lane(1)[0].1));
    let probe = listeners.start_probe("http", 1).expect("a probe starts");
    assert_eq!(queues(&listeners), [0, 1]);
    let mut diag = SockDiag::open().expect("the kernel has sock_diag");
    let mut asked = |pid| diag.acceptance(&probe.ends, || vec![pid]).expect("the kernel answers");
    assert_eq!(asked(worker.pid()), Acceptance::Queued);
    worker.does("kept.append(listener.accept()[0])");
    assert_eq!(asked(worker.pid()), Acceptance::Held);
    assert_eq!(asked(agentd_core::id::Pid(std::process::id())), Acceptance::HeldElsewhere);
    worker.does("kept.pop().close()");
    assert_eq!(asked(worker.pid()), Acceptance::Gone);
    listeners.finish_probe(probe.id);
}

#[test]
fn connections_of_a_worker_on_a_unix_lane_are_found() {
    let (_folder, path) = folder();
    let listeners = bind(&format!("unix:{path}"), 2);
    let mut worker = Worker::start(Some(listeners.lane(0)[0].1));
    let _clients = [(); 3].map(|()| UnixStream::connect(&path).expect("lane 0 listens"));
    worker.does("kept += [listener.accept()[0] for _ in range(2)]");
    let mut diag = SockDiag::open().expect("the kernel has sock_diag");
    let found = diag.connections(&[worker.pid()], &listeners.accepting_addrs()).expect("the kernel answers");
    assert_eq!(found.len(), 2, "the third waits in the queue: {found:?}");
    assert_eq!(listeners.queued(0).expect("lane 0 exists"), 1);
    assert!(found.iter().all(|connection| connection.traffic.is_none() && connection.remote.is_none()));
}

#[test]
fn datagrams_go_to_the_heaviest_lane_and_cannot_be_probed() {
    let (_folder, path) = folder();
    let mut listeners = bind(&format!("unix-dgram:{path}"), 2);
    let sender = UnixDatagram::unbound().expect("sockets are left");
    listeners.set_weights(&[0, 1]).expect("a lane is published");
    sender.send_to(b"hello", &path).expect("lane 1 receives");
    assert_eq!(queues(&listeners)[0], 0);
    assert!(queues(&listeners)[1] > 0);
    let refused = listeners.start_probe("http", 0);
    assert!(matches!(refused, Err(StartProbeError::NoConnections(ListenAddr::UnixDatagram(_)))));
}
