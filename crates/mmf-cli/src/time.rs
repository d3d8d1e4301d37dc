//! Times on the command line and in output.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Reads a number of seconds, which may have a fraction.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || "give a number of seconds, as in 10 or 0.5".to_owned();
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| wrong()),
        Err(_) => Err(wrong()),
    }
}

/// Date and time in UTC to the millisecond, as RFC 3339 has it, which people and programs read
/// alike.
pub(crate) fn utc(time: SystemTime) -> String {
    // No clock of the present is from before 1970.
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Year, month and day, from days since 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    // Counted from 1600-03-01: a leap day is then the last day of a year, and 400 years always have
    // as many days.
    let days = days + 135_080;
    let (cycles, days) = (days / 146_097, days % 146_097);
    // The fourth century of four, and the fourth year of four, are a day longer than a division
    // would have them.
    let century = (days / 36_524).min(3);
    let days = days - century * 36_524;
    let (fours, days) = (days / 1461, days % 1461);
    let year = (days / 365).min(3);
    let days = days - year * 365;
    // From March on, the months' lengths repeat every five months, which have 153 days.
    let month = (5 * days + 2) / 153;
    let day = days - (153 * month + 2) / 5 + 1;
    let year = 1600 + 400 * cycles + 100 * century + 4 * fours + year;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_follows_the_one_before() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..300_000 {
            assert_eq!(date(days), (year, month, day), "{days}");
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > last {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }

    #[test]
    fn a_time_has_all_its_parts() {
        // The output of `date -u -d @1000000000`.
        assert_eq!(utc(UNIX_EPOCH + Duration::from_millis(1_000_000_000_007)), "2001-09-09T01:46:40.007Z");
    }

    #[test]
    fn seconds_may_have_a_fraction_and_nothing_else() {
        assert_eq!(seconds("10"), Ok(Duration::from_secs(10)));
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for bad in ["", "-1", "10s", "NaN", "inf", "1e30"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
