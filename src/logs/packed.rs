//! A packed file: what was put aside, as zstd frames that can be read from any place.
//!
//! ```text
//! frame, frame, …             FRAME_BYTES each, unpacked; the last may be shorter
//! skippable frame 0x184D2A5D  where it came from: version u32, then device, inode, time of birth in ns, u64 each
//! skippable frame 0x184D2A5E  the seek table of zstd's seekable format: (packed u32, unpacked u32) for each frame
//!                             above, then count u32, descriptor u8 (0), 0x8F92EAB1
//! ```
//!
//! Numbers are little-endian. Every zstd tool unpacks it (`zstdcat`), and those that know the seekable format seek in
//! it. Where it came from is there for followers: one that read the file before it was packed knows it again.
//!
//! | version | since | change |
//! |---|---|---|
//! | 1 | 0.1 | the first |
//!
//! What is torn, foreign or of a newer version is an error of whoever reads it (`InvalidData`), never a panic and never
//! more memory than [`FRAME_MAX`] asks for.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use super::body::Identity;

/// Unpacked bytes of a frame that we write.
const FRAME_BYTES: usize = 256 << 10;
/// Unpacked bytes of a frame that we read.
const FRAME_MAX: u32 = 16 << 20;
/// Frames of a file that we read: 256 GiB of ours.
const FRAMES_MAX: u32 = 1 << 20;
/// zstd's own default: a fifth to a tenth of a log's size, at some hundred MB a second.
const LEVEL: i32 = 3;

const ORIGIN_MAGIC: u32 = 0x184D_2A5D;
const TABLE_MAGIC: u32 = 0x184D_2A5E;
const SEEKABLE_MAGIC: u32 = 0x8F92_EAB1;
const VERSION: u32 = 1;

/// Magic and length, before the content of each skippable frame.
const SKIPPABLE_BYTES: u64 = 8;
const ORIGIN_BYTES: u64 = 4 + 3 * 8;
const ENTRY_BYTES: u64 = 8;
const FOOTER_BYTES: u64 = 9;

/// Packs all of `from`, which was `identity`, into `to`. Returns how many bytes it took in.
///
/// # Errors
/// When reading or writing fails; `to` is then to be thrown away.
pub(super) fn pack(from: &File, identity: Identity, to: &mut impl Write) -> io::Result<u64> {
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    let mut block = vec![0; FRAME_BYTES];
    let (mut offset, mut table) = (0, Vec::new());
    loop {
        let got = read_full(from, &mut block, offset)?;
        if got == 0 {
            break;
        }
        let frame = compressor.compress(&block[..got])?;
        to.write_all(&frame)?;
        entry(&mut table, frame.len(), got);
        offset += got as u64;
    }
    let mut origin = VERSION.to_le_bytes().to_vec();
    let Identity { device, inode, born_ns } = identity;
    [device, inode, born_ns].iter().for_each(|number| origin.extend(number.to_le_bytes()));
    let origin = skippable(ORIGIN_MAGIC, &origin);
    to.write_all(&origin)?;
    entry(&mut table, origin.len(), 0);
    let frames = (table.len() as u64 / ENTRY_BYTES) as u32;
    table.extend(frames.to_le_bytes());
    table.push(0);
    table.extend(SEEKABLE_MAGIC.to_le_bytes());
    to.write_all(&skippable(TABLE_MAGIC, &table))?;
    Ok(offset)
}

fn entry(table: &mut Vec<u8>, packed: usize, unpacked: usize) {
    for bytes in [packed, unpacked] {
        let bytes = u32::try_from(bytes).expect("a frame of 256 KiB packs into less than 4 GiB");
        table.extend(bytes.to_le_bytes());
    }
}

fn skippable(magic: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("a table of frames is less than 4 GiB");
    [&magic.to_le_bytes()[..], &length.to_le_bytes(), content].concat()
}

