//! What an endpoint answered, read and kept within bounds.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fanfare_domain::{Outcome, Timestamp};
use fanfare_store::history::ANSWER_MAX;
use http::header::RETRY_AFTER;
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use hyper::body::Frame;

/// Most bytes of a body that are read.
const BODY_MAX: usize = 64 * 1024;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    /// Start of the body, raw.
    pub(crate) body: Bytes,
    /// Whether more came than is kept.
    pub(crate) truncated: bool,
    /// Whether the line it came on can carry another request.
    pub(crate) reusable: bool,
}

/// An answer whose head is read and whose body is coming.
pub(crate) struct Reading {
    outcome: Outcome,
    kept: BytesMut,
    keep_max: usize,
    read: usize,
}

impl Reading {
    pub(crate) fn of(head: &Parts) -> Self {
        let status = head.status;
        let (failure_max, success_max) = ANSWER_MAX;
        let (outcome, keep_max) = if status.is_success() {
            (Outcome::delivered(status.as_u16()), success_max)
        } else {
            (failed(status, &head.headers), failure_max)
        };
        Self {
            outcome,
            kept: BytesMut::new(),
            keep_max,
            read: 0,
        }
    }

    /// Whether enough was read.
    pub(crate) fn is_full(&self) -> bool {
        self.read >= BODY_MAX
    }

    pub(crate) fn take(&mut self, frame: Frame<Bytes>) {
        // Trailers say nothing that is kept.
        if let Ok(data) = frame.into_data() {
            self.read += data.len();
            let room = self.keep_max - self.kept.len();
            self.kept.extend_from_slice(&data[..data.len().min(room)]);
        }
    }

    /// The body has ended.
    pub(crate) fn finish(self, reusable: bool) -> Answer {
        Answer {
            truncated: self.read > self.kept.len(),
            outcome: self.outcome,
            body: self.kept.freeze(),
            reusable,
        }
    }

    /// The body goes on, and is read no further.
    pub(crate) fn cut(self) -> Answer {
        Answer {
            truncated: true,
            ..self.finish(false)
        }
    }
}

fn failed(status: StatusCode, headers: &HeaderMap) -> Outcome {
    let mut outcome = Outcome::status(status.as_u16(), retry_after(headers, Timestamp::now()));
    if status.is_redirection() {
        outcome.message = format!(
            "the endpoint answered {}, and redirects are not followed; set its final URL",
            status.as_u16()
        );
    }
    outcome
}

/// `Retry-After` in seconds or as a date; nothing for what is neither.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // A number too large for 64 bits is a very long time.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    // A wrong weekday does not make the date unclear.
    let dates = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true);
    let date = dates.parse_timestamp(text).ok()?;
    let date = Timestamp::from_millis(date.as_millisecond());
    Some(date.since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, text.parse().unwrap());
        // 1999-12-31T23:59:00Z
        retry_after(&headers, Timestamp::from_millis(946_684_740_000))
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(asked("120"), Some(Duration::from_mins(2)));
        assert_eq!(asked(" 0 "), Some(Duration::ZERO));
        assert_eq!(
            asked("Fri, 31 Dec 1999 23:59:59 GMT"),
            Some(Duration::from_secs(59))
        );
        assert_eq!(asked("Thu, 31 Dec 1998 23:59:59 GMT"), Some(Duration::ZERO));
        let absurd = asked("999999999999999999999999").unwrap();
        assert!(absurd > Duration::from_secs(1 << 60));
    }

    #[test]
    fn a_retry_after_that_is_neither_is_none() {
        for bad in ["", "-1", "soon", "1.5", "Fri, 99 Dec 1999 23:59:59 GMT"] {
            assert_eq!(asked(bad), None, "{bad}");
        }
    }
}
