//! `{fd:NAME}`, `{host:NAME}` and `{port:NAME}`: how a command takes its listeners.
//!
//! Only these exact forms are placeholders. Every other brace stays as it is, so arguments may hold JSON.

use std::collections::BTreeMap;

use crate::sockets::ListenAddr;

/// Longest listener name.
const NAME_MAX: usize = 64;

/// Longest placeholder; looking no further keeps a text of nothing but braces cheap.
const PLACEHOLDER_MAX: usize = NAME_MAX + "{host:}".len();

/// What a placeholder asks of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Fd,
    Host,
    Port,
}

/// A stretch of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    /// To be taken as it is.
    Plain(&'t str),
    /// To be replaced by something of the listener of this name.
    Placeholder(Wanted, &'t str),
}

/// Cuts a text into its pieces.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut plain_from = 0;
    for (at, _) in text.match_indices('{') {
        if let Some((wanted, name, len)) = placeholder(&text[at..]) {
            pieces.push(Piece::Plain(&text[plain_from..at]));
            pieces.push(Piece::Placeholder(wanted, name));
            plain_from = at + len;
        }
    }
    pieces.push(Piece::Plain(&text[plain_from..]));
    pieces
}

/// Whether a text takes the descriptor of the listener `name`.
pub(super) fn names_fd(text: &str, name: &str) -> bool {
    pieces(text).contains(&Piece::Placeholder(Wanted::Fd, name))
}

/// Whether a text may be a listener's name: it becomes part of `LISTEN_FDNAMES`, of a variable's name and of
/// placeholders.
pub(super) fn is_listener_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    name.len() <= NAME_MAX && name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.bytes().all(allowed)
}

fn placeholder(text: &str) -> Option<(Wanted, &str, usize)> {
    let end = text.bytes().take(PLACEHOLDER_MAX).position(|b| b == b'}')?;
    let inside = &text[1..end];
    let (wanted, name) = inside.split_once(':')?;
    let wanted = match wanted {
        "fd" => Wanted::Fd,
        "host" => Wanted::Host,
        "port" => Wanted::Port,
        _ => return None,
    };
    is_listener_name(name).then_some((wanted, name, inside.len() + 2))
}

/// Fills in the placeholders of a text. One that nothing is known about stays as it is; loading refuses those.
pub(super) fn expand(text: &str, listen: &BTreeMap<String, ListenAddr>, fds: &BTreeMap<String, i32>) -> String {
    let mut whole = String::with_capacity(text.len());
    for piece in pieces(text) {
        let (wanted, name) = match piece {
            Piece::Plain(plain) => {
                whole.push_str(plain);
                continue;
            }
            Piece::Placeholder(wanted, name) => (wanted, name),
        };
        let known = match wanted {
            Wanted::Fd => fds.get(name).map(i32::to_string),
            Wanted::Host => listen.get(name).and_then(ListenAddr::host).map(|host| host.to_string()),
            Wanted::Port => listen.get(name).and_then(ListenAddr::port).map(|port| port.to_string()),
        };
        let word = match wanted {
            Wanted::Fd => "fd",
            Wanted::Host => "host",
            Wanted::Port => "port",
        };
        whole.push_str(&known.unwrap_or_else(|| format!("{{{word}:{name}}}")));
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expanded(text: &str) -> String {
        let listen = BTreeMap::from([
            ("http".to_owned(), "0.0.0.0:8080".parse().expect("valid")),
            ("admin-1".to_owned(), "[::1]:9".parse().expect("valid")),
            ("sock".to_owned(), "unix:/run/a".parse().expect("valid")),
        ]);
        let fds = BTreeMap::from([("http".to_owned(), 3), ("admin-1".to_owned(), 4), ("sock".to_owned(), 5)]);
        expand(text, &listen, &fds)
    }

    #[test]
    fn placeholders_take_the_listeners_descriptor_host_and_port() {
        assert_eq!(expanded("fd://{fd:http}"), "fd://3");
        assert_eq!(expanded("{host:http}:{port:http},{host:admin-1}:{port:admin-1}"), "0.0.0.0:8080,::1:9");
        assert_eq!(expanded("{fd:sock}{fd:sock}"), "55");
    }

    #[test]
    fn braces_that_are_no_placeholder_pass_through_untouched() {
        for text in
            ["{}", "{{fd}}", "{\"fd\":1}", "{port:8080}", "{fd:}", "{fd:a b}", "{fd:http", "${X:-{}}", "{other:http}"]
        {
            assert_eq!(expanded(text), text);
        }
        assert_eq!(expanded("{{fd:http}}"), "{3}");
        assert_eq!(expanded("{\"fd\": {fd:http}}"), "{\"fd\": 3}");
    }

    #[test]
    fn what_is_unknown_stays() {
        assert_eq!(expanded("{fd:grpc} {port:sock} {host:sock}"), "{fd:grpc} {port:sock} {host:sock}");
    }

    proptest! {
        #[test]
        fn the_pieces_of_a_text_make_up_the_text(text in "([{}:]|fd|port|http|ü)*") {
            let none = BTreeMap::new();
            prop_assert_eq!(expand(&text, &none, &BTreeMap::new()), text);
        }
    }
}
