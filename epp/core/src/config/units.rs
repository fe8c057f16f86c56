//! Units of the configuration file: Go durations and Kubernetes quantities.

use std::time::Duration;

use super::error::ConfigError;

/// A Go duration: `60s`, `200ms`, `1h30m`, `1.5s`, `0`. `None` = not one, or negative.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut seconds) = (text, 0.0);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let unit = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        seconds += value
            * match rest.get(..unit)? {
                "ns" => 1e-9,
                // The micro sign and the Greek letter.
                "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3_600.0,
                _ => return None,
            };
        rest = rest.get(unit..)?;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

/// A Kubernetes quantity of bytes: `1G`, `512Mi`, `1000`, `1e9`. `None` = not one, negative, or above 2^64.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let value: f64 = text.get(..digits)?.parse().ok()?;
    let kibi = |power| 1024_f64.powi(power);
    let factor = match text.get(digits..)? {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => kibi(1),
        "Mi" => kibi(2),
        "Gi" => kibi(3),
        "Ti" => kibi(4),
        "Pi" => kibi(5),
        "Ei" => kibi(6),
        // A decimal exponent.
        other => 10_f64.powi(other.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    let total = value * factor;
    (total < u64::MAX as f64).then_some(total as u64)
}

/// A duration above zero.
pub(super) fn span(field: &str, text: &str) -> Result<Duration, ConfigError> {
    duration(text)
        .filter(|span| !span.is_zero())
        .ok_or_else(|| {
            ConfigError::value(
                field,
                text,
                "must be a duration above zero, for example 200ms",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations() {
        let millis = |text| duration(text).map(|span| span.as_millis());
        assert_eq!(millis("1h30m"), Some(5_400_000));
        assert_eq!(millis("1.5s"), Some(1_500));
        assert_eq!(
            (millis("0s"), millis("0"), millis("200ms")),
            (Some(0), Some(0), Some(200))
        );
        assert_eq!((millis("1000µs"), millis("1000μs")), (Some(1), Some(1)));
        for bad in ["", "60", "s", "1 s", "-1s", "1d", "1e9h"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn kubernetes_quantities() {
        assert_eq!(
            (bytes("1G"), bytes("1Gi"), bytes("7"), bytes("1.5k")),
            (Some(1_000_000_000), Some(1 << 30), Some(7), Some(1_500))
        );
        assert_eq!(
            (bytes("1e9"), bytes("1.5E3"), bytes("1E"), bytes("2Pi")),
            (
                Some(1_000_000_000),
                Some(1_500),
                Some(1_000_000_000_000_000_000),
                Some(1 << 51)
            )
        );
        for bad in [
            "",
            "G",
            "1GB",
            "-1",
            "99999999T",
            "1e",
            "1e99",
            "e9",
            "1ee3",
            "16Ei",
        ] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
