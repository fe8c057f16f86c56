//! Line charts as inline SVG: no script, colours from the page's style sheet.

use std::fmt::Write as _;

use crate::format::trimmed;

/// Width of every chart in user units; the page scales it.
pub(crate) const WIDTH: f64 = 940.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 26.0;
/// Flags that would lie on each other hang below each other instead, in so many rows.
const FLAG_ROWS: usize = 3;
const FLAG_RADIUS: f64 = 8.0;

/// How values are laid out from the lower to the upper edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From 0.
    Linear,
    /// By orders of magnitude, for latencies.
    Log,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stroke {
    /// From point to point.
    Line,
    /// As [`Stroke::Line`], dashed.
    Dashed,
    /// Level until the next point.
    Step,
    /// As [`Stroke::Step`], filled down to zero.
    Area,
}

/// A series of a chart. A point without a value interrupts the line.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// Its name in the legend.
    pub(crate) name: String,
    /// Its colour: a class of the page's style sheet.
    pub(crate) class: &'static str,
    /// How it is drawn.
    pub(crate) stroke: Stroke,
    /// Time in seconds, and the value then.
    pub(crate) points: Vec<(f64, Option<f64>)>,
}

/// A moment pointed out by a numbered flag.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    /// When, in seconds.
    pub(crate) at: f64,
    /// Its number or sign.
    pub(crate) label: String,
    /// What a pointer resting on it is told.
    pub(crate) title: String,
}

/// A chart over time.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    /// What it shows, as a sentence for those who cannot see it.
    pub(crate) description: String,
    /// Unit of the values.
    pub(crate) unit: &'static str,
    /// Layout of the values.
    pub(crate) scale: Scale,
    /// Height in user units.
    pub(crate) height: f64,
    /// Time at the right edge, seconds; the left edge is 0.
    pub(crate) end: f64,
    /// What is drawn, in order.
    pub(crate) series: Vec<Series>,
    /// A value not to be exceeded, and its name.
    pub(crate) limit: Option<(f64, String)>,
    /// Moments pointed out.
    pub(crate) marks: Vec<Mark>,
}

impl Chart {
    /// The chart as an `<svg>` element.
    pub(crate) fn svg(&self) -> String {
        let axis = Axis::of(self);
        let mut svg = String::new();
        let _ = write!(
            svg,
            r#"<svg viewBox="0 0 {WIDTH:.0} {:.0}" role="img" aria-label="{}" class="chart">"#,
            self.height,
            escaped(&self.description)
        );
        self.grid(&axis, &mut svg);
        for series in &self.series {
            self.draw(series, &axis, &mut svg);
        }
        if let Some((value, name)) = &self.limit {
            let y = axis.y(*value);
            let _ = write!(
                svg,
                r#"<line class="limit" x1="{LEFT:.1}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}"/><text class="limit-name" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
                WIDTH - RIGHT,
                WIDTH - RIGHT - 4.0,
                y - 4.0,
                escaped(name)
            );
        }
        self.flags(&axis, &mut svg);
        svg.push_str("</svg>");
        svg
    }

    fn grid(&self, axis: &Axis, svg: &mut String) {
        for value in &axis.ticks {
            let y = axis.y(*value);
            let _ = write!(
                svg,
                r#"<line class="grid" x1="{LEFT:.1}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 3.5,
                tick_name(*value, self.unit)
            );
        }
        for at in time_ticks(self.end) {
            let x = axis.x(at);
            let _ = write!(
                svg,
                r#"<line class="grid" x1="{x:.1}" x2="{x:.1}" y1="{TOP:.1}" y2="{:.1}"/><text class="tick" x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                axis.bottom,
                axis.bottom + 16.0,
                time_name(at, self.end)
            );
        }
    }

    fn draw(&self, series: &Series, axis: &Axis, svg: &mut String) {
        for run in runs(&series.points) {
            let path = path(run, series.stroke, axis);
            let (Some(first), Some(last)) = (run.first(), run.last()) else {
                continue;
            };
            if series.stroke == Stroke::Area {
                let (begin, end, floor) = (axis.x(first.0), axis.x(last.0), axis.bottom);
                let _ = write!(
                    svg,
                    r#"<path class="area {}" d="{path}L{end:.1} {floor:.1}L{begin:.1} {floor:.1}Z"/>"#,
                    series.class
                );
            }
            let dashed = if series.stroke == Stroke::Dashed {
                " dashed"
            } else {
                ""
            };
            let _ = write!(
                svg,
                r#"<path class="line{dashed} {}" d="{path}"/>"#,
                series.class
            );
        }
    }

