//! Aligned columns that adapt to the width there is.
//!
//! Owns the layout: which columns fit, how wide each is, how a line beneath a row wraps. Knows nothing of apps.
//! A column that does not fit is left out whole: half a number misleads. So is one that says nothing in any row.
//! Without a width (a pipe, a file) every
//! column is there, so that scripts find the same fields whatever terminal ran them.

use std::fmt::Write as _;

use anstyle::Style;

/// Space between two columns.
const GAP: usize = 2;

/// What a cell holds that has nothing to say. Never empty: fields must be countable.
pub(crate) const NOTHING: &str = "-";

/// Which side of its column a text keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A column's head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// Printed above it.
    pub(crate) title: &'static str,
    /// Which side its texts keep to.
    pub(crate) align: Align,
    /// Columns are placed in this order while there is room; 0 is always placed.
    pub(crate) rank: u8,
}

/// A text and how it is set off.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A text as it is.
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), style: Style::new() }
    }

    /// A text set off by `style`.
    pub(crate) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }

    /// Writes it in lines of its own, `indent` spaces from the left, wrapped at words.
    pub(crate) fn write_beneath(&self, text: &mut String, indent: usize, width: Option<usize>) {
        let style = self.style;
        for line in wrap(&self.text, width.map(|width| width.saturating_sub(indent).max(20))) {
            let _ = writeln!(text, "{:indent$}{style}{line}{style:#}", "");
        }
    }

    fn write(&self, text: &mut String) {
        if self.style.is_plain() {
            text.push_str(&self.text);
        } else {
            let style = self.style;
            let _ = write!(text, "{style}{}{style:#}", self.text);
        }
    }
}

/// One line of a table, with what is to be said of it beneath.
#[derive(Clone, Debug, Default)]
struct Row {
    cells: Vec<Cell>,
    beneath: Vec<Cell>,
}

/// Rows under a head.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    columns: &'static [Column],
    rows: Vec<Row>,
    indent: usize,
}

impl Table {
    /// An empty table, `indent` spaces from the left.
    pub(crate) fn new(columns: &'static [Column], indent: usize) -> Self {
        Self { columns, rows: Vec::new(), indent }
    }

    /// Adds a row: a cell for each column, and lines beneath that may wrap.
    pub(crate) fn row(&mut self, cells: Vec<Cell>, beneath: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push(Row { cells, beneath });
    }

    /// The whole table as text with styles, each line ended.
    pub(crate) fn render(&self, width: Option<usize>) -> String {
        let widths = self.widths();
        let placed = self.placed(&widths, width);
        let mut text = String::new();
        let head: Vec<Cell> =
            self.columns.iter().map(|column| Cell::styled(column.title, Style::new().dimmed())).collect();
        self.line(&mut text, &head, &widths, &placed);
        for row in &self.rows {
            self.line(&mut text, &row.cells, &widths, &placed);
            for cell in &row.beneath {
                cell.write_beneath(&mut text, self.indent + GAP, width);
            }
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let of_column = |index: usize| {
            let cells = self.rows.iter().map(|row| row.cells[index].width()).max().unwrap_or(0);
            cells.max(self.columns[index].title.len())
        };
        (0..self.columns.len()).map(of_column).collect()
    }

    /// Which columns are shown: by rank, each that says something and still fits.
    fn placed(&self, widths: &[usize], width: Option<usize>) -> Vec<bool> {
        let Some(width) = width else { return vec![true; widths.len()] };
        let mut by_rank: Vec<usize> = (0..widths.len()).collect();
        by_rank.sort_by_key(|&index| self.columns[index].rank);
        let mut placed = vec![false; widths.len()];
        let mut used = self.indent;
        for index in by_rank {
            let says_something = self.rows.iter().any(|row| row.cells[index].text != NOTHING);
            let more = widths[index] + if used == self.indent { 0 } else { GAP };
            if self.columns[index].rank == 0 || (says_something && used + more <= width) {
                placed[index] = true;
                used += more;
            }
        }
        placed
    }

    fn line(&self, text: &mut String, cells: &[Cell], widths: &[usize], placed: &[bool]) {
        let mut owed = self.indent;
        for (index, cell) in cells.iter().enumerate().filter(|&(index, _)| placed[index]) {
            let fill = widths[index] - cell.width();
            let (before, after) = match self.columns[index].align {
                Align::Left => (0, fill),
                Align::Right => (fill, 0),
            };
            // Spaces that nothing follows are never written: a terminal of exactly this width would wrap them.
            text.extend(std::iter::repeat_n(' ', owed + before));
            cell.write(text);
            owed = after + GAP;
        }
        text.push('\n');
    }
}

/// Cuts `text` into lines of at most `width` characters, at spaces where there are any.
pub(crate) fn wrap(text: &str, width: Option<usize>) -> Vec<String> {
    let Some(width) = width else { return vec![text.to_owned()] };
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let (have, more) = (line.chars().count(), word.chars().count());
        if have > 0 && have + 1 + more > width {
            lines.push(std::mem::take(&mut line));
        } else if have > 0 {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column { title: "NAME", align: Align::Left, rank: 0 },
        Column { title: "WIDE", align: Align::Left, rank: 2 },
        Column { title: "N", align: Align::Right, rank: 1 },
        Column { title: "END", align: Align::Left, rank: 3 },
    ];

    fn table() -> Table {
        let mut table = Table::new(COLUMNS, 0);
        let row = |name: &str, n: &str| [name, "a wide text", n, "x"].map(Cell::plain).to_vec();
        table.row(row("support", "3"), vec![]);
        table.row(row("a", "12"), vec![Cell::plain("why it is so in more words than fit")]);
        table
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn without_a_width_every_column_is_there() {
        insta::assert_snapshot!(plain(&table().render(None)), @"
        NAME     WIDE          N  END
        support  a wide text   3  x
        a        a wide text  12  x
          why it is so in more words than fit
        ");
    }

    #[test]
    fn a_column_that_does_not_fit_is_left_out_whole_and_a_smaller_one_takes_its_place() {
        insta::assert_snapshot!(plain(&table().render(Some(22))), @"
        NAME      N  END
        support   3  x
        a        12  x
          why it is so in more
          words than fit
        ");
    }

    #[test]
    fn a_column_that_says_nothing_makes_room() {
        let mut table = Table::new(COLUMNS, 0);
        table.row(["a", NOTHING, "1", NOTHING].map(Cell::plain).to_vec(), vec![]);
        insta::assert_snapshot!(plain(&table.render(Some(80))), @"
        NAME  N
        a     1
        ");
        insta::assert_snapshot!(plain(&table.render(None)), @"
        NAME  WIDE  N  END
        a     -     1  -
        ");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in 22..60 {
            for line in table().render(Some(width)).lines() {
                let plain = plain(line);
                assert!(plain.chars().count() <= width, "{plain:?} is wider than {width}");
            }
        }
    }

    #[test]
    fn styles_cost_no_width() {
        let red = anstyle::AnsiColor::Red.on_default();
        let mut table = Table::new(&COLUMNS[..2], 2);
        table.row(vec![Cell::styled("x", red), Cell::plain("y")], vec![]);
        insta::assert_snapshot!(plain(&table.render(Some(80))), @"
          NAME  WIDE
          x     y
        ");
    }
}
