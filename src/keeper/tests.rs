use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::pthread::{pthread_kill, pthread_self};
use proptest::prelude::*;

use super::*;

fn names() -> Vec<Held> {
    vec![
        Held::Lane {
            app: "web".parse().expect("a name"),
            lane: Lane(3),
            addr: "127.0.0.1:80".parse().expect("an address"),
        },
        Held::Lane {
            app: "web".parse().expect("a name"),
            lane: Lane(0),
            addr: "unix:/run/a b.sock".parse().expect("an address"),
        },
        Held::Fifo { launch: Launch(7), stream: StreamKind::Err },
        Held::Notify { launch: Launch(7) },
    ]
}

/// A keeper in a thread of this process, and the folder of its socket.
fn keeper() -> (tempfile::TempDir, Utf8PathBuf, std::thread::JoinHandle<io::Result<()>>) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = Utf8PathBuf::from_path_buf(dir.path().join("keeper.sock")).expect("a UTF-8 path");
    let listener = Keeper::make_socket(&path).expect("its socket");
    let thread = std::thread::spawn(move || process::serve(listener, &mut process::Hoard::default()));
    (dir, path, thread)
}

#[test]
fn every_name_survives_text_and_back() {
    for name in names() {
        assert_eq!(name.to_string().parse(), Ok(name));
    }
}

#[test]
fn the_next_supervisor_takes_what_the_last_one_gave() {
    let (_dir, path, thread) = keeper();
    let (mut read, write) = io::pipe().expect("a pipe");
    let first = Keeper::find(&path).expect("it listens");
    let held = Held::Fifo { launch: Launch(7), stream: StreamKind::Err };
    first.hold(&[(held.clone(), write.as_fd()), (Held::Notify { launch: Launch(7) }, write.as_fd())]).expect("held");
    first.release(&[Held::Notify { launch: Launch(7) }]).expect("released");
    drop((first, write));
    let second = Keeper::find(&path).expect("it still listens");
    let Taken { held: taken, alone_since } = second.take().expect("it answers");
    assert!(alone_since.is_some_and(|since| since <= sys::boottime()), "it noticed the first one's end");
    assert_eq!(taken.iter().map(|(name, _)| name).collect::<Vec<_>>(), vec![&held]);
    for (_, fd) in taken {
        File::from(fd).write_all(b"kept").expect("the pipe is open");
    }
    assert_eq!(second.take().expect("it answers again").held.len(), 1, "taking leaves a copy");
    second.end().expect("it hears");
    thread.join().expect("no panic").expect("no error");
    let mut text = String::new();
    read.read_to_string(&mut text).expect("the last copy is gone with it");
    assert_eq!(text, "kept");
}

#[test]
fn three_hundred_descriptors_go_over_and_come_back() {
    let (_dir, path, thread) = keeper();
    let supervisor = Keeper::find(&path).expect("it listens");
    let null = File::open("/dev/null").expect("it is there");
    let given: Vec<_> = (0..300).map(|n| (Held::Notify { launch: Launch(n) }, null.as_fd())).collect();
    supervisor.hold(&given).expect("held");
    assert_eq!(supervisor.take().expect("it answers").held.len(), 300);
    supervisor.end().expect("it hears");
    thread.join().expect("no panic").expect("no error");
}

#[test]
fn a_word_that_makes_no_sense_costs_its_sender_the_connection_and_nothing_else() {
    let (_dir, path, thread) = keeper();
    let null = File::open("/dev/null").expect("it is there");
    let good = Keeper::find(&path).expect("it listens");
    good.hold(&[(Held::Notify { launch: Launch(1) }, null.as_fd())]).expect("held");
    for nonsense in [&b"\xff\xff"[..], b"what", b"hold\na name without a descriptor"] {
        let bad = Keeper::find(&path).expect("it listens");
        bad.tell(nonsense, &[]).expect("sent");
        assert!(bad.take().is_err(), "{nonsense:?}");
    }
    let next = Keeper::find(&path).expect("it listens");
    assert_eq!(next.take().expect("it answers").held.len(), 1);
    next.end().expect("it hears");
    thread.join().expect("no panic").expect("no error");
}

#[test]
fn a_keeper_to_which_no_supervisor_can_come_any_more_ends() {
    let (dir, path, thread) = keeper();
    drop(Keeper::find(&path).expect("it listens"));
    drop(dir);
    // It looks every few seconds; joining waits for it.
    thread.join().expect("no panic").expect("no error");
}

#[test]
fn a_signal_while_the_keeper_is_heard_is_no_answer_and_no_silence() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = Utf8PathBuf::from_path_buf(dir.path().join("keeper.sock")).expect("a UTF-8 path");
    // Nobody answers yet: who asks waits.
    let listener = Keeper::make_socket(&path).expect("its socket");
    let seen = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&seen)).expect("a handler");
    let keeper = Keeper::find(&path).expect("it listens");
    let (tell, told) = std::sync::mpsc::channel();
    let asking = std::thread::spawn(move || {
        tell.send(pthread_self()).expect("the test waits for it");
        keeper
            .ask(Duration::from_secs(60), None)
            .map(|taken| taken.held.len())
            .inspect(|_| keeper.end().expect("it hears"))
    });
    let asker = told.recv().expect("it begins");
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    // Most of them interrupt its wait.
    for _ in 0..200 {
        pthread_kill(asker, nix::sys::signal::Signal::SIGUSR1).expect("it lives");
        while !seen.swap(false, Ordering::Relaxed) {
            assert!(!asking.is_finished() && std::time::Instant::now() < deadline, "it gave up");
            std::thread::yield_now();
        }
    }
    let answering = std::thread::spawn(move || process::serve(listener, &mut process::Hoard::default()));
    assert_eq!(asking.join().expect("no panic").expect("an answer"), 0);
    answering.join().expect("no panic").expect("no error");
}

proptest! {
    #[test]
    fn no_text_makes_the_name_parser_panic(text in ".{0,80}") {
        if let Ok(name) = text.parse::<Held>() {
            prop_assert_eq!(name.to_string().parse(), Ok(name));
        }
    }
}
