//! Values of any type that `serde` can take apart: [`Serde`].
//!
//! ```text
//!   length     u64, little-endian: bytes that follow
//!   value      as `postcard` writes it
//! ```
//! The length is counted first, in a pass that writes nothing, so that spilling needs no memory for the bytes: there is none
//! to spare when it happens.

use std::io::{self, BufWriter, Read, Write};
use std::ops::{Deref, DerefMut};

use postcard::ser_flavors::Size;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::spill::{Spill, read_len, zeroed};

/// A value that leaves memory by way of `serde`.
///
/// For values that are no plain numbers. Taking them apart runs at a few hundred megabytes a second at best where numbers go at
/// the speed of the disk, so implement [`Spill`] for what is large. Register the type once:
///
/// ```
/// use dagger_async::prelude::*;
/// use dagger_async::store::{self, Serde};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Word { text: String, count: u32 }
///
/// store::register::<Serde<Vec<Word>>>();
/// let words = Chunk::new(Serde(vec![Word { text: "tile".into(), count: 3 }]));
/// # drop(words);
/// ```
///
/// Not for types that ask their reader what comes next (`serde_json::Value`, untagged enums, flattened or skipped fields):
/// `postcard` writes no names and no types, so they are written and cannot be read again.
///
/// Its size in memory is not known, and estimated as that of what it writes: near for text and floating-point numbers; a
/// quarter or less of it for small integers in wide types, which are written short, and for maps. Estimating costs a pass over
/// the value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serde<T>(pub T);

impl<T> Deref for Serde<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Serde<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Spill for Serde<T> {
    fn bytes(&self) -> usize {
        // A value that cannot be written does not leave; it counts as nothing.
        written_len(&self.0).unwrap_or(0)
    }

    fn spill(&self, to: &mut dyn Write) -> io::Result<()> {
        let len = written_len(&self.0)? as u64;
        to.write_all(&len.to_le_bytes())?;
        let mut counted = Counted { to: BufWriter::with_capacity(256 << 10, to), len: 0, error: None };
        let written = postcard::to_io(&self.0, &mut counted).map(drop);
        // `postcard` has one error for all that writing can come to.
        counted.error.map_or(Ok(()), Err)?;
        written.map_err(invalid)?;
        counted.to.flush()?;
        if counted.len != len {
            return Err(invalid(format!("{} B written, which were {len} B just before", counted.len)));
        }
        Ok(())
    }

    fn reload(from: &mut dyn Read) -> io::Result<Serde<T>> {
        let mut bytes = zeroed::<u8>(read_len(from)?)?;
        from.read_exact(&mut bytes)?;
        let (value, rest) = postcard::take_from_bytes(&bytes).map_err(invalid)?;
        if !rest.is_empty() {
            return Err(invalid(format!("{} B are left after the value", rest.len())));
        }
        Ok(Serde(value))
    }
}

/// How many bytes the value is, written.
fn written_len(value: &impl Serialize) -> io::Result<usize> {
    postcard::serialize_with_flavor(value, Size::default()).map_err(invalid)
}

/// Counts what is written, and keeps the error.
struct Counted<W> {
    to: W,
    len: u64,
    error: Option<io::Error>,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.to.write(bytes) {
            Ok(len) => {
                self.len += len as u64;
                Ok(len)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.error = Some(error);
                Err(kind.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Empty,
        Point(f64, i8),
        Named { name: String, of: Vec<Option<u32>> },
    }
    type Value = BTreeMap<String, Vec<Shape>>;

    fn values() -> impl Strategy<Value = Value> {
        let shape = prop_oneof![
            Just(Shape::Empty),
            (any::<f64>(), any::<i8>()).prop_map(|(x, y)| Shape::Point(if x.is_nan() { 0.0 } else { x }, y)),
            (".{0,20}", prop::collection::vec(any::<Option<u32>>(), 0..5))
                .prop_map(|(name, of)| Shape::Named { name, of }),
        ];
        prop::collection::btree_map(".{0,9}", prop::collection::vec(shape, 0..9), 0..9)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
        #[test]
        fn a_value_comes_back_and_cuts_and_changes_are_no_panic(value in values(), seed in any::<(u16, u8)>()) {
            let mut bytes = Vec::new();
            Serde(value.clone()).spill(&mut bytes).unwrap();
            prop_assert_eq!(bytes.len(), 8 + Serde(value.clone()).bytes());
            let mut rest = &*bytes;
            prop_assert_eq!(&*Serde::<Value>::reload(&mut rest).unwrap(), &value);
            prop_assert!(rest.is_empty());

            let end = usize::from(seed.0) % bytes.len();
            let cut = Serde::<Value>::reload(&mut &bytes[..end]).unwrap_err();
            prop_assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
            bytes[end] = seed.1;
            let _ = Serde::<Value>::reload(&mut &*bytes); // whatever it is, it returns
        }
    }

    #[test]
    fn the_reason_of_a_failed_write_arrives() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::new(io::ErrorKind::StorageFull, "no room"))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        // Past the eight bytes of the length, within the value and at its end.
        struct After(usize);
        impl Write for After {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if self.0 == 0 {
                    return Full.write(bytes);
                }
                let len = bytes.len().min(self.0);
                self.0 -= len;
                Ok(len)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let value = Serde(vec!["0123456789".to_owned(); 100_000]);
        for room in [0, 8, 9, 1_000_000] {
            let error = value.spill(&mut After(room)).unwrap_err();
            assert_eq!(
                (error.kind(), &*error.to_string()),
                (io::ErrorKind::StorageFull, "no room"),
                "{room}"
            );
        }
    }

    #[test]
    fn more_or_less_than_the_value_is_an_error() {
        let mut bytes = Vec::new();
        Serde(7u8).spill(&mut bytes).unwrap();
        assert_eq!(bytes, [1, 0, 0, 0, 0, 0, 0, 0, 7]);
        let error = Serde::<(u8, u8)>::reload(&mut &*bytes).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        bytes[0] = 2;
        bytes.push(9);
        let error = Serde::<u8>::reload(&mut &*bytes).unwrap_err();
        assert_eq!(error.to_string(), "1 B are left after the value");
        let error = Serde::<u8>::reload(&mut &[0xff; 20][..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
    }
}
