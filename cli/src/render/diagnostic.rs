//! A mistake in a configuration file, shown where it stands: file, line and column, the line underlined, what was
//! expected and what to do.

use std::fmt;

use agentd_protocol::control::Diagnostic as Wire;
use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, SourceCode,
    SourceSpan, SpanContents,
};

use super::Canvas;

/// Columns where there is no terminal to ask.
const WIDTH: usize = 100;

/// Characters of what was expected that fit beside the mark; more is told below, where lines are wrapped.
const LABEL: usize = 64;

/// The mistake as text, without a line break at its end.
pub(crate) fn render(diagnostic: &Wire, canvas: &Canvas) -> String {
    let theme = if canvas.color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(canvas.width.unwrap_or(WIDTH))
        .with_links(false)
        .with_wrap_lines(true);
    let mut text = String::new();
    if handler.render_report(&mut text, &Mistake::new(diagnostic)).is_err() {
        // A column that the line does not have, say: the words are worth more than the picture.
        text = format!("{}:{}: {}", diagnostic.file, diagnostic.line, diagnostic.message);
    }
    text.trim_end().to_owned()
}

/// A mistake as miette wants it.
#[derive(Debug)]
struct Mistake<'a> {
    wire: &'a Wire,
    line: OneLine<'a>,
}

/// The only line that was sent, at its place in a file that we do not have.
#[derive(Debug)]
struct OneLine<'a> {
    file: &'a str,
    /// Counted from 0.
    number: usize,
    text: &'a str,
}

impl<'a> Mistake<'a> {
    fn new(wire: &'a Wire) -> Self {
        let number = usize::try_from(wire.line).unwrap_or(usize::MAX).saturating_sub(1);
        Self { wire, line: OneLine { file: &wire.file, number, text: &wire.source_line } }
    }

    fn expected(&self) -> Option<String> {
        self.wire.expected.as_ref().map(|expected| format!("expected {expected}"))
    }

    /// The mistake's place within the line, in bytes; columns count characters.
    fn span(&self) -> SourceSpan {
        let byte = |column: u32| {
            let characters = usize::try_from(column).unwrap_or(usize::MAX).saturating_sub(1);
            let text = self.wire.source_line.as_str();
            text.char_indices().nth(characters).map_or(text.len(), |(at, _)| at)
        };
        let (start, end) = (byte(self.wire.column), byte(self.wire.end_column));
        (start, end.saturating_sub(start)).into()
    }
}

impl fmt::Display for Mistake<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.wire.line == 0 {
            write!(f, "{}: ", self.wire.file)?;
        }
        f.write_str(&self.wire.message)
    }
}

impl std::error::Error for Mistake<'_> {}

impl Diagnostic for Mistake<'_> {
    fn help<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        let expected = self.expected().filter(|text| text.len() > LABEL);
        let words: Vec<String> = self.wire.help.iter().cloned().chain(expected).collect();
        (!words.is_empty()).then(|| Box::new(words.join("\n")) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        // Line 0 is a mistake of the file as a whole: there is nothing to underline.
        if self.wire.line == 0 { None } else { Some(&self.line) }
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let expected = self.expected().filter(|text| text.len() <= LABEL);
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(
            Some(expected.unwrap_or_else(|| "here".to_owned())),
            self.span(),
        ))))
    }
}

impl SourceCode for OneLine<'_> {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        context_lines_before: usize,
        _context_lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        if span.offset() + span.len() > self.text.len() {
            return Err(MietteError::OutOfBounds);
        }
        let whole = SourceSpan::from((0, self.text.len()));
        // Without context miette asks where the span is, to name it in the header; with context, what to print.
        let column = match context_lines_before {
            0 => self.text.get(..span.offset()).map_or(0, |before| before.chars().count()),
            _ => 0,
        };
        let contents =
            MietteSpanContents::new_named(self.file.to_owned(), self.text.as_bytes(), whole, self.number, column, 1);
        Ok(Box::new(contents))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostic() -> Wire {
        Wire {
            file: "agentd.toml".into(),
            line: 12,
            column: 3,
            end_column: 9,
            source_line: "  worker = 2".into(),
            message: "unknown key \"worker\"".into(),
            expected: Some("one of the keys of [agent.support]".into()),
            help: Some("the nearest known key is \"workers\"".into()),
        }
    }

    const PLAIN: Canvas = Canvas { width: Some(80), color: false };

    #[test]
    fn a_mistake_is_shown_at_its_line_and_column_with_what_was_expected() {
        insta::assert_snapshot!(render(&diagnostic(), &PLAIN), @r#"
        × unknown key "worker"
          ╭─[agentd.toml:12:3]
       12 │   worker = 2
          ·   ───┬──
          ·      ╰── expected one of the keys of [agent.support]
          ╰────
        help: the nearest known key is "workers"
        "#);
    }

    #[test]
    fn a_long_list_of_what_was_expected_is_wrapped_below() {
        let names: Vec<String> = (0..30).map(|number| format!("`key-number-{number}`")).collect();
        let wire = Wire { expected: Some(names.join(", ")), ..diagnostic() };
        let text = render(&wire, &PLAIN);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("help: the nearest known key is \"workers\"\n"), "{text}");
        assert!(text.contains("expected `key-number-0`, ") && text.contains("`key-number-29`"), "{text}");
    }

    #[test]
    fn columns_count_characters_whatever_their_bytes() {
        let wire = Wire { source_line: "näme = 2".into(), column: 8, end_column: 9, ..diagnostic() };
        assert_eq!(Mistake::new(&wire).span(), SourceSpan::from((8, 1)));
    }

    #[test]
    fn a_mistake_of_the_file_as_a_whole_underlines_nothing() {
        let wire = Wire { line: 0, column: 0, end_column: 0, source_line: String::new(), ..diagnostic() };
        let text = render(&wire, &PLAIN);
        assert!(text.contains("agentd.toml: unknown key") && !text.contains('─'), "{text}");
    }

    #[test]
    fn a_column_beyond_the_line_still_shows_the_words() {
        let wire = Wire { column: 900, end_column: 4, ..diagnostic() };
        assert!(render(&wire, &PLAIN).contains("unknown key"));
    }
}
