//! The graph of a run as a picture: tasks as boxes, what they waited for as lines, time flowing down.
//!
//! ```text
//!   Trace ──sketch──▶ boxes and links ──layout──▶ places ──▶ .svg
//!                       (folded)     └─────────────────────▶ .dot
//! ```
//! 1. Every task is in a box, or counted in one.
//! 2. Links go down: what would close a circle (no run has one, a damaged trace may) is left out.
//! 3. A picture has at most as many boxes as asked for (300), however many tasks there are; what was folded, and which
//!    links are not drawn, its title says.
//!
//! It needs neither Graphviz nor fonts.

mod dot;
mod fold;
mod layout;
mod order;
mod sketch;
mod svg;
#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;

use crate::draw;
use crate::error::TraceError;
use crate::model::Trace;
use sketch::Sketch;

/// What the colours of a graph mean.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Colour {
    /// The name of the task; the names that ran longest have colours of their own.
    #[default]
    Name,
    /// The thread where it ran longest.
    Processor,
}

/// The picture of a graph, by [`Trace::graph`].
#[must_use = "it is drawn by `save`, `to_svg` or `to_dot`"]
#[derive(Clone, Debug)]
pub struct Graph<'t> {
    trace: &'t Trace,
    colour: Colour,
    chunks: bool,
    durations: bool,
    implied: bool,
    boxes_max: usize,
}

impl Trace {
    /// The tasks and what they waited for, as a picture.
    ///
    /// The critical path is marked. Up to 300 tasks have a box each; beyond that, tasks of the same name that are equally
    /// deep in the graph share one, with their count and total time, and where that is not enough, neighbouring levels
    /// too. The title says so.
    pub fn graph(&self) -> Graph<'_> {
        Graph {
            trace: self,
            colour: Colour::Name,
            chunks: false,
            durations: true,
            implied: false,
            boxes_max: 300,
        }
    }
}

impl Graph<'_> {
    /// What the colours mean: the name by default.
    pub fn colour(mut self, colour: Colour) -> Self {
        self.colour = colour;
        self
    }

    /// Whether the data between tasks is shown, as a small box for each version of a chunk. Off by default; folded graphs
    /// have none.
    pub fn chunks(mut self, shown: bool) -> Self {
        self.chunks = shown;
        self
    }

    /// Whether boxes say how long their tasks ran. On by default.
    pub fn durations(mut self, shown: bool) -> Self {
        self.durations = shown;
        self
    }

    /// Whether links that follow from others are drawn as well: `a → c` where `a → b → c`. Off by default.
    pub fn implied(mut self, shown: bool) -> Self {
        self.implied = shown;
        self
    }

    /// How many boxes there are before tasks are folded: 300 by default, at least 2. `usize::MAX` never folds.
    pub fn boxes_max(mut self, boxes: usize) -> Self {
        self.boxes_max = boxes.max(2);
        self
    }

    /// Writes the picture to a file: `.svg` for browsers, `.dot` for Graphviz and other tools; with the feature `raster` also
    /// `.png` and `.pdf`, with fonts of their own.
    ///
    /// # Errors
    /// [`TraceError::UnknownSuffix`] for any other suffix; [`TraceError::Io`] with the path if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), TraceError> {
        let path = path.as_ref();
        match draw::suffix(path).as_str() {
            "dot" | "gv" => draw::write(path, self.to_dot()),
            _ => draw::save(path, draw::with_raster!(".svg, .dot"), || self.to_svg()),
        }
    }

    /// The picture as the text of an SVG file.
    #[must_use]
    pub fn to_svg(&self) -> String {
        svg::svg(&Sketch::new(self))
    }

    /// The graph in the language of Graphviz.
    #[must_use]
    pub fn to_dot(&self) -> String {
        dot::dot(&Sketch::new(self))
    }
}
