use std::os::unix::net::UnixDatagram;

use agentd_core::id::Launch;

use super::*;

/// Somebody who listens as systemd does.
struct Listener {
    _folder: tempfile::TempDir,
    socket: UnixDatagram,
}

fn listened(watchdog: Option<Duration>) -> (Systemd, Listener) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    let systemd = Systemd {
        socket: Some(connected(path.to_str().unwrap()).unwrap()),
        watchdog,
        phase: Phase::Serving,
        beaten: None,
        stored: BTreeSet::new(),
        predecessor: Predecessor::Another,
        hears: Hears::Well,
    };
    (systemd, Listener { _folder: folder, socket })
}

impl Listener {
    /// All words so far, and how many descriptors came with each.
    fn heard(&self) -> Vec<(String, usize)> {
        let mut heard = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let Ok(received) = sys::receive(self.socket.as_fd(), &mut buffer) else { return heard };
            let text = String::from_utf8(buffer[..received.length].to_vec()).unwrap();
            heard.push((text, received.fds.len()));
        }
    }

    fn words(&self) -> Vec<String> {
        self.heard().into_iter().map(|(word, _)| word).collect()
    }
}

fn second(number: u64) -> Moment {
    Moment::from_micros(number * 1_000_000)
}

#[test]
fn a_beat_comes_at_half_of_what_the_watchdog_allows_and_not_at_every_turn() {
    let (mut systemd, listener) = listened(Some(Duration::from_secs(20)));
    for now in [100, 101, 109, 110, 115, 121] {
        systemd.beat(second(now));
    }
    assert_eq!(listener.words(), ["WATCHDOG=1"; 3]);
    assert_eq!(systemd.next_beat(), Some(second(131)));
}

#[test]
fn without_a_watchdog_the_loop_is_not_woken_for_it() {
    let (mut systemd, listener) = listened(None);
    systemd.beat(second(100));
    assert_eq!(systemd.next_beat(), None);
    assert_eq!(listener.words(), [""; 0]);
}

#[test]
fn a_drain_asks_for_time_for_as_long_as_it_goes_on() {
    let (mut systemd, listener) = listened(None);
    systemd.draining(3, Duration::from_secs(1800));
    for now in [100, 104, 105, 110] {
        systemd.beat(second(now));
    }
    let heard = listener.words();
    assert_eq!(heard[0], "STOPPING=1\nSTATUS=draining 3 workers, at most 1800 s");
    assert_eq!(&heard[1..], ["WATCHDOG=1\nEXTEND_TIMEOUT_USEC=30000000"; 3]);
}

#[test]
fn a_reload_is_told_with_systemds_own_clock() {
    let (mut systemd, listener) = listened(None);
    systemd.reloading();
    systemd.ready();
    let [reloading, ready] = listener.words().try_into().unwrap();
    let us = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(us.trim().parse::<u64>().unwrap() > 0);
    assert_eq!(ready, "READY=1");
}

#[test]
fn what_is_stored_goes_once_with_its_descriptor_and_is_removed_by_its_name() {
    let (mut systemd, listener) = listened(None);
    let file = tempfile::tempfile().unwrap();
    let (one, other) = (Held::Notify { launch: Launch(1) }, Held::Notify { launch: Launch(2) });
    systemd.store(&[(one.clone(), file.as_fd())]);
    systemd.store(&[(one.clone(), file.as_fd())]);
    systemd.unstore([&other, &one]);
    systemd.unstore([&one]);
    let stored = ("FDSTORE=1\nFDPOLL=0\nFDNAME=notify%201".to_owned(), 1);
    let removed = ("FDSTOREREMOVE=1\nFDNAME=notify%201".to_owned(), 0);
    assert_eq!(listener.heard(), [stored, removed]);
}

#[test]
fn descriptors_are_known_by_name_whatever_their_order_and_strangers_are_given_back() {
    let (mut systemd, listener) = listened(None);
    let files: Vec<Option<OwnedFd>> = (0..2).map(|_| Some(tempfile::tempfile().unwrap().into())).collect();
    let held = systemd.recognise(files.into_iter().chain([None]).collect(), "stored:notify%207:notify%208");
    assert_eq!(held.into_keys().collect::<Vec<_>>(), [Held::Notify { launch: Launch(7) }]);
    assert_eq!(listener.words(), ["FDSTOREREMOVE=1\nFDNAME=stored"]);
}

#[test]
fn a_service_manager_that_is_gone_costs_no_more_than_a_line_in_the_log() {
    let (mut systemd, listener) = listened(Some(Duration::from_secs(2)));
    drop(listener);
    systemd.ready();
    systemd.beat(second(100));
    assert_eq!(systemd.next_beat(), Some(second(101)), "it is not tried again at once");
}
