use ndarray::{Array1, Array2, Array3, ArrayD, Axis, Ix0, Ix4, IxDyn, s};
use proptest::prelude::*;

use super::*;
use crate::store::format::tests::written;
use crate::store::{Format, Npy, Raw};

fn comes_back<D: Dimension + 'static>(array: Array<f64, D>) {
    let mut bytes = Vec::new();
    array.spill(&mut bytes).unwrap();
    let mut rest = &*bytes;
    let back = Array::<f64, D>::reload(&mut rest).unwrap();
    assert_eq!(back, array);
    assert!(rest.is_empty());
    assert_eq!(order_of(&back.view()), order_of(&array.view()));
    assert_eq!(Spill::bytes(&back), 8 * array.len());
    for end in [0, 7, 8, 15, 16, bytes.len() - 1] {
        let cut = Array::<f64, D>::reload(&mut &bytes[..end.min(bytes.len() - 1)]).unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }

    let mut npy = written(&Npy, &array);
    let back: Array<f64, D> = Npy.read(&mut npy).unwrap();
    assert_eq!(back, array);
    assert_eq!(order_of(&back.view()), order_of(&array.view()));
    let raw = Raw::array(array.shape());
    for raw in [raw.clone(), raw.column_major()] {
        let back: Array<f64, D> = raw.read(&mut written(&raw, &array)).unwrap();
        assert_eq!(back, array);
    }
}

fn numbers<D: Dimension>(shape: impl ShapeBuilder<Dim = D>) -> Array<f64, D> {
    let mut next = 0.0;
    Array::from_shape_simple_fn(shape, || {
        next += 1.0;
        next
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn an_array_of_any_rank_and_order_comes_back(lens in (0usize..5, 0usize..6, 0usize..7), column_major: bool) {
        let (a, b, c) = lens;
        comes_back(numbers(a));
        comes_back(numbers((a, b).set_f(column_major)));
        comes_back(numbers((a, b, c).set_f(column_major)));
        comes_back(numbers(IxDyn(&[a, b, c]).set_f(column_major)));
        comes_back(numbers(IxDyn(&[])));
        comes_back(numbers(Ix0()));
        comes_back(numbers(Ix4(b, 1, a, 2).set_f(column_major)));
        // Neither order: another permutation, with gaps, and backwards.
        comes_back(numbers((a, b, c)).permuted_axes([1, 0, 2]));
        comes_back(numbers((a + 1, 2 * b)).slice_move(s![1.., ..;2]));
        let mut backwards = numbers((a, b));
        backwards.invert_axis(Axis(0));
        comes_back(backwards);
    }

    #[test]
    fn what_no_array_has_written_is_an_error(
        numbers in prop::collection::vec(prop_oneof![0u64..4, any::<u64>()], 0..9),
    ) {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        fn whatever<D: Dimension + 'static>(bytes: &[u8]) {
            let array = Array::<u8, D>::reload(&mut &*bytes);
            assert!(array.is_err() || array.is_ok_and(|array| array.len() <= bytes.len()));
        }
        whatever::<ndarray::Ix1>(&bytes);
        whatever::<ndarray::Ix2>(&bytes);
        whatever::<ndarray::Ix3>(&bytes);
        whatever::<IxDyn>(&bytes);
    }
}

#[test]
fn elements_that_lie_without_gaps_are_one_piece() {
    let count = |array: &Array2<f64>, order| {
        let mut count = 0;
        pieces(array.view(), order, &mut |_| {
            count += 1;
            Ok(())
        })
        .unwrap();
        count
    };
    let rows = Array2::<f64>::zeros((1000, 1000));
    let columns = Array2::<f64>::zeros((1000, 1000).f());
    assert_eq!((count(&rows, Order::RowMajor), count(&columns, Order::ColumnMajor)), (1, 1));
    assert_eq!((count(&rows, Order::ColumnMajor), count(&columns, Order::RowMajor)), (31, 31));
    comes_back(columns.slice_move(s![..900, ..]));
}

#[test]
fn other_ranks_and_numbers_are_not_read() {
    let mut npy = written(&Npy, &Array2::<f32>::zeros((2, 3).f()));
    let cube: io::Result<Array3<f32>> = Npy.read(&mut npy);
    assert_eq!(cube.unwrap_err().to_string(), "the file has f4 in shape (2, 3), asked for f4 of rank 3");
    let whole: io::Result<ArrayD<u32>> = Npy.read(&mut npy);
    assert_eq!(whole.unwrap_err().to_string(), "the file has f4 in shape (2, 3), asked for u4 of any rank");

    let mut bytes = Vec::new();
    Array2::<f32>::zeros((2, 3)).spill(&mut bytes).unwrap();
    let text = Array1::<f32>::reload(&mut &*bytes).unwrap_err().to_string();
    assert_eq!(text, "no array of this type: its rank is 2");
    bytes[0] = 2;
    let text = Array2::<f32>::reload(&mut &*bytes).unwrap_err().to_string();
    assert_eq!(text, "no array: 2 for the order of its elements");
}
