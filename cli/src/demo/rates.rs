//! Offered load as people write it: `8:25s,24:30s`.

use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

/// Offered load over time: phases of constant rate.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Rates(pub(crate) Vec<Phase>);

/// A while of constant rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Phase {
    /// Requests per second.
    pub(crate) rate: f64,
    /// For how long.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub(crate) duration: Duration,
}

impl Rates {
    /// From the first to the last arrival that may be.
    pub(crate) fn span(&self) -> Duration {
        self.0.iter().map(|phase| phase.duration).sum()
    }

    /// In words: `8/s for 25 s, then 24/s for 30 s`.
    pub(crate) fn phrase(&self) -> String {
        let phase =
            |phase: &Phase| format!("{}/s for {} s", phase.rate, phase.duration.as_secs_f64());
        self.0.iter().map(phase).collect::<Vec<_>>().join(", then ")
    }
}

impl std::fmt::Display for Rates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, phase) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}:{}s", phase.rate, phase.duration.as_secs_f64())?;
        }
        Ok(())
    }
}

impl FromStr for Rates {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let phases: Result<Vec<Phase>, String> = text.split(',').map(parse_phase).collect();
        Ok(Self(phases?))
    }
}

/// A second of the highest rate that clients on one machine can honestly offer.
const MAX_RATE: f64 = 10_000.0;
/// A day.
const MAX_SECONDS: f64 = 86_400.0;

fn parse_phase(text: &str) -> Result<Phase, String> {
    let wrong =
        || format!("{text:?} is not RATE:TIME, such as 8:25s (8 requests a second for 25 seconds)");
    let (rate, duration) = text.trim().split_once(':').ok_or_else(wrong)?;
    let rate: f64 = rate.trim().parse().map_err(|_| wrong())?;
    if !(rate > 0.0 && rate <= MAX_RATE) {
        return Err(format!(
            "the rate {rate} must be above 0 and at most {MAX_RATE} requests a second"
        ));
    }
    let duration = parse_duration(duration)?;
    if duration.is_zero() {
        return Err(wrong());
    }
    Ok(Phase { rate, duration })
}

/// A time such as `6s`, `1.5m` or `500ms`; a bare number is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => f64::NAN,
    };
    let seconds = number.trim().parse::<f64>().unwrap_or(f64::NAN) * scale;
    if (0.0..=MAX_SECONDS).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(format!(
            "{text:?} is not a time of at most a day, such as 6s, 500ms or 2m"
        ))
    }
}

/// Writes seconds.
pub(crate) fn seconds<S: serde::Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_in_four_units() {
        let ms = |text| parse_duration(text).map(|time| time.as_millis());
        assert_eq!(ms("6"), Ok(6_000));
        assert_eq!(ms("500ms"), Ok(500));
        assert_eq!(ms("1.5m"), Ok(90_000));
        assert_eq!(ms(" 1h "), Ok(3_600_000));
        for wrong in ["", "s", "6 days", "-1s", "inf", "25h"] {
            assert!(
                parse_duration(wrong).unwrap_err().contains("such as 6s"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn rates_read_back_as_they_are_written() {
        let rates: Rates = " 8:25s, 0.5:1m".parse().unwrap();
        assert_eq!(rates.to_string(), "8:25s,0.5:60s");
        assert_eq!(rates.phrase(), "8/s for 25 s, then 0.5/s for 60 s");
        assert_eq!(rates.span().as_secs(), 85);
    }
}
