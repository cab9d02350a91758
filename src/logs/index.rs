//! The time index beside a log file: when its bytes came, and from which launch.
//!
//! Format, version 1 (numbers little-endian):
//!
//! ```text
//! 0   8 bytes   "agentidx"
//! 8   u32       version, 1
//! 12  u32       bytes a record, 24
//! 16  records   offset u64, Unix time in µs u64, launch u64
//! ```
//!
//! A record says: bytes of the log from `offset` on, up to the next record's, came at that time from that launch. It is
//! written *before* its bytes, so that a supervisor killed in between leaves a record of nothing and never bytes without
//! a record. A record that got no bytes is overwritten by the next one.
//!
//! Nothing here may cost a log line: an index that is torn, too long, too short, foreign or missing gives unknown times,
//! never an error.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use agentd_core::id::Launch;
use camino::Utf8Path;

use super::body::Body;

const MAGIC: &[u8; 8] = b"agentidx";
const VERSION: u32 = 1;
const HEADER_BYTES: u64 = 16;
const RECORD_BYTES: u64 = 24;

/// The launch that stands for the supervisor's own words in a log.
const SUPERVISOR: u64 = u64::MAX;

/// One chunk of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Where the chunk starts in the log file, in bytes.
    pub(super) offset: u64,
    /// When it came, in µs since 1970.
    pub(super) time_us: u64,
    /// Who printed it; none for the supervisor itself.
    pub(super) launch: Option<Launch>,
}

impl Record {
    fn to_bytes(self) -> [u8; RECORD_BYTES as usize] {
        let mut bytes = [0; RECORD_BYTES as usize];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.time_us.to_le_bytes());
        bytes[16..].copy_from_slice(&self.launch.map_or(SUPERVISOR, |launch| launch.0).to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; RECORD_BYTES as usize]) -> Self {
        let number = |at: usize| {
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes of a record make a number"))
        };
        let launch = number(16);
        Self { offset: number(0), time_us: number(8), launch: (launch != SUPERVISOR).then_some(Launch(launch)) }
    }
}

fn header() -> [u8; HEADER_BYTES as usize] {
    let mut bytes = [0; HEADER_BYTES as usize];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..].copy_from_slice(&(RECORD_BYTES as u32).to_le_bytes());
    bytes
}

/// Whole records in an index file of this many bytes; a torn last one does not count.
fn records_in(bytes: u64) -> u64 {
    bytes.saturating_sub(HEADER_BYTES) / RECORD_BYTES
}

/// The writing side. One log file has one.
#[derive(Debug)]
pub(super) struct IndexWriter {
    file: File,
    /// Records that have bytes.
    settled: u64,
}

impl IndexWriter {
    /// Opens the index at `path` for a log of `log_bytes`, mending what a crash left: a torn record and records of bytes
    /// that never reached the log are cut off. What is no index of this version is begun anew.
    pub(super) fn open(path: &Utf8Path, log_bytes: u64) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o640);
        let file = options.open(path)?;
        let mut found = [0; HEADER_BYTES as usize];
        if file.read_exact_at(&mut found, 0).is_err() || found != header() {
            file.set_len(0)?;
            file.write_all_at(&header(), 0)?;
        }
        let mut writer = Self { settled: records_in(file.metadata()?.len()), file };
        writer.cut(log_bytes)?;
        Ok(writer)
    }

    /// Forgets everything at and after `log_bytes`.
    fn cut(&mut self, log_bytes: u64) -> io::Result<()> {
        let mut bytes = [0; RECORD_BYTES as usize];
        while self.settled > 0 {
            self.file.read_exact_at(&mut bytes, HEADER_BYTES + (self.settled - 1) * RECORD_BYTES)?;
            if Record::from_bytes(&bytes).offset < log_bytes {
                break;
            }
            self.settled -= 1;
        }
        self.file.set_len(HEADER_BYTES + self.settled * RECORD_BYTES)
    }

    /// Writes the record of a chunk that is about to come. It counts once [`settle`](Self::settle) is called.
    pub(super) fn announce(&self, record: Record) -> io::Result<()> {
        self.file.write_all_at(&record.to_bytes(), HEADER_BYTES + self.settled * RECORD_BYTES)
    }

    /// The announced chunk got its bytes.
    pub(super) fn settle(&mut self) {
        self.settled += 1;
    }

    /// Size of the index in bytes.
    pub(super) fn bytes(&self) -> u64 {
        HEADER_BYTES + self.settled * RECORD_BYTES
    }
}

/// How many records a reader takes at once.
const CACHE_RECORDS: u64 = 128;

/// The reading side; works while the writer goes on.
#[derive(Debug)]
pub(super) struct IndexReader {
    /// None when there is no index, or none of a version that we read.
    body: Option<Body>,
    /// Number of the first record in `cache`.
    cache_start: u64,
    cache: Vec<Record>,
}

