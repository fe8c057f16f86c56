//! Azure's CSV: `TIMESTAMP` (civil date and time, UTC), `ContextTokens`, `GeneratedTokens`.

use super::{Line, TraceError, TraceRequest};
use std::time::Duration;

const TIMESTAMP: &str = "TIMESTAMP";
const CONTEXT: &str = "ContextTokens";
const GENERATED: &str = "GeneratedTokens";

/// Where the columns stand.
pub(super) struct Columns {
    timestamp: usize,
    context: usize,
    generated: usize,
}

impl Columns {
    /// The columns, when `header` names all of them.
    pub(super) fn of_header(header: &[u8]) -> Option<Self> {
        let header = std::str::from_utf8(header).ok()?;
        let find = |name: &str| {
            header
                .split(',')
                .position(|column| column.trim().eq_ignore_ascii_case(name))
        };
        Some(Self {
            timestamp: find(TIMESTAMP)?,
            context: find(CONTEXT)?,
            generated: find(GENERATED)?,
        })
    }

    /// A request; its arrival is counted from the Unix epoch.
    pub(super) fn request(&self, line: &Line<'_>, row: u64) -> Result<TraceRequest, TraceError> {
        let cell = |column: usize| {
            line.text
                .split(|&byte| byte == b',')
                .nth(column)
                .map_or(&b"missing"[..], <[u8]>::trim_ascii)
        };
        let timestamp = cell(self.timestamp);
        let arrival = instant(timestamp).ok_or_else(|| {
            line.wrong(
                TIMESTAMP,
                timestamp,
                "a UTC time from 1970 on, as in 2023-11-16 18:15:46.6805900",
            )
        })?;
        Ok(TraceRequest {
            row,
            arrival,
            input_tokens: line.tokens(CONTEXT, cell(self.context))?,
            output_tokens: line.tokens(GENERATED, cell(self.generated))?,
            blocks: Vec::new(),
        })
    }
}

/// Time since the Unix epoch of `YYYY-MM-DD HH:MM:SS[.fraction]`, with `T` for the space and a UTC suffix allowed.
fn instant(text: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(text).ok()?;
    let text = text
        .strip_suffix('Z')
        .or_else(|| text.strip_suffix("+00:00"))
        .unwrap_or(text);
    let (date, time) = text.split_once([' ', 'T'])?;
    let [year, month, day] = numbers(date, '-')?;
    let (whole, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = numbers(whole, ':')?;
    let valid = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !valid || fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    let nanos = digits(fraction)? * 10u64.pow(9 - fraction.len() as u32);
    Some(Duration::new(seconds, nanos as u32))
}

fn numbers(text: &str, separator: char) -> Option<[u64; 3]> {
    let mut parts = text.split(separator).map(digits);
    let three = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(three)
}

/// A number of at most nine digits and nothing else.
fn digits(text: &str) -> Option<u64> {
    let plain = text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// Days from 1970-01-01 in the Gregorian calendar. Years are counted from March, so that the leap day comes last.
fn days_since_epoch(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_seconds_since_the_epoch() {
        let seconds = |text: &str| instant(text.as_bytes()).map(|at| at.as_secs_f64());
        assert_eq!(seconds("1970-01-01 00:00:00"), Some(0.0));
        assert_eq!(seconds("2000-02-29 12:00:00"), Some(951_825_600.0));
        assert_eq!(seconds("2023-11-16 18:15:46.5"), Some(1_700_158_546.5));
        assert_eq!(
            seconds("2024-05-10T00:00:00.25+00:00"),
            Some(1_715_299_200.25)
        );
        assert_eq!(seconds("2024-12-31 23:59:59Z"), Some(1_735_689_599.0));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "2023-11-16",
            "2023-13-01 00:00:00",
            "2023-11-16 24:00:00",
            "2023-11-16 00:00:00.",
            "2023-11-16 00:00:00.1234567890",
            "2023-11-16 00:00",
            "2023-11-16-1 00:00:00",
            "1969-01-01 00:00:00",
            "99999999999999999999-01-01 00:00:00",
            "2023-11-16 00:00:00+02:00",
        ] {
            assert_eq!(instant(text.as_bytes()), None, "{text}");
        }
    }
}
