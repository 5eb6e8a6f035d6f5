//! Durations and sizes as people write them in configuration and on the command line: `15s`,
//! `1h30m`, `256KiB`. Inside the program they are a `Duration` and a `u64`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration written as one or more numbers with a unit: `500ms`, `15s`, `5m`, `1h30m`, `14d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(pub Duration);

/// A number of bytes: `65536`, `64KiB`, `1MiB`, `16GiB`; also decimal `KB`, `MB`, `GB`, `TB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// A text that is neither; the message says what it should look like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct UnitError {
    text: String,
    expected: &'static str,
}

const DURATION: &str =
    "a duration; write a number and a unit (ms, s, m, h or d), for example 15s or 1h30m";
const SIZE: &str =
    "a size; write a number of bytes or a number and a unit (KiB, MiB, GiB), for example 256KiB";

/// Units of durations in milliseconds, largest first.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Units of sizes in bytes; printing takes the first that divides.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
];

impl HumanDuration {
    /// Whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// Whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

impl ByteSize {
    /// `n` KiB.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// `n` GiB.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// As a length in memory; saturates where `usize` is narrower.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl From<Duration> for HumanDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<HumanDuration> for Duration {
    fn from(duration: HumanDuration) -> Self {
        duration.0
    }
}

impl FromStr for HumanDuration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refused = || UnitError {
            text: text.chars().take(60).collect(),
            expected: DURATION,
        };
        let mut millis: u64 = 0;
        let mut rest = Some(text.trim());
        while let Some(terms) = rest {
            let (number, unit, tail) = term(terms).ok_or_else(refused)?;
            let (_, scale) = DURATION_UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(refused)?;
            millis = number
                .checked_mul(*scale)
                .and_then(|term| millis.checked_add(term))
                .ok_or_else(refused)?;
            rest = Some(tail).filter(|tail| !tail.is_empty());
        }
        Ok(Self(Duration::from_millis(millis)))
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refused = || UnitError {
            text: text.chars().take(60).collect(),
            expected: SIZE,
        };
        if let Ok(bytes) = text.trim().parse() {
            return Ok(Self(bytes));
        }
        let (number, unit, tail) = term(text.trim()).ok_or_else(refused)?;
        let scale = SIZE_UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit));
        let bytes = scale.and_then(|(_, scale)| number.checked_mul(*scale));
        bytes
            .filter(|_| tail.is_empty())
            .map(Self)
            .ok_or_else(refused)
    }
}

impl fmt::Display for HumanDuration {
    /// The shortest spelling that parses back to the same number of milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if left == 0 {
            return f.write_str("0s");
        }
        for (name, scale) in DURATION_UNITS {
            if left >= scale {
                write!(f, "{}{name}", left / scale)?;
                left %= scale;
            }
        }
        Ok(())
    }
}

impl fmt::Display for ByteSize {
    /// In the largest binary unit that divides it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, scale) = SIZE_UNITS
            .into_iter()
            .find(|(_, scale)| self.0 != 0 && self.0.is_multiple_of(*scale))
            .unwrap_or(("B", 1));
        write!(f, "{}{name}", self.0 / scale)
    }
}

/// Splits `12ms34` into 12, `ms` and `34`.
fn term(text: &str) -> Option<(u64, &str, &str)> {
    let letters = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, rest) = text.split_at(letters);
    let end = rest
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(rest.len());
    let (unit, tail) = rest.split_at(end);
    Some((number.parse().ok()?, unit, tail))
}

macro_rules! text_serde {
    ($name:ident, $expected:expr, $visitor:ident, $from_u64:expr) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        struct $visitor;

        impl de::Visitor<'_> for $visitor {
            type Value = $name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($expected)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<$name, E> {
                let convert: fn(u64) -> Option<$name> = $from_u64;
                convert(number)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<$name, E> {
                match u64::try_from(number) {
                    Ok(number) => self.visit_u64(number),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any($visitor)
            }
        }
    };
}

// A bare number has no unit, so it is no duration (except nothing at all).
text_serde!(HumanDuration, DURATION, DurationVisitor, |n| {
    (n == 0).then_some(HumanDuration(Duration::ZERO))
});
text_serde!(ByteSize, SIZE, SizeVisitor, |n| Some(ByteSize(n)));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_survive_printing() {
        for (text, millis) in [
            ("0s", 0),
            ("500ms", 500),
            ("15s", 15_000),
            ("1m30s", 90_000),
            ("14d", 14 * 86_400_000),
            ("1d2h3m4s5ms", 93_784_005),
        ] {
            let parsed: HumanDuration = text.parse().unwrap();
            assert_eq!(parsed, HumanDuration::from_millis(millis), "{text}");
            assert_eq!(parsed.to_string(), text);
        }
        let loose: HumanDuration = "90s".parse().unwrap();
        assert_eq!(loose.to_string(), "1m30s");
    }

    #[test]
    fn sizes_survive_printing() {
        for (text, bytes) in [
            ("0B", 0),
            ("1023B", 1023),
            ("256KiB", 262_144),
            ("1MiB", 1 << 20),
            ("16GiB", 16 << 30),
        ] {
            let parsed: ByteSize = text.parse().unwrap();
            assert_eq!(parsed, ByteSize(bytes), "{text}");
            assert_eq!(parsed.to_string(), text);
        }
        assert_eq!("65536".parse(), Ok(ByteSize::kib(64)));
        assert_eq!("25mb".parse(), Ok(ByteSize(25_000_000)));
    }

    #[test]
    fn what_is_neither_is_refused_with_an_example() {
        for bad in [
            "",
            " ",
            "5",
            "s",
            "5 s",
            "5x",
            "-5s",
            "1.5h",
            "99999999999999999d",
        ] {
            let error = bad.parse::<HumanDuration>().unwrap_err();
            assert!(error.to_string().contains("for example 15s"), "{bad}");
        }
        for bad in ["", "KiB", "5 KiB", "5KiB1", "-1", "99999999999TiB"] {
            let error = bad.parse::<ByteSize>().unwrap_err();
            assert!(error.to_string().contains("for example 256KiB"), "{bad}");
        }
    }

    #[test]
    fn both_live_in_toml() {
        #[derive(Debug, Deserialize, Serialize, PartialEq)]
        struct Limits {
            timeout: HumanDuration,
            body: ByteSize,
        }
        let limits: Limits = toml::from_str("timeout = '1m30s'\nbody = 4096").unwrap();
        assert_eq!(limits.timeout, HumanDuration::from_secs(90));
        assert_eq!(limits.body, ByteSize::kib(4));
        let again: Limits = toml::from_str(&toml::to_string(&limits).unwrap()).unwrap();
        assert_eq!(again, limits);
        assert!(toml::from_str::<Limits>("timeout = 15\nbody = 1").is_err());
    }
}