    fn flags(&self, axis: &Axis, svg: &mut String) {
        let mut ends = [f64::NEG_INFINITY; FLAG_ROWS];
        for mark in &self.marks {
            let x = axis.x(mark.at);
            // The first row where it does not cover an earlier flag; in a crowd, the row whose last flag is farthest.
            let farthest = (0..FLAG_ROWS)
                .min_by(|a, b| ends[*a].total_cmp(&ends[*b]))
                .unwrap_or(0);
            let row = (0..FLAG_ROWS)
                .find(|row| x - ends[*row] >= 2.0 * FLAG_RADIUS)
                .unwrap_or(farthest);
            ends[row] = x;
            let y = TOP + row as f64 * 2.0 * FLAG_RADIUS;
            let _ = write!(
                svg,
                r#"<g class="mark"><title>{}</title><line x1="{x:.1}" x2="{x:.1}" y1="{y:.1}" y2="{:.1}"/><circle cx="{x:.1}" cy="{y:.1}" r="{FLAG_RADIUS:.0}"/><text x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text></g>"#,
                escaped(&mark.title),
                axis.bottom,
                y + 3.5,
                escaped(&mark.label)
            );
        }
    }
}

/// Where values and times lie on the drawing.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    end: f64,
    bottom: f64,
    ticks: Vec<f64>,
}

impl Axis {
    fn of(chart: &Chart) -> Self {
        let values = chart
            .series
            .iter()
            .flat_map(|series| &series.points)
            .filter_map(|(_, value)| *value);
        let limit = chart.limit.as_ref().map(|(value, _)| *value);
        let shown: Vec<f64> = values
            .chain(limit)
            .filter(|value| value.is_finite())
            .collect();
        let greatest = shown.iter().copied().fold(0.0, f64::max);
        let (low, high, ticks) = match chart.scale {
            Scale::Linear => linear_ticks(greatest),
            Scale::Log => log_ticks(
                shown
                    .into_iter()
                    .filter(|value| *value > 0.0)
                    .fold(f64::INFINITY, f64::min),
                greatest,
            ),
        };
        Self {
            scale: chart.scale,
            low,
            high,
            end: chart.end.max(1.0),
            bottom: chart.height - BOTTOM,
            ticks,
        }
    }

    fn x(&self, at: f64) -> f64 {
        LEFT + (at / self.end).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
        };
        self.bottom - share.clamp(0.0, 1.0) * (self.bottom - TOP)
    }
}

/// From 0 in four or five round steps to just above `greatest`.
fn linear_ticks(greatest: f64) -> (f64, f64, Vec<f64>) {
    let greatest = if greatest > 0.0 { greatest * 1.04 } else { 1.0 };
    let rough = greatest / 4.0;
    let magnitude = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * magnitude)
        .find(|step| *step >= rough)
        .unwrap_or(rough);
    let steps = (greatest / step).ceil() as u32;
    (
        0.0,
        step * f64::from(steps),
        (0..=steps).map(|index| step * f64::from(index)).collect(),
    )
}

/// Whole decades that hold `least` and `greatest`, with 2 and 5 between where there is room.
fn log_ticks(least: f64, greatest: f64) -> (f64, f64, Vec<f64>) {
    let (least, greatest) = if least <= greatest {
        (least, greatest)
    } else {
        (1.0, 10.0)
    };
    let first = least.log10().floor() as i32;
    let last = (greatest.log10().ceil() as i32).max(first + 1);
    let factors: &[f64] = if last - first <= 2 {
        &[1.0, 2.0, 5.0]
    } else {
        &[1.0]
    };
    let high = 10_f64.powi(last);
    let ticks = (first..=last).flat_map(|decade| {
        factors
            .iter()
            .map(move |factor| factor * 10_f64.powi(decade))
    });
    (
        10_f64.powi(first),
        high,
        ticks.filter(|tick| *tick <= high * 1.001).collect(),
    )
}

/// Round times from 0 to `end`, at most ten steps.
fn time_ticks(end: f64) -> Vec<f64> {
    const STEPS: [f64; 11] = [
        1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0,
    ];
    let step = STEPS
        .into_iter()
        .find(|step| end / step <= 10.0)
        .unwrap_or(3_600.0);
    let steps = ((end / step).floor() as u32).min(100);
    (0..=steps).map(|index| step * f64::from(index)).collect()
}

fn time_name(at: f64, end: f64) -> String {
    if end <= 180.0 {
        format!("{at:.0} s")
    } else {
        format!("{} min", trimmed(at / 60.0, 1))
    }
}

fn tick_name(value: f64, unit: &str) -> String {
    match unit {
        "ms" => super::format::milliseconds(value),
        "%" => format!("{} %", trimmed(value, 1)),
        _ => trimmed(value, 2),
    }
}

/// The stretches of `points` without a gap, as they can be drawn.
fn runs(points: &[(f64, Option<f64>)]) -> impl Iterator<Item = &[(f64, Option<f64>)]> {
    points
        .split(|(_, value)| value.is_none())
        .filter(|run| !run.is_empty())
}