/// Reads until `block` is full or the file ends.
fn read_full(file: &File, block: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < block.len() {
        match file.read_at(&mut block[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(bytes) => got += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// One frame: where it begins, packed and unpacked.
#[derive(Clone, Copy, Debug)]
struct Frame {
    packed_at: u64,
    packed: u32,
    at: u64,
    bytes: u32,
}

/// A packed file, opened for reading.
#[derive(Debug)]
pub(super) struct Packed {
    file: File,
    origin: Identity,
    frames: Vec<Frame>,
    bytes: u64,
    /// The frame that was read last, unpacked: reading goes on in it more often than not. Interior, because reading is
    /// no change to whoever reads.
    last: RefCell<Option<(usize, Vec<u8>)>>,
}

impl Packed {
    /// Reads the table at the end of `file`.
    pub(super) fn open(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let tail = |back: u64, bytes: usize| -> io::Result<Vec<u8>> {
            let start = length.checked_sub(back).ok_or_else(|| damaged("it is too short"))?;
            let mut tail = vec![0; bytes];
            file.read_exact_at(&mut tail, start)?;
            Ok(tail)
        };
        let footer = tail(FOOTER_BYTES, FOOTER_BYTES as usize)?;
        let count = number(&footer, 0);
        if number(&footer, 5) != SEEKABLE_MAGIC || footer[4] != 0 || count == 0 || count > FRAMES_MAX {
            return Err(damaged("it has no table of frames"));
        }
        let table_bytes = u64::from(count) * ENTRY_BYTES;
        let table = tail(table_bytes + FOOTER_BYTES, table_bytes as usize)?;
        let (mut frames, mut packed_at, mut at) = (Vec::new(), 0, 0);
        let mut origin = None;
        for pair in table.chunks_exact(ENTRY_BYTES as usize) {
            let frame = Frame { packed_at, packed: number(pair, 0), at, bytes: number(pair, 4) };
            packed_at += u64::from(frame.packed);
            at += u64::from(frame.bytes);
            if frame.bytes > FRAME_MAX || frame.packed > 2 * FRAME_MAX {
                return Err(damaged("a frame is too large"));
            }
            if frame.bytes > 0 {
                frames.push(frame);
            } else {
                origin = Some(frame);
            }
        }
        if packed_at + SKIPPABLE_BYTES + table_bytes + FOOTER_BYTES != length {
            return Err(damaged("its frames do not fill it"));
        }
        let origin = read_origin(&file, origin.ok_or_else(|| damaged("it does not say where it came from"))?)?;
        Ok(Self { file, origin, frames, bytes: at, last: RefCell::new(None) })
    }

    /// What it was before it was packed.
    pub(super) fn origin(&self) -> Identity {
        self.origin
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Unpacked bytes.
    pub(super) fn len(&self) -> u64 {
        self.bytes
    }

    /// Reads unpacked bytes from `offset` on, at most to the end of a frame. None at the end.
    pub(super) fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let Some(number) = self.frames.partition_point(|frame| frame.at <= offset).checked_sub(1) else { return Ok(0) };
        let frame = self.frames[number];
        let skip = (offset - frame.at) as usize;
        if skip >= frame.bytes as usize {
            return Ok(0);
        }
        let mut last = self.last.borrow_mut();
        let held = last.take().filter(|(held, _)| *held == number);
        let (_, bytes) = last.insert(match held {
            Some(held) => held,
            None => (number, self.unpack(frame)?),
        });
        let got = into.len().min(bytes.len() - skip);
        into[..got].copy_from_slice(&bytes[skip..skip + got]);
        Ok(got)
    }

    fn unpack(&self, frame: Frame) -> io::Result<Vec<u8>> {
        let mut packed = vec![0; frame.packed as usize];
        self.file.read_exact_at(&mut packed, frame.packed_at)?;
        let bytes = zstd::bulk::decompress(&packed, frame.bytes as usize)?;
        if bytes.len() != frame.bytes as usize {
            return Err(damaged("a frame is shorter than its table says"));
        }
        Ok(bytes)
    }
}

fn read_origin(file: &File, frame: Frame) -> io::Result<Identity> {
    if u64::from(frame.packed) != SKIPPABLE_BYTES + ORIGIN_BYTES {
        return Err(damaged("it does not say where it came from"));
    }
    let mut bytes = [0; (SKIPPABLE_BYTES + ORIGIN_BYTES) as usize];
    file.read_exact_at(&mut bytes, frame.packed_at)?;
    if number(&bytes, 0) != ORIGIN_MAGIC || number(&bytes, 8) != VERSION {
        return Err(damaged("it is of another version"));
    }
    let long = |at: usize| u64::from(number(&bytes, at)) | u64::from(number(&bytes, at + 4)) << 32;
    Ok(Identity { device: long(12), inode: long(20), born_ns: long(28) })
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes make a number"))
}

fn damaged(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a packed log: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(content: &[u8]) -> (tempfile::TempDir, File) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (plain, name) = (dir.path().join("plain"), dir.path().join("packed"));
        std::fs::write(&plain, content).expect("write");
        let mut to = File::create(&name).expect("create");
        let identity = Identity { device: 1, inode: 2, born_ns: u64::MAX };
        assert_eq!(pack(&File::open(plain).expect("open"), identity, &mut to).expect("pack"), content.len() as u64);
        (dir, File::open(name).expect("open"))
    }

    fn content(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| (at / 7 % 251) as u8).collect()
    }

    #[test]
    fn any_place_can_be_read_and_any_zstd_reads_the_whole() {
        let content = content(3 * FRAME_BYTES + 1000);
        let (dir, file) = packed(&content);
        let packed = Packed::open(file).expect("open");
        assert_eq!(packed.len(), content.len() as u64);
        assert_eq!(packed.origin(), Identity { device: 1, inode: 2, born_ns: u64::MAX });
        for offset in [0, 1, FRAME_BYTES - 1, FRAME_BYTES, 2 * FRAME_BYTES + 17, content.len() - 1] {
            let mut block = [0; 100];
            let got = packed.read_at(&mut block, offset as u64).expect("read");
            assert!(got > 0);
            assert_eq!(block[..got], content[offset..offset + got]);
        }
        assert_eq!(packed.read_at(&mut [0; 8], content.len() as u64).expect("read"), 0);
        let whole = zstd::stream::decode_all(File::open(dir.path().join("packed")).expect("open")).expect("unpack");
        assert!(whole == content);
    }

    #[test]
    fn an_empty_file_packs_into_one_that_holds_nothing() {
        let (_guard, file) = packed(b"");
        let packed = Packed::open(file).expect("open");
        assert_eq!((packed.len(), packed.read_at(&mut [0; 8], 0).expect("read")), (0, 0));
    }

    #[test]
    fn a_file_that_is_cut_or_changed_anywhere_is_an_error_or_reads_as_it_was() {
        let content = content(1000);
        let (dir, file) = packed(&content);
        let length = file.metadata().expect("stat").len();
        let name = dir.path().join("hurt");
        let whole = std::fs::read(dir.path().join("packed")).expect("read");
        for at in 0..length as usize {
            std::fs::write(&name, &whole[..at]).expect("write");
            assert!(Packed::open(File::open(&name).expect("open")).is_err(), "cut at {at}");
            let mut changed = whole.clone();
            changed[at] ^= 0x55;
            std::fs::write(&name, &changed).expect("write");
            if let Ok(packed) = Packed::open(File::open(&name).expect("open")) {
                let mut block = vec![0; 2000];
                // Some other bytes, or an error; not a panic.
                let _ = packed.read_at(&mut block, 0);
            }
        }
    }
}
