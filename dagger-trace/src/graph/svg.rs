//! The graph as SVG: lines below, boxes above, a title and a legend on top.

use std::fmt::Write;

use super::layout::{self, Plan, Rect, Route};
use super::sketch::{Link, Node, Sketch, Why};
use crate::draw::{self, CRITICAL, Entry, INK, PALE, Xml, fit, width};

/// Font sizes: names, second lines, chunks.
const NAME: f64 = 12.0;
const DETAIL: f64 = 10.5;
const CHUNK: f64 = 9.5;
/// Widths of boxes, and what text leaves free in them on both sides together.
const BOX: (f64, f64) = (64.0, 220.0);
const PAD: f64 = 16.0;
const MARGIN: f64 = 24.0;
/// A picture is at least this wide: room for its title.
const LEAST: f64 = 560.0;
/// Lines that are not critical.
const LINE: &str = "#8a949e";

/// A box with its text cut to size.
struct Card {
    size: (f64, f64),
    label: String,
    detail: String,
}

impl Card {
    fn new(node: &Node) -> Self {
        let (font, least) = if node.colour.is_none() { (CHUNK, 30.0) } else { (NAME, BOX.0) };
        let label = fit(&node.label, font, BOX.1 - PAD);
        let detail = fit(&node.detail, DETAIL, BOX.1 - PAD);
        let wide = width(&label, font).max(width(&detail, DETAIL)) + PAD;
        let high = match (node.colour, detail.is_empty()) {
            (None, _) => 18.0,
            (_, true) => 28.0,
            (_, false) => 40.0,
        };
        Self { size: (wide.clamp(least, BOX.1).round(), high), label, detail }
    }
}

pub(super) fn svg(sketch: &Sketch) -> String {
    let cards: Vec<Card> = sketch.nodes.iter().map(Card::new).collect();
    let sizes: Vec<(f64, f64)> = cards.iter().map(|card| card.size).collect();
    let rows: Vec<usize> = sketch.nodes.iter().map(|node| node.row).collect();
    let links: Vec<(usize, usize)> = sketch.links.iter().map(|link| (link.from, link.to)).collect();
    let layout = layout::layout(&Plan { sizes: &sizes, rows: &rows, links: &links, ordered: sketch.folded });

    let mut head = String::new();
    let wide = layout.width.max(LEAST) + 2.0 * MARGIN;
    let (top, right) = (write_head(&mut head, sketch, wide), wide - MARGIN);
    let left = MARGIN + ((right - MARGIN) - layout.width) / 2.0;
    let high = top + layout.height + MARGIN;
    let mut svg = String::with_capacity(400 * cards.len() + 100 * links.len() + 2_000);
    // Writing to a `String` cannot fail.
    let _ = writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0} {high:.0}" width="{wide:.0}" height="{high:.0}" font-family="sans-serif" fill="{INK}">
<title>{}</title>
<defs>{}{}</defs>
<rect width="100%" height="100%" fill="#fff"/>
{head}<g transform="translate({left:.1} {top:.1})">"##,
        Xml(&sketch.title),
        arrow("arrow", LINE),
        arrow("critical", CRITICAL),
    );
    for critical in [false, true] {
        let (colour, marker, thick) =
            if critical { (CRITICAL, "critical", 2.4) } else { (LINE, "arrow", 1.1) };
        let _ = writeln!(
            svg,
            r#"<g class="links" fill="none" stroke="{colour}" stroke-width="{thick}" marker-end="url(#{marker})">"#
        );
        for (link, route) in
            sketch.links.iter().zip(&layout.routes).filter(|(link, _)| link.critical == critical)
        {
            write_link(&mut svg, link, route, sketch.folded && !critical);
        }
        svg.push_str("</g>\n");
    }
    for ((node, card), place) in sketch.nodes.iter().zip(&cards).zip(&layout.boxes) {
        write_box(&mut svg, sketch, node, card, place);
    }
    svg.push_str("</g>\n</svg>\n");
    svg
}

fn arrow(id: &str, colour: &str) -> String {
    format!(
        r#"<marker id="{id}" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0.8L8 4L0 7.2Z" fill="{colour}"/></marker>"#
    )
}

