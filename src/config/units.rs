//! Sizes and times as they are written in a configuration: `"64MiB"`, `"10s"`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::time::Duration;

const SIZES: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
];
const TIMES: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// A number of bytes: `"64MiB"`, `"1GB"`, `"512"`, or a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// A stretch of time: `"250ms"`, `"10s"`, `"7d"`; `"0"` or `"off"` is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

impl Bytes {
    pub const fn mib(n: u64) -> Bytes {
        Bytes(n << 20)
    }

    /// As a length in memory.
    pub fn len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl Period {
    pub const fn seconds(n: u64) -> Period {
        Period(Duration::from_secs(n))
    }

    /// `None` when switched off.
    pub fn on(self) -> Option<Duration> {
        (!self.0.is_zero()).then_some(self.0)
    }
}

/// A decimal number and a unit, in the unit's smallest parts.
fn parse(text: &str, units: &[(&str, u64)], bare: u64) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" => bare,
        unit => units.iter().find(|(name, _)| *name == unit)?.1,
    };
    match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(factor),
        // A fraction ("1.5GiB"): exact enough, and in range or refused.
        Err(_) => number.parse::<f64>().ok().map(|n| n * factor as f64).filter(|n| *n < 1e18).map(|n| n as u64),
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = number_or_text(deserializer)?;
        let expected = "a size such as \"64MiB\", \"1GB\" or 4096";
        parse(&text, &SIZES, 1).map(Bytes).ok_or_else(|| de::Error::custom(format!("{text:?} is not {expected}")))
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = number_or_text(deserializer)?;
        if text == "off" || text == "0" {
            return Ok(Period(Duration::ZERO));
        }
        let millis = if text.ends_with(|c: char| c.is_ascii_digit()) { None } else { parse(&text, &TIMES, 1) };
        let expected = "a time with its unit, such as \"250ms\", \"10s\", \"5m\", \"12h\" or \"7d\" (\"off\" for none)";
        millis
            .map(|millis| Period(Duration::from_millis(millis)))
            .ok_or_else(|| de::Error::custom(format!("{text:?} is not {expected}")))
    }
}

fn number_or_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Visitor;
    impl de::Visitor<'_> for Visitor {
        type Value = String;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number with a unit, in quotes")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_string())
        }
        fn visit_i64<E: de::Error>(self, number: i64) -> Result<String, E> {
            Ok(number.to_string())
        }
        fn visit_u64<E: de::Error>(self, number: u64) -> Result<String, E> {
            Ok(number.to_string())
        }
    }
    deserializer.deserialize_any(Visitor)
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_string())
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_string())
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_largest(f, self.0, &SIZES[..3].iter().chain(&SIZES[6..]).copied().collect::<Vec<_>>())
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return f.write_str("off");
        }
        let mut units = TIMES;
        units.reverse();
        write_largest(f, millis, &units)
    }
}

/// Writes `number` in the largest of `units` (largest first) that divides it.
fn write_largest(f: &mut fmt::Formatter<'_>, number: u64, units: &[(&str, u64)]) -> fmt::Result {
    for (name, factor) in units {
        if number.is_multiple_of(*factor) && number != 0 {
            return write!(f, "{}{name}", number / factor);
        }
    }
    write!(f, "{number}{}", units.last().map_or("", |unit| unit.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Result<u64, String> {
        serde_json::from_value::<Bytes>(text.into()).map(|b| b.0).map_err(|e| e.to_string())
    }

    fn millis(text: &str) -> Result<u128, String> {
        serde_json::from_value::<Period>(text.into()).map(|p| p.0.as_millis()).map_err(|e| e.to_string())
    }

    #[test]
    fn sizes_and_times_are_read_with_their_units() {
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert_eq!(bytes("1.5 KiB"), Ok(1536));
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(serde_json::from_value::<Bytes>(4096.into()).unwrap(), Bytes(4096));
        assert_eq!(millis("250ms"), Ok(250));
        assert_eq!(millis("7d"), Ok(7 * 86_400_000));
        assert_eq!(millis("off"), Ok(0));
    }

    #[test]
    fn a_time_without_a_unit_is_refused() {
        assert!(millis("10").unwrap_err().contains("with its unit"));
        assert!(millis("10 parsecs").is_err());
        assert!(bytes("-1").is_err());
        assert!(bytes("99999999999GiB").is_err());
    }

    #[test]
    fn what_is_written_reads_back() {
        for text in ["64MiB", "1GiB", "3B"] {
            assert_eq!(Bytes(bytes(text).unwrap()).to_string(), text);
        }
        for text in ["250ms", "90s", "7d", "off"] {
            let period: Period = serde_json::from_value(text.into()).unwrap();
            assert_eq!(serde_json::from_value::<Period>(period.to_string().into()).unwrap(), period);
        }
    }
}
