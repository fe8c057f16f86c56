//! Tables of text: printed in a terminal, set as tables on a page.

/// A table: a head, and rows that begin with a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    /// Names of the columns after the label.
    pub(crate) head: Vec<String>,
    /// The rows.
    pub(crate) rows: Vec<Row>,
}

/// One row of a [`Grid`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// What the cells are of.
    pub(crate) label: String,
    /// One per column.
    pub(crate) cells: Vec<String>,
    /// The column with the best value, where one is better than the others.
    pub(crate) best: Option<usize>,
}

impl Row {
    /// Whether the best value stands in `column`.
    pub(crate) fn is_best(&self, column: &usize) -> bool {
        self.best == Some(*column)
    }
}

/// Which values are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    /// Larger ones.
    Higher,
    /// Smaller ones.
    Lower,
}

/// The column that stands out; none where all show the same or nothing.
pub(crate) fn best(values: &[f64], better: Better) -> Option<usize> {
    let mut order: Vec<usize> = (0..values.len())
        .filter(|index| !values[*index].is_nan())
        .collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    if better == Better::Higher {
        order.reverse();
    }
    match order.as_slice() {
        [first, second, ..] if values[*first] != values[*second] => Some(*first),
        _ => None,
    }
}

impl Grid {
    /// The grid as lines of text, columns aligned; the best of a row is marked.
    pub(crate) fn text(&self) -> String {
        let label = self
            .rows
            .iter()
            .map(|row| width(&row.label))
            .max()
            .unwrap_or(0);
        let marked = |row: &Row, index: usize| {
            let mark = if row.is_best(&index) { "*" } else { " " };
            format!("{}{mark}", row.cells.get(index).map_or("", String::as_str))
        };
        let mut lines = vec![format!("  {:label$}", "")];
        lines.extend(
            self.rows
                .iter()
                .map(|row| format!("  {}{}", row.label, " ".repeat(label - width(&row.label)))),
        );
        for (index, name) in self.head.iter().enumerate() {
            let mut cells = vec![format!("{name} ")];
            cells.extend(self.rows.iter().map(|row| marked(row, index)));
            let column = cells.iter().map(|cell| width(cell)).max().unwrap_or(0) + 3;
            for (line, cell) in lines.iter_mut().zip(&cells) {
                line.push_str(&" ".repeat(column - width(cell)));
                line.push_str(cell);
            }
        }
        lines
            .iter()
            .map(|line| format!("{}\n", line.trim_end()))
            .collect()
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_the_best_is_marked() {
        let row = |label: &str, cells: [&str; 2], best| Row {
            label: label.into(),
            cells: cells.map(String::from).into(),
            best,
        };
        let grid = Grid {
            head: vec!["headroom".into(), "rr".into()],
            rows: vec![
                row("TTFT p90", ["1.2 s", "never"], Some(0)),
                row("≤ SLO", ["97 %", "–"], None),
            ],
        };
        let expected = concat!(
            "             headroom       rr\n",
            "  TTFT p90      1.2 s*   never\n",
            "  ≤ SLO          97 %        –\n",
        );
        assert_eq!(grid.text(), expected);
    }

    #[test]
    fn the_best_is_the_one_that_stands_out() {
        assert_eq!(best(&[1.0, 2.0, f64::INFINITY], Better::Lower), Some(0));
        assert_eq!(best(&[f64::NAN, 0.2, 0.1], Better::Higher), Some(1));
        assert_eq!(best(&[3.0, 3.0, 4.0], Better::Lower), None);
        assert_eq!(best(&[f64::NAN, 1.0], Better::Lower), None);
    }
}
