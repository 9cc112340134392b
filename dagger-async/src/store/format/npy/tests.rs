use super::*;
use crate::store::format::tests::{file_of, written};

/// Made by NumPy, with `fixtures/make.py`.
fn numpy(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/format/npy/fixtures");
    std::fs::read(format!("{folder}/{name}.npy")).unwrap()
}

const NAMES: [&str; 15] = [
    "f8_3x4",
    "f8_3x4_fortran",
    "f8_3x4_big",
    "f8_3x4_big_fortran_v3",
    "f4_2x3x4_v2",
    "f4_2x3x4_fortran",
    "i2_5_big",
    "u1_5",
    "i1_5",
    "u8_5",
    "bool_5",
    "i4_scalar",
    "f8_0x5",
    "records",
    "complex",
];

/// Any rank, and its numbers by rows or columns, as the file has them.
#[derive(Debug, PartialEq)]
struct Any<E>(Vec<usize>, Order, Vec<E>);

impl<E: Number> Shaped for Any<E> {
    type Number = E;
    const RANK: Option<usize> = None;
    fn shape(&self) -> Vec<usize> {
        self.0.clone()
    }
    fn order(&self) -> Order {
        self.1
    }
    fn give(&self, order: Order, to: &mut dyn FnMut(&[E]) -> io::Result<()>) -> io::Result<()> {
        assert_eq!(order, self.1);
        to(&self.2)
    }
    fn make(
        shape: &[usize],
        order: Order,
        fill: &mut dyn FnMut(&mut [E]) -> io::Result<()>,
    ) -> io::Result<Any<E>> {
        let numbers = Vec::make(&[shape.iter().product()], order, fill)?;
        Ok(Any(shape.to_vec(), order, numbers))
    }
}

fn read<T: Shaped>(bytes: &[u8]) -> io::Result<T> {
    Npy.read(&mut file_of(bytes))
}

fn error<T: Shaped>(bytes: &[u8]) -> String {
    let error = read::<T>(bytes).err().expect("an error");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    error.to_string()
}

#[test]
fn what_numpy_wrote_is_read() {
    use Order::{ColumnMajor, RowMajor};
    fn is<E: Number + PartialEq + std::fmt::Debug>(name: &str, shape: &[usize], order: Order, numbers: &[E]) {
        let any: Any<E> = read(&numpy(name)).unwrap();
        assert_eq!(any, Any(shape.to_vec(), order, numbers.to_vec()), "{name}");
        // Written again, it is the same array.
        let mut file = written(&Npy, &any);
        assert_eq!(Format::<Any<E>>::read(&Npy, &mut file).unwrap(), any, "{name}");
        assert_eq!(Format::<Any<E>>::bytes(&Npy, &mut file).unwrap(), size_of_val(numbers), "{name}");
    }
    let rows: Vec<f64> = (0..12).map(|k| f64::from(k - 2) * 1.5).collect();
    let columns: Vec<f64> = (0..12).map(|k| rows[k % 3 * 4 + k / 3]).collect();
    is("f8_3x4", &[3, 4], RowMajor, &rows);
    is("f8_3x4_fortran", &[3, 4], ColumnMajor, &columns);
    is("f8_3x4_big", &[3, 4], RowMajor, &rows);
    is("f8_3x4_big_fortran_v3", &[3, 4], ColumnMajor, &columns);
    let cube: Vec<f32> = (0..24i16).map(|k| f32::from(k - 2) * 1.5).collect();
    let turned: Vec<f32> = (0..24).map(|k| cube[k % 2 * 12 + k / 2 % 3 * 4 + k / 6]).collect();
    is("f4_2x3x4_v2", &[2, 3, 4], RowMajor, &cube);
    is("f4_2x3x4_fortran", &[2, 3, 4], ColumnMajor, &turned);
    is::<i16>("i2_5_big", &[5], RowMajor, &[-2, -1, 0, 1, 2]);
    is::<u8>("u1_5", &[5], RowMajor, &[0, 1, 2, 3, 4]);
    is::<i8>("i1_5", &[5], RowMajor, &[-2, -1, 0, 1, 2]);
    is::<u64>("u8_5", &[5], RowMajor, &[0, 1, 2, 3, 4]);
    is::<u8>("bool_5", &[5], RowMajor, &[0, 1, 1, 1, 1]);
    is::<i32>("i4_scalar", &[], RowMajor, &[-2]);
    is::<f64>("f8_0x5", &[0, 5], RowMajor, &[]);
}

#[test]
fn a_mismatch_says_what_there_is_and_what_was_asked() {
    let asked = |name, expected: &str| assert_eq!(error::<Vec<f64>>(&numpy(name)), expected);
    asked("f8_3x4", "the file has f8 in shape (3, 4), asked for f8 of rank 1");
    asked("i2_5_big", "the file has >i2 in shape (5,), asked for f8 of rank 1");
    asked("i4_scalar", "the file has i4 in shape (), asked for f8 of rank 1");
    asked("complex", "the file has c16 in shape (2,), asked for f8 of rank 1");
    let text = error::<Vec<f64>>(&numpy("records"));
    assert!(text.starts_with("no .npy header: no string (records are not read) at byte 10 of {'descr': [("));
    assert_eq!(error::<Any<u8>>(&numpy("i1_5")), "the file has |i1 in shape (5,), asked for u1 of any rank");
    assert_eq!(error::<Vec<f64>>(b"PK\x03\x04 a zip"), "no .npy file: it does not start with \\x93NUMPY");
    assert_eq!(error::<Vec<f64>>(b""), "no .npy file: it ends within the header");

    let mut bytes = numpy("f8_3x4");
    bytes.pop();
    let text = error::<Any<f64>>(&bytes);
    assert_eq!(text, "the file has 95 B of data, its shape (3, 4) of f8 is 96 B");
    bytes.extend([0; 2]);
    let text = error::<Any<f64>>(&bytes);
    assert_eq!(text, "the file has 97 B of data, its shape (3, 4) of f8 is 96 B");
    bytes[6] = 4;
    assert_eq!(error::<Any<f64>>(&bytes), "version 4 of the .npy format, of which 1 to 3 are read");
    bytes[6] = 2;
    assert_eq!(error::<Any<f64>>(&bytes), "a .npy header of 662372470 B, where 1048576 would be very long");
}

