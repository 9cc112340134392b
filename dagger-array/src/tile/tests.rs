use super::*;

const SHAPES: [(usize, usize); 12] =
    [(0, 0), (0, 5), (5, 0), (1, 1), (1, 9), (9, 1), (3, 4), (8, 8), (17, 2), (64, 64), (256, 3), (512, 2)];

/// Element (i, j) of every tile below.
fn entry(i: usize, j: usize) -> f64 {
    (1000 * i + j) as f64
}

#[test]
fn every_element_is_where_it_was_put() {
    for (rows, cols) in SHAPES {
        let mut tile = Tile::from_fn(rows, cols, entry);
        assert_eq!((tile.rows(), tile.cols()), (rows, cols));
        for j in 0..cols {
            assert_eq!(tile.col(j), (0..rows).map(|i| entry(i, j)).collect::<Vec<_>>());
            for i in 0..rows {
                assert_eq!((tile[(i, j)], tile.get(i, j)), (entry(i, j), Some(&entry(i, j))));
            }
        }
        assert!(tile.iter().copied().eq((0..cols).flat_map(|j| (0..rows).map(move |i| entry(i, j)))));
        tile.iter_mut().for_each(|element| *element += 1.0);
        assert_eq!(tile.get_mut(rows, 0), None);
        assert_eq!(tile.get(usize::MAX, usize::MAX), None);
        assert_eq!(tile.get_mut(usize::MAX, usize::MAX), None);
        if let Some(last) = tile.get_mut(rows.wrapping_sub(1), cols.wrapping_sub(1)) {
            *last = -1.0;
            assert_eq!(tile.iter().last(), Some(&-1.0));
        }
        tile.fill(3.0);
        assert!(tile.iter().eq(std::iter::repeat_n(&3.0, rows * cols)));
    }
}

#[test]
fn columns_are_an_odd_number_of_cache_lines_apart() {
    fn check<T: Element>() {
        for (rows, cols) in (0..1100).flat_map(|rows| [(rows, 0), (rows, 1), (rows, 2), (rows, 7)]) {
            let tile = Tile::<T>::zeros(rows, cols);
            let stride = tile.ld() * size_of::<T>();
            assert!(tile.ld() >= rows.max(1));
            if cols > 1 {
                assert_eq!((stride % 64, stride / 64 % 2), (0, 1), "{rows}x{cols}");
                assert!(stride < rows * size_of::<T>() + 128);
            }
            if !cfg!(miri) {
                assert_eq!(tile.as_ptr().addr() % 64, 0, "{rows}x{cols}");
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn the_pointer_is_that_of_the_first_element() {
    let mut tile = Tile::from_fn(5, 3, entry);
    assert_eq!(tile.as_ptr(), &raw const tile[(0, 0)]);
    assert_eq!(tile.as_ptr().wrapping_add(2 + tile.ld()), &raw const tile[(2, 1)]);
    assert_eq!(tile.as_mut_ptr(), &raw mut tile[(0, 0)]);
    let at = tile.as_ptr();
    let moved = Box::new(tile);
    assert_eq!(moved.as_ptr(), at);
}

#[test]
fn tiles_are_equal_by_shape_and_elements_whatever_the_padding() {
    for (rows, cols) in SHAPES {
        let tile = Tile::from_fn(rows, cols, entry);
        let mut copy = tile.clone();
        poison(&mut copy);
        assert_eq!(copy, tile);
        copy.clone_from(&tile);
        assert_eq!(copy, tile);
        assert_ne!(copy, Tile::zeros(rows + 1, cols));
        copy.clone_from(&Tile::identity(3));
        assert_eq!(copy, Tile::identity(3));
    }
    assert_ne!(Tile::<f32>::zeros(2, 3), Tile::zeros(3, 2));
    assert_ne!(Tile::<f32>::zeros(2, 2), Tile::identity(2));
}

#[test]
fn transposing_twice_changes_nothing() {
    for (rows, cols) in SHAPES {
        let tile = Tile::from_fn(rows, cols, entry);
        let transposed = tile.transpose();
        assert_eq!(transposed, Tile::from_fn(cols, rows, |i, j| entry(j, i)));
        assert_eq!(transposed.transpose(), tile);
    }
}

#[test]
fn the_shape_and_a_corner_are_shown() {
    assert_eq!(format!("{:?}", Tile::<f64>::identity(2)), "Tile<f64> 2x2 [[1.0, 0.0], [0.0, 1.0]]");
    let long = format!("{:?}", Tile::<f32>::zeros(4, 5));
    assert_eq!(long, "Tile<f32> 4x5 [[0.0, 0.0, 0.0, ..], [0.0, 0.0, 0.0, ..], [0.0, 0.0, 0.0, ..], ..]");
    assert_eq!(format!("{:?}", Tile::<f32>::zeros(0, 5)), "Tile<f32> 0x5 []");
}

#[test]
fn padding_is_out_of_range() {
    let mut tile = Tile::<f64>::zeros(3, 4);
    assert!(tile.ld() > 3);
    assert_eq!((tile.get(3, 0), tile.get(0, 4)), (None, None));
    assert_eq!(tile.get_mut(3, 0), None);
    assert_eq!(tile.get_mut(2, 3), Some(&mut 0.0));
}

#[test]
#[should_panic = "index (3, 0) is out of range for a tile of 3x4"]
fn indexing_padding_panics() {
    let _ = Tile::<f64>::zeros(3, 4)[(3, 0)];
}

#[test]
#[should_panic = "index (0, 4) is out of range for a tile of 3x4"]
fn writing_past_the_last_column_panics() {
    Tile::<f64>::zeros(3, 4)[(0, 4)] = 1.0;
}

#[test]
#[should_panic = "column 4 is out of range for a tile of 3x4"]
fn a_column_past_the_last_panics() {
    let _ = Tile::<f64>::zeros(3, 4).col(4);
}

#[test]
#[should_panic = "capacity overflow"]
fn a_size_that_overflows_panics() {
    let _ = Tile::<f64>::zeros(usize::MAX / 2, 4);
}

#[test]
#[should_panic = "capacity overflow"]
fn a_column_that_overflows_panics() {
    let _ = Tile::<f64>::zeros(usize::MAX, 2);
}

/// Everything of the tile's memory that is no element becomes NaN.
pub(crate) fn poison<T: Element>(tile: &mut Tile<T>) {
    let (rows, ld, nan) = (tile.rows, tile.ld, T::ONE / T::ZERO * T::ZERO);
    for column in tile.padded_mut().chunks_mut(ld) {
        column[rows..].fill(nan);
    }
    let (start, end) = (tile.start, tile.start + ld * tile.cols);
    tile.storage[..start].fill(nan);
    tile.storage[end..].fill(nan);
}
