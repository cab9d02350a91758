//! Probes that reach one lane, whatever its weight.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::given::*;
use crate::sockets::steer::Source;
use crate::sockets::tcp::TcpGroup;
use crate::sockets::{Acceptance, Listeners, Pick, ProbeEnds, ProbeId, SockDiag, StartProbeError};

/// The address that the prober had, of the one connection on `lane`.
fn accepted_from(listeners: &Listeners, lane: u32) -> SocketAddr {
    let socket = until("the probe is on its lane", || accept(listeners.lane(lane)[0].1));
    let remote = socket.peer_addr().expect("is connected").as_socket().expect("is TCP");
    SocketAddr::new(remote.ip().to_canonical(), remote.port())
}

fn source(ends: &ProbeEnds) -> SocketAddr {
    match ends {
        ProbeEnds::Tcp { local, .. } => *local,
        ProbeEnds::Unix { .. } => panic!("these lanes are TCP"),
    }
}

#[test]
fn probes_reach_their_lane_on_every_kind_of_address_and_however_lanes_are_picked() {
    for (addr, _) in kinds() {
        for pick in [Pick::Random, Pick::SourceAddress] {
            let mut listeners = Listeners::bind(&named(addr), 4, pick).expect("loopback has ports");
            listeners.set_weights(&[1, 1, 0, 0]).expect("weights are taken");
            for turn in 0..40 {
                let probes: Vec<_> =
                    (0..4).map(|lane| listeners.start_probe("http", lane).expect("a probe starts")).collect();
                for (lane, probe) in (0..).zip(&probes) {
                    assert_eq!(accepted_from(&listeners, lane), source(&probe.ends), "{addr}, turn {turn}");
                }
                probes.iter().for_each(|probe| listeners.finish_probe(probe.id));
                assert_eq!(drain(&listeners), [0; 4], "nothing else came");
            }
        }
    }
}

#[test]
fn ipv4_probes_reach_their_lane_of_a_dual_stack_group() {
    let Some((addr, _)) = kinds().into_iter().find(|(addr, _)| *addr == "[::]:0") else { return };
    for pick in [Pick::Random, Pick::SourceAddress] {
        let mut group = TcpGroup::bind(addr.parse().expect("is an address"), pick).expect("loopback has ports");
        group.ensure_lanes(3).expect("more lanes fit");
        let peer = (Ipv4Addr::LOCALHOST, group.local().port()).into();
        for turn in 0..100 {
            let from = Source::to(peer).expect("loopback has IPv4");
            let probe = group.start_probe_from(from, ProbeId(turn), 2).expect("a probe starts");
            until("the probe is on its lane", || accept(group.lane(2).expect("there are three")));
            group.finish_probe(probe.id);
        }
    }
}

#[test]
fn two_hundred_probes_under_traffic_all_reach_a_lane_that_nothing_else_reaches() {
    let mut listeners = bind("127.0.0.1:0", 3);
    listeners.set_weights(&[1, 1, 0]).expect("weights are taken");
    let to = tcp_addr(&listeners);
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let lanes: Vec<_> =
        [0, 1].map(|lane| listeners.lane(lane)[0].1.try_clone_to_owned().expect("descriptors are left")).into();
    std::thread::scope(|threads| {
        for fd in &lanes {
            let (stop, served) = (&stop, &served);
            threads.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let client = TcpStream::connect(to).expect("the lanes listen");
                    close_at_once(&client);
                    while accept(fd.as_fd()).is_some() {
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        until("traffic flows", || (served.load(Ordering::Relaxed) > 100).then_some(()));
        for turn in 0..10 {
            let probes: Vec<_> = (0..20).map(|_| listeners.start_probe("http", 2).expect("a probe starts")).collect();
            let mut expected: Vec<SocketAddr> = probes.iter().map(|probe| source(&probe.ends)).collect();
            let mut found: Vec<SocketAddr> = probes.iter().map(|_| accepted_from(&listeners, 2)).collect();
            expected.sort();
            found.sort();
            assert_eq!(found, expected, "turn {turn}");
            assert_eq!(listeners.queued(2).expect("lane 2 exists"), 0, "only probes reach lane 2");
            probes.iter().for_each(|probe| listeners.finish_probe(probe.id));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(listeners.queued(2).expect("lane 2 exists"), 0, "only probes reached lane 2");
}

#[test]
fn a_finished_probe_leaves_nothing_behind() {
    let mut listeners = bind("127.0.0.1:0", 2);
    let probe = listeners.start_probe("http", 1).expect("a probe starts");
    accepted_from(&listeners, 1);
    let from = source(&probe.ends);
    listeners.finish_probe(probe.id);
    listeners.finish_probe(probe.id);
    drop(probe);
    let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("sockets are left");
    client.set_reuse_address(true).expect("is a socket");
    client.bind(&from.into()).expect("the probe's port is free again");
    client.connect(&tcp_addr(&listeners).into()).expect("the lanes listen");
    assert_eq!(accepted_from(&listeners, 0), from, "goes by weight, as everybody else");
}

#[test]
fn a_probe_survives_weights_and_lanes_that_change_under_it() {
    let mut listeners = bind("127.0.0.1:0", 2);
    let probe = listeners.start_probe("http", 1).expect("a probe starts");
    listeners.ensure_lanes(4).expect("more lanes fit");
    listeners.set_weights(&[0, 0, 0, 1]).expect("weights are taken");
    let other = listeners.start_probe("http", 2).expect("a probe starts");
    assert_eq!(accepted_from(&listeners, 1), source(&probe.ends));
    assert_eq!(accepted_from(&listeners, 2), source(&other.ends));
}

#[test]
fn impossible_probes_are_refused() {
    let mut listeners = bind("127.0.0.1:0", 2);
    assert!(matches!(listeners.start_probe("admin", 0), Err(StartProbeError::NoSuchName(_))));
    assert!(matches!(listeners.start_probe("http", 2), Err(StartProbeError::NoSuchLane { lane: 2, lanes: 2 })));
    let probes: Vec<_> = (0..64).map(|_| listeners.start_probe("http", 1).expect("a probe starts")).collect();
    assert!(matches!(listeners.start_probe("http", 1), Err(StartProbeError::TooMany { running: 64, .. })));
    listeners.finish_probe(probes[0].id);
    listeners.start_probe("http", 1).expect("there is room again");
}

#[test]
fn whether_a_probe_was_accepted_and_by_whom_is_known() {
    for (addr, _) in kinds() {
        let mut listeners = bind(addr, 2);
        let mut worker = Worker::start(Some(listeners.lane(1)[0].1));
        let probe = listeners.start_probe("http", 1).expect("a probe starts");
        let mut diag = SockDiag::open().expect("the kernel has sock_diag");
        let asked = |diag: &mut SockDiag, pid| diag.acceptance(&probe.ends, || vec![pid]).expect("the kernel answers");

        assert_eq!(asked(&mut diag, worker.pid()), Acceptance::Queued, "{addr}");
        worker.does("kept.append(listener.accept()[0])");
        assert_eq!(asked(&mut diag, worker.pid()), Acceptance::Held, "{addr}");
        assert_eq!(asked(&mut diag, agentd_core::id::Pid(std::process::id())), Acceptance::HeldElsewhere, "{addr}");
        worker.does("kept.pop().close()");
        assert_eq!(asked(&mut diag, worker.pid()), Acceptance::Gone, "{addr}");
    }
}
