//! NumPy's `.npy`.
//!
//! ```text
//!   \x93NUMPY  1 0  118 0   {'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }     ..\n   numbers
//!              version, and how long the rest of the header is, which ends so that numbers start at a multiple of 64
//! ```
//! The header is a Python literal; [`parse`] takes what any version of NumPy writes and no other Python.
//!
//! Crates that read such files (`ndarray-npy`, `npyz`) bring a grammar of Python literals with them, of which this is all that
//! is needed, and read into containers of their own.

use std::fs::File;
use std::io::{self, Read, Seek, Write};

use super::{Format, Number, Order, Shaped, Tuple, invalid};

/// NumPy's `.npy`: an array of numbers with its type, shape and order, read and written by every tool for arrays.
///
/// Holds whatever is [`Shaped`]. The type of the numbers and the rank must be those of the value; bytes in the other order are
/// turned around, and NumPy's `bool` is read as `u8`. Versions 1 to 3 of the format are read, in either order of the numbers;
/// written is version 1, in the order that the value has them in.
///
/// Reading asks for the memory of the value and fills it from the file without anything between.
///
/// ```
/// use dagger_async::store::{Format, Npy};
///
/// # fn main() -> std::io::Result<()> {
/// # let path = std::env::temp_dir().join(format!("dagger-doc-{}.npy", std::process::id()));
/// Npy.write(&vec![1.0f64, 2.0, 3.0], &mut std::fs::File::create(&path)?)?;
///
/// let mut file = std::fs::File::open(&path)?;
/// assert_eq!(Format::<Vec<f64>>::bytes(&Npy, &mut file)?, 24);
/// let numbers: Vec<f64> = Npy.read(&mut file)?;
/// assert_eq!(numbers, [1.0, 2.0, 3.0]);
///
/// let other: std::io::Result<Vec<u16>> = Npy.read(&mut file);
/// assert_eq!(other.unwrap_err().to_string(), "the file has f8 in shape (3,), asked for u2 of rank 1");
/// # std::fs::remove_file(&path)
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Npy;

impl<T: Shaped> Format<T> for Npy {
    fn bytes(&self, file: &mut File) -> io::Result<usize> {
        let header = read_header::<T>(file)?;
        T::bytes(&header.shape).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn read(&self, file: &mut File) -> io::Result<T> {
        let Header { swapped, order, shape } = read_header::<T>(file)?;
        T::make(&shape, order, &mut |numbers| {
            file.read_exact(bytemuck::cast_slice_mut(numbers))?;
            if swapped {
                T::Number::swap_all_bytes(numbers);
            }
            Ok(())
        })
    }

    fn write(&self, value: &T, file: &mut File) -> io::Result<()> {
        let order = value.order();
        file.write_all(&header::<T::Number>(order, &value.shape())?)?;
        value.give(order, &mut |numbers| file.write_all(bytemuck::cast_slice(numbers)))
    }
}

/// What a file holds, beside that it is what was asked for.
struct Header {
    /// Its bytes are in the order that this machine has not.
    swapped: bool,
    order: Order,
    shape: Vec<usize>,
}

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Headers are of a hundred bytes. Those of records may be longer, but are not read anyway.
const HEADER_MAX: usize = 1 << 20;

const NATIVE: char = if cfg!(target_endian = "big") { '>' } else { '<' };

/// Leaves the file at its first number, of which there are as many as the shape says.
fn read_header<T: Shaped>(file: &mut File) -> io::Result<Header> {
    file.rewind()?;
    let mut start = [0; 8];
    file.read_exact(&mut start).map_err(short)?;
    if !start.starts_with(MAGIC) {
        return Err(invalid("no .npy file: it does not start with \\x93NUMPY"));
    }
    let (len, start_len) = match start[6] {
        1 => (read_len::<2>(file)?, 10),
        2 | 3 => (read_len::<4>(file)?, 12),
        version => {
            return Err(invalid(format!("version {version} of the .npy format, of which 1 to 3 are read")));
        }
    };
    if len > HEADER_MAX {
        return Err(invalid(format!("a .npy header of {len} B, where {HEADER_MAX} would be very long")));
    }
    let mut text = vec![0; len];
    file.read_exact(&mut text).map_err(short)?;
    let Literal { descr, order, shape } = parse(&text)?;

    let rank_fits = T::RANK.is_none_or(|rank| rank == shape.len());
    let Some(swapped) = swapped::<T::Number>(&descr).filter(|_| rank_fits) else {
        let has = descr.strip_prefix(NATIVE).unwrap_or(&descr);
        let rank = T::RANK.map_or("any rank".to_owned(), |rank| format!("rank {rank}"));
        let (shape, asked) = (Tuple(&shape), T::Number::DTYPE);
        return Err(invalid(format!("the file has {has} in shape {shape}, asked for {asked} of {rank}")));
    };
    let there = file.metadata()?.len().saturating_sub((start_len + len) as u64);
    let bytes = super::count(&shape).and_then(|count| count.checked_mul(size_of::<T::Number>()));
    if bytes.is_none_or(|bytes| bytes as u64 != there) {
        let (shape, dtype) = (Tuple(&shape), T::Number::DTYPE);
        let needs = bytes.map_or("more than can be".to_owned(), |bytes| format!("{bytes} B"));
        return Err(invalid(format!(
            "the file has {there} B of data, its shape {shape} of {dtype} is {needs}"
        )));
    }
    Ok(Header { swapped, order, shape })
}

fn read_len<const N: usize>(file: &mut File) -> io::Result<usize> {
    let mut len = [0; N];
    file.read_exact(&mut len).map_err(short)?;
    Ok(len.iter().rev().fold(0, |len, &byte| len << 8 | usize::from(byte)))
}

/// A header that ends too soon is not the fault of the disk.
fn short(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => invalid("no .npy file: it ends within the header"),
        _ => error,
    }
}

