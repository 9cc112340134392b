//! The picture: the record, the predicted mean and the band of ±2 standard deviations around it, as SVG.
//!
//! ```text
//!   title
//!   ppm ┌──────────────────────────┐
//!       │ legend                .· │
//!       │            . · ´ ` band  │
//!       └──────────────────────────┘
//!         1960   1970   ..    year
//! ```

use std::fmt::Write;
use std::sync::Arc;

use crate::regression::{Plan, Point, Posterior};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 540.0;
/// The frame around the curves.
const LEFT: f64 = 76.0;
const RIGHT: f64 = WIDTH - 24.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = HEIGHT - 60.0;
/// How many labels an axis has at most.
const TICKS_MAX: f64 = 10.0;
/// Width of the widest character of a label, in parts of its height. Digits are narrower in every common font.
#[cfg(test)]
const EM: f64 = 0.65;

/// An axis: from values to places.
#[derive(Clone, Copy)]
struct Axis {
    from: f64,
    to: f64,
    /// Where `from` and `to` lie in the picture.
    place: (f64, f64),
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        let (start, end) = self.place;
        start + (value - self.from) / (self.to - self.from) * (end - start)
    }

    /// Round numbers along the axis, and how many decimals tell them apart.
    fn ticks(&self) -> (Vec<f64>, usize) {
        let least = (self.to - self.from) / TICKS_MAX;
        let power = 10f64.powf(least.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|&step| step >= least);
        let step = step.unwrap_or(10.0 * power);
        let first = (self.from / step).ceil() as i64;
        let last = (self.to / step).floor() as i64;
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        ((first..=last).map(|tick| tick as f64 * step).collect(), decimals)
    }
}

/// The picture as the text of an SVG file.
pub(crate) fn draw(plan: Arc<Plan>, posterior: &Posterior) -> String {
    let (asked, curve) = posterior.points.split_at(plan.asked);
    let record = &plan.record;
    let values: Vec<(f64, f64)> =
        record.times.iter().zip(&record.values).map(|(&time, value)| (time, record.mean + value)).collect();

    let (x, y) = axes(&values, curve);
    // A point far outside of the picture is not drawn at its edge.
    let asked: Vec<&Point> = asked.iter().filter(|point| (x.from..=x.to).contains(&point.year)).collect();
    let mut svg = String::new();
    // Writing to a `String` cannot fail.
    let _ = compose(&mut svg, (x, y), &values, curve, &asked);
    svg
}

/// Axes that hold all values, and all of the band.
fn axes(values: &[(f64, f64)], curve: &[Point]) -> (Axis, Axis) {
    let bounds = |numbers: &mut dyn Iterator<Item = f64>| {
        numbers.fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), x| (min.min(x), max.max(x)))
    };
    let years = bounds(&mut curve.iter().map(|point| point.year));
    let band = curve.iter().flat_map(|point| [point.mean - 2.0 * point.std, point.mean + 2.0 * point.std]);
    let (low, high) = bounds(&mut band.chain(values.iter().map(|&(_, value)| value)));
    let margin = (0.04 * (high - low)).max(0.1);
    let x = Axis { from: years.0, to: years.1, place: (LEFT, RIGHT) };
    (x, Axis { from: low - margin, to: high + margin, place: (BOTTOM, TOP) })
}

