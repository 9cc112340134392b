//! The sheet that rows are drawn on: time axis, title, legend, bars and columns.
//!
//! It knows nothing of tasks.

use std::fmt::Write;

use crate::draw::{self, Entry, INK, PALE, Xml, fit, ticks};
use crate::model::Trace;

/// Width of the part that shows time.
pub(super) const PLOT: f64 = 1000.0;
const RIGHT: f64 = 124.0;
const MARGIN: f64 = 20.0;
/// Font size of rows.
const LABEL: f64 = 11.0;
/// Bars narrower than this become columns.
const BAR: f64 = 1.5;
/// Bars with a tip of their own, at most; the longest ones.
const BARS_MAX: usize = 4_000;

/// A stretch of time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) start: u64,
    pub(super) span: u64,
}

impl Window {
    /// From the first thing that happened to a task to the last.
    pub(super) fn of(trace: &Trace) -> Self {
        let (mut start, mut end) = (u64::MAX, 0);
        let mut see = |at: u64| (start, end) = (start.min(at), end.max(at));
        for task in &trace.tasks {
            task.spawned.iter().for_each(|spawned| see(spawned.at));
            task.runs.iter().for_each(|run| (see(run.start), see(run.end)).1);
            task.ready.into_iter().chain(task.ended).for_each(&mut see);
        }
        if start > end {
            (start, end) = (0, trace.nanos);
        }
        Self { start, span: (end - start).max(1) }
    }

    /// The place of a moment, from 0 to [`PLOT`].
    pub(super) fn at(&self, at: u64) -> f64 {
        at.saturating_sub(self.start).min(self.span) as f64 / self.span as f64 * PLOT
    }
}

/// Something that lasted.
pub(super) struct Bar<'a> {
    pub(super) start: u64,
    pub(super) end: u64,
    /// An index of the fills.
    pub(super) colour: usize,
    pub(super) tip: &'a dyn Fn() -> String,
}

/// Where a row is, from its upper edge.
#[derive(Clone, Copy)]
pub(super) struct Strip {
    pub(super) y: f64,
    pub(super) high: f64,
}

pub(super) struct Canvas {
    pub(super) window: Window,
    /// Width of the labels, left of the plot.
    left: f64,
    body: String,
    /// Where the next row begins.
    pub(super) y: f64,
    /// Width of a column.
    column: f64,
    /// Bars at least this wide are drawn one by one.
    bar: f64,
}

impl Canvas {
    /// For about so many rows; `lengths` are those of all bars to come.
    pub(super) fn new(trace: &Trace, left: f64, rows: usize, lengths: impl Iterator<Item = u64>) -> Self {
        let window = Window::of(trace);
        let mut lengths: Vec<u64> = lengths.collect();
        let mut bar = BAR;
        if lengths.len() > BARS_MAX {
            let (_, least, _) = lengths.select_nth_unstable_by(BARS_MAX, |a, b| b.cmp(a));
            bar = (*least as f64 / window.span as f64 * PLOT * 1.0001).max(BAR);
        }
        let column = 2.0 * rows.div_ceil(24).max(1) as f64;
        Self { window, left, body: String::new(), y: 0.0, column, bar }
    }

