//! What the demo prints: colours on a terminal, plain lines elsewhere or with NO_COLOR.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::RETRY_DELAYS;
use super::endpoints::CAST;
use super::recovery::Recovered;
use super::tally::Tally;
use crate::output::plain;

/// Prints lines, each whole.
pub(super) struct Screen {
    /// When the process started: "ready in".
    started: Instant,
    colours: bool,
    out: Mutex<Box<dyn Write + Send>>,
}

/// A POST as the receiver saw it.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) endpoint: &'static str,
    pub(super) event_type: String,
    pub(super) status: u16,
    pub(super) tries: u32,
    pub(super) signature_ok: bool,
    /// `None`: not one of the demo's own events.
    pub(super) bytes_identical: Option<bool>,
    /// From publishing to the receiver.
    pub(super) latency: Option<Duration>,
}

#[derive(Clone, Copy)]
enum Colour {
    Green,
    Yellow,
    Red,
    Blue,
    Dim,
    Bold,
}

/// What is told first.
pub(super) struct Opening<'a> {
    /// The server's address.
    pub(super) server: &'a str,
    /// Where state is kept.
    pub(super) data: &'a Path,
    /// Whether there is none yet.
    pub(super) is_new: bool,
    /// Where the receiver is called.
    pub(super) receiver: &'a str,
}

