//! The table of what was measured, on the terminal and in the file of results.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

/// Whose CPU a table of `fanfare serve` has.
pub(crate) const ONE_PROCESS: &str =
    "CPU is that of the whole `fanfare serve` process, as the kernel counts it.";

/// All that one run found out.
pub(crate) struct Report {
    target: &'static str,
    cpu: &'static str,
    machine: Vec<String>,
    rows: Vec<Row>,
}

/// One figure and what it should be.
pub(crate) struct Row {
    what: String,
    reach: String,
    measured: String,
    met: Option<bool>,
    note: String,
}

impl Report {
    /// Nothing measured yet. `target` of `make` measures it; `cpu` says whose CPU it has.
    pub(crate) fn new(target: &'static str, cpu: &'static str, machine: Vec<String>) -> Self {
        Self {
            target,
            cpu,
            machine,
            rows: Vec::new(),
        }
    }

    /// Adds a figure, and says so at once: the whole takes minutes.
    pub(crate) fn add(&mut self, row: Row) {
        eprintln!(
            "  {}: {} ({}) {}",
            row.what, row.measured, row.reach, row.note
        );
        self.rows.push(row);
    }

    /// The table, aligned.
    pub(crate) fn print(&self) {
        print!("{}", self.table());
    }

    /// Replaces `file` by the table.
    pub(crate) fn save(&self, file: &Path) -> Result<()> {
        let (target, cpu) = (self.target, self.cpu);
        let mut text = format!(
            "# Measured\n\nThe last run of `make {target}`; everything in a row was measured in that one run.\n{cpu}\n\n"
        );
        for line in &self.machine {
            let _ = writeln!(text, "- {line}");
        }
        text.push('\n');
        text.push_str(&self.table());
        std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
    }

    fn table(&self) -> String {
        let head = ["what", "reach", "measured", "met", "details"].map(String::from);
        let rows = self.rows.iter().map(|row| {
            let met = row.met.map_or("", |met| if met { "yes" } else { "**no**" });
            [&row.what, &row.reach, &row.measured, met, &row.note].map(String::from)
        });
        let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
        let width = |n: usize| rows.iter().map(|row| row[n].chars().count()).max();
        let widths = [0, 1, 2, 3, 4].map(|n| width(n).unwrap_or(0));
        let mut text = String::new();
        for (n, row) in rows.iter().enumerate() {
            for (cell, width) in row.iter().zip(widths) {
                let _ = write!(text, "| {cell:width$} ");
            }
            text.push_str("|\n");
            if n == 0 {
                for width in widths {
                    let _ = write!(text, "| {} ", "-".repeat(width));
                }
                text.push_str("|\n");
            }
        }
        text
    }
}

impl Row {
    /// A figure without a value yet.
    pub(crate) fn new(what: &str, reach: &str) -> Self {
        Self {
            what: what.into(),
            reach: reach.into(),
            measured: String::new(),
            met: None,
            note: String::new(),
        }
    }

    /// One value that should be at most `limit`.
    pub(crate) fn value(mut self, value: f64, unit: &str, limit: f64) -> Self {
        self.measured = match unit {
            "us" | "x" => format!("{value:.2} {unit}"),
            _ => format!("{value:.0} {unit}"),
        };
        self.met = limit.is_finite().then_some(value <= limit);
        self
    }

    /// The median of several values, with their range, that should be at most `limit`.
    pub(crate) fn median(self, values: &[f64], unit: &str, limit: f64) -> Self {
        let mut row = self.value(median(values), unit, limit);
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(0.0, f64::max);
        let _ = write!(row.measured, " ({low:.2} to {high:.2})");
        row
    }

    /// What `measured` says and whether that is enough.
    pub(crate) fn said(mut self, measured: String, met: Option<bool>) -> Self {
        self.measured = measured;
        self.met = met;
        self
    }

    /// More of the same.
    pub(crate) fn also(mut self, note: &str) -> Self {
        let _ = write!(self.note, "; {note}");
        self
    }

    /// Conditions and absolute figures.
    pub(crate) fn note(mut self, note: String) -> Self {
        self.note = note;
        self
    }
}

/// The middle one.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
