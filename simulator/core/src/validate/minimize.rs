//! A derivative-free minimiser for functions with kinks and jumps.

/// Nelder and Mead's simplex (1965) with the standard coefficients: the best point found within `evaluations` of
/// `cost`, starting around `start` with edges of `edge`. Deterministic.
pub(super) fn nelder_mead<const N: usize>(
    start: [f64; N],
    edge: f64,
    evaluations: usize,
    mut cost: impl FnMut(&[f64; N]) -> f64,
) -> ([f64; N], f64) {
    let mut used = 0;
    let mut evaluate = |point: [f64; N]| {
        used += 1;
        (point, cost(&point), used)
    };
    let mut simplex = Vec::with_capacity(N + 1);
    let (point, value, mut count) = evaluate(start);
    simplex.push((point, value));
    for axis in 0..N {
        let mut point = start;
        point[axis] += edge;
        let (point, value, _) = evaluate(point);
        simplex.push((point, value));
    }
    while count < evaluations {
        simplex.sort_by(|a, b| a.1.total_cmp(&b.1));
        let (best, worst) = (simplex[0], simplex[N]);
        let second_worst = simplex[N - 1].1;
        let centre = centroid(&simplex[..N]);
        let mut probe = |factor| {
            let (point, value, used) = evaluate(between(&centre, &worst.0, factor));
            count = used;
            (point, value)
        };
        let reflected = probe(-1.0);
        let accepted = if reflected.1 < best.1 {
            let expanded = probe(-2.0);
            Some(if expanded.1 < reflected.1 {
                expanded
            } else {
                reflected
            })
        } else if reflected.1 < second_worst {
            Some(reflected)
        } else {
            let contracted = probe(if reflected.1 < worst.1 { -0.5 } else { 0.5 });
            (contracted.1 < reflected.1.min(worst.1)).then_some(contracted)
        };
        match accepted {
            Some(vertex) => simplex[N] = vertex,
            None => {
                for vertex in &mut simplex[1..] {
                    let (point, value, used) = evaluate(between(&best.0, &vertex.0, 0.5));
                    count = used;
                    *vertex = (point, value);
                }
            }
        }
    }
    simplex.sort_by(|a, b| a.1.total_cmp(&b.1));
    simplex[0]
}

fn centroid<const N: usize>(vertices: &[([f64; N], f64)]) -> [f64; N] {
    std::array::from_fn(|axis| {
        vertices.iter().map(|(point, _)| point[axis]).sum::<f64>() / vertices.len() as f64
    })
}

/// `from + factor · (to − from)`.
fn between<const N: usize>(from: &[f64; N], to: &[f64; N], factor: f64) -> [f64; N] {
    std::array::from_fn(|axis| from[axis] + factor * (to[axis] - from[axis]))
}
