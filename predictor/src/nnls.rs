//! Non-negative least squares in a few dimensions.

/// Normal equations `A x = b` of a least-squares problem in `N` unknowns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Normal<const N: usize> {
    a: [[f64; N]; N],
    b: [f64; N],
}

/// Sweeps of coordinate descent; the base's problems settle within a few dozen.
const SWEEPS: usize = 200;

impl<const N: usize> Normal<N> {
    pub(crate) fn new() -> Self {
        Self {
            a: [[0.0; N]; N],
            b: [0.0; N],
        }
    }

    /// Adds the equation `row · x = value` with `weight`.
    pub(crate) fn add(&mut self, row: &[f64; N], value: f64, weight: f64) {
        for i in 0..N {
            let weighted = weight * row[i];
            for (cell, other) in self.a[i].iter_mut().zip(row) {
                *cell += weighted * other;
            }
            self.b[i] += weighted * value;
        }
    }

    /// Draws unknown `i` towards `value` with `weight`.
    pub(crate) fn draw(&mut self, i: usize, value: f64, weight: f64) {
        self.a[i][i] += weight;
        self.b[i] += weight * value;
    }

    /// The minimum over `x >= 0`, by cyclic coordinate descent from `x` (exact for a convex
    /// quadratic with bounds, in the limit). An unknown that no equation mentions keeps its value.
    pub(crate) fn solve(&self, mut x: [f64; N]) -> [f64; N] {
        for _ in 0..SWEEPS {
            let mut moved = 0.0_f64;
            for i in 0..N {
                if self.a[i][i] <= 0.0 {
                    continue;
                }
                let rest: f64 = (0..N)
                    .filter(|&j| j != i)
                    .map(|j| self.a[i][j] * x[j])
                    .sum();
                let value = ((self.b[i] - rest) / self.a[i][i]).max(0.0);
                moved = moved.max((value - x[i]).abs() * self.a[i][i].sqrt());
                x[i] = value;
            }
            if moved < 1e-9 {
                break;
            }
        }
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_exact_solution_when_it_is_positive() {
        let mut normal = Normal::<2>::new();
        for x in 0..10 {
            normal.add(&[1.0, f64::from(x)], 3.0 + 2.0 * f64::from(x), 1.0);
        }
        let x = normal.solve([0.0; 2]);
        assert!(
            (x[0] - 3.0).abs() < 1e-3 && (x[1] - 2.0).abs() < 1e-3,
            "{x:?}"
        );
    }

    #[test]
    fn a_negative_slope_becomes_zero_and_the_rest_refits() {
        let mut normal = Normal::<2>::new();
        for (x, y) in [(0.0, 4.0), (1.0, 3.0), (2.0, 2.0)] {
            normal.add(&[1.0, x], y, 1.0);
        }
        let x = normal.solve([0.0; 2]);
        assert_eq!(x[1], 0.0);
        assert!((x[0] - 3.0).abs() < 1e-9);
    }

    #[test]
    fn an_unknown_without_evidence_stays_where_it_is_drawn() {
        let mut normal = Normal::<2>::new();
        normal.add(&[1.0, 0.0], 5.0, 10.0);
        normal.draw(1, 0.7, 1e-3);
        let x = normal.solve([1.0, 1.0]);
        assert!(
            (x[0] - 5.0).abs() < 1e-9 && (x[1] - 0.7).abs() < 1e-9,
            "{x:?}"
        );
    }
}
