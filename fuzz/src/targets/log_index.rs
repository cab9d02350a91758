//! A log, its index of times, and a file that was packed: as a crash, a disk or somebody's editor left them.
//!
//! An input is split at its first two bytes: so many of what follows are the index, the rest are the log and, once more,
//! the packed file. Promised: a reader gives every line of the log, whatever the index says, and a writer goes on with both.

use std::time::Instant;

use agentd::logs::follow::{Follower, PollAgain, Start};
use agentd::logs::layout::{Source, StreamKind, index_path, packed_path};
use agentd::logs::read::tail;
use agentd::logs::rotate::Rotation;
use agentd::logs::sink::{Sink, open_sink};
use agentd_core::id::{AppName, Launch, Slot};

use crate::scratch;

pub(crate) fn run(input: &[u8]) {
    let Some((split, rest)) = input.split_first_chunk::<2>() else { return };
    let split = usize::from(u16::from_le_bytes(*split)).min(rest.len());
    let (index, log) = rest.split_at(split);
    scratch::with(|folder| {
        let app: AppName = "web".parse().expect("a good name");
        let source = Source::new(folder, &app, Slot(0), StreamKind::Out);
        let live = &source.path;
        std::fs::create_dir_all(live.parent().expect("it lies in a folder")).expect("a folder");
        let write =
            |path: &camino::Utf8Path, bytes: &[u8]| std::fs::write(path, bytes).expect("the folder takes files");
        write(live, log);
        write(&index_path(live), index);
        let aside = live.with_file_name("0.out.log.000001");
        let _ = std::fs::remove_file(packed_path(&aside));
        let lines = log.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count();
        let shown = tail(std::slice::from_ref(&source), usize::MAX).expect("it can be read");
        assert!(shown.len() >= lines.min(1), "{lines} lines, and none is shown");
        assert!(shown.len() <= log.len() + 1, "more is shown than there is");

        write(&packed_path(&aside), log);
        write(&packed_path(&index_path(&aside)), index);
        for start in [Start::Since { time_us: 0 }, Start::Since { time_us: u64::MAX / 2 }, Start::Last(3)] {
            let (_, mut follower) = Follower::start(std::slice::from_ref(&source), start).expect("it can be read");
            // What there is is read in bounded steps.
            for _ in 0..16 {
                match follower.poll(Instant::now()).expect("it can be read").again {
                    PollAgain::Now => {}
                    PollAgain::At(_) | PollAgain::OnGrowth => break,
                }
            }
        }
        let fifo = folder.join("unused");
        open_sink(Sink::File, &fifo, live, Launch(7), Rotation::default()).expect("a writer goes on with it");
        assert_eq!(std::fs::read(live).expect("it is there"), log, "a writer that wrote nothing changed nothing");
    });
}
