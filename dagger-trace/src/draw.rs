//! What every picture needs: text that fits, colours that everybody can tell apart, axes that people read.
//!
//! 1. Text is measured by an estimate that no common sans-serif font exceeds by much, so boxes hold their text
//!    without a font at hand.
//! 2. Whatever a task is called, what comes out is well-formed XML.
//! 3. The palette is Paul Tol's *light* scheme: made for dark text on it, and distinct for colour-blind eyes.
//!
//! It knows nothing of graphs or charts.

use std::fmt::{self, Display, Write};
use std::path::Path;

use crate::error::TraceError;
use crate::model::Trace;
use rustc_hash::FxHashMap;

/// Text.
pub(crate) const INK: &str = "#1f2933";
/// Text beside the point.
pub(crate) const PALE: &str = "#5b6670";
/// The critical path; also told apart by its thick lines.
pub(crate) const CRITICAL: &str = "#b5121b";
const LIGHT: [&str; 8] =
    ["#77aadd", "#ee8866", "#eedd88", "#44bb99", "#ffaabb", "#bbcc33", "#99ddff", "#c9a6dc"];
/// What has no colour of its own.
const OTHERS: &str = "#aeb6bf";
/// From light yellow to light violet, for numbers in order.
const RAMP: [[f64; 3]; 5] = [
    [250.0, 232.0, 140.0],
    [170.0, 214.0, 120.0],
    [95.0, 195.0, 180.0],
    [125.0, 165.0, 225.0],
    [205.0, 165.0, 225.0],
];

/// The suffix of `path` in lower case; empty without one.
pub(crate) fn suffix(path: &Path) -> String {
    path.extension().and_then(|suffix| suffix.to_str()).unwrap_or_default().to_ascii_lowercase()
}

/// Writes `bytes` to `path`.
pub(crate) fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<(), TraceError> {
    std::fs::write(path, bytes).map_err(TraceError::io(path))
}

/// Writes a picture as its suffix says; `supported` are those that the caller knows.
pub(crate) fn save(
    path: &Path,
    supported: &'static str,
    svg: impl FnOnce() -> String,
) -> Result<(), TraceError> {
    match suffix(path).as_str() {
        "svg" => write(path, svg()),
        #[cfg(feature = "raster")]
        "png" => crate::raster::write_png(path, &svg()),
        #[cfg(feature = "raster")]
        "pdf" => crate::raster::write_pdf(path, &svg()),
        _ => Err(TraceError::UnknownSuffix { path: path.to_owned(), supported }),
    }
}

/// These suffixes, and those of pixel pictures and pages.
#[cfg(feature = "raster")]
macro_rules! with_raster {
    ($others:literal) => {
        concat!($others, ", .png, .pdf")
    };
}
/// These suffixes, and how to have more.
#[cfg(not(feature = "raster"))]
macro_rules! with_raster {
    ($others:literal) => {
        concat!($others, " (.png and .pdf with the feature `raster`)")
    };
}
pub(crate) use with_raster;

/// Text inside of XML, in elements and attributes.
pub(crate) struct Xml<'a>(pub(crate) &'a str);

impl Display for Xml<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '&' => out.write_str("&amp;")?,
                '<' => out.write_str("&lt;")?,
                '>' => out.write_str("&gt;")?,
                '"' => out.write_str("&quot;")?,
                '\'' => out.write_str("&#39;")?,
                '\n' => out.write_char('\n')?,
                // What XML 1.0 does not allow at all, and marks that would turn the line around.
                '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => {
                    out.write_char('\u{fffd}')?
                }
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.write_char('\u{fffd}')?,
                letter => out.write_char(letter)?,
            }
        }
        Ok(())
    }
}

/// A name as one line that is not empty.
pub(crate) fn line(name: &str) -> String {
    // What is longer is cut wherever it is shown: a name of a megabyte costs nothing.
    let line = head(name, 1_000).split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() { "(no name)".to_owned() } else { line }
}

