//! What is known of a worker from outside: its connections, and where it listens.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::given::*;
use crate::sockets::{ConnectionState, ListenAddr, SockDiag};

#[test]
fn connections_of_a_worker_have_ages_and_sizes() {
    for (addr, clients) in kinds() {
        for from in clients {
            let listeners = bind(addr, 2);
            let mut worker = Worker::start(Some(listeners.lane(0)[0].1));
            let to = format!("{from}:{}", tcp_addr(&listeners).port());
            let mut client = TcpStream::connect(&to).expect("lane 0 listens");
            let _queued = TcpStream::connect(&to).expect("lane 0 listens");
            let _others = TcpStream::connect(tcp_addr(&bind("127.0.0.1:0", 1))).ok();
            client.write_all(b"hello").expect("is connected");
            worker.does("c = listener.accept()[0]; c.recv(3); c.sendall(b'x' * 1000)");
            client.read_exact(&mut [0; 1000]).expect("the worker answers");

            let mut diag = SockDiag::open().expect("the kernel has sock_diag");
            let pid = worker.pid();
            let mut look = || {
                let found = diag.connections(&[pid], &listeners.accepting_addrs());
                found.expect("the kernel answers")
            };
            let first = until("the answer is acknowledged", || Some(look()).filter(|f| f[0].unsent == 0));
            assert_eq!(first.len(), 1, "{addr} from {from}: {first:?}");
            assert_eq!(first[0].remote, Some(client.local_addr().expect("is connected")));
            assert_eq!(first[0].state, ConnectionState::Open);
            assert_eq!(first[0].unread, 2);
            let traffic = first[0].traffic.expect("TCP keeps account");
            assert_eq!((traffic.bytes_received, traffic.bytes_sent, traffic.bytes_not_sent), (5, 1000, 0));

            let later = until("the last data is 50 ms old", || {
                Some(look()).filter(|f| f[0].traffic.expect("is TCP").since_received >= Duration::from_millis(50))
            });
            let traffic = later[0].traffic.expect("TCP keeps account");
            assert!(traffic.since_received < DEADLINE && traffic.since_sent < DEADLINE, "{traffic:?}");

            worker.does("c.setblocking(False); c.send(b'x' * 50_000_000)");
            until("the client's buffer is full", || {
                look()[0].traffic.is_some_and(|traffic| traffic.bytes_not_sent > 0).then_some(())
            });
            let mut unread = vec![0; 1 << 20];
            client.set_nonblocking(true).expect("is connected");
            until("the client has read it all", || {
                while client.read(&mut unread).is_ok_and(|count| count > 0) {}
                (look()[0].unsent == 0).then_some(())
            });

            client.shutdown(std::net::Shutdown::Write).expect("is connected");
            until("its end has come", || (look()[0].state == ConnectionState::ClientDone).then_some(()));
            worker.does("c.shutdown(socket.SHUT_WR)");
            until("both ends have gone", || {
                look().first().is_none_or(|c| c.state == ConnectionState::WorkerDone).then_some(())
            });
            assert!(
                diag.connections(&[agentd_core::id::Pid(std::process::id())], &listeners.accepting_addrs())
                    .expect("answers")
                    .is_empty()
            );
        }
    }
}

#[test]
fn a_worker_that_bound_elsewhere_is_found_there() {
    let listeners = bind("127.0.0.1:0", 2);
    let mut worker = Worker::start(Some(listeners.lane(1)[0].1));
    let mut diag = SockDiag::open().expect("the kernel has sock_diag");
    let mut elsewhere = |pid| diag.listening(&[pid], &listeners.inodes()).expect("the kernel answers");
    assert_eq!(elsewhere(worker.pid()), []);

    let folder = tempfile::tempdir().expect("there is room");
    let path = camino::Utf8PathBuf::from_path_buf(folder.path().join("own")).expect("is UTF-8");
    worker.does("s = socket.socket(); s.bind(('0.0.0.0', 0)); s.listen()");
    worker.does(&format!("u = socket.socket(socket.AF_UNIX); u.bind('{path}'); u.listen()"));
    let found = elsewhere(worker.pid());
    let [ListenAddr::Tcp(own), unix] = &found[..] else { panic!("{found:?}") };
    assert!(own.ip().is_unspecified() && own.is_ipv4());
    TcpStream::connect(("127.0.0.1", own.port())).expect("the worker listens there");
    assert_eq!(*unix, ListenAddr::Unix(path));
    assert_eq!(diag.listening(&[worker.pid()], &[]).expect("the kernel answers").len(), 3, "with the lane's own");
}

#[test]
fn a_thousand_connections_are_all_found() {
    let listeners = bind("127.0.0.1:0", 1);
    let mut worker = Worker::start(Some(listeners.lane(0)[0].1));
    worker.does("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (1200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))");
    worker.starts("kept += [listener.accept()[0] for _ in range(1000)]");
    let clients: Vec<TcpStream> =
        (0..1000).map(|_| TcpStream::connect(tcp_addr(&listeners)).expect("lane 0 listens")).collect();
    worker.has_done();
    let mut diag = SockDiag::open().expect("the kernel has sock_diag");
    let found = diag.connections(&[worker.pid()], &listeners.accepting_addrs()).expect("the kernel answers");
    assert_eq!(found.len(), 1000);
    clients.iter().for_each(close_at_once);
}

#[test]
fn who_is_on_the_way_is_known_until_the_connection_is_in_the_queue() {
    for (addr, clients) in kinds() {
        for from in clients {
            let listeners = bind(addr, 2);
            let mut worker = Worker::start(Some(listeners.lane(0)[0].1));
            // The kernel passes over the third packet, and takes the request for it.
            worker.does("listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)");
            let mut client =
                TcpStream::connect(format!("{from}:{}", tcp_addr(&listeners).port())).expect("lane 0 listens");
            let own = client.local_addr().expect("is connected");
            let mut diag = SockDiag::open().expect("the kernel has sock_diag");
            let mut look = || diag.handshakes(&listeners.accepting_addrs()).expect("the kernel answers");
            assert_eq!(look(), [own].into(), "{addr} from {from}");
            assert_eq!(listeners.queued(0).expect("lane 0 exists"), 0);
            client.write_all(b"hello").expect("is connected");
            until("it has come", || look().is_empty().then_some(()));
            assert_eq!(listeners.queued(0).expect("lane 0 exists"), 1);
        }
    }
}
