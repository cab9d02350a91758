//! The port that a program binds, by its own words: guessed from its text, never by running it.

/// Ports below are no server's of this kind: a radix, a count.
const LEAST: u16 = 80;

/// The port that stands behind a word "port" or in a `.listen(`, whichever comes first: `process.env.PORT || 3000`,
/// `const port = 3000`, `.listen(3000)`.
pub(super) fn bound_by(code: &str) -> Option<u16> {
    let lower = code.to_ascii_lowercase();
    let words = ["port", ".listen("].iter().flat_map(|word| lower.match_indices(word));
    let mut behind: Vec<usize> = words.map(|(at, word)| at + word.len()).collect();
    behind.sort_unstable();
    behind.into_iter().find_map(|at| first_number(&lower[at..]))
}

/// Whether the program asks its environment for the port.
pub(super) fn is_of_the_environment(code: &str) -> bool {
    ["env.PORT", "env['PORT']", "env[\"PORT\"]", "environ"].iter().any(|word| code.contains(word))
        && code.contains("PORT")
}

/// Whether what the program binds is for this machine alone.
pub(super) fn is_local(code: &str) -> bool {
    let arguments = code.split(".listen(").skip(1).filter_map(|rest| rest.split(')').next());
    let mut arguments = arguments.peekable();
    arguments.peek().is_some() && arguments.any(|words| words.contains("127.0.0.1") || words.contains("localhost"))
}

/// The first number that may be a port, behind nothing but what stands between a name and its value.
fn first_number(text: &str) -> Option<u16> {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '=', ':', '|', '?', '\'', '"', '(', ')', ',', ']', '}']);
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if digits == 0 {
            return None;
        }
        match rest[..digits].parse::<u16>() {
            Ok(port) if port >= LEAST => return Some(port),
            Ok(_) | Err(_) => rest = &rest[digits..],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_read_where_programs_usually_write_it() {
        for (code, port) in [
            ("app.listen(process.env.PORT || 3000)", Some(3000)),
            ("const port = parseInt(process.env.PORT, 10) ?? '4000';", Some(4000)),
            ("const port = Number(process.env.PORT ?? 4100)", Some(4100)),
            ("const n = parseInt(process.env.PORT, 10) || 4200;", Some(4200)),
            ("server.listen( 8088, () => {})", Some(8088)),
            ("server.listen({ port: 8089, host })", Some(8089)),
            ("PORT: \"9000\"", Some(9000)),
            ("import x from 'y'; report(12345678)", None),
            ("server.listen(path)", None),
        ] {
            assert_eq!(bound_by(code), port, "{code}");
        }
    }

    #[test]
    fn only_what_is_bound_to_this_machine_is_local() {
        assert!(is_local("server.listen(3000, '127.0.0.1')"));
        assert!(!is_local("server.listen(3000)"));
        assert!(!is_local("nothing"));
    }
}
