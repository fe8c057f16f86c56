//! The order in which variants are filled: cheapest first, where cheap is cost per unit of capacity.

use super::policy::ModelPolicy;
use super::sizing::{ClassLoad, Standing};

/// Cost of serving the `loads` (of equal rates, where there are none) on each variant alone; a variant of unknown
/// capacity is taken to be as capable as the weakest of its leg. `None` when no capacity of the leg is known.
pub(super) fn prices(
    policy: &ModelPolicy,
    standings: &[Standing],
    loads: &[ClassLoad],
    leg: &[usize],
) -> Option<Vec<f64>> {
    let any = loads.iter().any(|class| class.load.upper > 0.0);
    let rate = |class: &ClassLoad| if any { class.load.upper } else { 1.0 };
    let worth = |index: usize| {
        let known = standings[index].known.as_ref()?;
        let each = loads.iter().zip(known);
        Some(each.fold(0.0, |sum, (class, known)| {
            sum + rate(class) / known.capacity.requests_per_second
        }))
    };
    let weakest = leg
        .iter()
        .filter_map(|&index| worth(index))
        .reduce(f64::max)?;
    let price = |(index, variant): (usize, &super::VariantPolicy)| {
        variant.cost_per_hour * worth(index).unwrap_or(weakest)
    };
    Some(policy.variants.iter().enumerate().map(price).collect())
}

/// A variant passes one before it only if it is cheaper by more than this share: capacities move, and an order that
/// follows every move would move replicas about.
const CLEARLY: f64 = 0.1;

/// Moves those that are clearly cheaper before those that are not; `order` holds indices into `prices`.
pub(super) fn rerank(order: &mut [usize], prices: &[f64]) {
    let price = |index: usize| prices.get(index).copied().unwrap_or(f64::INFINITY);
    // Every exchange moves a cheaper one forward, so as many passes as there are variants are enough.
    for _ in 0..order.len() {
        let mut exchanged = false;
        for at in 1..order.len() {
            let (before, after) = (order[at - 1], order[at]);
            if price(after) < price(before) * (1.0 - CLEARLY) {
                order.swap(at - 1, at);
                exchanged = true;
            }
        }
        if !exchanged {
            return;
        }
    }
}

/// The order by `prices` alone; equals keep the policy's order.
pub(super) fn rank(prices: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..prices.len()).collect();
    order.sort_by(|&a, &b| prices[a].total_cmp(&prices[b]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clearly_cheaper_goes_first_and_a_wobble_changes_nothing() {
        let mut order = rank(&[2.0, 1.0, 2.0, 0.5]);
        assert_eq!(order, [3, 1, 0, 2]);
        rerank(&mut order, &[2.0, 1.0, 2.0, 1.05]);
        assert_eq!(
            order,
            [3, 1, 0, 2],
            "5% dearer than the next is not clearly so"
        );
        rerank(&mut order, &[0.2, 1.0, 2.0, 1.05]);
        assert_eq!(order, [0, 3, 1, 2]);
        rerank(&mut order, &[f64::NAN, 1.0]);
        assert_eq!(order.len(), 4);
    }
}
