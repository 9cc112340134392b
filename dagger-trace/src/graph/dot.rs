//! The graph in the language of Graphviz.

use std::fmt::Write;

use super::sketch::{Sketch, Why};
use crate::draw::{CRITICAL, head};

pub(super) fn dot(sketch: &Sketch) -> String {
    let mut dot = String::from("digraph trace {\n");
    let label: Vec<&str> = [&sketch.title].into_iter().chain(&sketch.notes).map(String::as_str).collect();
    // Writing to a `String` cannot fail.
    let _ =
        writeln!(dot, "  graph [label={}, labelloc=t, fontname=\"sans-serif\"];", quoted(&label.join("\n")));
    dot.push_str("  node [shape=box, style=\"filled,rounded\", fontname=\"sans-serif\", fontsize=11];\n");
    dot.push_str("  edge [color=\"#8a949e\"];\n");
    for (at, node) in sketch.nodes.iter().enumerate() {
        let label = [node.label.as_str(), &node.detail].into_iter().filter(|line| !line.is_empty());
        let label = head(&label.collect::<Vec<_>>().join("\n"), 200);
        let fill = node.colour.map_or("#ffffff", |colour| sketch.key[colour].0.as_str());
        let _ = write!(
            dot,
            "  n{at} [label={}, tooltip={}, fillcolor=\"{fill}\"",
            quoted(&label),
            quoted(&node.tip)
        );
        if node.critical {
            let _ = write!(dot, ", color=\"{CRITICAL}\", penwidth=3");
        }
        if node.broken {
            dot.push_str(", style=\"filled,dashed\"");
        }
        if node.colour.is_none() {
            dot.push_str(", shape=ellipse, fontsize=9");
        }
        dot.push_str("];\n");
    }
    for link in &sketch.links {
        let style = match link.why {
            Why::Argument => "solid",
            Why::Data => "dashed",
            Why::Order => "dotted",
            Why::Awaited => "dashed, arrowhead=empty",
        };
        let _ = write!(dot, "  n{} -> n{} [style={style}", link.from, link.to);
        if link.critical {
            let _ = write!(dot, ", color=\"{CRITICAL}\", penwidth=2.4");
        }
        if link.edges > 1 {
            let _ = write!(dot, ", tooltip=\"{} dependencies\"", link.edges);
        }
        dot.push_str("];\n");
    }
    dot.push_str("}\n");
    dot
}

/// A string of Graphviz: quotes and backslashes escaped, lines kept.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            letter if letter.is_control() => quoted.push('\u{fffd}'),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}
