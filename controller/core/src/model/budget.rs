//! What all variants of a model together may take.

use super::policy::{ModelPolicy, VariantPolicy};
use crate::decision::Budget;

/// The budget that `counts` (one per variant of `policy`) exceed; the GPUs if both.
pub(super) fn exceeded(policy: &ModelPolicy, counts: &[u32]) -> Option<Budget> {
    let total = |of: fn(&VariantPolicy) -> f64| {
        let each = policy
            .variants
            .iter()
            .zip(counts)
            .map(|(variant, &count)| of(variant) * f64::from(count));
        each.fold(0.0, |sum, one| sum + one)
    };
    let gpus = policy
        .gpu_budget
        .filter(|&most| total(|variant| f64::from(variant.gpus_per_replica)) > f64::from(most));
    let cost = policy
        .cost_budget
        .filter(|&most| total(|variant| variant.cost_per_hour) > most * (1.0 + 1e-9));
    gpus.map(Budget::Gpus).or(cost.map(Budget::Cost))
}

/// Takes from `counts` what exceeds a budget: first what is more than `previous`, then what is more than the minimum,
/// each from the last of `order` on. Minima alone are within the budgets of a valid policy.
pub(super) fn fit(
    policy: &ModelPolicy,
    order: &[usize],
    previous: &[u32],
    counts: &mut [u32],
) -> Option<Budget> {
    let first = exceeded(policy, counts)?;
    let minima: Vec<u32> = policy.variants.iter().map(|variant| variant.min).collect();
    let floors: [&dyn Fn(usize) -> u32; 2] =
        [&|index| previous[index].max(minima[index]), &|index| {
            minima[index]
        }];
    for floor in floors {
        for &index in order.iter().rev() {
            let least = floor(index).min(counts[index]);
            counts[index] = most_within(policy, counts, index, least);
            if exceeded(policy, counts).is_none() {
                return Some(first);
            }
        }
    }
    Some(first)
}

/// The largest count of variant `index`, from `least` to what it has, that keeps the others' within the budgets; else
/// `least`.
fn most_within(policy: &ModelPolicy, counts: &[u32], index: usize, least: u32) -> u32 {
    let mut trial = counts.to_vec();
    let (mut low, mut high) = (least, counts[index]);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        trial[index] = middle;
        if exceeded(policy, &trial).is_none() {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{ModelKey, Startup};
    use super::*;

    fn policy(gpus: Option<u32>, cost: Option<f64>) -> ModelPolicy {
        let variant = |name: &str, gpus, cost| VariantPolicy {
            gpus_per_replica: gpus,
            cost_per_hour: cost,
            ..VariantPolicy::new(name, 0, 100, Startup::Fixed(Duration::from_secs(6)))
        };
        let variants = vec![variant("cheap", 1, 1.0), variant("dear", 2, 3.0)];
        ModelPolicy {
            gpu_budget: gpus,
            cost_budget: cost,
            ..ModelPolicy::new(ModelKey::default(), Vec::new(), variants)
        }
    }

    fn fitted(
        policy: &ModelPolicy,
        previous: [u32; 2],
        mut counts: [u32; 2],
    ) -> ([u32; 2], Option<Budget>) {
        let budget = fit(policy, &[0, 1], &previous, &mut counts);
        (counts, budget)
    }

    #[test]
    fn growth_gives_way_first_and_the_dearest_of_it() {
        let gpus = policy(Some(10), None);
        assert_eq!(fitted(&gpus, [2, 2], [4, 3]), ([4, 3], None));
        assert_eq!(
            fitted(&gpus, [2, 2], [6, 3]),
            ([6, 2], Some(Budget::Gpus(10)))
        );
        assert_eq!(
            fitted(&gpus, [2, 3], [9, 3]),
            ([4, 3], Some(Budget::Gpus(10))),
            "what serves stays"
        );
    }

    #[test]
    fn a_lowered_budget_takes_from_the_dearest() {
        let cost = policy(None, Some(6.0));
        assert_eq!(
            fitted(&cost, [4, 3], [4, 3]),
            ([4, 0], Some(Budget::Cost(6.0)))
        );
        assert_eq!(
            fitted(&cost, [8, 0], [8, 0]),
            ([6, 0], Some(Budget::Cost(6.0)))
        );
    }
}