    /// A label left of the plot.
    pub(super) fn label(&mut self, strip: Strip, text: &str, bold: bool) {
        let text = fit(text, LABEL * if bold { 1.1 } else { 1.0 }, self.left - 16.0);
        let weight = if bold { r#" font-weight="bold""# } else { "" };
        let _ = writeln!(
            self.body,
            r#"<text class="label" x="-8" y="{:.1}" text-anchor="end" font-size="{LABEL}"{weight}>{}</text>"#,
            strip.y + strip.high / 2.0 + 4.0,
            Xml(&text)
        );
    }

    /// A figure right of the plot.
    pub(super) fn figure(&mut self, strip: Strip, text: &str) {
        let _ = writeln!(
            self.body,
            r#"<text class="figure" x="{}" y="{:.1}" font-size="{LABEL}" fill="{PALE}">{}</text>"#,
            PLOT + 8.0,
            strip.y + strip.high / 2.0 + 4.0,
            Xml(&fit(text, LABEL, RIGHT - 12.0))
        );
    }

    /// The ground of a row.
    pub(super) fn ground(&mut self, strip: Strip, fill: &str) {
        let _ = writeln!(
            self.body,
            r#"<rect class="row" y="{:.1}" width="{PLOT}" height="{:.1}" fill="{fill}"/>"#,
            strip.y, strip.high
        );
    }

    /// A line between two moments, in the middle of the row.
    pub(super) fn line(&mut self, strip: Strip, from: u64, to: u64, style: &str) {
        let (from, to) = (self.window.at(from), self.window.at(to));
        if to - from >= 0.3 {
            let y = strip.y + strip.high / 2.0;
            let _ = writeln!(self.body, r#"<path d="M{from:.1} {y:.1}H{to:.1}" fill="none" {style}/>"#);
        }
    }

    /// Columns where at least half of the time is covered by these stretches.
    pub(super) fn hatch(&mut self, strip: Strip, stretches: impl Iterator<Item = (u64, u64)>) {
        let mut covered = Columns::new(1.0, 1);
        for (start, end) in stretches {
            covered.add(self.window.at(start), self.window.at(end), 0);
        }
        let mut path = String::new();
        let mut from = None;
        for at in 0..=covered.cells.len() {
            let on = covered.cells.get(at).is_some_and(|&share| share >= 0.5);
            match (on, from) {
                (true, None) => from = Some(at),
                (false, Some(start)) => {
                    let _ = write!(
                        path,
                        "M{start} {:.1}h{}v{:.1}h-{}z",
                        strip.y,
                        at - start,
                        strip.high,
                        at - start
                    );
                    from = None;
                }
                _ => {}
            }
        }
        if !path.is_empty() {
            let _ = writeln!(self.body, r#"<path class="asleep" d="{path}" fill="url(#asleep)"/>"#);
        }
    }

    /// Marks at moments, each as high as the row.
    pub(super) fn marks(
        &mut self,
        strip: Strip,
        moments: impl Iterator<Item = u64>,
        colour: &str,
        wide: f64,
    ) {
        let mut places: Vec<u32> = moments.map(|at| (self.window.at(at)).round() as u32).collect();
        places.sort_unstable();
        places.dedup();
        if places.is_empty() {
            return;
        }
        let path: String = places.iter().map(|x| format!("M{x} {:.1}v{:.1}", strip.y, strip.high)).collect();
        let _ = writeln!(
            self.body,
            r#"<path class="marks" d="{path}" fill="none" stroke="{colour}" stroke-width="{wide}"/>"#
        );
    }

    /// Bars: long ones as they are, short ones as columns whose filled part is their share of the time.
    pub(super) fn bars<'a>(&mut self, strip: Strip, bars: impl Iterator<Item = Bar<'a>>, fills: &[String]) {
        let mut short = Columns::new(self.column, fills.len());
        let mut any = false;
        let mut long = String::new();
        for bar in bars {
            let (from, to) = (self.window.at(bar.start), self.window.at(bar.end));
            if to - from >= self.bar {
                // A white edge tells neighbours apart; narrow bars would be nothing but edge.
                let edge = if to - from >= 4.0 { r##" stroke="#fff" stroke-width=".6""## } else { "" };
                let _ = writeln!(
                    long,
                    r##"<rect x="{from:.1}" y="{:.1}" width="{:.1}" height="{:.1}" fill="{}"{edge}><title>{}</title></rect>"##,
                    strip.y,
                    to - from,
                    strip.high,
                    fills[bar.colour],
                    Xml(&(bar.tip)())
                );
            } else {
                any = true;
                short.add(from, to, bar.colour);
            }
        }
        if any {
            self.columns(strip, &short, 1.0, fills);
        }
        self.body.push_str(&long);
    }

    /// How many of these stretches there were at once, as columns up to the height of the row; the greatest mean of a column.
    pub(super) fn heap(
        &mut self,
        strip: Strip,
        stretches: impl Iterator<Item = (u64, u64, usize)>,
        full: Option<f64>,
        fills: &[String],
    ) -> f64 {
        let mut columns = Columns::new(self.column, fills.len());
        for (start, end, colour) in stretches {
            let (from, to) = (self.window.at(start), self.window.at(end));
            columns.add(from, to, colour);
        }
        let most = columns.cells.chunks(fills.len()).map(|cell| cell.iter().sum::<f64>()).fold(0.0, f64::max);
        self.columns(strip, &columns, full.unwrap_or(most).max(1.0), fills);
        most
    }

    fn columns(&mut self, strip: Strip, columns: &Columns, full: f64, fills: &[String]) {
        // Heights in steps of half a pixel: neighbours that look the same become one.
        let steps = strip.high * 2.0;
        let colours = fills.len();
        let mut paths = vec![String::new(); colours];
        let mut open: Vec<Option<(usize, u32, u32)>> = vec![None; colours];
        let count = columns.cells.len() / colours;
        for at in 0..=count {
            let mut below = 0.0;
            for colour in 0..colours {
                let share = columns.cells.get(at * colours + colour).copied().unwrap_or(0.0) / full;
                let from = (below * steps).round() as u32;
                // Whatever happened has at least one step.
                let least = if share > 0.0 { from + 1 } else { from };
                let to = (((below + share).min(1.0) * steps).round() as u32).max(least).min(steps as u32);
                below += share;
                let now = (to > from).then_some((at, from, to));
                let same =
                    matches!((open[colour], now), (Some(old), Some(new)) if (old.1, old.2) == (new.1, new.2));
                if same {
                    continue;
                }
                if let Some((start, from, to)) = open[colour] {
                    let wide = (at - start) as f64 * columns.wide;
                    let (y, high) = (strip.y + strip.high - f64::from(to) / 2.0, f64::from(to - from) / 2.0);
                    let x = start as f64 * columns.wide;
                    let wide = wide.min(PLOT - x);
                    let _ = write!(paths[colour], "M{x} {y}h{wide}v{high}h-{wide}z");
                }
                open[colour] = now;
            }
        }
        for (path, fill) in paths.iter().zip(fills).filter(|(path, _)| !path.is_empty()) {
            let _ = writeln!(self.body, r#"<path class="columns" d="{path}" fill="{fill}"/>"#);
        }
    }

    /// The finished picture.
    pub(super) fn finish(self, title: &str, notes: &[String], legend: &[Entry]) -> String {
        let wide = MARGIN + self.left + PLOT + RIGHT;
        let mut head = String::new();
        let _ = writeln!(
            head,
            r#"<text x="{MARGIN}" y="34" font-size="17" font-weight="bold">{}</text>"#,
            Xml(&fit(title, 17.0 * 1.1, wide - 2.0 * MARGIN))
        );
        let mut y = 34.0;
        for note in notes {
            for line in draw::wrap(note, 12.0, wide - 2.0 * MARGIN) {
                y += 18.0;
                let _ = writeln!(
                    head,
                    r#"<text x="{MARGIN}" y="{y}" font-size="12" fill="{PALE}">{}</text>"#,
                    Xml(&line)
                );
            }
        }
        let top = draw::legend(&mut head, legend, MARGIN, y + 16.0, wide - MARGIN) + 26.0;
        let bottom = self.y;
        let mut axis = String::new();
        for (at, label) in ticks(self.window.span, 10) {
            let x = self.window.at(self.window.start + at);
            let _ = writeln!(
                axis,
                r##"<path d="M{x:.1} -4V{:.1}" stroke="#000" stroke-opacity=".13"/>"##,
                bottom + 4.0
            );
            for y in [Some(-8.0), (bottom > 300.0).then_some(bottom + 16.0)].into_iter().flatten() {
                let _ = writeln!(
                    axis,
                    r#"<text class="tick" x="{x:.1}" y="{y:.1}" text-anchor="middle" font-size="10.5" fill="{PALE}">{label}</text>"#
                );
            }
        }
        let high = top + bottom + 30.0;
        let left = MARGIN + self.left;
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0} {high:.0}" width="{wide:.0}" height="{high:.0}" font-family="sans-serif" fill="{INK}">
<title>{}</title>
<defs><pattern id="asleep" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="6" height="6" fill="#fff"/><path d="M0 0V6" stroke="#b9c1c9" stroke-width="2.4"/></pattern></defs>
<rect width="100%" height="100%" fill="#fff"/>
{head}<g transform="translate({left:.1} {top:.1})">
{}{axis}</g>
</svg>
"##,
            Xml(title),
            self.body
        )
    }
}

/// The legend of what is hatched.
pub(super) fn asleep() -> Entry {
    Entry::mark(
        r##"<rect width="14" height="12" fill="url(#asleep)" stroke="#b9c1c9" stroke-width=".6"/>"##,
        "asleep: nothing to do",
    )
}

/// Time covered in columns of pixels, by colour: 1 is a column full.
struct Columns {
    wide: f64,
    colours: usize,
    cells: Vec<f64>,
}

impl Columns {
    fn new(wide: f64, colours: usize) -> Self {
        let colours = colours.max(1);
        Self { wide, colours, cells: vec![0.0; (PLOT / wide).ceil() as usize * colours] }
    }

    fn add(&mut self, from: f64, to: f64, colour: usize) {
        // What took no time at all is seen as well.
        let to = to.max(from + 1e-9);
        let count = self.cells.len() / self.colours;
        let mut at = ((from / self.wide) as usize).min(count - 1);
        let mut from = from;
        while from < to && at < count {
            let edge = if at + 1 == count { f64::INFINITY } else { (at + 1) as f64 * self.wide };
            let part = to.min(edge) - from;
            self.cells[at * self.colours + colour] += part / self.wide;
            from = edge;
            at += 1;
        }
    }
}
