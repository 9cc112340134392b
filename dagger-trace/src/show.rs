//! Numbers and names as people read them.

/// A duration with three digits: `0 ns`, `12.3 µs`, `1.20 s`.
pub(crate) fn time(nanos: u64) -> String {
    let (value, unit) = match nanos {
        0..1_000 => return format!("{nanos} ns"),
        1_000..999_500 => (nanos as f64 / 1e3, "µs"),
        999_500..999_500_000 => (nanos as f64 / 1e6, "ms"),
        _ => (nanos as f64 / 1e9, "s"),
    };
    match value {
        ..9.995 => format!("{value:.2} {unit}"),
        ..99.95 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

/// A size with three digits: `0 B`, `12.3 KiB`, `1.20 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut shown = format!("{bytes} B");
    for unit in UNITS {
        // As long as it would be shown with four digits.
        if value < 999.5 {
            break;
        }
        value /= 1024.0;
        shown = match value {
            ..9.995 => format!("{value:.2} {unit}"),
            ..99.95 => format!("{value:.1} {unit}"),
            _ => format!("{value:.0} {unit}"),
        };
    }
    shown
}

/// A count with its thousands apart: `12,345`.
pub(crate) fn count(count: usize) -> String {
    let digits = count.to_string();
    let mut shown = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// `part` of `whole` in percent.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}

/// At most `chars_max` characters, on one line: what is too long loses its middle.
pub(crate) fn short(name: &str, chars_max: usize) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let chars = name.chars().count();
    if chars <= chars_max {
        return name.chars().map(clean).collect();
    }
    let head = chars_max.saturating_sub(1).div_ceil(2);
    let tail = chars_max.saturating_sub(1) - head;
    name.chars().take(head).chain(['…']).chain(name.chars().skip(chars - tail)).map(clean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        for (nanos, shown) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (9_996, "10.0 µs"),
            (999_499, "999 µs"),
            (999_500, "1.00 ms"),
            (1_234_567, "1.23 ms"),
            (45_600_000_000, "45.6 s"),
        ] {
            assert_eq!(time(nanos), shown);
        }
    }

    #[test]
    fn sizes_have_three_digits() {
        for (size, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "0.98 KiB"),
            (1024, "1.00 KiB"),
            (10_239, "10.0 KiB"),
            (1_023_487, "999 KiB"),
            (1_023_488, "0.98 MiB"),
            (3 << 29, "1.50 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(size), shown);
        }
    }

    #[test]
    fn long_names_lose_their_middle() {
        assert_eq!(short("potrf", 5), "potrf");
        assert_eq!(short("cholesky_tile", 7), "cho…ile");
        assert_eq!(short("äöüäöü", 3), "ä…ü");
        assert_eq!(short("a\nb", 3), "a b");
        assert_eq!(short("ab", 0), "…");
        assert_eq!((count(0), count(999), count(1_234_567)), ("0".into(), "999".into(), "1,234,567".into()));
    }
}
