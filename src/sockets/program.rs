//! The classic BPF program of a reuseport group: which lane gets a new connection.
//!
//! Owns the encoding. A program is the clauses of the running probes, then a ladder over the lanes' shares:
//!
//! ```text
//! clause : version, source port and source address are the probe's → ret its lane
//! random : A = random % total
//! source : A = hash(source address) % 256
//! ladder : A < end of the first share → ret its lane; … ; ret the last
//! ```
//!
//! The lanes in a program are the kernel's indices, not ours; `tcp.rs` knows the difference. What can go wrong is an
//! index that no socket has: the kernel then falls back to its own hash, over lanes without weight too. So a program
//! is made only from sockets that listen.

use std::net::{IpAddr, SocketAddr};

use crate::process::sys::SockFilter;

/// Buckets that source addresses fall into. A fixed number, so that a change of weights moves no more than it must.
pub(super) const BUCKETS: usize = 256;

/// Random number (`SKF_AD_OFF + SKF_AD_RANDOM`).
const RANDOM: u32 = 0xffff_f000 + 56;
/// Start of the network header (`SKF_NET_OFF`).
const NET: u32 = 0xfff0_0000;

const LD_WORD: u16 = 0x20;
const LD_HALF: u16 = 0x28;
const LD_BYTE: u16 = 0x30;
const TAX: u16 = 0x07;
const MUL: u16 = 0x24;
const AND: u16 = 0x54;
const RSH: u16 = 0x74;
const MOD: u16 = 0x94;
const XOR_X: u16 = 0xac;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGE: u16 = 0x35;
const RET: u16 = 0x06;

/// A share of all connections: everything below `end` that the shares before it leave goes to `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// One past the last value of this share.
    pub(super) end: u32,
    /// The kernel's index of the lane.
    pub(super) index: u32,
}

/// Sends one source address and port to one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clause {
    /// Where the probe connects from.
    pub(super) source: SocketAddr,
    /// The kernel's index of the lane.
    pub(super) index: u32,
}

/// The shares in weight order of `weights` (kernel index, weight); those of weight 0 have none. The ends are exact
/// because the caller has checked that the sum fits.
pub(super) fn shares_by_weight(weights: impl Iterator<Item = (u32, u32)>) -> Vec<Share> {
    let mut end = 0_u32;
    weights
        .filter(|(_, weight)| *weight > 0)
        .map(|(index, weight)| {
            end += weight;
            Share { end, index }
        })
        .collect()
}

/// Neighbouring buckets of one lane as one share. `buckets` holds the kernel's index for each bucket.
pub(super) fn shares_by_bucket(buckets: impl Iterator<Item = u32>) -> Vec<Share> {
    let mut shares: Vec<Share> = Vec::new();
    for (index, end) in buckets.zip(1..) {
        match shares.last_mut() {
            Some(last) if last.index == index => last.end = end,
            Some(_) | None => shares.push(Share { end, index }),
        }
    }
    shares
}

/// A program that picks at random. `shares` is not empty and ends above zero.
pub(super) fn random(clauses: &[Clause], shares: &[Share]) -> Vec<SockFilter> {
    let mut program = steer(clauses);
    let total = shares.last().map_or(1, |share| share.end);
    program.extend([op(LD_WORD, RANDOM), op(MOD, total)]);
    program.extend(ladder(shares));
    program
}

/// A program that picks by source address. `shares` covers [`BUCKETS`].
pub(super) fn by_source(clauses: &[Clause], shares: &[Share]) -> Vec<SockFilter> {
    let mut program = steer(clauses);
    program.extend([op(LD_BYTE, NET), op(RSH, 4), jump(JEQ, 6, 0, 11)]);
    program.push(op(LD_WORD, NET + 8));
    for at in [12, 16, 20] {
        program.extend([op(TAX, 0), op(LD_WORD, NET + at), op(XOR_X, 0)]);
    }
    // IPv6 has its hash input in A now and passes over the load for IPv4.
    program.extend([op(JA, 1), op(LD_WORD, NET + 12)]);
    program.extend([op(MUL, 0x9e37_79b1), op(TAX, 0), op(RSH, 15), op(XOR_X, 0), op(RSH, 7), op(AND, 0xff)]);
    program.extend(ladder(shares));
    program
}

fn ladder(shares: &[Share]) -> Vec<SockFilter> {
    let Some((last, rest)) = shares.split_last() else { return vec![op(RET, 0)] };
    let mut program = Vec::with_capacity(rest.len() * 2 + 1);
    for share in rest {
        program.extend([jump(JGE, share.end, 1, 0), op(RET, share.index)]);
    }
    program.push(op(RET, last.index));
    program
}

fn steer(clauses: &[Clause]) -> Vec<SockFilter> {
    clauses.iter().flat_map(clause).collect()
}

fn clause(clause: &Clause) -> Vec<SockFilter> {
    let mut tests: Vec<(u16, u32, u32)> = Vec::with_capacity(6);
    let port = u32::from(clause.source.port());
    match clause.source.ip().to_canonical() {
        IpAddr::V4(ip) => {
            // 0x45: version 4 and no options, so that the port is where we look. Our own kernel adds none.
            tests.extend([(LD_BYTE, NET, 0x45), (LD_HALF, NET + 20, port), (LD_WORD, NET + 12, u32::from(ip))]);
        }
        IpAddr::V6(ip) => {
            tests.extend([(LD_BYTE, NET, 0x60), (LD_HALF, NET + 40, port)]);
            let bits = u128::from(ip);
            for (at, shift) in [(8, 96), (12, 64), (16, 32), (20, 0)] {
                tests.push((LD_WORD, NET + at, (bits >> shift) as u32));
            }
        }
    }
    let mut program = Vec::with_capacity(tests.len() * 2 + 2);
    let mut left = tests.len();
    for (load, at, want) in tests {
        left -= 1;
        program.push(op(load, at));
        if load == LD_BYTE && want == 0x60 {
            // The low half of IPv6's first byte belongs to the traffic class.
            program.push(op(AND, 0xf0));
        }
        let past_the_clause = u8::try_from(left * 2 + 1).expect("a clause has at most six tests");
        program.push(jump(JEQ, want, 0, past_the_clause));
    }
    program.push(op(RET, clause.index));
    program
}

