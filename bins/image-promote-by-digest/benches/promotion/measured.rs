//! What was measured, as a table.

use std::fmt;

use crate::tool::Tool;

/// A row for each kind of work, a column for each tool.
pub(crate) struct Table {
    heads: Vec<String>,
    rows: Vec<(String, Vec<String>)>,
}

impl Table {
    pub(crate) fn new(tools: &[Tool]) -> Self {
        Table {
            heads: tools
                .iter()
                .map(|tool| format!("{} {}", tool.name, tool.version))
                .collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, work: &str, cells: Vec<String>) {
        self.rows.push((work.to_owned(), cells));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| work | {} |", self.heads.join(" | "))?;
        writeln!(f, "|---|{}", "---|".repeat(self.heads.len()))?;
        for (work, cells) in &self.rows {
            writeln!(f, "| {work} | {} |", cells.join(" | "))?;
        }
        Ok(())
    }
}

/// The middle one of some numbers, the higher one when there are two.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
