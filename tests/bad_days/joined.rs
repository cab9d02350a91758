//! Another program listens where an app does.

use std::net::{Ipv4Addr, SocketAddr};

use agentd_testkit::e2e::{Daemon, Home};
use socket2::{Domain, Socket, Type};

use crate::site::{AGENTD, PATIENCE, serves, web};

/// A socket in the kernel's group of this port, as a server makes one that was started with `reuse_port` beside agentd.
fn join(port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_port(true).expect("it may share");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).expect("it joins: the user is the same");
    socket.listen(16).expect("it listens");
    socket
}

#[test]
fn a_program_that_joins_an_apps_address_keeps_it_from_growing_and_takes_nothing_from_it() {
    let home = Home::new();
    let port = web(&home, "workers = 2\nrestart = { backoff = \"100ms..500ms\", max = \"1000 in 1m\" }");
    let daemon = Daemon::start_in(AGENTD, home);
    daemon.ctl_ok(&["start", "./web.toml"]);
    let stranger = join(port);
    let output = daemon.ctl(&["scale", "web", "9", "--timeout", "5s"]);
    assert_ne!(output.code, Some(0), "{output:#?}");
    daemon.ctl_ok(&["scale", "web", "1", "--timeout", "30s"]);
    daemon.wait_until(PATIENCE, |document| document.apps[0].ready == 1 && document.apps[0].workers.len() == 1);
    for request in 0..50 {
        assert!(serves(port), "request {request}: {}", daemon.log());
    }
    drop(stranger);
    daemon.ctl_ok(&["scale", "web", "6", "--timeout", "30s"]);
    for request in 0..50 {
        assert!(serves(port), "request {request}: {}", daemon.log());
    }
}
