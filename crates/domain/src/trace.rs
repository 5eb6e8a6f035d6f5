//! Where an event's spans belong (W3C trace context), as a pure function of the event.
//!
//! Nothing but the producer's own `traceparent` travels in a record: every id below it is a hash
//! of what the event is, so that any process that has the event, over any log, after any crash and
//! at any retry, names the same spans. A step that is repeated after a crash has the same span id
//! again. A malformed `traceparent` counts as none.

use sha2::{Digest, Sha256};

use crate::event::AcceptedEvent;
use crate::id::DeliveryId;

/// The extension (and header) that carries it.
pub const TRACEPARENT: &str = "traceparent";

/// A valid `traceparent` of version 00.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// Never 0.
    pub trace: u128,
    /// The caller's span; never 0.
    pub span: u64,
    /// Bit 0: sampled.
    pub flags: u8,
}

/// The trace of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventTrace {
    /// The producer's trace, or the event's own.
    pub trace: u128,
    /// What the producer gave.
    pub parent: Option<TraceParent>,
    /// Span of its being published: child of the producer's, if there is one.
    pub publish: u64,
    /// Span of its being routed: child of `publish`, parent of every attempt.
    pub route: u64,
}

impl TraceParent {
    /// Reads the text of a header or extension.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace) = (parts.next()?, parts.next()?);
        let (span, flags) = (parts.next()?, parts.next()?);
        let read = Self {
            trace: hex(trace, 32)?,
            span: u64::try_from(hex(span, 16)?).ok()?,
            flags: u8::try_from(hex(flags, 2)?).ok()?,
        };
        let valid = version == "00" && read.trace != 0 && read.span != 0;
        (valid && parts.next().is_none()).then_some(read)
    }
}

impl EventTrace {
    /// Of an accepted event.
    pub fn of(accepted: &AcceptedEvent) -> Self {
        let event = &accepted.event;
        let mut hash = Sha256::new();
        let parts = [
            accepted.tenant.as_str(),
            event.source.as_str(),
            event.id.as_str(),
        ];
        for part in parts {
            // Length first: no two different triples hash the same bytes.
            hash.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            hash.update(part.as_bytes());
        }
        // The publish of a repeat is another span than that of the first.
        hash.update(accepted.accept_time.micros().to_be_bytes());
        let (own, spans) = halves(hash.finalize().into());
        let given = event.extensions.get(TRACEPARENT);
        let parent = given.and_then(|text| TraceParent::parse(text));
        Self {
            trace: parent.map_or(own.max(1), |parent| parent.trace),
            parent,
            publish: high(spans).max(1),
            route: low(spans).max(1),
        }
    }

    /// Whether its spans are recorded: as the producer said, otherwise this share of all traces.
    /// The same everywhere where the ratio is the same.
    pub fn is_sampled(&self, ratio: f64) -> bool {
        match self.parent {
            Some(parent) => parent.flags & 1 == 1,
            // The low 63 bits decide, as OpenTelemetry's TraceIdRatioBased does.
            None => u128::from(low(self.trace) >> 1) < share(ratio),
        }
    }

    /// What the subscriber of an attempt gets; `sampled` decides when the producer did not.
    pub fn traceparent(&self, attempt: u64, sampled: bool) -> String {
        let flags = self.parent.map_or(u8::from(sampled), |parent| parent.flags);
        format!("00-{:032x}-{attempt:016x}-{flags:02x}", self.trace)
    }
}

/// Span of attempt number `attempt` (from 1) of a delivery.
pub fn attempt_span(delivery: &DeliveryId, attempt: u32) -> u64 {
    let mut tail = [0; 8];
    tail.copy_from_slice(&delivery.as_bytes()[16..]);
    u64::from_be_bytes(tail).wrapping_add(attempt.into()).max(1)
}

/// That share of 2^63.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates at both ends
fn share(ratio: f64) -> u128 {
    (ratio * 2f64.powi(63)) as u128
}

/// Lower-case hexadecimal of exactly `len` digits.
fn hex(text: &str, len: usize) -> Option<u128> {
    let digits = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (text.len() == len && digits).then(|| u128::from_str_radix(text, 16).ok())?
}

fn halves(digest: [u8; 32]) -> (u128, u128) {
    let (mut first, mut second) = ([0; 16], [0; 16]);
    first.copy_from_slice(&digest[..16]);
    second.copy_from_slice(&digest[16..]);
    (u128::from_be_bytes(first), u128::from_be_bytes(second))
}

#[allow(clippy::cast_possible_truncation)] // the upper half is what is left
fn high(bits: u128) -> u64 {
    (bits >> 64) as u64
}

#[allow(clippy::cast_possible_truncation)] // the lower half is wanted
fn low(bits: u128) -> u64 {
    bits as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn only_a_valid_parent_counts() {
        let read = TraceParent::parse(GIVEN).unwrap();
        assert_eq!(read.trace, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!((read.span, read.flags), (0xb7ad_6b71_6920_3331, 1));
        for bad in [
            "",
            "00-x",
            &GIVEN.replace("00-", "01-"),
            &GIVEN.to_uppercase(),
            &format!("{GIVEN}-00"),
            &GIVEN.replace("b7ad6b7169203331", "0000000000000000"),
            &GIVEN.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &GIVEN.replace("-01", "-+1"),
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_parent_decides_about_sampling_and_otherwise_the_ratio() {
        let mut trace = EventTrace {
            trace: 1 << 63,
            parent: None,
            publish: 1,
            route: 2,
        };
        // The deciding bits are half of their range.
        for (ratio, sampled) in [(0.0, false), (0.49, false), (0.51, true), (1.0, true)] {
            assert_eq!(trace.is_sampled(ratio), sampled, "{ratio}");
        }
        trace.parent = TraceParent::parse(GIVEN);
        assert!(trace.is_sampled(0.0));
        trace.parent = TraceParent::parse(&GIVEN.replace("-01", "-00"));
        assert!(!trace.is_sampled(1.0));
        assert!(trace.traceparent(7, true).ends_with("-0000000000000007-00"));
    }
}
