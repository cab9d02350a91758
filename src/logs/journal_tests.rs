//! Streams on their way to a journald of the tests: a socket that is read as journald reads it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IoSliceMut, Read, Seek, Write};
use std::os::unix::net::UnixDatagram;

use agentd_core::id::{Generation, Slot};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::super::fifo::Fifo;
use super::*;

struct Bench {
    dir: tempfile::TempDir,
    journald: Option<UnixDatagram>,
    journal: Journal,
    stream: JournalStream,
    fifo: OwnedFd,
    worker: File,
    scratch: Vec<u8>,
}

type Entry = BTreeMap<String, Vec<u8>>;

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).expect("a UTF-8 temporary folder");
        let Fifo { supervisor: fifo, worker } = Fifo::create(&path.join("web.0.7.out")).expect("create");
        let id = WorkerId { app: "web".parse().expect("a good name"), slot: Slot(0), generation: Generation(3) };
        let fields = Fields::of("0123456789ab", &id, Launch(7), "r12", StreamKind::Out);
        let (journal, stream) = (Journal::at(path.join("socket")), JournalStream::new(fields));
        let mut bench = Self { dir, journald: None, journal, stream, fifo, worker: worker.into(), scratch: Vec::new() };
        bench.come();
        bench
    }

    fn come(&mut self) {
        let socket = UnixDatagram::bind(self.dir.path().join("socket")).expect("bind");
        socket.set_nonblocking(true).expect("set a flag");
        self.journald = Some(socket);
    }

    fn go(&mut self) {
        self.journald = None;
        std::fs::remove_file(self.dir.path().join("socket")).expect("remove the socket");
    }

    fn print(&mut self, text: impl AsRef<[u8]>) {
        self.worker.write_all(text.as_ref()).expect("print");
    }

    fn take(&mut self) -> Taken {
        self.stream.take(&self.fifo, &mut self.journal, &mut self.scratch)
    }

    fn finish(&mut self) -> Taken {
        self.stream.finish(&self.fifo, &mut self.journal, &mut self.scratch)
    }

    /// The next entry that came, from a datagram or from a file of memory.
    fn entry(&self) -> Option<Entry> {
        let socket = self.journald.as_ref().expect("it is there");
        let mut bytes = vec![0; 1 << 20];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC).ok()?;
        bytes.truncate(got.bytes);
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(mut fds) = message {
                let mut file = File::from(fds.next().expect("a descriptor"));
                let seals = rustix::fs::fcntl_get_seals(&file).expect("seals");
                assert!(seals.contains(SealFlags::WRITE | SealFlags::SHRINK), "journald takes none that changes");
                file.rewind().expect("rewind");
                assert_eq!(bytes.len(), 0, "journald takes a file alone");
                file.read_to_end(&mut bytes).expect("read");
            }
        }
        Some(parse(&bytes))
    }

    fn messages(&self) -> Vec<String> {
        let entries = std::iter::from_fn(|| self.entry());
        entries.map(|entry| String::from_utf8(entry["MESSAGE"].clone()).expect("UTF-8")).collect()
    }
}

/// As journald parses it: `NAME=value` lines, and values with their length before them.
fn parse(mut bytes: &[u8]) -> Entry {
    let mut entry = Entry::new();
    while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
        let line = String::from_utf8(bytes[..end].to_vec()).expect("a name");
        bytes = &bytes[end + 1..];
        if let Some((name, value)) = line.split_once('=') {
            entry.insert(name.to_owned(), value.as_bytes().to_vec());
            continue;
        }
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("a length"));
        let length = usize::try_from(length).expect("a small one");
        entry.insert(line, bytes[8..8 + length].to_vec());
        assert_eq!(bytes[8 + length], b'\n');
        bytes = &bytes[8 + length + 1..];
    }
    assert!(bytes.is_empty(), "all of it is read");
    entry
}

