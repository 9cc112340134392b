//! How values leave memory and come back: [`Spill`], and which types are known to.
//!
//! A chunk takes any type, so whether its value can leave is looked up by the type when the chunk is made: numeric vectors
//! and strings are known from the start, others once they are [registered](register).

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::{LazyLock, RwLock};

/// A value that can be written down, dropped, and made again of what was written.
///
/// Implemented for vectors of plain numbers ([`bytemuck::Pod`]), for plain values, `String`, with the feature `ndarray` for its arrays and
/// with the feature `serde` for what is wrapped in `Serde`; a type of your own is [registered](register) once.
///
/// What a task changes through `&T` (a lock or a cell inside) may be lost: a value that was only read is not written again.
pub trait Spill: Send + Sync + Sized + 'static {
    /// Bytes of memory that the value occupies beside itself (beyond its `size_of`). Asked when the value comes into a chunk and
    /// after each access that may write all of it, so it should be quick; growth through a field is seen at the next of these.
    fn bytes(&self) -> usize;

    /// Writes the value. Large pieces are best written by one `write_all` each: they go to the disk from where they lie.
    ///
    /// # Errors
    /// What `to` gives, and [`io::ErrorKind::InvalidData`] for a value that cannot be written.
    fn spill(&self, to: &mut dyn Write) -> io::Result<()>;

    /// Reads what [`spill`](Spill::spill) has written. Large pieces are best read by one `read_exact` each.
    ///
    /// # Errors
    /// What `from` gives, and [`io::ErrorKind::InvalidData`] for what no value of this type has written.
    fn reload(from: &mut dyn Read) -> io::Result<Self>;
}

impl<E: bytemuck::Pod + Send + Sync> Spill for Vec<E> {
    fn bytes(&self) -> usize {
        self.capacity() * size_of::<E>()
    }
    fn spill(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&(self.len() as u64).to_le_bytes())?;
        to.write_all(bytemuck::cast_slice(self))
    }
    fn reload(from: &mut dyn Read) -> io::Result<Self> {
        let mut value = zeroed::<E>(read_len(from)?)?;
        from.read_exact(bytemuck::cast_slice_mut(&mut value))?;
        Ok(value)
    }
}

impl Spill for String {
    fn bytes(&self) -> usize {
        self.capacity()
    }
    fn spill(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&(self.len() as u64).to_le_bytes())?;
        to.write_all(self.as_bytes())
    }
    fn reload(from: &mut dyn Read) -> io::Result<Self> {
        let mut bytes = zeroed::<u8>(read_len(from)?)?;
        from.read_exact(&mut bytes)?;
        String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// Plain values, for those who write what has some of them. Chunks of them stay in memory.
macro_rules! plain_values {
    ($($number:ty)*) => { $(
        impl Spill for $number {
            fn bytes(&self) -> usize {
                0
            }
            fn spill(&self, to: &mut dyn Write) -> io::Result<()> {
                to.write_all(&self.to_le_bytes())
            }
            fn reload(from: &mut dyn Read) -> io::Result<Self> {
                let mut bytes = [0; size_of::<$number>()];
                from.read_exact(&mut bytes)?;
                Ok(<$number>::from_le_bytes(bytes))
            }
        }
    )* };
}
plain_values!(u8 i8 u16 i16 u32 i32 u64 i64 u128 i128 usize isize f32 f64);

impl Spill for () {
    fn bytes(&self) -> usize {
        0
    }
    fn spill(&self, _to: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
    fn reload(_from: &mut dyn Read) -> io::Result<Self> {
        Ok(())
    }
}

impl Spill for bool {
    fn bytes(&self) -> usize {
        0
    }
    fn spill(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&[u8::from(*self)])
    }
    fn reload(from: &mut dyn Read) -> io::Result<Self> {
        match u8::reload(from)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{other} is no `bool`"))),
        }
    }
}

