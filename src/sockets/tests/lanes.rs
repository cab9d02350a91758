//! Weights, lanes and whole addresses of TCP.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use socket2::{Domain, Socket, Type};

use super::given::*;
use crate::sockets::{BindError, Holder, ListenAddr, Listeners, Pick, WeightError};

/// How far a count of `n` trials with chance `p` may be off.
fn four_sigma(n: f64, p: f64) -> f64 {
    4.0 * (n * p * (1.0 - p)).sqrt()
}

#[test]
fn weights_of_5_and_95_are_kept_within_four_sigma_on_every_kind_of_address() {
    for (addr, clients) in kinds() {
        let mut listeners = bind(addr, 2);
        listeners.set_weights(&[5, 95]).expect("weights are taken");
        for client in clients {
            let got = spread(&listeners, client, 4000);
            assert_eq!(got[0] + got[1], 4000);
            let off = (got[0] as f64 - 200.0).abs();
            assert!(off < four_sigma(4000.0, 0.05), "{addr} from {client}: {got:?}");
        }
    }
}

#[test]
fn a_lane_of_weight_0_gets_exactly_none() {
    for (addr, clients) in kinds() {
        for client in clients {
            let mut listeners = bind(addr, 4);
            assert_eq!(spread(&listeners, client, 300), [300, 0, 0, 0], "{addr}: all to lane 0 before any weight");
            for lane in [3, 1, 2, 0] {
                let mut weights = [0; 4];
                weights[lane] = 100;
                listeners.set_weights(&weights).expect("weights are taken");
                let mut expected = [0; 4];
                expected[lane] = 500;
                assert_eq!(spread(&listeners, client, 500), expected, "{addr} from {client}");
            }
        }
    }
}

#[test]
fn new_lanes_come_last_and_get_nothing_until_they_have_weight() {
    let mut listeners = bind("127.0.0.1:0", 2);
    listeners.set_weights(&[0, 1]).expect("weights are taken");
    listeners.ensure_lanes(5).expect("more lanes fit");
    listeners.ensure_lanes(3).expect("fewer change nothing");
    assert_eq!(listeners.lanes(), 5);
    assert_eq!(spread(&listeners, "127.0.0.1", 300), [0, 300, 0, 0, 0]);
    for lane in 0..5 {
        let mut weights = [0; 5];
        weights[lane] = 7;
        listeners.set_weights(&weights).expect("weights are taken");
        let mut expected = [0; 5];
        expected[lane] = 100;
        assert_eq!(spread(&listeners, "127.0.0.1", 100), expected);
    }
}

#[test]
fn impossible_weights_change_nothing() {
    let mut listeners = bind("127.0.0.1:0", 2);
    listeners.set_weights(&[0, 1]).expect("weights are taken");
    assert!(matches!(listeners.set_weights(&[0, 0]), Err(WeightError::NoneLive)));
    assert!(matches!(listeners.set_weights(&[]), Err(WeightError::NoneLive)));
    let refused = listeners.set_weights(&[1, 1, 1]);
    assert!(matches!(refused, Err(WeightError::MoreThanLanes { weights: 3, lanes: 2 })));
    assert_eq!(spread(&listeners, "127.0.0.1", 100), [0, 100]);
    listeners.set_weights(&[1, 0, 0, 0]).expect("who is not there has no share");
    assert_eq!(spread(&listeners, "127.0.0.1", 100), [100, 0]);
}

/// Which lane each of many source addresses gets.
fn lanes_by_source(listeners: &Listeners) -> Vec<usize> {
    let to: SocketAddr = (Ipv4Addr::LOCALHOST, tcp_addr(listeners).port()).into();
    (1..=200_u8)
        .map(|source| {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("sockets are left");
            client.bind(&SocketAddr::from(([127, 1, 2, source], 0)).into()).expect("all of 127/8 is ours");
            client.connect(&to.into()).expect("the lanes listen");
            let lane = until("the connection is on some lane", || drain(listeners).iter().position(|got| *got == 1));
            close_at_once(&client.into());
            lane
        })
        .collect()
}

