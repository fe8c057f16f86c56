//! Numbers as people read them; the same in the terminal and on the page.

/// What stands where there is nothing to show.
pub(crate) const NOTHING: &str = "–";

/// A latency: `870 ms`, `1.24 s`, `never` for one that was never reached.
pub(crate) fn milliseconds(value: f64) -> String {
    if value.is_nan() {
        NOTHING.into()
    } else if value.is_infinite() {
        "never".into()
    } else if value < 10.0 {
        format!("{} ms", trimmed(value, 1))
    } else if value < 999.5 {
        format!("{value:.0} ms")
    } else if value < 99_950.0 {
        format!("{} s", trimmed(value / 1e3, 2))
    } else {
        format!("{:.0} s", value / 1e3)
    }
}

/// A share of 1 as percent with one decimal: `36.6 %`.
pub(crate) fn share(value: f64) -> String {
    percent(value * 100.0)
}

/// A percentage with one decimal.
pub(crate) fn percent(value: f64) -> String {
    if value.is_finite() {
        format!("{value:.1} %")
    } else {
        NOTHING.into()
    }
}

/// A count with groups of three: `12,031`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number with at most `decimals` decimals and no trailing zeros.
pub(crate) fn trimmed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// How long something lasts: `45 s`, `59 min`.
pub(crate) fn span(seconds: f64) -> String {
    if seconds < 120.0 {
        format!("{:.0} s", seconds.max(0.0))
    } else {
        format!("{:.0} min", seconds / 60.0)
    }
}

/// Seconds since the start: `45 s`, `12:05`.
pub(crate) fn clock(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    if whole < 120 {
        format!("{whole} s")
    } else {
        format!("{}:{:02}", whole / 60, whole % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_have_the_unit_that_reads_best() {
        let shown: Vec<_> = [
            0.42,
            9.96,
            21.6,
            999.4,
            999.6,
            1240.0,
            5000.0,
            123_456.0,
            f64::INFINITY,
            f64::NAN,
        ]
        .map(milliseconds)
        .into();
        assert_eq!(
            shown,
            [
                "0.4 ms", "10 ms", "22 ms", "999 ms", "1 s", "1.24 s", "5 s", "123 s", "never", "–"
            ]
        );
    }

    #[test]
    fn counts_shares_and_times() {
        assert_eq!(
            [0, 999, 1_000, 12_031, 1_234_567].map(count),
            ["0", "999", "1,000", "12,031", "1,234,567"]
        );
        assert_eq!(
            (share(0.3664), percent(f64::NAN)),
            ("36.6 %".into(), "–".into())
        );
        assert_eq!(
            [0.0, 59.6, 119.4, 120.0, 3_599.0].map(clock),
            ["0 s", "60 s", "119 s", "2:00", "59:59"]
        );
        assert_eq!(
            [trimmed(8.0, 1), trimmed(8.25, 1), trimmed(10.0, 0)],
            ["8", "8.2", "10"]
        );
    }
}
