//! Figures and foreign text for eyes: IEC sizes, rough durations, and the escaping of everything
//! that came from the network before it can reach a terminal.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;

use crate::base::addr::Family;

/// `512 B`, `1.5 KiB`, `20.0 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths of the next smaller unit's 1024th, in integers: 1023.99 KiB must not print as 1024.0.
    let mut unit = 0;
    let mut whole = bytes;
    let mut rest = 0;
    while whole >= 1024 {
        rest = whole % 1024;
        whole /= 1024;
        unit += 1;
    }
    format!("{whole}.{} {}", rest * 10 / 1024, UNITS[unit - 1])
}

/// `6 s`, `1 min 20 s`, `3 h 5 min`, `2 d 4 h`: the two largest units.
pub fn rough_duration(duration: Duration) -> String {
    let secs = duration.as_secs();
    let two = |a: u64, a_unit: &str, b: u64, b_unit: &str| match b {
        0 => format!("{a} {a_unit}"),
        b => format!("{a} {a_unit} {b} {b_unit}"),
    };
    match secs {
        0..60 => format!("{secs} s"),
        60..3_600 => two(secs / 60, "min", secs % 60, "s"),
        3_600..86_400 => two(secs / 3_600, "h", secs % 3_600 / 60, "min"),
        _ => two(secs / 86_400, "d", secs % 86_400 / 3_600, "h"),
    }
}

/// `12 ms`, `1.24 s`, `3 min 2 s`: for measured times.
pub fn measured(duration: Duration) -> String {
    match duration.as_millis() {
        ms @ 0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.2} s", duration.as_secs_f64()),
        _ => rough_duration(duration),
    }
}

/// The name of an address family.
pub fn family(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// Foreign text made harmless: control characters (so no ANSI sequence survives), line breaks,
/// direction overrides and invisible characters come out as `\u{..}`.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c if is_unsafe(c) => {
                let _ = write!(safe, "\\u{{{:x}}}", u32::from(c));
            }
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// A link as it may stand in a message.
pub fn shorten(text: &str) -> String {
    if text.chars().count() <= LINK_SHOWN_MAX {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(LINK_SHOWN_MAX).collect();
    short.push_str("...");
    short
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{061c}'                  // Arabic letter mark
            | '\u{200b}'..='\u{200f}'   // zero width, direction marks
            | '\u{2028}'..='\u{202e}'   // line and paragraph separators, embeddings, overrides
            | '\u{2060}'..='\u{206f}'   // word joiner, isolates, deprecated controls
            | '\u{feff}'                // byte order mark
            | '\u{fff9}'..='\u{fffb}'   // interlinear annotations
            | '\u{e0000}'..='\u{e007f}' // tags: invisible text
        )
}

// Enough for the info-hash and the start of a name.
const LINK_SHOWN_MAX: usize = 90;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_iec_with_one_digit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (1 << 20, "1.0 MiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn durations_show_two_units() {
        for (secs, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (80, "1 min 20 s"),
            (11_100, "3 h 5 min"),
            (187_200, "2 d 4 h"),
        ] {
            assert_eq!(rough_duration(Duration::from_secs(secs)), text);
        }
        assert_eq!(measured(Duration::from_millis(12)), "12 ms");
        assert_eq!(measured(Duration::from_millis(1240)), "1.24 s");
    }

    #[test]
    fn foreign_text_cannot_drive_a_terminal() {
        assert_eq!(escape("naïve 日本 🎬.mkv"), "naïve 日本 🎬.mkv");
        assert_eq!(escape("a\x1b[2Jb\u{9b}c"), "a\\u{1b}[2Jb\\u{9b}c");
        assert_eq!(escape("exe\u{202e}gpj.\u{200b}x"), "exe\\u{202e}gpj.\\u{200b}x");
        assert_eq!(escape("two\nlines\ttab\r"), "two\\nlines\\ttab\\r");
    }
}
