//! Inputs near known ones.
//!
//! Owns the changes that are made. libFuzzer finds its way by coverage and does better in the long run; this needs no
//! instrumented build, and what fails is made small by proptest.

use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Pieces that readers look for, or stumble over.
const WORDS: [&[u8]; 14] = [
    b"\n",
    b"\0",
    b"\"",
    b"{",
    b"[",
    b"]}",
    b"=",
    b"-1",
    b"18446744073709551616",
    b"1e999",
    b"\xff\xfe",
    "\u{202e}".as_bytes(),
    b"\\u0000",
    b"../",
];

#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
    /// A part once more, somewhere else.
    Repeat(Index, Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<Index>;
    prop_oneof![
        (index(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (index(), select(&WORDS[..])).prop_map(|(at, word)| Change::Insert(at, word.to_vec())),
        (index(), prop::collection::vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (index(), index()).prop_map(|(from, to)| Change::Remove(from, to)),
        (index(), index(), index()).prop_map(|(from, to, at)| Change::Repeat(from, to, at)),
    ]
}

/// One of `seeds`, changed in some places.
pub fn near(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (select(seeds), prop::collection::vec(change(), 0..6)).prop_map(|(seed, changes)| {
        changes.into_iter().fold(seed, |mut bytes, change| {
            let place = |index: Index, bytes: &[u8]| index.index(bytes.len() + 1);
            let range = |from, to, bytes: &[u8]| {
                let (one, other) = (place(from, bytes), place(to, bytes));
                one.min(other)..one.max(other)
            };
            match change {
                Change::Set(at, byte) => {
                    let at = place(at, &bytes);
                    bytes.get_mut(at).into_iter().for_each(|old| *old = byte);
                }
                Change::Insert(at, piece) => {
                    let at = place(at, &bytes);
                    bytes.splice(at..at, piece);
                }
                Change::Remove(from, to) => drop(bytes.drain(range(from, to, &bytes))),
                Change::Repeat(from, to, at) => {
                    let piece = bytes[range(from, to, &bytes)].to_vec();
                    let at = place(at, &bytes);
                    bytes.splice(at..at, piece);
                }
            }
            bytes
        })
    })
}