pub(super) fn read_len(from: &mut dyn Read) -> io::Result<usize> {
    let mut len = [0; 8];
    from.read_exact(&mut len)?;
    usize::try_from(u64::from_le_bytes(len))
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Zeros that are not touched yet; a length that cannot be is an error, not an abort.
pub(super) fn zeroed<E: bytemuck::Pod>(len: usize) -> io::Result<Vec<E>> {
    let box_of = bytemuck::allocation::try_zeroed_slice_box::<E>(len);
    box_of.map(Vec::from).map_err(|()| io::Error::from(io::ErrorKind::OutOfMemory))
}

/// What is known of a type whose values lie in chunks.
pub(crate) struct SpillType {
    /// As [`Spill::bytes`].
    ///
    /// # Safety
    /// The pointer leads to a value of the type that nobody writes meanwhile.
    pub(crate) bytes: unsafe fn(*const u8) -> usize,
    /// Moves a value out of its place.
    ///
    /// # Safety
    /// The pointer leads to a value of the type, which is the caller's; it is not used there again.
    pub(crate) take: unsafe fn(*mut u8) -> Box<dyn Any + Send>,
    /// `None`: it is counted, and never leaves.
    pub(crate) moves: Option<Moves>,
    /// Nobody has told how large it is.
    pub(crate) is_unknown: bool,
}

/// How values of a type leave memory and come back.
#[derive(Clone, Copy)]
pub(crate) struct Moves {
    /// # Safety
    /// As for `bytes`.
    pub(crate) spill: unsafe fn(*const u8, &mut dyn Write) -> io::Result<()>,
    /// Makes a value at a place that has none.
    ///
    /// # Safety
    /// The pointer leads to room for a value of the type, which is the caller's.
    pub(crate) reload: unsafe fn(*mut u8, &mut dyn Read) -> io::Result<()>,
}

type Registry = HashMap<TypeId, &'static SpillType>;

static KNOWN: LazyLock<RwLock<Registry>> = LazyLock::new(|| {
    let mut known = Registry::new();
    macro_rules! plain {
        ($($element:ty)*) => { $( add::<Vec<$element>>(&mut known); )* };
    }
    plain!(u8 i8 u16 i16 u32 i32 u64 i64 u128 i128 usize isize f32 f64);
    add::<String>(&mut known);
    #[cfg(feature = "ndarray")]
    {
        use ndarray::{Array1, Array2, Array3, ArrayD};
        macro_rules! arrays {
            ($($element:ty)*) => { $(
                add::<Array1<$element>>(&mut known);
                add::<Array2<$element>>(&mut known);
                add::<Array3<$element>>(&mut known);
                add::<ArrayD<$element>>(&mut known);
            )* };
        }
        arrays!(u8 u32 i32 u64 i64 f32 f64);
    }
    RwLock::new(known)
});

fn add<T: Spill>(known: &mut Registry) {
    let of = const {
        &SpillType {
            // SAFETY: the caller's promise.
            bytes: |value| unsafe { (*value.cast::<T>()).bytes() },
            // SAFETY: the caller's promise.
            take: |value| Box::new(unsafe { value.cast::<T>().read() }),
            moves: Some(Moves {
                // SAFETY: the caller's promise.
                spill: |value, to| unsafe { (*value.cast::<T>()).spill(to) },
                reload: |room, from| {
                    let value = T::reload(from)?;
                    // SAFETY: the caller's promise.
                    unsafe { room.cast::<T>().write(value) };
                    Ok(())
                },
            }),
            is_unknown: false,
        }
    };
    known.insert(TypeId::of::<T>(), of);
}

/// Makes known that chunks of `T` can leave memory.
///
/// Numeric vectors and strings are known from the start. Cheap to repeat.
pub fn register<T: Spill>() {
    let known = KNOWN.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    if known.get(&TypeId::of::<T>()).is_none_or(|known| known.moves.is_none()) {
        drop(known);
        add::<T>(&mut KNOWN.write().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

/// How many bytes a value occupies beside itself: what [`register_size`] is told of a type that cannot leave memory.
pub trait SizeOf: Send + Sync + 'static {
    /// Bytes of memory beyond `size_of`.
    fn bytes(&self) -> usize;
}

/// Makes known how large values of `T` are, which cannot leave memory: they are counted. Without it a value counts as its
/// `size_of`.
pub fn register_size<T: SizeOf>() {
    let mut known = KNOWN.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    let of = const {
        &SpillType {
            // SAFETY: the caller's promise.
            bytes: |value| unsafe { (*value.cast::<T>()).bytes() } + size_of::<T>(),
            // SAFETY: the caller's promise.
            take: |value| Box::new(unsafe { value.cast::<T>().read() }),
            moves: None,
            is_unknown: false,
        }
    };
    known.entry(TypeId::of::<T>()).or_insert(of);
}

/// What is known of a type.
pub(crate) fn known<T: Send + Sync + 'static>() -> &'static SpillType {
    let known = KNOWN.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    let unknown = const {
        &SpillType {
            bytes: |_| size_of::<T>(),
            // SAFETY: the caller's promise.
            take: |value| Box::new(unsafe { value.cast::<T>().read() }),
            moves: None,
            is_unknown: true,
        }
    };
    known.get(&TypeId::of::<T>()).copied().unwrap_or(unknown)
}

/// How results of a type, which may be a plain value, too, are written and read, if that is known.
pub(crate) fn moves_of_result(of: TypeId) -> Option<Moves> {
    static PLAIN: LazyLock<Registry> = LazyLock::new(|| {
        let mut known = Registry::new();
        macro_rules! plain {
            ($($value:ty),*) => { $( add::<$value>(&mut known); )* };
        }
        plain!(u8, i8, u16, i16, u32, i32, u64, i64, u128, i128, usize, isize, f32, f64, bool, ());
        known
    });
    let known = KNOWN.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(&of).copied();
    known.and_then(|known| known.moves).or_else(|| PLAIN.get(&of).and_then(|known| known.moves))
}

/// Values of fewer bytes stay in memory: an object of its own costs more than they do.
pub(crate) const SMALL: usize = 4096;