fn path(run: &[(f64, Option<f64>)], stroke: Stroke, axis: &Axis) -> String {
    let mut path = String::new();
    let mut previous = None;
    for (at, value) in run {
        let (x, y) = (axis.x(*at), axis.y(value.unwrap_or(axis.low)));
        let _ = match (previous, stroke) {
            (None, _) => write!(path, "M{x:.1} {y:.1}"),
            (Some(level), Stroke::Step | Stroke::Area) => {
                write!(path, "L{x:.1} {level:.1}L{x:.1} {y:.1}")
            }
            (Some(_), Stroke::Line | Stroke::Dashed) => write!(path, "L{x:.1} {y:.1}"),
        };
        previous = Some(y);
    }
    path
}

/// `text` with what HTML gives a meaning replaced.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            _ => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(scale: Scale, points: Vec<(f64, Option<f64>)>) -> Chart {
        let series = Series {
            name: "a".into(),
            class: "s1",
            stroke: Stroke::Line,
            points,
        };
        Chart {
            description: "a < b".into(),
            unit: "ms",
            scale,
            height: 150.0,
            end: 90.0,
            series: vec![series],
            limit: None,
            marks: vec![],
        }
    }

    #[test]
    fn linear_scales_start_at_zero_and_end_on_a_round_step_above() {
        assert_eq!(linear_ticks(24.0), (0.0, 30.0, vec![0.0, 10.0, 20.0, 30.0]));
        assert_eq!(linear_ticks(3.0).1, 4.0);
        assert_eq!(linear_ticks(0.0).1, 1.0);
        for greatest in [0.003, 0.7, 9.7, 10.0, 99.0, 1_234.0, 7e6] {
            let (_, high, ticks) = linear_ticks(greatest);
            assert!(
                high > greatest && high <= greatest * 2.5 && (3..=6).contains(&ticks.len()),
                "{greatest}: {ticks:?}"
            );
        }
    }

    #[test]
    fn log_scales_hold_every_value_in_whole_decades() {
        let (low, high, ticks) = log_ticks(35.0, 4_200.0);
        assert_eq!((low, high, ticks.len()), (10.0, 10_000.0, 4));
        let (low, high, ticks) = log_ticks(120.0, 800.0);
        assert_eq!((low, high, ticks.len()), (100.0, 1_000.0, 4));
        assert_eq!(log_ticks(f64::INFINITY, 0.0).0, 1.0);
    }

    #[test]
    fn points_lie_in_order_inside_the_frame() {
        let axis = Axis::of(&chart(
            Scale::Log,
            vec![(0.0, Some(20.0)), (90.0, Some(2_000.0))],
        ));
        assert!(axis.y(20.0) > axis.y(200.0) && axis.y(200.0) > axis.y(2_000.0));
        assert!((axis.y(100.0) - (axis.y(10.0) + axis.y(1_000.0)) / 2.0).abs() < 1e-9);
        assert_eq!(
            (axis.x(0.0), axis.x(90.0), axis.x(1e9)),
            (LEFT, WIDTH - RIGHT, WIDTH - RIGHT)
        );
        assert_eq!(axis.y(f64::MAX), TOP);
    }

    #[test]
    fn a_gap_interrupts_the_line() {
        let svg = chart(
            Scale::Linear,
            vec![
                (0.0, Some(1.0)),
                (10.0, None),
                (20.0, Some(2.0)),
                (30.0, Some(3.0)),
            ],
        )
        .svg();
        assert_eq!(svg.matches("<path").count(), 2);
        assert!(svg.contains("a &lt; b") && !svg.contains("NaN"));
    }

    #[test]
    fn a_step_stays_level_until_the_next_point() {
        let axis = Axis::of(&chart(Scale::Linear, vec![(0.0, Some(4.0))]));
        let path = path(&[(0.0, Some(1.0)), (90.0, Some(2.0))], Stroke::Step, &axis);
        let (x0, x1, y1, y2) = (axis.x(0.0), axis.x(90.0), axis.y(1.0), axis.y(2.0));
        assert_eq!(
            path,
            format!("M{x0:.1} {y1:.1}L{x1:.1} {y1:.1}L{x1:.1} {y2:.1}")
        );
    }

    #[test]
    fn flags_that_are_close_do_not_cover_each_other() {
        let mut marked = chart(Scale::Linear, vec![(0.0, Some(1.0))]);
        marked.marks = [10.0, 10.5, 30.0]
            .map(|at| Mark {
                at,
                label: "1".into(),
                title: String::new(),
            })
            .into();
        let svg = marked.svg();
        let rows: Vec<&str> = svg
            .split("cy=\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        assert_eq!(rows, ["12.0", "28.0", "12.0"]);
    }

    #[test]
    fn times_are_named_in_the_unit_of_the_whole() {
        assert_eq!(
            time_ticks(90.0),
            (0..=9)
                .map(|step| f64::from(step) * 10.0)
                .collect::<Vec<_>>()
        );
        assert_eq!(
            (time_name(30.0, 90.0), time_name(600.0, 3_600.0)),
            ("30 s".into(), "10 min".into())
        );
        assert_eq!(time_ticks(3_600.0).len(), 7);
    }
}
