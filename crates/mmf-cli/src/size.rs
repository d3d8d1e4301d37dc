//! Sizes and offsets on the command line and in output.

/// Part of `--help`.
pub(crate) const SIZE_RULE: &str = "\
Sizes and offsets: bytes (4096, 0x1000), or with a unit: K, M, G, T and KiB, MiB,
GiB, TiB are powers of 1024; KB, MB, GB, TB are powers of 1000.";

const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// Reads a size by [`SIZE_RULE`].
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return match u64::from_str_radix(hex, 16) {
            Ok(bytes) if !hex.starts_with('+') => Ok(bytes),
            _ => Err("`0x` is followed by at most 16 hexadecimal digits, without a unit".to_owned()),
        };
    }
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    if digits.is_empty() {
        return Err("a size begins with a digit, as in 4096, 64K or 1GiB".to_owned());
    }
    let scale = scale_of(unit).ok_or_else(|| format!("`{unit}` is not a unit; use one such as K, MiB or GB"))?;
    let too_large = || "the size does not fit 64 bits".to_owned();
    digits.parse::<u64>().ok().and_then(|count| count.checked_mul(scale)).ok_or_else(too_large)
}

fn scale_of(unit: &str) -> Option<u64> {
    let unit = unit.trim_start().to_ascii_lowercase();
    let (prefix, base) = match unit.strip_suffix("ib") {
        Some(prefix) if !prefix.is_empty() => (prefix, 1024u64),
        _ => match unit.strip_suffix('b') {
            Some("") => return Some(1),
            Some(prefix) => (prefix, 1000),
            None => (&*unit, 1024),
        },
    };
    match prefix {
        "" => Some(1),
        "k" => Some(base),
        "m" => Some(base.pow(2)),
        "g" => Some(base.pow(3)),
        "t" => Some(base.pow(4)),
        _ => None,
    }
}

/// Formats a size in powers of 1024, with one decimal unless it is an integer.
pub(crate) fn human(bytes: u64) -> String {
    let mut unit = 0;
    while unit + 1 < UNITS.len() && bytes >> (10 * (unit + 1)) != 0 {
        unit += 1;
    }
    let name = UNITS.get(unit).unwrap_or(&"B");
    if unit == 0 {
        return format!("{bytes} {name}");
    }
    // Exact enough for four digits.
    #[allow(clippy::cast_precision_loss)]
    let value = bytes as f64 / (1u64 << (10 * unit)) as f64;
    let decimals = if bytes % (1 << (10 * unit)) == 0 { 0 } else { 1 };
    format!("{value:.decimals$} {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024_or_say_that_they_are_not() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("7B", 7),
            ("64K", 64 << 10),
            ("64k", 64 << 10),
            ("64KiB", 64 << 10),
            ("64 KiB", 64 << 10),
            ("1M", 1 << 20),
            ("1G", 1 << 30),
            ("1GB", 1_000_000_000),
            ("2TiB", 2 << 40),
            ("0x10", 16),
            ("0x1B", 27),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_the_reason() {
        for text in [
            "",
            "K",
            "-1",
            "+1",
            "1.5G",
            "1X",
            "1iB",
            "1KKB",
            "0x",
            "0x+1",
            "0x1G",
            "99999999T",
            "18446744073709551616",
        ] {
            let reason = parse(text).expect_err(text);
            assert!(reason.len() > 10, "{text}: {reason}");
        }
    }

    #[test]
    fn people_read_few_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (1 << 20, "1 MiB"),
            (5 << 30, "5 GiB"),
            (1 << 50, "1024 TiB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
