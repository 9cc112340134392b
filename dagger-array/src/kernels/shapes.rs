//! The one check of shapes that every kernel starts with.

use crate::Tile;

/// Panics unless `fits`, in the name of the caller's caller, with the rule and every shape as it is.
#[track_caller]
pub(super) fn require(fits: bool, kernel: &str, rule: &str, shapes: &[(&str, (usize, usize))]) {
    if !fits {
        refuse(kernel, rule, shapes);
    }
}

/// Rows and columns.
pub(super) fn shape<T>(tile: &Tile<T>) -> (usize, usize) {
    (tile.rows(), tile.cols())
}

#[cold]
#[track_caller]
fn refuse(kernel: &str, rule: &str, shapes: &[(&str, (usize, usize))]) -> ! {
    let given: Vec<String> =
        shapes.iter().map(|(name, (rows, cols))| format!("{name} is {rows}x{cols}")).collect();
    panic!("{kernel}: {rule}, but {}", given.join(", "));
}
