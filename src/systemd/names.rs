//! The names under which systemd keeps our descriptors.
//!
//! A name there is 1 to 255 printable ASCII characters without a colon (`LISTEN_FDNAMES` separates by it). Ours are the
//! keeper's, with `%XX` for each byte that may not stand there.

use crate::keeper::Held;

/// Longest name, in bytes: systemd's `FDNAME_MAX`.
const NAME_MAX: usize = 255;

/// None when the name would be too long: the socket file of an app lies very deep.
pub(super) fn encode(held: &Held) -> Option<String> {
    let mut name = String::new();
    for byte in held.to_string().bytes() {
        match byte {
            b':' | b'%' | b'\\' | 0..=b' ' | 0x7f.. => name.push_str(&format!("%{byte:02x}")),
            plain => name.push(char::from(plain)),
        }
    }
    (name.len() <= NAME_MAX).then_some(name)
}

/// None for a name that is not of ours.
pub(super) fn decode(name: &str) -> Option<Held> {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        if first == b'%' {
            let digits = str::from_utf8(behind.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &behind[2..];
        } else {
            bytes.push(first);
            rest = behind;
        }
    }
    String::from_utf8(bytes).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use agentd_core::id::{Lane, Launch};

    use super::*;
    use crate::logs::layout::StreamKind;

    #[test]
    fn every_kind_of_name_comes_back_and_passes_systemds_rule() {
        let lane =
            |addr: &str| Held::Lane { app: "support".parse().unwrap(), lane: Lane(7), addr: addr.parse().unwrap() };
        let all = [
            lane("0.0.0.0:8080"),
            lane("[::1]:8080"),
            lane("unix:/run/a b%c.sock"),
            Held::Fifo { launch: Launch(12), stream: StreamKind::BOTH[1] },
            Held::Notify { launch: Launch(12) },
        ];
        for held in all {
            let name = encode(&held).unwrap();
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'), "{name}");
            assert_eq!(decode(&name), Some(held));
        }
    }

    #[test]
    fn what_is_none_of_ours_is_not_taken_for_it() {
        for name in ["", "stored", "connection", "lane", "%", "%4", "%zz", "%ff", "notify%20x"] {
            assert_eq!(decode(name), None, "{name}");
        }
    }

    #[test]
    fn a_name_that_systemd_would_refuse_is_not_made() {
        let addr = format!("unix:/{}", "%".repeat(90)).parse().unwrap();
        assert_eq!(encode(&Held::Lane { app: "a".parse().unwrap(), lane: Lane(0), addr }), None);
    }
}
