//! Weighted quantiles: exact cuts of a column, and fast leaf values.

/// Cut points that divide `column` (value, weight) into at most `bins` bins of about equal weight,
/// each halfway between two neighbouring distinct values. Sorts the column.
pub(crate) fn cuts(column: &mut [(f32, f32)], bins: usize) -> Vec<f32> {
    column.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total: f64 = column.iter().map(|&(_, weight)| f64::from(weight)).sum();
    let share = total / bins as f64;
    let mut cuts: Vec<f32> = Vec::new();
    let (mut passed, mut since_cut) = (0.0, 0.0);
    for pair in column.windows(2) {
        let (low, high) = (pair[0].0, pair[1].0);
        passed += f64::from(pair[0].1);
        since_cut += f64::from(pair[0].1);
        // A bin closes when it holds its share of what is left for the remaining bins; a value so
        // common that it fills several shares just leaves fewer cuts.
        if high > low && since_cut >= share && cuts.len() + 1 < bins {
            cuts.push(low + (high - low) / 2.0);
            since_cut = 0.0;
        }
    }
    debug_assert!(passed <= total + 1e-3 * total.abs() + 1.0);
    cuts
}

const BUCKETS: usize = 128;

/// Reusable buckets for weighted quantiles in two passes over the values, without sorting.
#[derive(Debug)]
pub(crate) struct Sketch {
    buckets: [f32; BUCKETS],
}

impl Sketch {
    pub(crate) fn new() -> Self {
        Self {
            buckets: [0.0; BUCKETS],
        }
    }

    /// The `level` quantile (0 to 1) of `values` (value, weight), to within 1/128 of their range;
    /// 0 when there are none.
    pub(crate) fn quantile(&mut self, values: &[(f32, f32)], level: f32) -> f32 {
        let (mut least, mut most, mut total) = (f32::INFINITY, f32::NEG_INFINITY, 0.0_f64);
        for &(value, weight) in values {
            least = least.min(value);
            most = most.max(value);
            total += f64::from(weight);
        }
        if values.is_empty() {
            return 0.0;
        }
        if least >= most {
            return least;
        }
        self.buckets.fill(0.0);
        let scale = BUCKETS as f32 / (most - least);
        for &(value, weight) in values {
            let bucket = (((value - least) * scale) as usize).min(BUCKETS - 1);
            self.buckets[bucket] += weight;
        }
        let wanted = (total * f64::from(level)) as f32;
        let mut below = 0.0;
        for (bucket, &weight) in self.buckets.iter().enumerate() {
            if weight > 0.0 && below + weight >= wanted {
                let within = ((wanted - below) / weight).clamp(0.0, 1.0);
                return (least + (bucket as f32 + within) / scale).min(most);
            }
            below += weight;
        }
        most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_lie_between_distinct_values_and_share_the_weight() {
        let mut column: Vec<(f32, f32)> = (0..100).map(|i| ((i % 10) as f32, 1.0)).collect();
        assert_eq!(cuts(&mut column, 5), [1.5, 3.5, 5.5, 7.5]);
        let mut constant = vec![(3.0, 1.0); 9];
        assert!(cuts(&mut constant, 8).is_empty());
    }

    #[test]
    fn a_heavy_value_gets_its_own_bin() {
        let mut column: Vec<(f32, f32)> = vec![(0.0, 100.0), (1.0, 1.0), (2.0, 1.0)];
        assert_eq!(cuts(&mut column, 4), [0.5]);
    }

    #[test]
    fn sketch_is_close_to_the_exact_quantile() {
        let values: Vec<(f32, f32)> = (0..1000).map(|i| (i as f32 / 1000.0, 1.0)).collect();
        let mut sketch = Sketch::new();
        for level in [0.1, 0.5, 0.9, 0.99] {
            assert!((sketch.quantile(&values, level) - level).abs() < 1.0 / 128.0);
        }
        assert_eq!(sketch.quantile(&[], 0.5), 0.0);
        assert_eq!(sketch.quantile(&[(4.0, 1.0), (4.0, 2.0)], 0.9), 4.0);
    }

    #[test]
    fn sketch_counts_weight_not_rows() {
        let values = [(0.0, 9.0), (1.0, 0.5), (2.0, 0.5)];
        assert!(Sketch::new().quantile(&values, 0.5) < 0.1);
        assert!(Sketch::new().quantile(&values, 0.99) > 1.9);
    }
}
