//! Prints what commands found: tables for people, one JSON object per line for programs.
//!
//! Text that came from outside never reaches a terminal with its control characters.

pub mod delivery;
pub mod endpoint;
pub mod event;
pub mod value;

use std::ffi::OsString;
use std::io::{self, Write};

use serde::Serialize;

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// One JSON object per line.
    Json,
}

/// Something that is printed as a line of a table or as a JSON object.
pub trait Row: Serialize {
    /// Heads of the columns.
    const COLUMNS: &'static [&'static str];

    /// One text per column.
    fn cells(&self) -> Vec<String>;
}

/// Something that is printed alone, as a name and a value per line or as a JSON object.
pub trait Sheet: Serialize {
    /// Names and values in reading order; empty values are left out.
    fn lines(&self) -> Vec<(&'static str, String)>;
}

impl Format {
    /// What a command line that cannot be parsed seems to ask for.
    pub fn asked_for_in(args: &[OsString]) -> Self {
        let args: Vec<_> = args.iter().filter_map(|arg| arg.to_str()).collect();
        let separate = args
            .windows(2)
            .any(|pair| matches!(pair[0], "-o" | "--output") && pair[1] == "json");
        let joined = |arg: &&str| matches!(*arg, "-ojson" | "-o=json" | "--output=json");
        if separate || args.iter().any(joined) {
            Self::Json
        } else {
            Self::Table
        }
    }

    /// Prints a list; `nothing` is the sentence for an empty one.
    pub fn list<R: Row>(self, rows: &[R], nothing: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self {
            Self::Json => rows.iter().try_for_each(|row| json_line(&mut out, row)),
            Self::Table if rows.is_empty() => {
                out.flush()?;
                writeln!(io::stderr(), "{nothing}")
            }
            Self::Table => {
                let heads = R::COLUMNS.iter().map(|c| (*c).to_owned()).collect();
                let cells = rows.iter().map(Row::cells);
                table(&mut out, std::iter::once(heads).chain(cells).collect())
            }
        }
    }

    /// Prints one thing.
    pub fn sheet<S: Sheet>(self, sheet: &S) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self {
            Self::Json => json_line(&mut out, sheet),
            Self::Table => {
                let lines = sheet.lines();
                let lines = lines.iter().filter(|(_, value)| !value.is_empty());
                let width = lines.clone().map(|(name, _)| name.len()).max().unwrap_or(0);
                for (name, value) in lines {
                    writeln!(out, "{name:width$}  {}", plain_lines(value, width + 2))?;
                }
                Ok(())
            }
        }
    }

    /// Prints the next line of something that goes on: each as it comes.
    pub fn next<R: Row>(self, row: &R) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self {
            Self::Json => json_line(&mut out, row)?,
            Self::Table => {
                let cells: Vec<_> = row.cells().iter().map(|cell| plain(cell)).collect();
                writeln!(out, "{}", cells.join("  "))?;
            }
        }
        out.flush()
    }

    /// A remark for people, on stderr; programs do not get it.
    pub fn note(self, text: &str) {
        if self == Self::Table {
            // Nobody may be reading: then there is nobody to tell.
            let _ = writeln!(io::stderr(), "{}", plain(text));
        }
    }
}

/// Replaces control characters, so that text from outside cannot command a terminal.
pub fn plain(text: &str) -> String {
    let replaced = |c: char| if is_control(c) { '\u{fffd}' } else { c };
    text.chars().map(replaced).collect()
}

/// As [`plain`], but line ends stay, indented by `indent`.
fn plain_lines(text: &str, indent: usize) -> String {
    let lines: Vec<_> = text.lines().map(plain).collect();
    lines.join(&format!("\n{:indent$}", ""))
}

/// C0, DEL, C1, and the marks that reorder text.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn json_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    out.write_all(b"\n")
}

/// Columns as wide as their widest cell; the last is not padded.
fn table(out: &mut impl Write, rows: Vec<Vec<String>>) -> io::Result<()> {
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|cells| cells.iter().map(|cell| plain(cell)).collect())
        .collect();
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let line: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        writeln!(out, "{}", line.join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_control_characters_are_gone() {
        let mut out = Vec::new();
        let rows = [["ID", "NAME"], ["1", "\u{1b}[31mred"], ["22", "x"]];
        let rows = rows
            .iter()
            .map(|r| r.iter().map(|c| (*c).to_owned()).collect());
        table(&mut out, rows.collect()).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "ID  NAME\n1   \u{fffd}[31mred\n22  x\n");
    }

    #[test]
    fn a_broken_command_line_still_says_how_it_wants_its_errors() {
        let asked = |args: &[&str]| {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            Format::asked_for_in(&args)
        };
        assert_eq!(asked(&["fanfare", "nonsense", "-o", "json"]), Format::Json);
        assert_eq!(asked(&["fanfare", "--output=json"]), Format::Json);
        assert_eq!(asked(&["fanfare", "json"]), Format::Table);
    }
}