const fn op(code: u16, k: u32) -> SockFilter {
    SockFilter { code, jt: 0, jf: 0, k }
}

const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> SockFilter {
    SockFilter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 or IPv6 header with a TCP header behind it, as far as programs look.
    fn packet(source: &str) -> Vec<u8> {
        let source: SocketAddr = source.parse().expect("is an address");
        let (mut bytes, port_at) = match source.ip() {
            IpAddr::V4(ip) => {
                let mut bytes = vec![0; 40];
                bytes[0] = 0x45;
                bytes[12..16].copy_from_slice(&ip.octets());
                (bytes, 20)
            }
            IpAddr::V6(ip) => {
                let mut bytes = vec![0; 60];
                bytes[0] = 0x6a;
                bytes[8..24].copy_from_slice(&ip.octets());
                (bytes, 40)
            }
        };
        bytes[port_at..port_at + 2].copy_from_slice(&source.port().to_be_bytes());
        bytes
    }

    /// Runs a program as the kernel does; `random` is the number it draws.
    fn run(program: &[SockFilter], packet: &[u8], random: u32) -> u32 {
        let (mut a, mut x, mut at) = (0_u32, 0_u32, 0);
        loop {
            let SockFilter { code, jt, jf, k } = program[at];
            at += 1;
            let load = |len: usize| {
                let from = (k - NET) as usize;
                packet[from..from + len].iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
            };
            match code {
                LD_WORD if k == RANDOM => a = random,
                LD_WORD => a = load(4),
                LD_HALF => a = load(2),
                LD_BYTE => a = load(1),
                TAX => x = a,
                MUL => a = a.wrapping_mul(k),
                AND => a &= k,
                RSH => a >>= k,
                MOD => a %= k,
                XOR_X => a ^= x,
                JA => at += k as usize,
                JEQ => at += usize::from(if a == k { jt } else { jf }),
                JGE => at += usize::from(if a >= k { jt } else { jf }),
                RET => return k,
                other => panic!("{other:#x} is none of our instructions"),
            }
        }
    }

    fn clause(source: &str, index: u32) -> Clause {
        Clause { source: source.parse().expect("is an address"), index }
    }

    #[test]
    fn the_ladder_gives_each_lane_its_weight_exactly() {
        let shares = shares_by_weight([(4, 5), (0, 0), (2, 95), (9, 1)].into_iter());
        let program = random(&[], &shares);
        let mut got = [0; 10];
        (0..101).for_each(|drawn| got[run(&program, &packet("1.2.3.4:5"), drawn) as usize] += 1);
        assert_eq!(got, [0, 0, 95, 0, 5, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn a_clause_takes_its_own_source_and_no_other() {
        let clauses = [clause("127.0.0.1:4000", 1), clause("[::1]:4000", 2), clause("[2001:db8::7]:4001", 3)];
        let mut with_options = packet("127.0.0.1:4000");
        with_options[0] = 0x46;
        for program in
            [random(&clauses, &[Share { end: 1, index: 0 }]), by_source(&clauses, &[Share { end: 256, index: 0 }])]
        {
            for (source, lane) in [
                ("127.0.0.1:4000", 1),
                ("[::1]:4000", 2),
                ("[2001:db8::7]:4001", 3),
                ("127.0.0.1:4001", 0),
                ("127.0.0.2:4000", 0),
                ("[::2]:4000", 0),
                ("[1::1]:4000", 0),
                ("[2001:db8::7]:4000", 0),
                ("[2001:db8:0:1::7]:4001", 0),
            ] {
                assert_eq!(run(&program, &packet(source), 0), lane, "{source}");
            }
            assert_eq!(run(&program, &with_options, 0), 0, "the port is not where it seems");
        }
    }

    #[test]
    fn sources_fill_the_buckets_evenly() {
        let shares = shares_by_bucket((0..256).map(|bucket| bucket / 64));
        assert_eq!(shares.len(), 4);
        let program = by_source(&[], &shares);
        for source in [|n: u32| format!("10.0.{}.{}:9", n / 250, n % 250), |n: u32| format!("[2001:db8::{n:x}]:9")] {
            let mut got = [0_i32; 4];
            (0..4000).for_each(|n| got[run(&program, &packet(&source(n)), 0) as usize] += 1);
            assert!(got.iter().all(|count| (count - 1000).abs() < 150), "{got:?}");
        }
    }

    #[test]
    fn the_longest_program_fits_older_kernels() {
        let clauses: Vec<Clause> = (0..64).map(|port| clause(&format!("[::1]:{}", port + 1), 1)).collect();
        let longest = by_source(&clauses, &shares_by_bucket((0..256).map(|bucket| bucket % 2)));
        // 20480 bytes of optmem_max, 8 an instruction.
        assert!(longest.len() < 2560, "{} instructions", longest.len());
    }
}