fn compose(
    svg: &mut String,
    (x, y): (Axis, Axis),
    values: &[(f64, f64)],
    curve: &[Point],
    asked: &[&Point],
) -> std::fmt::Result {
    writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="14" fill="#222">
<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>
<text x="{LEFT}" y="30" font-size="17">CO₂ in the air: {} weekly values and what they say of other years</text>"##,
        values.len()
    )?;
    write_axes(svg, x, y)?;

    let place = |year: f64, ppm: f64| format!("{:.1} {:.1}", x.at(year), y.at(ppm));
    let upper = curve.iter().map(|point| place(point.year, point.mean + 2.0 * point.std));
    let lower = curve.iter().rev().map(|point| place(point.year, point.mean - 2.0 * point.std));
    let band: Vec<String> = upper.chain(lower).collect();
    let mean: Vec<String> = curve.iter().map(|point| place(point.year, point.mean)).collect();
    // A line of no length with round ends is a dot.
    let dots: String = values.iter().map(|&(year, ppm)| format!("M{}h0", place(year, ppm))).collect();
    writeln!(svg, r##"<path d="M{}Z" fill="#f4a261" fill-opacity=".55"/>"##, band.join("L"))?;
    writeln!(svg, r##"<path d="M{}" fill="none" stroke="#c1121f" stroke-width="1"/>"##, mean.join("L"))?;
    writeln!(svg, r##"<path d="{dots}" stroke="#1d3557" stroke-width="1.8" stroke-linecap="round"/>"##)?;
    for point in asked {
        let (x, mean) = (x.at(point.year), y.at(point.mean));
        let (low, high) = (y.at(point.mean - 2.0 * point.std), y.at(point.mean + 2.0 * point.std));
        writeln!(
            svg,
            r##"<path d="M{x:.1} {low:.1}V{high:.1}" stroke="#222" stroke-width="1.4"/><circle cx="{x:.1}" cy="{mean:.1}" r="3.2" fill="#fff" stroke="#222" stroke-width="1.4"/>"##
        )?;
    }
    write_legend(svg)?;
    writeln!(svg, "</svg>")
}

fn write_axes(svg: &mut String, x: Axis, y: Axis) -> std::fmt::Result {
    let (years, decimals) = x.ticks();
    for year in years {
        let place = x.at(year);
        writeln!(
            svg,
            r##"<path d="M{place:.1} {TOP}V{BOTTOM}" stroke="#e6e6e6"/><text x="{place:.1}" y="{:.1}" text-anchor="middle">{year:.decimals$}</text>"##,
            BOTTOM + 20.0
        )?;
    }
    let (levels, decimals) = y.ticks();
    for ppm in levels {
        let place = y.at(ppm);
        writeln!(
            svg,
            r##"<path d="M{LEFT} {place:.1}H{RIGHT}" stroke="#e6e6e6"/><text x="{:.1}" y="{:.1}" text-anchor="end">{ppm:.decimals$}</text>"##,
            LEFT - 8.0,
            place + 5.0
        )?;
    }
    writeln!(
        svg,
        r##"<rect x="{LEFT}" y="{TOP}" width="{}" height="{}" fill="none" stroke="#888"/>
<text x="{}" y="{}" text-anchor="middle">year</text>
<text transform="translate(20 {}) rotate(-90)" text-anchor="middle">CO₂ (ppm)</text>"##,
        RIGHT - LEFT,
        BOTTOM - TOP,
        (LEFT + RIGHT) / 2.0,
        HEIGHT - 14.0,
        (TOP + BOTTOM) / 2.0,
    )
}

fn write_legend(svg: &mut String) -> std::fmt::Result {
    let (left, top) = (LEFT + 14.0, TOP + 14.0);
    writeln!(
        svg,
        r##"<g transform="translate({left} {top})">
<rect width="236" height="106" fill="#fff" fill-opacity=".88" stroke="#bbb"/>
<path d="M17 19h0M25 17h0M33 20h0" stroke="#1d3557" stroke-width="3" stroke-linecap="round"/><text x="54" y="23">weekly values</text>
<path d="M12 42H40" stroke="#c1121f" stroke-width="1.6"/><text x="54" y="47">predicted mean</text>
<rect x="12" y="59" width="28" height="14" fill="#f4a261" fill-opacity=".55"/><text x="54" y="71">± 2 standard deviations</text>
<path d="M26 80V100" stroke="#222" stroke-width="1.4"/><circle cx="26" cy="90" r="3.2" fill="#fff" stroke="#222" stroke-width="1.4"/><text x="54" y="95">years asked for</text>
</g>"##
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_round_and_do_not_touch() {
        for (from, to) in
            [(1958.0, 2022.0), (1858.0, 2104.0), (1958.0, 1961.0), (1.0, 10_001.0), (300.0, 420.0)]
        {
            for (place, vertical) in [((LEFT, RIGHT), false), ((BOTTOM, TOP), true)] {
                let axis = Axis { from, to, place };
                let (ticks, decimals) = axis.ticks();
                assert!((4..=11).contains(&ticks.len()), "{from}..{to}: {ticks:?}");
                let labels: Vec<String> = ticks.iter().map(|tick| format!("{tick:.decimals$}")).collect();
                for (pair, label) in ticks.windows(2).zip(&labels) {
                    let room = (axis.at(pair[1]) - axis.at(pair[0])).abs();
                    let size = if vertical { 14.0 } else { 14.0 * EM * label.len() as f64 };
                    assert!(size < room, "{label} takes {size} of {room}");
                }
                let values = labels.iter().zip(&ticks).all(|(label, tick)| {
                    (label.parse::<f64>().unwrap() - tick).abs() < 1e-9 * tick.abs().max(1.0)
                });
                assert!(values, "{labels:?}");
            }
        }
    }
}
