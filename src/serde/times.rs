//! Times as texts: "90s", "1h 30m".

use std::fmt;
use std::time::Duration;

/// Units, the longest first, in nanoseconds. None is longer than a day, and none is told by a
/// capital letter: months and minutes are not to be confused.
const UNITS: &[(&str, u128)] = &[
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// A time that displays itself in whole numbers of units, and reads back equal.
pub(super) struct Written(pub(super) Duration);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0.as_nanos();
        if left == 0 {
            return f.write_str("0s");
        }
        let mut gap = "";
        for (unit, nanos) in UNITS {
            if left >= *nanos {
                write!(f, "{gap}{}{unit}", left / nanos)?;
                gap = " ";
            }
            left %= nanos;
        }
        Ok(())
    }
}

/// Reads whole numbers with a unit each, with or without spaces between.
///
/// # Errors
///
/// What is wrong with it; empty if it is no time at all.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let mut left = text.trim();
    if !left.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(String::new());
    }
    let mut nanos: u128 = 0;
    while !left.is_empty() {
        let (number, rest) = split(left, |c| c.is_ascii_digit());
        let (unit, rest) = split(rest.trim_start(), char::is_alphabetic);
        left = rest.trim_start();
        if number.is_empty() || rest.starts_with(['.', ',']) || unit.is_empty() {
            return Err(complaint(number, rest));
        }
        let known = UNITS.iter().find(|(name, _)| *name == unit);
        let Some((_, each)) = known else {
            return Err(format!("there is no unit {unit:?}, but ns, us, ms, s, m, h and d"));
        };
        let part = number.parse::<u128>().ok().and_then(|number| number.checked_mul(*each));
        nanos = part
            .and_then(|part| nanos.checked_add(part))
            .ok_or_else(|| "that is too long".to_owned())?;
    }
    let (seconds, nanos) = (nanos / 1_000_000_000, (nanos % 1_000_000_000) as u32);
    let seconds = u64::try_from(seconds).map_err(|_| "that is too long".to_owned())?;
    Ok(Duration::new(seconds, nanos))
}

fn complaint(number: &str, rest: &str) -> String {
    if rest.starts_with(['.', ',']) {
        "fractions are written in a smaller unit, such as \"1500ms\"".to_owned()
    } else if number.is_empty() {
        String::new()
    } else {
        format!("a unit is missing: \"{number}s\", or \"{number}ms\"?")
    }
}

/// The beginning of a text that is of this kind, and what is after it.
fn split(text: &str, is_part: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_of_units_are_read_and_added_up() {
        for (text, millis) in [
            ("90s", 90_000),
            ("500ms", 500),
            ("2m", 120_000),
            ("1h 30m", 5_400_000),
            ("1h30m", 5_400_000),
            (" 1 d ", 86_400_000),
            ("1500us 500us", 2),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, why) in [
            ("90", "a unit is missing: \"90s\", or \"90ms\"?"),
            ("0", "a unit is missing"),
            ("1h 30", "a unit is missing: \"30s\""),
            ("90 sec", "there is no unit \"sec\""),
            ("2M", "there is no unit \"M\""),
            ("1.5s", "fractions are written in a smaller unit"),
            ("1s.5", "fractions"),
            ("99999999999999999999999999999999999999999s", "too long"),
            ("400000000000000000d", "too long"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        for text in ["", " ", "-1s", "s", "off", "1s -1s", "+1s", "forever"] {
            assert_eq!(parse(text), Err(String::new()), "{text:?} is no time");
        }
    }

    #[test]
    fn what_is_written_reads_back_equal() {
        for (time, text) in [
            (Duration::ZERO, "0s"),
            (Duration::from_secs(90), "1m 30s"),
            (Duration::from_millis(500), "500ms"),
            (Duration::from_nanos(86_400_000_000_001), "1d 1ns"),
            (Duration::MAX, "213503982334601d 7h 15s 999ms 999us 999ns"),
        ] {
            assert_eq!(Written(time).to_string(), text);
            assert_eq!(parse(text), Ok(time));
        }
    }
}