impl IndexReader {
    /// Opens the index at `path`. A missing or foreign one is an empty one.
    pub(super) fn open(path: &Utf8Path) -> Self {
        let body = Body::open(path).ok().flatten().filter(|body| {
            let mut found = [0; HEADER_BYTES as usize];
            body.read_exact_at(&mut found, 0).is_ok() && found == header()
        });
        Self { body, cache_start: 0, cache: Vec::new() }
    }

    /// How many records there are now, the unsettled one included.
    pub(super) fn len(&self) -> u64 {
        records_in(self.body.as_ref().and_then(|body| body.len().ok()).unwrap_or(0))
    }

    /// Record `number`, where it is settled: `log_bytes` (asked for *before*) reaches past its offset.
    pub(super) fn get(&mut self, number: u64, log_bytes: u64) -> Option<Record> {
        let cached = |reader: &Self| {
            let at = usize::try_from(number.checked_sub(reader.cache_start)?).ok()?;
            reader.cache.get(at).copied()
        };
        cached(self).or_else(|| {
            self.fill(number, log_bytes);
            cached(self)
        })
    }

    /// Drops what is remembered: the log was emptied, and its index with it.
    pub(super) fn forget(&mut self) {
        self.cache.clear();
    }

    /// Number of the last record that starts at or before `offset`.
    pub(super) fn find(&mut self, offset: u64, log_bytes: u64) -> Option<u64> {
        self.partition(log_bytes, |record| record.offset <= offset).checked_sub(1)
    }

    /// Number of the first record for which `before` no longer holds; records must be ordered by it.
    pub(super) fn partition(&mut self, log_bytes: u64, before: impl Fn(&Record) -> bool) -> u64 {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.get(middle, log_bytes) {
                Some(record) if before(&record) => low = middle + 1,
                Some(_) | None => high = middle,
            }
        }
        low
    }

    fn fill(&mut self, number: u64, log_bytes: u64) {
        self.cache.clear();
        self.cache_start = number;
        let Some(body) = &self.body else { return };
        let mut bytes = [0; (CACHE_RECORDS * RECORD_BYTES) as usize];
        // A read that fails leaves the cache empty: the time is unknown, the line is not lost.
        let got = body.read_at(&mut bytes, HEADER_BYTES + number * RECORD_BYTES).unwrap_or(0);
        let (records, _torn) = bytes[..got].as_chunks::<{ RECORD_BYTES as usize }>();
        // A record at or past the end of the log may still be overwritten, so it is not remembered.
        self.cache.extend(records.iter().map(Record::from_bytes).take_while(|record| record.offset < log_bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use camino::Utf8PathBuf;

    fn record(offset: u64) -> Record {
        Record { offset, time_us: 1000 + offset, launch: Some(Launch(offset / 100)) }
    }

    fn written(count: u64) -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = Utf8PathBuf::from_path_buf(dir.path().join("x.idx")).expect("a UTF-8 temporary folder");
        let mut writer = IndexWriter::open(&path, 0).expect("open");
        for number in 0..count {
            writer.announce(record(number * 10)).expect("announce");
            writer.settle();
        }
        (dir, path)
    }

    #[test]
    fn a_byte_is_found_in_the_chunk_that_holds_it() {
        let (_guard, path) = written(1000);
        let mut reader = IndexReader::open(&path);
        for offset in [0, 9, 10, 4321, 9999] {
            let number = reader.find(offset, 10_000).expect("a record");
            assert_eq!(reader.get(number, 10_000), Some(record(offset / 10 * 10)));
        }
    }

    #[test]
    fn a_torn_last_record_is_ignored_by_readers_and_overwritten_by_the_next_writer() {
        let (_guard, path) = written(3);
        let file = File::options().write(true).open(&path).expect("open");
        file.set_len(HEADER_BYTES + 2 * RECORD_BYTES + 7).expect("tear");
        assert_eq!(IndexReader::open(&path).len(), 2);
        let mut writer = IndexWriter::open(&path, 25).expect("open");
        writer.announce(record(25)).expect("announce");
        writer.settle();
        let mut reader = IndexReader::open(&path);
        assert_eq!((reader.len(), reader.get(2, 30)), (3, Some(record(25))));
    }

    #[test]
    fn records_of_bytes_that_never_reached_the_log_are_cut_off() {
        let (_guard, path) = written(5);
        assert_eq!(IndexReader::open(&path).find(49, 25), Some(2));
        IndexWriter::open(&path, 25).expect("open");
        assert_eq!(IndexReader::open(&path).len(), 3);
    }

    #[test]
    fn a_foreign_file_in_the_indexs_place_means_unknown_times_and_is_begun_anew_by_a_writer() {
        let (_guard, path) = written(0);
        std::fs::write(&path, "something else, and quite long as well").expect("write");
        assert_eq!(IndexReader::open(&path).find(0, 10), None);
        assert_eq!(IndexWriter::open(&path, 10).expect("open").bytes(), HEADER_BYTES);
    }
}