#[test]
fn each_line_is_an_entry_that_says_whose_it_is() {
    let mut bench = Bench::new();
    bench.print(b"one\nMESSAGE=two\n\x00\xff three\n");
    assert_eq!(bench.take(), Taken::Written(25));
    let first = bench.entry().expect("an entry");
    let expected = [
        ("AGENTD_APP", "web"),
        ("AGENTD_GENERATION", "3"),
        ("AGENTD_INSTANCE", "0123456789ab"),
        ("AGENTD_LAUNCH", "7"),
        ("AGENTD_RELEASE", "r12"),
        ("AGENTD_SLOT", "0"),
        ("AGENTD_STREAM", "stdout"),
        ("AGENTD_WORKER", "web.0.3"),
        ("MESSAGE", "one"),
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "web"),
    ];
    let expected: Entry = expected.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).into();
    assert_eq!(first, expected);
    assert_eq!(bench.entry().expect("an entry")["MESSAGE"], b"MESSAGE=two");
    assert_eq!(bench.entry().expect("an entry")["MESSAGE"], b"\x00\xff three");
    assert_eq!((bench.entry(), bench.take()), (None, Taken::Nothing));
}

#[test]
fn half_a_line_waits_in_the_fifo_for_its_rest_and_not_for_ever() {
    let mut bench = Bench::new();
    bench.print("whole\nhal");
    assert_eq!(bench.take(), Taken::Written(6));
    assert_eq!(bench.take(), Taken::Waiting);
    // A supervisor that is killed here leaves it to the next.
    bench.stream = JournalStream::new(bench.stream.fields.clone());
    bench.print("f\npassword: ");
    assert_eq!(bench.take(), Taken::Written(5));
    let asked = Instant::now();
    while bench.take() == Taken::Waiting {
        assert!(asked.elapsed() < 50 * HOLD, "it waits for ever");
        std::thread::yield_now();
    }
    assert_eq!(bench.messages(), ["whole", "half", "password: "]);
}

#[test]
fn what_was_printed_last_is_sent_though_it_is_no_whole_line() {
    let mut bench = Bench::new();
    bench.print("the last\nwords");
    assert_eq!((bench.finish(), bench.finish()), (Taken::Written(14), Taken::Nothing));
    assert_eq!(bench.messages(), ["the last", "words"]);
}

#[test]
fn a_line_longer_than_a_datagram_comes_as_a_file_and_a_longer_one_in_pieces() {
    let mut bench = Bench::new();
    let (long, longer) = ("x".repeat(ENTRY_BYTES), "y".repeat(ENTRY_BYTES + 5));
    bench.print(format!("{long}\n{longer}\nshort\n"));
    while bench.take() != Taken::Nothing {}
    let lengths: Vec<_> = bench.messages().iter().map(String::len).collect();
    assert_eq!(lengths, [ENTRY_BYTES, ENTRY_BYTES, 5, 5]);
}

#[test]
fn a_journald_that_is_gone_costs_lines_which_are_counted_and_told_of_when_it_is_back() {
    let mut bench = Bench::new();
    bench.print("before\n");
    assert_eq!(bench.take(), Taken::Written(7));
    assert_eq!(bench.messages(), ["before"]);
    bench.go();
    bench.print("lost\nlost\n");
    assert_eq!(bench.take(), Taken::Dropped(10));
    bench.print("and lost\n");
    assert_eq!(bench.take(), Taken::Dropped(9));
    let reason = bench.stream.owed().expect("it is owed").reason.clone();
    assert_eq!(reason, "journald: no such file or directory");
    bench.come();
    bench.print("after\n");
    assert_eq!((bench.take(), bench.stream.owed()), (Taken::Written(6), None));
    let told = bench.entry().expect("an entry");
    let text = "[agentd] 3 lines dropped (19 bytes): journald: no such file or directory";
    assert_eq!((&told["MESSAGE"][..], &told["PRIORITY"][..]), (text.as_bytes(), &b"4"[..]));
    assert_eq!(bench.messages(), ["after"]);
}

#[test]
fn lines_wait_while_journald_has_its_hands_full_and_are_dropped_once_it_has_been_silent_for_long() {
    let mut bench = Bench::new();
    let many = 4000;
    bench.print("line\n".repeat(many));
    let mut sent = 0;
    while let Taken::Written(bytes) = bench.take() {
        sent += bytes / 5;
    }
    assert!(0 < sent && sent < many as u64, "its queue holds all of {many} lines");
    // It reads again: nothing was lost.
    let mut came = bench.messages().len();
    while bench.take() != Taken::Nothing {
        came += bench.messages().len();
    }
    assert_eq!(came + bench.messages().len(), many);
    bench.print("line\n".repeat(many));
    while bench.take() != Taken::Waiting {}
    bench.journal.busy_since = Instant::now().checked_sub(PATIENCE);
    assert!(matches!(bench.take(), Taken::Dropped(_)));
    assert_eq!(bench.take(), Taken::Nothing);
}