/// The first `letters` characters of `text`: tips need not hold a novel.
pub(crate) fn head(text: &str, letters: usize) -> String {
    match text.char_indices().nth(letters) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// About how wide `text` is at most, at this font size.
pub(crate) fn width(text: &str, size: f64) -> f64 {
    text.chars().map(letter).sum::<f64>() * size
}

/// The width of a letter in parts of the font size, by the widest common font (DejaVu Sans) and a little more.
fn letter(letter: char) -> f64 {
    match letter {
        'i' | 'j' | 'l' => 0.29,
        'I' | '.' | ',' | ':' | ';' | '\'' | '!' | '|' | ' ' | '/' | '\\' => 0.35,
        'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '-' | '·' | 'J' => 0.43,
        'm' | 'w' | 'M' | 'W' | '@' | '%' | '—' | '…' => 1.03,
        '0'..='9' | 'a'..='z' | '_' | '*' | '"' | '{' | '}' | '$' | '?' => 0.66,
        '\u{300}'..='\u{36f}' => 0.0,
        ' '..='~' => 0.86,
        '\u{80}'..='\u{24f}' | 'α'..='ω' => 0.72,
        '\u{250}'..='\u{1fff}' => 0.95,
        '₀'..='₉' => 0.45,
        _ => 1.15,
    }
}

/// `text`, or its beginning and its end around `…`, no wider than `room`.
pub(crate) fn fit(text: &str, size: f64, room: f64) -> String {
    // No text of a picture is this long, whatever the letters.
    let text = &head(text, 400);
    if width(text, size) <= room {
        return text.clone();
    }
    let letters: Vec<char> = text.chars().collect();
    let (mut start, mut end) = (0, letters.len());
    let mut left = room - width("…", size);
    while start < end {
        let front = start * 3 <= (letters.len() - end) * 4;
        let next = letter(letters[if front { start } else { end - 1 }]) * size;
        if next > left {
            break;
        }
        left -= next;
        if front { start += 1 } else { end -= 1 }
    }
    let (front, back) = (letters[..start].iter(), letters[end..].iter());
    front.chain(['…'].iter()).chain(back).collect()
}

/// `1 task`, `20,000 tasks`.
pub(crate) fn many(count: usize, one: &str, several: &str) -> String {
    format!("{} {}", crate::show::count(count), if count == 1 { one } else { several })
}

/// Round times of an axis from 0 to `span`, about `most` of them: nanoseconds and label.
pub(crate) fn ticks(span: u64, most: usize) -> Vec<(u64, String)> {
    let least = span.div_ceil(most.max(1) as u64).max(1);
    let mut power = 1u64;
    while power <= least / 10 {
        power *= 10;
    }
    let step = [1, 2, 5, 10].into_iter().map(|digit| power.saturating_mul(digit)).find(|&step| step >= least);
    let step = step.unwrap_or(least);
    let (unit, name) = match span {
        0..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let mut decimals = 0;
    let mut part = unit;
    while !step.is_multiple_of(part) {
        part /= 10;
        decimals += 1;
    }
    (0..=span / step)
        .map(|tick| (tick * step, format!("{:.decimals$} {name}", (tick * step) as f64 / unit as f64)))
        .collect()
}

/// The names of a trace, each once, and the number of each task's.
pub(crate) struct Names<'t> {
    pub(crate) names: Vec<&'t str>,
    pub(crate) of: Vec<usize>,
}

impl<'t> Names<'t> {
    pub(crate) fn new(trace: &'t Trace) -> Self {
        let mut number = FxHashMap::default();
        let mut names = Vec::new();
        let of = trace.tasks.iter().map(|task| {
            *number.entry(task.name.as_str()).or_insert_with(|| {
                names.push(task.name.as_str());
                names.len() - 1
            })
        });
        let of = of.collect();
        Self { names, of }
    }

    /// The numbers of the names, those that ran longest first.
    pub(crate) fn ranked(&self, trace: &Trace) -> Vec<usize> {
        let mut total = vec![(0u64, 0usize); self.names.len()];
        for (task, &name) in trace.tasks.iter().zip(&self.of) {
            total[name].0 = total[name].0.saturating_add(task.run_nanos());
            total[name].1 += 1;
        }
        let mut ranked: Vec<usize> = (0..self.names.len()).collect();
        ranked.sort_by_key(|&name| (std::cmp::Reverse(total[name]), name));
        ranked
    }
}

/// Colours and what they mean.
pub(crate) struct Key {
    /// Fill and label, in the order of the legend.
    pub(crate) entries: Vec<(String, String)>,
    /// The entry of each name, or each lane.
    pub(crate) of: Vec<usize>,
}

impl Key {
    /// A colour for each of the names that ran longest, one for all others.
    pub(crate) fn names(names: &Names<'_>, trace: &Trace) -> Self {
        let ranked = names.ranked(trace);
        let own = if ranked.len() > LIGHT.len() { LIGHT.len() - 1 } else { ranked.len() };
        let mut of = vec![own; names.names.len()];
        let mut entries = Vec::new();
        for (place, &name) in ranked.iter().take(own).enumerate() {
            of[name] = place;
            entries.push((LIGHT[place].to_owned(), line(names.names[name])));
        }
        if ranked.len() > own {
            entries.push((OTHERS.to_owned(), many(ranked.len() - own, "other name", "other names")));
        }
        Self { entries, of }
    }

    /// A colour for each lane, and one, the last, for what ran nowhere.
    pub(crate) fn lanes(trace: &Trace) -> Self {
        let count = trace.lanes.len();
        let colour = |lane: usize| match count {
            0..=8 => LIGHT[lane].to_owned(),
            _ => {
                let place = lane as f64 / (count - 1) as f64 * (RAMP.len() - 1) as f64;
                let from = (place as usize).min(RAMP.len() - 2);
                let mix = |part: usize| {
                    let share = place - from as f64;
                    (RAMP[from][part] * (1.0 - share) + RAMP[from + 1][part] * share).round() as u8
                };
                format!("#{:02x}{:02x}{:02x}", mix(0), mix(1), mix(2))
            }
        };
        let mut entries: Vec<(String, String)> =
            trace.lanes.iter().enumerate().map(|(lane, info)| (colour(lane), line(&info.name))).collect();
        entries.push((OTHERS.to_owned(), "did not run".to_owned()));
        Self { entries, of: (0..count).collect() }
    }
}

/// One entry of a legend: a small picture of 14 × 12 whose corner is the origin, and text.
pub(crate) struct Entry {
    pub(crate) mark: String,
    pub(crate) text: String,
}

impl Entry {
    pub(crate) fn colour(fill: &str, text: &str) -> Self {
        Self {
            mark: format!(
                r##"<rect width="14" height="12" rx="2" fill="{fill}" stroke="#000" stroke-opacity=".25"/>"##
            ),
            text: text.to_owned(),
        }
    }

    pub(crate) fn mark(mark: impl Into<String>, text: impl Into<String>) -> Self {
        Self { mark: mark.into(), text: text.into() }
    }
}

/// Font size of legends.
const LEGEND: f64 = 11.0;

/// Writes a legend from (`left`, `top`) in lines no longer than up to `right`; where it ends below.
pub(crate) fn legend(svg: &mut String, entries: &[Entry], left: f64, top: f64, right: f64) -> f64 {
    let (mut x, mut y) = (left, top);
    for Entry { mark, text } in entries {
        let text = fit(text, LEGEND, 220.0);
        let wide = 20.0 + width(&text, LEGEND) + 18.0;
        if x + wide > right && x > left {
            (x, y) = (left, y + 20.0);
        }
        let _ = writeln!(
            svg,
            r#"<g transform="translate({x:.1} {y:.1})">{mark}<text x="20" y="10" font-size="{LEGEND}">{}</text></g>"#,
            Xml(&text)
        );
        x += wide;
    }
    if entries.is_empty() { top } else { y + 20.0 }
}

/// `text` in lines no wider than `room`, broken at spaces.
pub(crate) fn wrap(text: &str, size: f64, room: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if width(line, size) + width(word, size) + width(" ", size) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(fit(word, size, room)),
        }
    }
    lines
}
