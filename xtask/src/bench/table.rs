//! Figures as tables: for the terminal and for `docs/performance.md`.

use super::cases;
use super::figures::{Figures, Row};

/// A table's cells; the first column is text, the others are numbers.
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// What each case costs on both systems.
    pub fn costs(figures: &Figures, rows: &[&Row]) -> Table {
        let has_linux = figures.cases.iter().any(|row| row.linux.is_some());
        let mut head = vec!["case", "Mitosis"];
        if has_linux {
            head.extend(["Linux", "Linux / Mitosis"]);
        }
        head.push("budget");
        let rows = rows
            .iter()
            .map(|row| {
                let mut cells = vec![
                    row.name.clone(),
                    row.mitosis.map_or_else(|| missing(row), number),
                ];
                if has_linux {
                    cells.push(row.linux.map_or_else(dash, number));
                    cells.push(ratio(row).map_or_else(dash, |ratio| format!("{ratio:.1}")));
                }
                cells.push(budget(figures, row));
                cells
            })
            .collect();
        Table { head, rows }
    }

    /// What the count of instructions hides, for each operation on both systems.
    pub fn hidden(rows: &[&Row]) -> Table {
        const KINDS: [(&str, &str); 5] = [
            ("kernel_entries", "kernel entries"),
            ("cr3_loads", "CR3 loads"),
            ("flushes", "other flushes"),
            ("locked", "locked"),
            ("fpu_states", "FPU states"),
        ];
        let rows = rows
            .iter()
            .filter(|row| !row.mitosis_kinds.is_empty())
            .map(|row| {
                let cells = KINDS.iter().map(|(kind, _)| {
                    let ours = row
                        .mitosis_kinds
                        .get(*kind)
                        .map_or_else(dash, |n| short(*n));
                    match row.linux_kinds.get(*kind) {
                        Some(theirs) => format!("{ours} / {}", short(*theirs)),
                        None => ours,
                    }
                });
                [row.name.clone()].into_iter().chain(cells).collect()
            })
            .collect();
        let head = ["case"]
            .into_iter()
            .chain(KINDS.iter().map(|(_, title)| *title))
            .collect();
        Table { head, rows }
    }

    /// Leaves out the budgets, which are instructions, where the figures are times.
    pub fn without_budgets(mut self) -> Table {
        self.head.pop();
        for row in &mut self.rows {
            row.pop();
        }
        self
    }

    /// Adds a column with what one operation of each case is.
    pub fn explained(mut self) -> Table {
        self.head.insert(1, "one operation is");
        for row in &mut self.rows {
            let what = cases::find(&row[0]).map_or("", |case| case.what);
            row.insert(1, what.to_owned());
            row[0] = format!("`{}`", row[0]);
        }
        self
    }

    /// Adds columns with systems that were measured once.
    pub fn with_others(mut self) -> Table {
        let at = self.head.len() - 1;
        self.head.insert(at, "minimal Linux");
        self.head.insert(at + 1, "seL4");
        for row in &mut self.rows {
            let case = cases::find(row[0].trim_matches('`'));
            let other = |figure: Option<u64>| figure.map_or_else(dash, |n| number(n as f64));
            row.insert(at, other(case.and_then(|case| case.minimal_linux)));
            row.insert(at + 1, other(case.and_then(|case| case.sel4)));
        }
        self
    }

    /// For a terminal: columns padded with spaces.
    pub fn plain(&self) -> String {
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| {
                let cells = self.rows.iter().map(|row| row[column].chars().count());
                cells.chain([self.head[column].len()]).max().unwrap_or(0)
            })
            .collect();
        let line = |cells: &[&str]| {
            let mut line = String::new();
            for (column, cell) in cells.iter().enumerate() {
                let width = widths[column];
                line += &match column {
                    0 => format!("{cell:width$}"),
                    _ => format!("  {cell:>width$}"),
                };
            }
            line.trim_end().to_owned() + "\n"
        };
        let mut text = line(&self.head);
        for row in &self.rows {
            text += &line(&row.iter().map(String::as_str).collect::<Vec<_>>());
        }
        text
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
        let mut text = line(self.head.clone());
        text += &line(
            self.head
                .iter()
                .map(|title| match *title {
                    "case" | "one operation is" => "---",
                    _ => "---:",
                })
                .collect(),
        );
        for row in &self.rows {
            text += &line(row.iter().map(String::as_str).collect());
        }
        text
    }
}

/// How many times more Linux takes.
fn ratio(row: &Row) -> Option<f64> {
    Some(row.linux? / row.mitosis?)
}

fn missing(row: &Row) -> String {
    match &row.note {
        Some(note) if note.starts_with("failed") => "failed".into(),
        Some(_) => "n/a".into(),
        None => dash(),
    }
}

fn budget(figures: &Figures, row: &Row) -> String {
    match (figures.budget(&row.name), row.mitosis) {
        (Some(budget), Some(cost)) if cost <= budget => format!("{} held", number(budget)),
        (Some(budget), Some(cost)) => format!("{} × {:.1}", number(budget), cost / budget),
        (Some(budget), None) => number(budget),
        (None, _) => String::new(),
    }
}

fn dash() -> String {
    "–".into()
}

/// A whole number with commas between thousands.
pub fn number(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A small number: what matters of it.
fn short(value: f64) -> String {
    match value {
        _ if value < 0.05 => "0".into(),
        _ if value < 9.95 => format!("{value:.1}").trim_end_matches(".0").to_owned(),
        _ => number(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::output::Run;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(number(0.4), "0");
        assert_eq!(number(999.5), "1,000");
        assert_eq!(number(23_938_010.2), "23,938,010");
        assert_eq!(short(4.0), "4");
        assert_eq!(short(5.252), "5.3");
        assert_eq!(short(0.0005), "0");
    }

    #[test]
    fn a_table_says_whether_the_budget_holds() {
        let mitosis = Run::new("fork_exit 1 9000 9000\nvfork_exit 1 9000 9000\n", &[]);
        let linux = Run::new("fork_exit 1 98000 98000\n", &[]);
        let figures = Figures::new(&mitosis, Some(&linux));
        let rows: Vec<&Row> = figures.cases.iter().collect();
        let text = Table::costs(&figures, &rows).plain();
        assert!(
            text.contains("fork_exit     9,000  98,000             10.9  12,000 held"),
            "{text}"
        );
        assert!(text.contains("6,000 × 1.5"), "{text}");
        let page = Table::costs(&figures, &rows)
            .explained()
            .with_others()
            .markdown();
        assert!(
            page.contains("| `fork_exit` | fork, exit, wait: a small process | 9,000 |"),
            "{page}"
        );
    }
}
