//! Line protocols on stdin and stdout, so that the statistics can be scored from outside: [`estimate`] and [`gate`].
//!
//! Owns reading lines of bounded length and writing replies in time. A line that is not understood gets a reply that
//! says so; neither it nor a long one ends the program. Only the end of the input, or a closed output, does.

pub mod estimate;
pub mod gate;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::ExitCode;

/// A longer line is refused and passed over.
const LINE_MAX: usize = 1 << 20;
const READ_BUFFER: usize = 1 << 18;

/// Something that answers lines.
trait Answers {
    /// Takes in one line, without its end; appends the reply's line, if there is one.
    fn answer(&mut self, line: &[u8], reply: &mut Vec<u8>);

    /// The reply to a line of more than [`LINE_MAX`] bytes.
    fn too_long(&mut self, reply: &mut Vec<u8>);
}

/// Answers stdin's lines on stdout until stdin ends.
fn serve(answers: &mut impl Answers) -> ExitCode {
    match converse(answers, io::stdin().lock(), io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever asked is gone: nothing is left to answer.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agentd: answer lines on stdin and stdout: {error}");
            ExitCode::FAILURE
        }
    }
}

fn converse(answers: &mut impl Answers, input: impl Read, mut output: impl Write) -> io::Result<()> {
    let mut input = BufReader::with_capacity(READ_BUFFER, input);
    let (mut line, mut reply) = (Vec::new(), Vec::new());
    loop {
        // Replies leave in one write for as many lines as are already here, and before any wait for more.
        if !reply.is_empty() && !input.buffer().contains(&b'\n') {
            output.write_all(&reply)?;
            output.flush()?;
            reply.clear();
        }
        line.clear();
        let read = input.by_ref().take(LINE_MAX as u64 + 1).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() > LINE_MAX {
            input.skip_until(b'\n')?;
            answers.too_long(&mut reply);
            continue;
        }
        answers.answer(line.trim_ascii(), &mut reply);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    impl Answers for Echo {
        fn answer(&mut self, line: &[u8], reply: &mut Vec<u8>) {
            reply.extend_from_slice(line);
            reply.push(b'\n');
        }

        fn too_long(&mut self, reply: &mut Vec<u8>) {
            reply.extend_from_slice(b"too long\n");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_and_the_next_is_answered() {
        let mut input = vec![b'x'; 3 * LINE_MAX];
        input.extend_from_slice(b"\r\n  next \r\nlast");
        let mut output = Vec::new();
        converse(&mut Echo, input.as_slice(), &mut output).expect("converses");
        assert_eq!(String::from_utf8(output).expect("text"), "too long\nnext\nlast\n");
    }
}