/// Title, notes and legend; where the graph begins below them.
fn write_head(svg: &mut String, sketch: &Sketch, wide: f64) -> f64 {
    let room = wide - 2.0 * MARGIN;
    let mut y = 34.0;
    let _ = writeln!(
        svg,
        r#"<text x="{MARGIN}" y="{y}" font-size="17" font-weight="bold">{}</text>"#,
        Xml(&fit(&sketch.title, 17.0 * 1.1, room))
    );
    for note in &sketch.notes {
        for line in draw::wrap(note, 12.0, room) {
            y += 18.0;
            let _ = writeln!(
                svg,
                r#"<text x="{MARGIN}" y="{y}" font-size="12" fill="{PALE}">{}</text>"#,
                Xml(&line)
            );
        }
    }
    let mut entries: Vec<Entry> = sketch.key.iter().map(|(fill, text)| Entry::colour(fill, text)).collect();
    if sketch.nodes.iter().any(|node| node.critical) {
        entries.push(Entry::mark(
            format!(
                r##"<rect x="1" y="1" width="12" height="10" rx="2" fill="#fff" stroke="{CRITICAL}" stroke-width="2.4"/>"##
            ),
            "critical path",
        ));
    }
    if sketch.nodes.iter().any(|node| node.broken) {
        entries.push(Entry::mark(
            format!(r##"<rect x="1" y="1" width="12" height="10" fill="#fff" stroke="{INK}" stroke-dasharray="3 2"/>"##),
            "did not end well",
        ));
    }
    let lines: [(&[Why], &str); 3] = [
        (&[Why::Argument, Why::Data], "takes its result, or its data"),
        (&[Why::Order], "told to come after"),
        (&[Why::Awaited], "awaited inside"),
    ];
    // Where all lines are of the common kind, nobody asks.
    let plain = sketch.links.iter().all(|link| lines[0].0.contains(&link.why));
    for (kinds, text) in lines {
        if !plain && sketch.links.iter().any(|link| kinds.contains(&link.why)) {
            let mark =
                format!(r#"<path d="M-2 6H15" stroke="{LINE}" stroke-width="1.6"{}/>"#, dash(kinds[0]));
            entries.push(Entry::mark(mark, text));
        }
    }
    draw::legend(svg, &entries, MARGIN, y + 16.0, wide - MARGIN) + 20.0
}

fn dash(why: Why) -> &'static str {
    match why {
        Why::Argument | Why::Data => "",
        Why::Order => r#" stroke-dasharray="2 3""#,
        Why::Awaited => r#" stroke-dasharray="7 3 1.5 3""#,
    }
}

fn write_link(svg: &mut String, link: &Link, route: &Route, weighted: bool) {
    svg.push_str("<path d=\"");
    let _ = match route {
        Route::Down(points) => write_down(svg, points),
        Route::Right { from, to, y } => write!(svg, "M{from:.1} {y:.1}H{to:.1}"),
        Route::Below { from, to, dip } => {
            let low = from.1.max(to.1) + dip / 0.75;
            write!(
                svg,
                "M{:.1} {:.1}C{:.1} {low:.1} {:.1} {low:.1} {:.1} {:.1}",
                from.0, from.1, from.0, to.0, to.0, to.1
            )
        }
    };
    svg.push('"');
    svg.push_str(dash(link.why));
    if weighted && link.edges > 1 {
        let _ = write!(svg, r#" stroke-width="{:.1}""#, 1.0 + (link.edges as f64).log10() * 0.8);
    }
    svg.push_str("/>\n");
}

fn write_down(svg: &mut String, points: &[(f64, f64)]) -> std::fmt::Result {
    let mut last = (f64::NAN, f64::NAN);
    for (at, &(x, y)) in points.iter().enumerate() {
        match at {
            0 => write!(svg, "M{x:.1} {y:.1}")?,
            _ if last == (x, y) => {}
            _ if at % 2 == 1 || (last.0 - x).abs() < 0.05 => write!(svg, "V{y:.1}")?,
            _ => {
                let half = (last.1 + y) / 2.0;
                write!(svg, "C{:.1} {half:.1} {x:.1} {half:.1} {x:.1} {y:.1}", last.0)?;
            }
        }
        last = (x, y);
    }
    Ok(())
}

fn write_box(svg: &mut String, sketch: &Sketch, node: &Node, card: &Card, place: &Rect) {
    let Rect { x, y, w, h } = *place;
    let kind = if node.colour.is_some() { "box" } else { "chunk" };
    let _ = write!(svg, r#"<g class="{kind}" text-anchor="middle"><title>{}</title>"#, Xml(&node.tip));
    let fill = node.colour.map_or("#fff", |colour| sketch.key[colour].0.as_str());
    let (stroke, thick) = match (node.critical, node.colour) {
        (true, _) => (CRITICAL, if node.colour.is_some() { 3.0 } else { 1.8 }),
        (false, Some(_)) => ("#4b5560", 0.8),
        (false, None) => (LINE, 1.0),
    };
    let round = if node.colour.is_some() { 4.0 } else { h / 2.0 };
    let dash = if node.broken { r#" stroke-dasharray="5 3""# } else { "" };
    let _ = write!(
        svg,
        r#"<rect x="{x:.1}" y="{y:.1}" width="{w:.1}" height="{h:.1}" rx="{round}" fill="{fill}" stroke="{stroke}" stroke-width="{thick}"{dash}/>"#
    );
    let middle = x + w / 2.0;
    let (font, base) = match (node.colour, card.detail.is_empty()) {
        (None, _) => (CHUNK, y + 12.5),
        (_, true) => (NAME, y + 18.3),
        (_, false) => (NAME, y + 17.0),
    };
    let _ =
        write!(svg, r#"<text x="{middle:.1}" y="{base:.1}" font-size="{font}">{}</text>"#, Xml(&card.label));
    if !card.detail.is_empty() {
        let base = y + 32.0;
        let _ = write!(
            svg,
            r#"<text x="{middle:.1}" y="{base:.1}" font-size="{DETAIL}">{}</text>"#,
            Xml(&card.detail)
        );
    }
    svg.push_str("</g>\n");
}
