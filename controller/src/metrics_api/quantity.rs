//! Numbers as Kubernetes quantities.

/// From here on thousandths are lost in a double's own grain, and mean nothing to anybody.
const WHOLE: f64 = 1e9;
/// Largest value that is told; more than any sum of replicas or tokens.
const LARGEST: f64 = 1e15;

/// `value` as a quantity: whole, or in thousandths (`1250m`) rounded up, as whoever reads it rounds. `None` when it is
/// not a number from zero on.
pub fn quantity(value: f64) -> Option<String> {
    if !value.is_finite() || value < 0.0 {
        return None;
    }
    if value >= WHOLE {
        return Some((value.min(LARGEST).ceil() as u64).to_string());
    }
    // What a sum of doubles is off by must not become a thousandth.
    let thousandths = (value * 1000.0 * (1.0 - 1e-12)).ceil() as u64;
    Some(if thousandths.is_multiple_of(1000) {
        (thousandths / 1000).to_string()
    } else {
        format!("{thousandths}m")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn thousandths_are_rounded_up_and_whole_numbers_stay_whole() {
        for (value, text) in [
            (0.0, "0"),
            (7.0, "7"),
            (1.25, "1250m"),
            (1.1, "1100m"),
            (0.1 + 0.2, "300m"),
            (1.0 / 3.0, "334m"),
            (0.0001, "1m"),
            (12345.0, "12345"),
            (f64::MAX, "1000000000000000"),
        ] {
            assert_eq!(quantity(value).as_deref(), Some(text), "{value}");
        }
        for value in [f64::NAN, f64::INFINITY, -1.0] {
            assert_eq!(quantity(value), None);
        }
    }

    proptest! {
        #[test]
        fn it_is_never_less_and_less_than_a_thousandth_more(value in 0.0..1e9_f64) {
            let text = quantity(value).unwrap();
            let read = match text.strip_suffix('m') {
                Some(thousandths) => thousandths.parse::<f64>().unwrap() / 1000.0,
                None => text.parse().unwrap(),
            };
            prop_assert!(read >= value * (1.0 - 1e-9) && read <= value + 0.001_000_1, "{value} {text}");
        }
    }
}