#[test]
fn every_cut_and_every_changed_byte_is_an_error_or_an_array_of_the_size_of_the_file() {
    fn whatever<E: Number>(bytes: &[u8]) {
        if let Ok(Any(shape, _, numbers)) = read::<Any<E>>(bytes) {
            assert!(size_of_val(&*numbers) < bytes.len());
            assert_eq!(shape.iter().product::<usize>(), numbers.len());
        }
    }
    for name in NAMES {
        let bytes = numpy(name);
        for end in 0..bytes.len() {
            assert!(read::<Any<f64>>(&bytes[..end]).is_err(), "{name} to {end}");
        }
        for at in 0..bytes.len().min(130) {
            for value in [0, b'9', b'(', b'}', b'\'', b' ', bytes[at] ^ 1, bytes[at] ^ 0x80] {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                whatever::<f64>(&bytes);
                whatever::<u8>(&bytes);
            }
        }
    }
}

#[test]
fn every_byte_of_a_header_may_be_anything() {
    let text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4L), }   \n";
    assert!(parse(text).is_ok());
    for (at, value) in (0..text.len()).flat_map(|at| (0..=u8::MAX).map(move |value| (at, value))) {
        let mut text = *text;
        text[at] = value;
        let _ = parse(&text); // it returns
        let _ = parse(&text[..at]);
    }
}

#[test]
fn a_shape_that_cannot_be_is_an_error_before_memory_is_asked_for() {
    let file = |shape: &str| {
        let text = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}");
        [&b"\x93NUMPY\x01\x00"[..], &(text.len() as u16).to_le_bytes(), text.as_bytes(), &[0; 8]].concat()
    };
    let text = |shape| error::<Any<f64>>(&file(shape));
    assert_eq!(
        text("(1099511627776,)"),
        "the file has 8 B of data, its shape (1099511627776,) of f8 is 8796093022208 B"
    );
    assert!(text("(4294967296, 4294967296)").ends_with("is more than can be"));
    assert!(text("(18446744073709551615, 1)").ends_with("is more than can be"));
    assert!(text("(18446744073709551616,)").contains("a length that is no number, or too large at byte"));
    assert!(text("(0, 18446744073709551615, 7)").ends_with("is 0 B"));
    assert_eq!(read::<Any<f64>>(&file("(1,)")).unwrap(), Any(vec![1], Order::RowMajor, vec![0.0]));
}

#[test]
fn literals_are_read_in_any_layout_and_nothing_else_is() {
    let literal =
        |shape: &[usize]| Literal { descr: "<f8".into(), order: Order::RowMajor, shape: shape.to_vec() };
    let read = |text: &str| parse(text.as_bytes()).map_err(|error| error.to_string());
    for text in [
        "{'shape':(3,4),'descr':'<f8','fortran_order':False}",
        "{ \"descr\" : \"<f8\" ,\n 'fortran_order' :False, 'shape' : ( 3L , 4L , ) , } \n",
    ] {
        assert_eq!(read(text).unwrap(), literal(&[3, 4]), "{text}");
    }
    for text in [
        "",
        "{}",
        "{'descr': '<f8', 'fortran_order': False}",
        "{'descr': '<f8', 'descr': '<f8', 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), 'more': 1}",
        "{'descr': '<f8', 'fortran_order': 0, 'shape': (3,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-3,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (3 4)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': [3]}",
        "{'descr': '\\x3cf8', 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (3,)} and more",
        "{'descr': '<f8' 'fortran_order': False 'shape': (3,)}",
        "{'descr': '<f8",
    ] {
        assert!(read(text).is_err(), "{text}");
    }
    let Err(error) = read("{'shape': 3}") else { panic!("an error") };
    assert_eq!(error, "no .npy header: a bracket, comma or colon is missing at byte 10 of {'shape': 3}");
}

#[test]
fn headers_end_at_a_multiple_of_64_and_long_ones_are_of_version_2() {
    let version = |rank: usize| {
        let header = header::<u8>(Order::ColumnMajor, &vec![1; rank]).unwrap();
        assert_eq!((header.len() % 64, header.last()), (0, Some(&b'\n')));
        header[6]
    };
    assert_eq!((0..100).map(version).max(), Some(1));
    assert_eq!((version(20_000), version(30_000)), (1, 2));
    let long = Any(vec![1; 30_000], Order::ColumnMajor, vec![7u16]);
    assert_eq!(Format::<Any<u16>>::read(&Npy, &mut written(&Npy, &long)).unwrap(), long);
    let longer = Any(vec![1; 1_000_000], Order::RowMajor, vec![7u16]);
    let error = Npy.write(&longer, &mut file_of(&[])).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}
