//! Tables in plain text: a head, and rows whose columns line up.
//!
//! Column widths are fixed beforehand, so that rows can be written as they become known and nothing
//! is stored. A cell wider than its column pushes the rest of its row to the right rather than
//! losing anything.

use core::fmt::{self, Display, Write};

/// To which side a column's cells are pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// One column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// What stands above it.
    pub title: &'static str,
    /// How many characters wide it is.
    pub width: usize,
    /// Where its cells stand in it.
    pub align: Align,
}

/// A column of text.
pub const fn text(title: &'static str, width: usize) -> Column {
    Column {
        title,
        width,
        align: Align::Left,
    }
}

/// A column of numbers.
pub const fn number(title: &'static str, width: usize) -> Column {
    Column {
        title,
        width,
        align: Align::Right,
    }
}

/// The columns of a table.
#[derive(Clone, Copy, Debug)]
pub struct Table<const N: usize>(pub [Column; N]);

impl<const N: usize> Table<N> {
    /// Writes the titles.
    pub fn head(&self, out: &mut impl Write) -> fmt::Result {
        let titles = self
            .0
            .each_ref()
            .map(|column| &column.title as &dyn Display);
        self.row(out, titles)
    }

    /// Writes one row.
    pub fn row(&self, out: &mut impl Write, cells: [&dyn Display; N]) -> fmt::Result {
        // Blanks are owed until something follows them, so that no line ends with blanks.
        let mut blanks = 0;
        for (place, (column, cell)) in self.0.iter().zip(cells).enumerate() {
            let mut measure = Measure(0);
            write!(measure, "{cell}")?;
            let room = column.width.saturating_sub(measure.0);
            if place > 0 {
                blanks += 2;
            }
            if column.align == Align::Right {
                blanks += room;
            }
            if measure.0 > 0 {
                write!(out, "{:blanks$}{cell}", "")?;
                blanks = 0;
            }
            if column.align == Align::Left {
                blanks += room;
            }
        }
        out.write_char('\n')
    }
}

/// Counts characters instead of keeping them.
struct Measure(usize);

impl Write for Measure {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.chars().count();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Table<3> = Table([number("PID", 5), text("STATE", 8), text("NAME", 4)]);

    #[test]
    fn columns_line_up_and_no_line_ends_with_blanks() {
        let mut out = String::new();
        TABLE.head(&mut out).unwrap();
        TABLE.row(&mut out, [&1, &"running", &"init"]).unwrap();
        TABLE.row(&mut out, [&12345, &"", &"sh"]).unwrap();
        TABLE.row(&mut out, [&7, &"zombie", &""]).unwrap();
        assert_eq!(
            out,
            "  PID  STATE     NAME\n    1  running   init\n12345            sh\n    7  zombie\n"
        );
    }

    #[test]
    fn a_wide_cell_loses_nothing() {
        let mut out = String::new();
        TABLE
            .row(&mut out, [&1234567, &"uninterruptible", &"x"])
            .unwrap();
        assert_eq!(out, "1234567  uninterruptible  x\n");
    }
}
