//! Periods of time as people write them: `90s`, `2m`, `1h30m`, `100ms`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A period: numbers with units `ms`, `s`, `m`, `h`, `d`, largest first, at most 30 days. `0` needs no unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(pub Duration);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found `{found}`, expected a period such as 90s, 2m or 1h30m, at most 30d")]
pub struct BadPeriod {
    pub found: String,
}

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const MS_MAX: u64 = 30 * 86_400_000;

impl Period {
    pub const fn secs(s: u64) -> Period {
        Period(Duration::from_secs(s))
    }
}

impl FromStr for Period {
    type Err = BadPeriod;
    fn from_str(text: &str) -> Result<Self, BadPeriod> {
        let bad = || BadPeriod { found: text.to_owned() };
        if text == "0" {
            return Ok(Period(Duration::ZERO));
        }
        let (mut rest, mut total, mut unit_before) = (text, 0u64, 0);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
            let (number, unit) = rest.split_at(digits);
            let number: u64 = number.parse().map_err(|_| bad())?;
            rest = unit;
            let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let (unit, more) = rest.split_at(letters);
            let (at, size) = UNITS.iter().enumerate().find(|(_, (u, _))| *u == unit).map(|(at, (_, size))| (at, size)).ok_or_else(bad)?;
            if at < unit_before {
                return Err(bad());
            }
            unit_before = at + 1;
            total = number.checked_mul(*size).and_then(|ms| total.checked_add(ms)).filter(|t| *t <= MS_MAX).ok_or_else(bad)?;
            rest = more;
        }
        if text.is_empty() { Err(bad()) } else { Ok(Period(Duration::from_millis(total))) }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ms = self.0.as_millis() as u64;
        if ms == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in UNITS {
            if ms >= size {
                write!(f, "{}{unit}", ms / size)?;
                ms %= size;
            }
        }
        Ok(())
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Period {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Period".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "period", "examples": ["90s", "2m", "1h30m"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_read_and_write() {
        for (text, ms, back) in
            [("90s", 90_000, "1m30s"), ("2m", 120_000, "2m"), ("1h30m", 5_400_000, "1h30m"), ("0", 0, "0s"), ("100ms", 100, "100ms")]
        {
            let p: Period = text.parse().unwrap();
            assert_eq!((p.0.as_millis() as u64, p.to_string().as_str()), (ms, back));
        }
        for bad in ["", "5", "m", "5x", "5s2m", "31d", "-1s", "1.5h", "99999999999999999999d"] {
            assert!(bad.parse::<Period>().is_err(), "{bad}");
        }
    }
}
