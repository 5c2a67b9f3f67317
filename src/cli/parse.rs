//! Values of flags: durations, sizes, ratios, rates. Text in, value or a one-line reason out.

use std::num::NonZeroU64;
use std::time::Duration;

use super::config::{ByteRate, RateLimit, SeedGoal};

/// `15s`, `2m`, `1h 30m`; a bare number is refused, since nobody agrees on its unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    let number = text.trim();
    if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("`{number}` has no unit: is it {number}s, {number}m or {number}h?"));
    }
    let duration = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    if duration > DURATION_MAX {
        return Err("longer than 100 years".to_owned());
    }
    Ok(duration)
}

/// A [`duration`] that something can happen in.
pub fn time_limit(text: &str) -> Result<Duration, String> {
    let limit = if text.trim() == "0" { Duration::ZERO } else { duration(text)? };
    if limit.is_zero() {
        return Err("nothing can happen in no time: leave it out for no limit".to_owned());
    }
    Ok(limit)
}

/// `65536`, `64K`, `64KiB`, `1MiB`, `2G`: binary units only.
pub fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "expected a number of bytes".to_owned())?;
    number.checked_mul(1 << shift(unit)?).ok_or_else(|| "too large".to_owned())
}

// How many powers of two a unit is.
fn shift(unit: &str) -> Result<u32, String> {
    match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Ok(0),
        "k" | "kib" => Ok(10),
        "m" | "mib" => Ok(20),
        "g" | "gib" => Ok(30),
        "t" | "tib" => Ok(40),
        other => Err(format!("unknown unit `{other}`: use KiB, MiB, GiB or TiB")),
    }
}

// A size such as `1.5MiB`, rounded down to whole bytes.
fn size_with_fraction(text: &str) -> Result<u64, String> {
    let Some((whole, rest)) = text.split_once('.') else { return size(text) };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (fraction, unit) = rest.split_at(digits);
    if !(1..=FRACTION_DIGITS_MAX).contains(&digits) || !whole.bytes().all(|b| b.is_ascii_digit()) {
        return Err("expected a number of bytes, such as 1.5MiB".to_owned());
    }
    let number: u128 = format!("{whole}{fraction}").parse().map_err(|_| "too large".to_owned())?;
    let bytes = number.checked_mul(1 << shift(unit)?).ok_or("too large")?;
    let bytes = bytes / u128::from(10u64.pow(u32::try_from(digits).unwrap_or(0)));
    u64::try_from(bytes).map_err(|_| "too large".to_owned())
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

/// `512KiB`, `1.5MiB`, `2MiB/s`, or `off`.
pub fn byte_rate(text: &str) -> Result<ByteRate, String> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("off") {
        return Ok(ByteRate(None));
    }
    match NonZeroU64::new(size_with_fraction(text.strip_suffix("/s").unwrap_or(text))?) {
        Some(rate) => Ok(ByteRate(Some(rate))),
        None => Err("0 would move nothing: use `off` for no limit".to_owned()),
    }
}

// More would be less than a byte of a tebibyte.
const FRACTION_DIGITS_MAX: usize = 12;
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
        assert!(duration("5").unwrap_err().contains("is it 5s, 5m or 5h?"));
    }

    #[test]
    fn time_limit_of_nothing_is_refused() {
        assert_eq!(time_limit("2m"), Ok(Duration::from_secs(120)));
        for text in ["0", "0s", "0h 0m"] {
            assert!(time_limit(text).unwrap_err().contains("leave it out"), "{text}");
        }
        assert!(time_limit("5").unwrap_err().contains("5s"));
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
        for (text, bytes) in [("1.5MiB", 3 << 19), ("0.5K/s", 512), ("1.0000001MiB", 1 << 20)] {
            assert_eq!(byte_rate(text), Ok(ByteRate(NonZeroU64::new(bytes))), "{text}");
        }
        let odd = [
            "0", "0KiB/s", "fast", "1MB", "", ".", "1.", ".MiB", "1.5.5K", "1e.5K", "0.0M", "-1.5M",
        ];
        for text in odd.into_iter().chain(["18446744073709551615.9T", "0.0000000000001T"]) {
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
