//! The matrix, and whether a factor is one of it: plain functions that know of no tasks.
//!
//! A is symmetric, with elements in -½..½ that look like noise and a diagonal of (n + 1)/2, which outweighs each row: so it is
//! positive definite, by Gershgorin. Any tile can be made at any time, and none is alike another: one that was lost, or mixed up,
//! shows in the residual.

use std::ops::Range;

use dagger_array::Tile;

/// A number in -½..½ that depends on the place.
fn noise(which: u64, i: usize, j: usize) -> f64 {
    let mixed = which << 60 ^ (i as u64) << 30 ^ j as u64;
    let mixed = mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xD1B5_4A32_D192_ED03);
    ((mixed >> 11) as i64 - (1 << 52)) as f64 / (1u64 << 53) as f64
}

/// Element (i, j) of A, of order `n`.
fn element(n: usize, i: usize, j: usize) -> f64 {
    if i == j { (n as f64 + 1.0) / 2.0 } else { noise(0, i.max(j), i.min(j)) }
}

/// A tile of A.
pub(crate) fn tile(n: usize, rows: Range<usize>, cols: Range<usize>) -> Tile<f64> {
    Tile::from_fn(rows.len(), cols.len(), |r, c| element(n, rows.start + r, cols.start + c))
}

/// The vector x on which the factor is tried.
pub(crate) fn probe(n: usize) -> Vec<f64> {
    (0..n).map(|i| noise(1, i, 0)).collect()
}

/// The largest absolute value.
pub(crate) fn largest(x: &[f64]) -> f64 {
    x.iter().fold(0.0, |largest, x| largest.max(x.abs()))
}

/// Rows of A·x, and the largest sum of absolute values of a row, from the elements of A.
pub(crate) fn rows_of_product(rows: Range<usize>, x: &[f64]) -> (Vec<f64>, f64) {
    let n = x.len();
    let mut norm = 0f64;
    let row = |i| {
        let (mut product, mut sum) = (0.0, 0.0);
        for (j, x) in x.iter().enumerate() {
            let a = element(n, i, j);
            product += a * x;
            sum += a.abs();
        }
        norm = norm.max(sum);
        product
    };
    let products = rows.map(row).collect();
    (products, norm)
}

/// The rows of column `c` of a tile of L that are not above its diagonal.
fn stored(l: &Tile<f64>, on_diagonal: bool, c: usize) -> Range<usize> {
    if on_diagonal { c..l.rows() } else { 0..l.rows() }
}

/// y ← y + Lᵀ·x, for one tile.
pub(crate) fn add_transposed_product(l: &Tile<f64>, on_diagonal: bool, x: &[f64], y: &mut [f64]) {
    for (c, y) in y.iter_mut().enumerate() {
        let rows = stored(l, on_diagonal, c);
        *y += l.col(c)[rows.clone()].iter().zip(&x[rows]).map(|(l, x)| l * x).sum::<f64>();
    }
}

/// z ← z + L·y, for one tile.
pub(crate) fn add_product(l: &Tile<f64>, on_diagonal: bool, y: &[f64], z: &mut [f64]) {
    for (c, y) in y.iter().enumerate() {
        let rows = stored(l, on_diagonal, c);
        z[rows.clone()].iter_mut().zip(&l.col(c)[rows]).for_each(|(z, l)| *z += l * y);
    }
}

/// A number that changes with every bit of the tile's part of L.
pub(crate) fn checksum(l: &Tile<f64>, on_diagonal: bool) -> u64 {
    let mut sum = 0;
    for c in 0..l.cols() {
        l.col(c)[stored(l, on_diagonal, c)].iter().for_each(|l| sum = mix(sum, l.to_bits()));
    }
    sum
}

/// One more number, in order.
pub(crate) fn mix(sum: u64, next: u64) -> u64 {
    (sum.rotate_left(5) ^ next).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_diagonal_outweighs_every_row_and_tiles_are_pieces_of_one_symmetric_matrix() {
        let n = 70;
        for i in 0..n {
            let others: f64 = (0..n).filter(|&j| j != i).map(|j| element(n, i, j).abs()).sum();
            assert!(element(n, i, i) > others, "row {i}");
        }
        let (one, other) = (tile(n, 8..24, 40..70), tile(n, 40..70, 8..24));
        assert_eq!(one, other.transpose());
        assert!(one.iter().all(|a| a.abs() <= 0.5) && one[(0, 0)] != one[(1, 0)]);
    }

    #[test]
    fn products_leave_out_what_lies_above_the_diagonal() {
        let l = Tile::from_fn(2, 2, |i, j| [[2.0, f64::NAN], [3.0, 5.0]][i][j]);
        let (mut y, mut z) = (vec![1.0, 0.0], vec![0.0, 1.0]);
        add_transposed_product(&l, true, &[10.0, 1.0], &mut y);
        assert_eq!(y, [24.0, 5.0]);
        add_product(&l, true, &y, &mut z);
        assert_eq!(z, [48.0, 98.0]);
        let below = Tile::from_fn(1, 2, |_, j| [2.0, 3.0][j]);
        let mut y = vec![0.0, 0.0];
        add_transposed_product(&below, false, &[10.0], &mut y);
        assert_eq!(y, [20.0, 30.0]);
        assert_eq!(rows_of_product(1..2, &[0.0, 2.0]), (vec![3.0], 1.5 + element(2, 0, 1).abs()));
    }

    #[test]
    fn a_checksum_sees_every_stored_bit_and_their_order() {
        let of = |a: f64, b: f64, above: f64| {
            checksum(&Tile::from_fn(2, 2, |i, j| [[a, above], [b, 1.0]][i][j]), true)
        };
        assert_eq!(of(1.0, 2.0, 3.0), of(1.0, 2.0, 4.0));
        assert_ne!(of(1.0, 2.0, 3.0), of(2.0, 1.0, 3.0));
        assert_ne!(of(1.0, 2.0, 3.0), of(1.0, f64::from_bits(2f64.to_bits() + 1), 3.0));
    }
}
