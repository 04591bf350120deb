//! Times as devices say them, in microseconds since 1970.

/// Beyond it neither a float is exact nor a calendar goes on.
const TIME_US_MAX: f64 = 9e15;

/// Seconds since 1970, with a fraction.
#[must_use]
pub fn seconds_us(seconds: f64) -> Option<i64> {
    let microseconds = (seconds * 1_000_000.0).round();
    // A NaN is not below it either.
    let is_time = microseconds.abs() <= TIME_US_MAX;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "its size was looked at above"
    )]
    is_time.then_some(microseconds as i64)
}

/// A date and a time of RFC 3339; none for one without a word of where that is.
#[must_use]
pub fn rfc3339_us(text: &str) -> Option<i64> {
    let (date, time) = text.split_at_checked(10)?;
    let time = time.strip_prefix(['T', 't', ' '])?;
    let (year, month, day) = (
        digits(date.get(..4)?)?,
        digits(date.get(5..7)?)?,
        digits(date.get(8..)?)?,
    );
    let has_hyphens = date.get(4..5)? == "-" && date.get(7..8)? == "-";
    let (clock, rest) = time.split_at_checked(8)?;
    let (hour, minute, second) = (
        digits(clock.get(..2)?)?,
        digits(clock.get(3..5)?)?,
        digits(clock.get(6..)?)?,
    );
    let has_colons = clock.get(2..3)? == ":" && clock.get(5..6)? == ":";
    let is_time = hour < 24 && minute < 60 && second <= 60;
    if !has_hyphens || !has_colons || !is_time || !is_day(year, month, day) {
        return None;
    }
    let (fraction_us, zone) = fraction_us(rest)?;
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some((seconds - offset_s(zone)?) * 1_000_000 + fraction_us)
}

fn digits(text: &str) -> Option<i64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// The fraction of a second, cut to microseconds, and what is behind it.
fn fraction_us(text: &str) -> Option<(i64, &str)> {
    let Some(fraction) = text.strip_prefix('.') else {
        return Some((0, text));
    };
    let end = fraction.find(|c: char| !c.is_ascii_digit())?;
    let (fraction, zone) = fraction.split_at_checked(end)?;
    if fraction.is_empty() {
        return None;
    }
    let six = format!("{fraction:0<6}");
    Some((digits(six.get(..6)?)?, zone))
}

fn offset_s(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let (sign, offset) = match zone.split_at_checked(1)? {
        ("+", offset) => (1, offset),
        ("-", offset) => (-1, offset),
        _ => return None,
    };
    let (hours, minutes) = offset.split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn is_day(year: i64, month: i64, day: i64) -> bool {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let num_days = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    (1..=num_days).contains(&day)
}

/// Of the Gregorian calendar: <https://howardhinnant.github.io/date_algorithms.html#days_from_civil>.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_says_where_it_is_or_is_none() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-01-01T00:00:00Z", Some(1_767_225_600_000_000)),
            ("2026-01-01t03:00:00.5+03:00", Some(1_767_225_600_500_000)),
            ("2025-12-31 20:30:00-03:30", Some(1_767_225_600_000_000)),
            (
                "2024-02-29T12:00:00.123456789Z",
                Some(1_709_208_000_123_456),
            ),
            ("1969-12-31T23:59:59Z", Some(-1_000_000)),
            ("2000-03-01T00:00:00Z", Some(951_868_800_000_000)),
            ("2026-01-01T00:00:00", None),
            ("2026-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-01-01T24:00:00Z", None),
            ("2026-01-01T00:00:00.Z", None),
            ("2026-01-01T00:00:00+3", None),
            ("2026-01-01", None),
            ("2026/01/01T00:00:00Z", None),
            ("", None),
            ("ñandú-01-01T00:00:00Z", None),
        ] {
            assert_eq!(rfc3339_us(text), expected, "{text}");
        }
    }

    #[test]
    fn seconds_have_fractions_and_an_end() {
        assert_eq!(seconds_us(1.5), Some(1_500_000));
        assert_eq!(seconds_us(-0.25), Some(-250_000));
        for none in [f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(seconds_us(none), None);
        }
    }
}