#[test]
fn a_source_stays_where_it_is_and_moves_only_when_the_weights_demand_it() {
    for addr in kinds().into_iter().map(|(addr, _)| addr).filter(|addr| addr.starts_with("0.") || *addr == "[::]:0") {
        let mut listeners = Listeners::bind(&named(addr), 3, Pick::SourceAddress).expect("loopback has ports");
        listeners.set_weights(&[1, 1, 0]).expect("weights are taken");
        let first = lanes_by_source(&listeners);
        assert_eq!(lanes_by_source(&listeners), first, "{addr}: nothing changed");
        assert_eq!(first.iter().copied().collect::<HashSet<_>>(), HashSet::from([0, 1]), "{addr}: both serve");

        listeners.set_weights(&[1, 1, 1]).expect("weights are taken");
        let second = lanes_by_source(&listeners);
        assert!(second.contains(&2), "{addr}: the third serves");
        for (before, after) in first.iter().zip(&second) {
            assert!(after == before || *after == 2, "{addr}: {before} to {after} though only lane 2 needs more");
        }
    }
}

#[test]
fn changing_how_lanes_are_picked_keeps_sockets_and_weights() {
    let mut old = bind("127.0.0.1:0", 2);
    old.set_weights(&[0, 1]).expect("weights are taken");
    let port = tcp_addr(&old).port();
    let mut new = Listeners::bind_reusing(&named("127.0.0.1:0"), 2, Pick::SourceAddress, &mut old).expect("is had");
    assert_eq!(tcp_addr(&new).port(), port);
    assert_eq!(spread(&new, "127.0.0.1", 100), [0, 100]);
    new.set_weights(&[1, 0]).expect("weights are taken");
    assert_eq!(spread(&new, "127.0.0.1", 100), [100, 0]);
}

#[test]
fn accept_queues_are_counted_per_lane() {
    for (addr, clients) in kinds() {
        let mut listeners = bind(addr, 3);
        listeners.set_weights(&[0, 0, 1]).expect("weights are taken");
        let to: SocketAddr = format!("{}:{}", clients[0], tcp_addr(&listeners).port()).parse().expect("is one");
        let _clients: Vec<TcpStream> = (0..37).map(|_| TcpStream::connect(to).expect("lane 2 listens")).collect();
        until("all 37 wait", || (listeners.queued(2).expect("lane 2 exists") == 37).then_some(()));
        assert_eq!(listeners.queued(0).expect("lane 0 exists"), 0);
        drain(&listeners);
        assert_eq!(listeners.queued(2).expect("lane 2 exists"), 0);
        assert_eq!(listeners.queued(3).expect_err("there is no lane 3").kind(), ErrorKind::NotFound);
    }
}

#[test]
fn a_backlog_that_a_runtime_made_small_is_made_large_again() {
    let mut listeners = bind("127.0.0.1:0", 1);
    let given = listeners.lane(0)[0].1.try_clone_to_owned().expect("descriptors are left");
    Socket::from(given).listen(1).expect("listening sockets take a new backlog");
    listeners.reassert_listen(0).expect("the lane exists");
    let to = tcp_addr(&listeners);
    let _clients: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(to).expect("there is room for 50")).collect();
    until("all 50 wait", || (listeners.queued(0).expect("lane 0 exists") == 50).then_some(()));
}

#[test]
fn a_socket_that_a_worker_shut_down_serves_again_on_the_same_lane() {
    for shut in 0..3 {
        let mut listeners = bind("127.0.0.1:0", 3);
        let given = listeners.lane(shut)[0].1.try_clone_to_owned().expect("descriptors are left");
        Socket::from(given).shutdown(std::net::Shutdown::Both).expect("anybody who has it can");
        // Whichever comes first finds it.
        if shut == 1 {
            listeners.reassert_listen(shut).expect("it listens again");
        }
        listeners.ensure_lanes(4).expect("more lanes fit");
        for lane in 0..4 {
            let mut weights = [0; 4];
            weights[lane] = 1;
            listeners.set_weights(&weights).expect("weights are taken");
            let mut expected = [0; 4];
            expected[lane] = 50;
            assert_eq!(spread(&listeners, "127.0.0.1", 50), expected, "lane {shut} was shut down");
        }
    }
}

