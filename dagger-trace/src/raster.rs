//! Pictures as pixels (`.png`) and as pages (`.pdf`), from the SVG that is drawn anyway.
//!
//! ```text
//!   svg ──usvg──▶ tree with text laid out in DejaVu Sans ─┬─resvg────▶ .png
//!                                                         └─svg2pdf──▶ .pdf   text stays text, its font is inside
//! ```
//! 1. The fonts are in the program: what is installed on the machine changes nothing. Letters that DejaVu Sans lacks (Chinese,
//!    Japanese, Korean) are left out; an `.svg` shows them in the fonts of the browser.
//! 2. A pixel picture has two pixels to a unit of the SVG, fewer where it would be larger than [`PIXELS_MAX`].

use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::draw;
use crate::error::TraceError;
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::fontdb::Database;
use resvg::usvg::{Options, Tree};
use svg2pdf::{ConversionOptions, PageOptions};

/// Sharp on screens of two pixels to a point.
const SCALE: f32 = 2.0;
/// 128 MiB in memory.
const PIXELS_MAX: f32 = 32.0 * 1024.0 * 1024.0;

/// Writes the picture to a `.png`.
pub(crate) fn write_png(path: &Path, svg: &str) -> Result<(), TraceError> {
    draw::write(path, png(svg).map_err(|what| undrawn(path, what))?)
}

/// Writes the picture to a `.pdf` of one page.
pub(crate) fn write_pdf(path: &Path, svg: &str) -> Result<(), TraceError> {
    draw::write(path, pdf(svg).map_err(|what| undrawn(path, what))?)
}

fn undrawn(path: &Path, what: String) -> TraceError {
    TraceError::Undrawn { path: path.to_owned(), what }
}

fn png(svg: &str) -> Result<Vec<u8>, String> {
    let tree = tree(svg)?;
    let (wide, high) = (tree.size().width(), tree.size().height());
    let scale = SCALE.min((PIXELS_MAX / (wide * high)).sqrt());
    let pixels = |length: f32| (length * scale).round().max(1.0) as u32;
    let mut pixmap = Pixmap::new(pixels(wide), pixels(high)).ok_or("it is too large")?;
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixmap.as_mut());
    pixmap.encode_png().map_err(|error| error.to_string())
}

fn pdf(svg: &str) -> Result<Vec<u8>, String> {
    let tree = tree(svg)?;
    svg2pdf::to_pdf(&tree, ConversionOptions::default(), PageOptions::default())
        .map_err(|error| error.to_string())
}

fn tree(svg: &str) -> Result<Tree, String> {
    let options = Options { font_family: FAMILY.into(), fontdb: fonts(), ..Options::default() };
    Tree::from_str(svg, &options).map_err(|error| error.to_string())
}

const FAMILY: &str = "DejaVu Sans";

fn fonts() -> Arc<Database> {
    static FONTS: OnceLock<Arc<Database>> = OnceLock::new();
    let load = || {
        let mut fonts = Database::new();
        fonts.load_font_data(dejavu::sans::regular().to_vec());
        fonts.load_font_data(dejavu::sans::bold().to_vec());
        fonts.set_sans_serif_family(FAMILY);
        Arc::new(fonts)
    };
    FONTS.get_or_init(load).clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Lane, Trace, samples};

    /// Share of dark pixels, in promille, in a part of the picture given in units of the SVG.
    fn ink(pixmap: &Pixmap, left: u32, top: u32, wide: u32, high: u32) -> u32 {
        let inside = |at: u32| {
            let (x, y) = (at % pixmap.width() / 2, at / pixmap.width() / 2);
            (left..left + wide).contains(&x) && (top..top + high).contains(&y)
        };
        let pixels = pixmap.pixels().iter().zip(0..);
        let dark = pixels.filter(|(pixel, at)| inside(*at) && pixel.red() < 100 && pixel.alpha() > 200);
        dark.count() as u32 * 250 / (wide * high)
    }

    fn pictures(trace: &Trace) -> [String; 4] {
        [
            trace.graph().to_svg(),
            trace.gantt(Lane::Processor).to_svg(),
            trace.gantt(Lane::Task).to_svg(),
            trace.gantt(Lane::Scheduler).to_svg(),
        ]
    }

    #[test]
    fn pixels_show_the_title_without_fonts_of_the_system() {
        for svg in pictures(&samples::cholesky(3, 2)) {
            let pixmap = Pixmap::decode_png(&png(&svg).unwrap()).unwrap();
            let size = tree(&svg).unwrap().size();
            let twice = |length: f32| (2.0 * length).round() as u32;
            assert_eq!((pixmap.width(), pixmap.height()), (twice(size.width()), twice(size.height())));
            // The title: bold letters at the top left. Without a font there are none.
            let dark = ink(&pixmap, 20, 18, 120, 22);
            assert!((50..500).contains(&dark), "{dark} ‰");
            let bare = svg.replace("<text", "<desc").replace("</text", "</desc");
            let bare = Pixmap::decode_png(&png(&bare).unwrap()).unwrap();
            assert_eq!(ink(&bare, 20, 18, 120, 22), 0);
        }
    }

    #[test]
    fn pages_hold_their_fonts() {
        for svg in pictures(&samples::cholesky(3, 2)) {
            let pdf = pdf(&svg).unwrap();
            let has = |part: &str| pdf.windows(part.len()).any(|window| window == part.as_bytes());
            assert!(pdf.starts_with(b"%PDF-1.") && has("%%EOF"));
            assert!(has("DejaVuSans") && has("DejaVuSans-Bold") && has("/FontFile"));
        }
    }

    #[test]
    fn large_and_odd_runs_are_drawn_too() {
        for trace in [samples::cholesky(48, 16), samples::many_names(5_000, 8), samples::cholesky(0, 1)] {
            for svg in pictures(&trace) {
                assert!(png(&svg).unwrap().starts_with(b"\x89PNG"));
                assert!(pdf(&svg).unwrap().starts_with(b"%PDF"));
            }
        }
        let wide = r#"<svg xmlns="http://www.w3.org/2000/svg" width="90000" height="9000"></svg>"#;
        let pixmap = Pixmap::decode_png(&png(wide).unwrap()).unwrap();
        assert!((pixmap.width() * pixmap.height()) as f32 <= 1.01 * PIXELS_MAX);
        assert!(png("<svg").is_err() && pdf("<svg").is_err());
    }

    #[test]
    fn the_suffix_says_which_and_both_are_written() {
        let folder = std::env::temp_dir().join(format!("dagger-trace-raster-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let trace = samples::cholesky(3, 2);
        for (name, begins) in [("a.png", &b"\x89PNG"[..]), ("a.PDF", b"%PDF")] {
            let path = folder.join(name);
            trace.graph().save(&path).unwrap();
            assert!(std::fs::read(&path).unwrap().starts_with(begins));
            trace.gantt(Lane::Task).save(&path).unwrap();
            assert!(std::fs::read(&path).unwrap().starts_with(begins));
        }
        std::fs::remove_dir_all(folder).unwrap();
        let error = trace.graph().save("/nowhere/at/all.png").unwrap_err();
        assert!(error.to_string().starts_with("/nowhere/at/all.png: "), "{error}");
        let error = trace.gantt(Lane::Task).save("a.jpg").unwrap_err();
        assert_eq!(error.to_string(), "a.jpg: unknown suffix; supported: .svg, .png, .pdf");
    }
}