/// Whether the bytes of each number are to be turned around; `None` if these are other numbers.
fn swapped<E: Number>(descr: &str) -> Option<bool> {
    let mut chars = descr.chars();
    let order = chars.next()?;
    let dtype = chars.as_str();
    if dtype != E::DTYPE && (dtype, E::DTYPE) != ("b1", "u1") {
        return None;
    }
    match order {
        '<' | '>' => Some(order != NATIVE && size_of::<E>() > 1),
        '=' => Some(false),
        '|' if size_of::<E>() == 1 => Some(false),
        _ => None,
    }
}

/// The literal in a header.
#[derive(Debug, PartialEq)]
struct Literal {
    descr: String,
    order: Order,
    shape: Vec<usize>,
}

fn parse(text: &[u8]) -> io::Result<Literal> {
    let mut cursor = Cursor { rest: text };
    let no_header = |cursor: &Cursor<'_>, why: &str| {
        let at = text.len() - cursor.rest.len();
        let shown: String = String::from_utf8_lossy(text).trim_end().chars().take(200).collect();
        invalid(format!("no .npy header: {why} at byte {at} of {shown}"))
    };
    let (mut descr, mut order, mut shape) = (None, None, None);
    let mut fields = || -> Result<(), &'static str> {
        cursor.expect(b'{')?;
        while !cursor.take(b'}') {
            let key = cursor.string()?;
            cursor.expect(b':')?;
            let again = match key {
                "descr" => descr.replace(cursor.string()?).is_some(),
                "fortran_order" => order.replace(cursor.order()?).is_some(),
                "shape" => shape.replace(cursor.tuple()?).is_some(),
                _ => return Err("an unknown key"),
            };
            if again {
                return Err("a key for the second time");
            }
            if !cursor.take(b',') {
                cursor.expect(b'}')?;
                break;
            }
        }
        cursor.skip_space();
        if cursor.rest.is_empty() { Ok(()) } else { Err("more after its end") }
    };
    fields().map_err(|why| no_header(&cursor, why))?;
    match (descr, order, shape) {
        (Some(descr), Some(order), Some(shape)) => Ok(Literal { descr: descr.to_owned(), order, shape }),
        _ => Err(no_header(&cursor, "a key is missing")),
    }
}

/// What is left of a header. Each function skips white space first; one that fails says what it missed.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let rest = self.rest.strip_prefix(&[byte]);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, byte: u8) -> Result<(), &'static str> {
        if self.take(byte) { Ok(()) } else { Err("a bracket, comma or colon is missing") }
    }

    fn string(&mut self) -> Result<&'a str, &'static str> {
        let what = "no string (records are not read)";
        self.skip_space();
        let (&quote, rest) = self.rest.split_first().filter(|(byte, _)| b"'\"".contains(byte)).ok_or(what)?;
        let len = rest.iter().position(|&byte| byte == quote).ok_or("a string without an end")?;
        self.rest = &rest[len + 1..];
        std::str::from_utf8(&rest[..len]).ok().filter(|text| !text.contains('\\')).ok_or(what)
    }

    fn order(&mut self) -> Result<Order, &'static str> {
        self.skip_space();
        for (word, order) in [(&b"False"[..], Order::RowMajor), (b"True", Order::ColumnMajor)] {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Ok(order);
            }
        }
        Err("neither True nor False")
    }

    fn tuple(&mut self) -> Result<Vec<usize>, &'static str> {
        self.expect(b'(')?;
        let mut lens = Vec::new();
        while !self.take(b')') {
            let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (digits, rest) = self.rest.split_at(digits);
            let digits = std::str::from_utf8(digits).map_err(|_| "no length")?;
            lens.push(digits.parse().map_err(|_| "a length that is no number, or too large")?);
            // Python 2 wrote `3L`.
            self.rest = rest.strip_prefix(b"L").unwrap_or(rest);
            if !self.take(b',') {
                self.expect(b')')?;
                break;
            }
        }
        Ok(lens)
    }
}

/// A whole header of version 1, or 2 where that is too short.
fn header<E: Number>(order: Order, shape: &[usize]) -> io::Result<Vec<u8>> {
    let byte_order = if size_of::<E>() == 1 { '|' } else { NATIVE };
    let fortran = if order == Order::ColumnMajor { "True" } else { "False" };
    let (dtype, shape) = (E::DTYPE, Tuple(shape));
    let mut text =
        format!("{{'descr': '{byte_order}{dtype}', 'fortran_order': {fortran}, 'shape': {shape}, }}");

    let pad = |text: &mut String, start: usize| {
        let len = (start + text.len() + 1).next_multiple_of(64) - start;
        text.push_str(&" ".repeat(len - 1 - text.len()));
        text.push('\n');
        text.len()
    };
    let mut bytes = MAGIC.to_vec();
    if text.len() < usize::from(u16::MAX) - 64 {
        let len = pad(&mut text, 10) as u16;
        bytes.extend([1, 0]);
        bytes.extend(len.to_le_bytes());
    } else {
        let len = pad(&mut text, 12);
        if len > HEADER_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a shape too long for a .npy header"));
        }
        bytes.extend([2, 0]);
        bytes.extend((len as u32).to_le_bytes());
    }
    bytes.extend(text.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests;