#[test]
fn a_port_in_use_names_its_holder() {
    let mut worker = Worker::start(None);
    let port = tcp_addr(&bind("127.0.3.1:0", 1)).port();
    // An address that no other test uses, so that the port stays free. With SO_REUSEPORT and the same user, which a careless bind would share the port with.
    worker.does(&format!(
        "s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); s.bind(('127.0.3.1', {port})); s.listen()"
    ));
    for addr in ["127.0.3.1", "0.0.0.0"] {
        let error = Listeners::bind(&named(&format!("{addr}:{port}")), 2, Pick::Random).expect_err("it is taken");
        let BindError::InUse { holder: Holder::Process(holder), .. } = &error else { panic!("{error}") };
        assert_eq!(holder.pid, worker.pid());
        assert!(holder.comm.starts_with("python"), "{holder:?}");
        assert!(holder.cmdline.contains("python3 -c"), "{holder:?}");
        assert!(error.to_string().contains(&format!("(pid {}: ", worker.pid())), "{error}");
    }
}

#[test]
fn two_apps_of_one_user_cannot_share_a_port() {
    let first = bind("127.0.3.2:0", 2);
    let addr = tcp_addr(&first);
    let error = Listeners::bind(&named(&addr.to_string()), 2, Pick::Random).expect_err("it is taken");
    assert!(matches!(error, BindError::InUse { holder: Holder::Process(_), .. }), "{error}");
    drop(first);
    bind(&addr.to_string(), 2);
}

#[test]
fn a_process_that_joins_the_port_gets_nothing_and_no_lane_is_added_beside_it() {
    let mut listeners = bind("127.0.3.4:0", 2);
    let port = tcp_addr(&listeners).port();
    let mut worker = Worker::start(None);
    worker.does(&format!(
        "s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); s.bind(('127.0.3.4', {port})); s.listen()"
    ));
    listeners.set_weights(&[1, 1]).expect("weights are taken");
    assert_eq!(spread(&listeners, "127.0.3.4", 200).iter().sum::<usize>(), 200);
    let error = listeners.ensure_lanes(3).expect_err("somebody else is there");
    assert!(error.to_string().contains(&format!("(pid {}: ", worker.pid())), "{error}");
    drop(worker);
    listeners.ensure_lanes(3).expect("it is gone");
    listeners.set_weights(&[0, 0, 1]).expect("weights are taken");
    assert_eq!(spread(&listeners, "127.0.3.4", 200), [0, 0, 200]);
}

#[test]
fn all_addresses_are_taken_or_none() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let free = tcp_addr(&bind("127.0.3.3:0", 1));
    let mut addrs = named(&free.to_string());
    addrs.insert("taken".to_owned(), ListenAddr::Tcp(taken.local_addr().expect("is bound")));
    Listeners::bind(&addrs, 1, Pick::Random).expect_err("one of them is taken");
    TcpStream::connect(free).expect_err("the other was given back");

    addrs.insert("twice".to_owned(), addrs["http"].clone());
    let error = Listeners::bind(&addrs, 1, Pick::Random).expect_err("one address twice");
    assert!(matches!(error, BindError::Twice { .. }), "{error}");
    assert!(matches!(Listeners::bind(&addrs, 0, Pick::Random), Err(BindError::NoLanes)));
}

#[test]
fn unchanged_addresses_of_a_changed_configuration_keep_their_sockets_and_queues() {
    let mut old = bind("127.0.0.1:0", 2);
    let addr = tcp_addr(&old);
    let _client = TcpStream::connect(addr).expect("lane 0 listens");
    let mut addrs = named("127.0.0.1:0");
    let moved = addrs.remove("http").expect("is there");
    addrs.insert("web".to_owned(), moved);
    addrs.insert("admin".to_owned(), "127.0.0.1:0".parse().expect("is an address"));

    let other = bind("127.0.0.1:0", 1);
    let mut impossible = addrs.clone();
    impossible.insert("other".to_owned(), ListenAddr::Tcp(tcp_addr(&other)));
    Listeners::bind_reusing(&impossible, 3, Pick::Random, &mut old).expect_err("one is taken");
    assert_eq!(tcp_addr(&old), addr, "a refused configuration leaves the old one whole");

    let new = Listeners::bind_reusing(&addrs, 3, Pick::Random, &mut old).expect("loopback has ports");
    let names: Vec<&str> = new.lane(2).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["admin", "web"], "by name, on all three lanes");
    drop(old);
    until("the connection still waits", || (new.queued(0).expect("lane 0 exists") == 1).then_some(()));
}