impl Screen {
    pub(super) fn new(started: Instant) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            started,
            colours: wanted && std::io::stdout().is_terminal(),
            out: Mutex::new(Box::new(std::io::stdout())),
        }
    }

    /// Who is who.
    pub(super) fn opening(&self, opening: &Opening<'_>) {
        let Opening {
            server,
            data,
            receiver,
            is_new,
        } = *opening;
        let age = if is_new { "new" } else { "from an earlier run" };
        let ready = self.started.elapsed().as_secs_f64();
        self.print("");
        self.print(&format!(
            "  {}   ready in {ready:.2} s   {server}   data {} ({age})",
            self.paint(Colour::Bold, concat!("Fanfare ", env!("CARGO_PKG_VERSION"))),
            data.display(),
        ));
        self.print(&format!(
            "  {:<10} {receiver}   verifies every signature",
            "receiver"
        ));
        for role in &CAST {
            self.print(&format!(
                "  {:<10} {:<32} wants {}",
                role.name,
                role.says,
                role.wants.join(", ")
            ));
        }
        let delays: Vec<_> = RETRY_DELAYS.iter().map(|d| seconds(*d)).collect();
        self.print(&format!(
            "  Retries are shortened to {} here; the real schedule runs three days.",
            delays.join(" and ")
        ));
        self.print("");
        // For whoever waits for it, as without --demo.
        eprintln!("fanfare is ready at {server}");
    }

    /// An event is durable.
    pub(super) fn published(&self, event_type: &str, id: &str, took: Duration) {
        let tail = &id[id.len().saturating_sub(4)..];
        let line = format!("{event_type:<24} …{tail}   durable in {}", millis(took));
        self.line(&self.paint(Colour::Blue, "●"), &line);
    }

    /// A POST came and was answered. `fate` is what the server made of it.
    pub(super) fn post(&self, post: &Post, fate: Option<&str>) {
        let (colour, mark) = match post.status {
            200 => (Colour::Green, "✓"),
            503 => (Colour::Yellow, "↻"),
            _ => (Colour::Red, "✗"),
        };
        let latency = post
            .latency
            .filter(|_| post.tries == 1)
            .map(millis)
            .unwrap_or_default();
        let what = match (post.status, fate) {
            (_, Some(fate)) => fate.to_owned(),
            (503, None) => format!("try {}   again in {}", post.tries, again_in(post.tries)),
            _ => self.verdict(post),
        };
        let line = format!(
            "   {:<9} {}   {:>8}   {what}",
            post.endpoint, post.status, latency
        );
        // The demo's own types are told when they are published; others are not.
        let strange = match post.bytes_identical {
            None => format!("   ({})", plain(&post.event_type)),
            Some(_) => String::new(),
        };
        self.line(&self.paint(colour, mark), &format!("{line}{strange}"));
    }

    fn verdict(&self, post: &Post) -> String {
        let mut words = Vec::new();
        if post.tries > 1 {
            words.push(format!("try {}, recovered", post.tries));
        }
        words.push(if post.signature_ok {
            "signature ok".to_owned()
        } else {
            self.paint(Colour::Red, "SIGNATURE WRONG")
        });
        match post.bytes_identical {
            Some(true) => words.push("bytes identical".to_owned()),
            Some(false) => words.push(self.paint(Colour::Red, "BYTES DIFFER")),
            None => {}
        }
        words.join(" · ")
    }

    /// What the last run left.
    pub(super) fn recovering(&self, killed: bool, under_way: usize, unknown: usize) {
        let how = if killed { "killed" } else { "stopped" };
        let mut text = format!(
            "The last run was {how} with {} under way.",
            deliveries(under_way)
        );
        if unknown > 0 {
            let plural = if unknown == 1 { "" } else { "es" };
            let _ = write!(
                text,
                " {unknown} publish{plural} had no answer: repeating under the same id."
            );
        }
        self.print(&format!("  {text}"));
    }

    /// What became of it.
    pub(super) fn recovered(&self, recovered: &Recovered) {
        let colour = if recovered.lost == 0 {
            Colour::Green
        } else {
            Colour::Red
        };
        let verdict = match (recovered.lost, recovered.under_way) {
            (0, 0) => "Nothing was lost.".to_owned(),
            (0, n) => format!(
                "All {n} arrived within {}: nothing was lost.",
                seconds(recovered.took)
            ),
            (n, _) => format!("{} LOST.", deliveries(n)),
        };
        let repeated = match recovered.repeated {
            0 => "none arrived twice".to_owned(),
            1 => "1 arrived twice, under the same webhook-id".to_owned(),
            n => format!("{n} arrived twice, each under the same webhook-id"),
        };
        if recovered.redriven > 0 {
            self.print(&format!(
                "  Given up while nobody received, and redriven now: {}.",
                deliveries(recovered.redriven)
            ));
        }
        let events = recovered.events;
        self.print(&format!(
            "  {}   checked {events} events against the receiver's journal; {repeated}",
            self.paint(colour, &verdict)
        ));
        self.print("");
    }

    /// The count at the end of the story.
    pub(super) fn tally(&self, tally: &Tally) {
        let lost = format!("lost {}", tally.lost);
        let colour = if tally.lost == 0 {
            Colour::Green
        } else {
            Colour::Red
        };
        let open = match tally.open {
            0 => String::new(),
            n => format!("   still under way {n}"),
        };
        self.print(&format!(
            "  published {}   owed {}   delivered {}   dead letters {}{open}   {}   repeated {}",
            tally.published,
            tally.owed,
            tally.delivered,
            tally.dead_letters,
            self.paint(colour, &lost),
            tally.repeated
        ));
    }

    /// Commands that work as printed. `killable`: the process that runs the server.
    pub(super) fn what_to_try(&self, server: &str, killable: Option<u32>) {
        let program = program();
        let server = match server {
            "http://127.0.0.1:7400" => String::new(),
            other => format!(" --server {other}"),
        };
        self.print("");
        self.print(
            "  Still running, with a trickle of 5 events a second. Try, in another terminal:",
        );
        for command in [
            "event publish order.paid --data '{\"amount\":1250}' --wait",
            "listen --event-type 'order.**' --forward-to http://localhost:3000/hook",
            "delivery list --state dead_letter",
        ] {
            self.print(&self.paint(Colour::Bold, &format!("    {program} {command}{server}")));
        }
        if let Some(process) = killable {
            let kill = format!("kill -9 {process} && {}", again());
            let kill = self.paint(Colour::Bold, &kill);
            self.print(&format!("  Now try to lose one:  {kill}"));
        }
        self.print("");
    }

    /// A remark.
    pub(super) fn note(&self, text: &str) {
        self.print(&format!("  {text}"));
    }

    fn line(&self, mark: &str, text: &str) {
        let at = format!("{:7.2}", self.started.elapsed().as_secs_f64());
        self.print(&format!("{}  {mark}  {text}", self.paint(Colour::Dim, &at)));
    }

    fn print(&self, line: &str) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody may be looking: the demo goes on.
        let _ = writeln!(out, "{}", line.trim_end());
    }

    fn paint(&self, colour: Colour, text: &str) -> String {
        if !self.colours {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Red => 31,
            Colour::Blue => 34,
            Colour::Dim => 2,
            Colour::Bold => 1,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// The program as it can be typed here: relative where that is shorter.
fn program() -> String {
    let path = std::env::current_exe().unwrap_or_else(|_| "fanfare".into());
    let here = std::env::current_dir().unwrap_or_default();
    match path.strip_prefix(&here) {
        Ok(relative) => format!("./{}", relative.display()),
        Err(_) => path.display().to_string(),
    }
}

/// How to start this again.
fn again() -> String {
    let made = program() == "./target/release/fanfare" && std::path::Path::new("Makefile").exists();
    if made {
        return "make run".to_owned();
    }
    let args: Vec<_> = std::env::args().skip(1).collect();
    format!("{} {}", program(), args.join(" "))
}

/// The delay after failed try number `tries`, before jitter.
fn again_in(tries: u32) -> String {
    let step = usize::try_from(tries).unwrap_or(1).saturating_sub(1);
    let last = RETRY_DELAYS.len() - 1;
    seconds(RETRY_DELAYS[step.min(last)])
}

fn deliveries(n: usize) -> String {
    match n {
        1 => "1 delivery".to_owned(),
        n => format!("{n} deliveries"),
    }
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

fn seconds(duration: Duration) -> String {
    format!("{} s", (duration.as_secs_f64() * 10.0).round() / 10.0)
}
