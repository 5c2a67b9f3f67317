//! Values of flags: durations, sizes, ratios, rates. Text in, value or a one-line reason out.

use std::num::NonZeroU64;
use std::time::Duration;

use super::config::{ByteRate, RateLimit, SeedGoal};

/// `15s`, `2m`, `1h 30m`; a bare number is refused, since nobody agrees on its unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    if duration > DURATION_MAX {
        return Err("longer than 100 years".to_owned());
    }
    Ok(duration)
}

/// `65536`, `64K`, `64KiB`, `1MiB`, `2G`: binary units only.
pub fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "expected a number of bytes".to_owned())?;
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        other => return Err(format!("unknown unit `{other}`: use KiB, MiB, GiB or TiB")),
    };
    number.checked_mul(1 << shift).ok_or_else(|| "too large".to_owned())
}

/// `forever`, a ratio such as `1.5`, or a duration such as `2h`.
pub fn seed_goal(text: &str) -> Result<SeedGoal, String> {
    if text.eq_ignore_ascii_case("forever") {
        return Ok(SeedGoal::Forever);
    }
    if let Ok(ratio) = text.parse::<f64>() {
        return if ratio.is_finite() && ratio >= 0.0 {
            Ok(SeedGoal::Ratio(ratio))
        } else {
            Err("a ratio is a number from 0 up".to_owned())
        };
    }
    duration(text)
        .map(SeedGoal::For)
        .map_err(|_| "expected a ratio (1.5), a duration (2h) or `forever`".to_owned())
}

/// `50`, or `off`.
pub fn rate_limit(text: &str) -> Result<RateLimit, String> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(RateLimit(None));
    }
    match text.parse() {
        Ok(0) => Err("0 would let nothing pass: use `off` for no limit".to_owned()),
        Ok(rate) => Ok(RateLimit(Some(rate))),
        Err(_) => Err("expected a number, or `off`".to_owned()),
    }
}

/// `512KiB`, `2MiB/s`, or `off`.
pub fn byte_rate(text: &str) -> Result<ByteRate, String> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("off") {
        return Ok(ByteRate(None));
    }
    match NonZeroU64::new(size(text.strip_suffix("/s").unwrap_or(text))?) {
        Some(rate) => Ok(ByteRate(Some(rate))),
        None => Err("0 would move nothing: use `off` for no limit".to_owned()),
    }
}

// Deadlines are computed from it; a hundred years is never by accident the end of time.
const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_binary_units_of_either_case() {
        for (text, bytes) in [
            ("65536", 65_536),
            ("64K", 65_536),
            ("64 KiB", 65_536),
            ("1mib", 1 << 20),
            ("2G", 2 << 30),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5MiB", "1MB", "99999999999999999999", "99999999999T"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_need_a_unit_and_an_end() {
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("15s"), Ok(Duration::from_secs(15)));
        for text in ["", "15", "soon", "1000000000h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn seed_goal_is_a_ratio_a_time_or_no_end() {
        assert_eq!(seed_goal("forever"), Ok(SeedGoal::Forever));
        assert_eq!(seed_goal("2"), Ok(SeedGoal::Ratio(2.0)));
        assert_eq!(seed_goal("90m"), Ok(SeedGoal::For(Duration::from_secs(5400))));
        for text in ["NaN", "-1", "inf", "often"] {
            assert!(seed_goal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn byte_rates_are_sizes_a_second() {
        assert_eq!(byte_rate("off"), Ok(ByteRate(None)));
        for text in ["2MiB", "2M/s", "2097152"] {
            assert_eq!(byte_rate(text), Ok(ByteRate(NonZeroU64::new(2 << 20))), "{text}");
        }
        for text in ["0", "0KiB/s", "fast", "1MB", ""] {
            assert!(byte_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rate_limit_of_zero_is_refused() {
        assert_eq!(rate_limit("off"), Ok(RateLimit(None)));
        assert_eq!(rate_limit("7"), Ok(RateLimit(Some(7))));
        assert!(rate_limit("0").is_err());
        assert!(rate_limit("many").is_err());
    }
}
