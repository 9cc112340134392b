use std::io::{Seek, Write};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use proptest::prelude::*;

use super::*;

/// An open file with these bytes, and no name any more where the system allows that.
pub(in crate::store) fn file_of(bytes: &[u8]) -> File {
    static NTH: AtomicU32 = AtomicU32::new(0);
    let name = format!("dagger-format-{}-{}", std::process::id(), NTH.fetch_add(1, Relaxed));
    let path = std::env::temp_dir().join(name);
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let _ = std::fs::remove_file(path);
    file.write_all(bytes).unwrap();
    file
}

/// A file with this value.
pub(in crate::store) fn written<T>(format: &impl Format<T>, value: &T) -> File {
    let mut file = file_of(&[]);
    format.write(value, &mut file).unwrap();
    file
}

fn error<T>(result: io::Result<T>) -> String {
    result.err().expect("an error").to_string()
}

/// By hand, the way of an array that is not one of ours: a matrix of two rows that lie apart.
#[derive(Debug, PartialEq)]
struct Pair(Vec<i16>, Vec<i16>);

impl Shaped for Pair {
    type Number = i16;
    const RANK: Option<usize> = Some(2);
    fn shape(&self) -> Vec<usize> {
        vec![2, self.0.len()]
    }
    fn order(&self) -> Order {
        Order::RowMajor
    }
    fn give(&self, order: Order, to: &mut dyn FnMut(&[i16]) -> io::Result<()>) -> io::Result<()> {
        match order {
            Order::RowMajor => to(&self.0).and_then(|()| to(&self.1)),
            Order::ColumnMajor => self.0.iter().zip(&self.1).try_for_each(|(&a, &b)| to(&[a, b])),
        }
    }
    fn make(
        shape: &[usize],
        order: Order,
        fill: &mut dyn FnMut(&mut [i16]) -> io::Result<()>,
    ) -> io::Result<Pair> {
        let mut pair = Pair(vec![0; shape[1]], vec![0; shape[1]]);
        match order {
            Order::RowMajor => fill(&mut pair.0).and_then(|()| fill(&mut pair.1))?,
            Order::ColumnMajor => {
                for (a, b) in pair.0.iter_mut().zip(&mut pair.1) {
                    let mut column = [0; 2];
                    fill(&mut column)?;
                    [*a, *b] = column;
                }
            }
        }
        Ok(pair)
    }
}

#[test]
fn an_array_of_ones_own_is_held_by_every_format() {
    let pair = || Pair(vec![1, 2, 3], vec![-1, -2, -3]);
    let matrix = Raw::matrix(2, 3);
    assert_eq!(Format::<Pair>::read(&Npy, &mut written(&Npy, &pair())).unwrap(), pair());
    let mut rows = written(&matrix, &pair());
    assert_eq!(Format::<Vec<i16>>::read(&Raw, &mut rows).unwrap(), [1, 2, 3, -1, -2, -3]);
    assert_eq!(Format::<Pair>::read(&matrix, &mut rows).unwrap(), pair());
    assert_eq!(Format::<Pair>::bytes(&matrix, &mut rows).unwrap(), 12);
    let mut columns = written(&matrix.clone().column_major(), &pair());
    assert_eq!(Format::<Vec<i16>>::read(&Raw, &mut columns).unwrap(), [1, -1, 2, -2, 3, -3]);
    assert_eq!(Format::<Pair>::read(&matrix.column_major(), &mut columns).unwrap(), pair());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, ..ProptestConfig::default() })]
    #[test]
    fn vectors_come_back_from_each_format(numbers in prop::collection::vec(any::<u32>(), 0..300)) {
        let len = numbers.len();
        let (mut npy, mut raw) = (written(&Npy, &numbers), written(&Raw, &numbers));
        prop_assert_eq!(&Format::<Vec<u32>>::read(&Npy, &mut npy).unwrap(), &numbers);
        prop_assert_eq!(&Format::<Vec<u32>>::read(&Raw, &mut raw).unwrap(), &numbers);
        prop_assert_eq!(&Format::<Vec<u32>>::read(&Raw::array([len]), &mut raw).unwrap(), &numbers);
        prop_assert_eq!(Format::<Vec<u32>>::bytes(&Npy, &mut npy).unwrap(), 4 * len);
        prop_assert_eq!(Format::<Vec<u32>>::bytes(&Raw, &mut raw).unwrap(), 4 * len);
    }

    #[test]
    fn bytes_turned_around_twice_are_as_before(numbers in prop::collection::vec(any::<u64>(), 0..20)) {
        let mut turned = numbers.clone();
        u64::swap_all_bytes(&mut turned);
        prop_assert!(numbers.iter().zip(&turned).all(|(a, b)| a.swap_bytes() == *b));
        u64::swap_all_bytes(&mut turned);
        prop_assert_eq!(turned, numbers);
    }
}

#[test]
fn raw_is_any_plain_number_and_says_what_does_not_fit() {
    let points = vec![[1.0f32, 2.0], [3.0, 4.0]];
    let mut file = written(&Raw, &points);
    assert_eq!(Format::<Vec<[f32; 2]>>::read(&Raw, &mut file).unwrap(), points);
    file.write_all(&[0]).unwrap();
    let odd: io::Result<Vec<f32>> = Raw.read(&mut file);
    assert_eq!(error(odd), "the file has 17 B, asked for numbers of 4 B each");
    assert_eq!(error::<Vec<()>>(Raw.read(&mut file)), "the file has 17 B, asked for numbers of 0 B each");

    let mut file = file_of(&[0; 24]);
    let longer: io::Result<Pair> = Raw::matrix(2, 7).read(&mut file);
    assert_eq!(error(longer), "the file has 24 B, asked for shape (2, 7) of i2: 28 B");
    let absurd: io::Result<usize> = Format::<Pair>::bytes(&Raw::matrix(usize::MAX, 2), &mut file);
    assert!(error(absurd).ends_with("of i2: more than can be"));
    let flat: io::Result<Pair> = Raw::array([12]).read(&mut file);
    assert_eq!(error(flat), "stated is shape (12,), asked for rank 2");

    file.rewind().unwrap();
    let written = Raw::matrix(3, 2).write(&Pair(vec![1], vec![2]), &mut file);
    assert_eq!(error(written), "the value has shape (2, 1), stated is (3, 2)");
}
