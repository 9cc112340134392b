//! How an object looks: the payload between a header and a trailer.
//!
//! ```text
//!   0                        16                                        stored - 16              stored
//!   ┌────────┬───────┬───────┬──────────────────────────────────────────┬─────────┬───────┬───────┐
//!   │DAGGEROB│version│ flags │ payload, or one lz4 frame that holds it  │ length  │ crc32 │ DEND  │
//!   │   8    │ u16   │ u16,0⁴│                                          │ u64     │ u32   │ 4     │
//!   └────────┴───────┴───────┴──────────────────────────────────────────┴─────────┴───────┴───────┘
//! ```
//! Numbers are little-endian; length and checksum are those of the payload before compression.
//!
//! 1. The payload passes once, in pieces that are still in the processor's cache when they are summed.
//! 2. No byte of an object is unchecked: what comes out is what went in, or [`Altered`].
//! 3. An error or a panic of the caller's code is told apart from those of the store, and one that only altered bytes can
//!    have caused is reported as that.

use super::Compression;
use super::failure::{Altered, Cause};
use crate::error::PanicText;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

pub(super) const HEADER_BYTES: usize = 16;
pub(super) const TRAILER_BYTES: usize = 16;
/// What an object has beside its body.
pub(super) const FRAME_BYTES: u64 = (HEADER_BYTES + TRAILER_BYTES) as u64;

const MAGIC: &[u8; 8] = b"DAGGEROB";
const END: &[u8; 4] = b"DEND";
const VERSION: u16 = 1;
const LZ4: u16 = 1;

/// How many bytes are moved between two rounds of the checksum: they stay in the second-level cache.
const STEP_BYTES: usize = 256 << 10;

/// Makes the payload by writing it.
pub(super) type Fill<'a> = dyn FnMut(&mut dyn Write) -> io::Result<()> + 'a;

/// Takes the payload by reading it.
pub(super) type Take<'a> = dyn FnMut(&mut dyn Read) -> io::Result<()> + 'a;

/// What is remembered of an object, and stands in its trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    /// Bytes of the whole object.
    pub(super) stored: u64,
    /// Bytes of the payload.
    pub(super) payload: u64,
    /// Checksum of the payload.
    pub(super) crc: u32,
}

/// Writes an object to `to`.
pub(super) fn encode(
    to: &mut dyn Write,
    compression: Compression,
    fill: &mut Fill<'_>,
) -> Result<Summary, Cause> {
    let mut below = Watched::new(to);
    let made = encode_body(&mut below, compression, fill);
    // Whatever the caller's code made of it: an error of the store comes first.
    match (below.failed.take(), made) {
        (Some(error), _) => Err(Cause::Store(error)),
        (None, Ok((payload, crc))) => Ok(Summary { stored: below.bytes, payload, crc }),
        (None, Err(error)) => Err(Cause::Caller(error)),
    }
}

fn encode_body(
    to: &mut Watched<&mut dyn Write>,
    compression: Compression,
    fill: &mut Fill<'_>,
) -> io::Result<(u64, u32)> {
    to.write_all(&header(compression))?;
    let (length, crc) = match compression {
        Compression::None => {
            let mut payload = Payload::new(&mut *to);
            called(|| fill(&mut payload))?;
            (payload.length, payload.crc.finalize())
        }
        #[cfg(feature = "lz4")]
        Compression::Lz4 => {
            // Blocks that do not refer to each other: the scratch is two of them.
            let frame = lz4_flex::frame::FrameInfo::new().block_size(lz4_flex::frame::BlockSize::Max256KB);
            let encoder = lz4_flex::frame::FrameEncoder::with_frame_info(frame, &mut *to);
            let mut payload = Payload::new(encoder);
            called(|| fill(&mut payload))?;
            let sum = (payload.length, payload.crc.finalize());
            payload.inner.finish()?;
            sum
        }
    };
    to.write_all(&trailer(length, crc))?;
    to.flush()?;
    Ok((length, crc))
}

/// Reads an object of `stored` bytes from `from`.
///
/// `Ok` says that the payload is the one that was written, and, with `expected`, the one that was expected. Only then
/// is what `take` has made of it worth keeping.
pub(super) fn decode(
    from: &mut dyn Read,
    stored: u64,
    expected: Option<&Summary>,
    take: &mut Take<'_>,
) -> Result<Summary, Cause> {
    check_length(stored, expected)?;
    let mut below = Watched::new(from);
    let mut head = [0; HEADER_BYTES];
    read_all(&mut below, &mut head, stored)?;
    let compression = check_header(&head)?;

    let mut body = Read::take(&mut below, stored - FRAME_BYTES);
    let (found, taken) = match compression {
        Compression::None => drained(Payload::new(&mut body), take),
        #[cfg(feature = "lz4")]
        Compression::Lz4 => {
            let decoder = lz4_flex::frame::FrameDecoder::new(&mut body);
            drained(Payload::new(decoder), take)
        }
    };
    let left = body.limit();
    if let Some(error) = below.failed.take() {
        return Err(Cause::Store(error));
    }
    let (payload, crc) = found.map_err(|error| Altered::Frame(error.to_string()))?;
    if left > 0 {
        return Err(Altered::Length { expected: stored, found: below.bytes }.into());
    }
    let mut tail = [0; TRAILER_BYTES];
    read_all(&mut below, &mut tail, stored)?;
    let written = check_trailer(&tail, stored, compression)?;
    for written in [Some(&written), expected].into_iter().flatten() {
        if (written.payload, written.crc) != (payload, crc) {
            let expected = (written.payload, written.crc);
            return Err(Altered::Payload { expected, found: (payload, crc) }.into());
        }
    }
    taken.map_err(Cause::Caller)?;
    Ok(written)
}

/// Lets `take` read the beginning of a payload, from behind its header, unchecked.
pub(super) fn peek(head: &[u8; HEADER_BYTES], body: &mut dyn Read, take: &mut Take<'_>) -> Result<(), Cause> {
    let taken = match check_header(head)? {
        Compression::None => called(|| take(body)),
        #[cfg(feature = "lz4")]
        Compression::Lz4 => called(|| take(&mut lz4_flex::frame::FrameDecoder::new(body))),
    };
    taken.map_err(Cause::Caller)
}

/// What the two ends of an object say about it. The payload is not looked at.
pub(super) fn check_ends(
    head: &[u8; HEADER_BYTES],
    tail: &[u8; TRAILER_BYTES],
    stored: u64,
) -> Result<Summary, Cause> {
    check_length(stored, None)?;
    let compression = check_header(head)?;
    Ok(check_trailer(tail, stored, compression)?)
}

fn check_length(stored: u64, expected: Option<&Summary>) -> Result<(), Altered> {
    let expected = expected.map_or(FRAME_BYTES.max(stored), |expected| expected.stored.max(FRAME_BYTES));
    if stored == expected { Ok(()) } else { Err(Altered::Length { expected, found: stored }) }
}

/// Fills `buffer` from an object that ends too early if it cannot.
fn read_all(from: &mut Watched<&mut dyn Read>, buffer: &mut [u8], stored: u64) -> Result<(), Cause> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(()),
        Err(_) => Err(match from.failed.take() {
            Some(error) => Cause::Store(error),
            None => Altered::Length { expected: stored, found: from.bytes }.into(),
        }),
    }
}

/// Hands the payload to the caller's code, and passes the rest of it: length and checksum of all of it (or what the
/// decoder says), and what the code said.
fn drained<R: Read>(
    mut payload: Payload<R>,
    take: &mut Take<'_>,
) -> (io::Result<(u64, u32)>, io::Result<()>) {
    let taken = called(|| take(&mut payload));
    let rest = match payload.failed.take() {
        Some(error) => Err(error),
        // The decoder is code over bytes that may be anything: its panics are errors, too.
        None => called(|| io::copy(&mut payload, &mut io::sink()).map(drop)),
    };
    (rest.map(|()| (payload.length, payload.crc.finalize())), taken)
}

/// Runs code that is not ours: its panic is its error.
fn called(code: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    catch_unwind(AssertUnwindSafe(code))
        .unwrap_or_else(|payload| Err(io::Error::other(PanicText::of(payload))))
}

fn header(compression: Compression) -> [u8; HEADER_BYTES] {
    let flags: u16 = match compression {
        Compression::None => 0,
        #[cfg(feature = "lz4")]
        Compression::Lz4 => LZ4,
    };
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[10..12].copy_from_slice(&flags.to_le_bytes());
    header
}

fn check_header(header: &[u8; HEADER_BYTES]) -> Result<Compression, Cause> {
    let [.., v0, v1, f0, f1, r0, r1, r2, r3] = *header;
    if header[..8] != *MAGIC || [r0, r1, r2, r3] != [0; 4] {
        return Err(Altered::NoObject.into());
    }
    match (u16::from_le_bytes([v0, v1]), u16::from_le_bytes([f0, f1])) {
        (VERSION, 0) => Ok(Compression::None),
        #[cfg(feature = "lz4")]
        (VERSION, LZ4) => Ok(Compression::Lz4),
        #[cfg(not(feature = "lz4"))]
        (VERSION, LZ4) => Err(Cause::Store(io::Error::new(
            io::ErrorKind::Unsupported,
            "the object is compressed with lz4, which this program was built without (feature `lz4`)",
        ))),
        (VERSION, flags) => Err(Altered::Flags(flags).into()),
        (version, _) => Err(Altered::Version(version).into()),
    }
}

fn trailer(payload: u64, crc: u32) -> [u8; TRAILER_BYTES] {
    let mut trailer = [0; TRAILER_BYTES];
    trailer[..8].copy_from_slice(&payload.to_le_bytes());
    trailer[8..12].copy_from_slice(&crc.to_le_bytes());
    trailer[12..].copy_from_slice(END);
    trailer
}

fn check_trailer(
    trailer: &[u8; TRAILER_BYTES],
    stored: u64,
    compression: Compression,
) -> Result<Summary, Altered> {
    let [l0, l1, l2, l3, l4, l5, l6, l7, c0, c1, c2, c3, end @ ..] = *trailer;
    let payload = u64::from_le_bytes([l0, l1, l2, l3, l4, l5, l6, l7]);
    let plain = matches!(compression, Compression::None);
    if end != *END || (plain && payload != stored - FRAME_BYTES) {
        return Err(Altered::Ends);
    }
    Ok(Summary { stored, payload, crc: u32::from_le_bytes([c0, c1, c2, c3]) })
}

/// The payload on its way: measured and summed.
struct Payload<T> {
    inner: T,
    length: u64,
    crc: crc32fast::Hasher,
    /// The first error of a reader below.
    failed: Option<io::Error>,
}

impl<T> Payload<T> {
    fn new(inner: T) -> Self {
        Payload { inner, length: 0, crc: crc32fast::Hasher::new(), failed: None }
    }

    fn passed(&mut self, piece: &[u8]) {
        self.length += piece.len() as u64;
        self.crc.update(piece);
    }
}

impl<W: Write> Write for Payload<W> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let piece = &from[..from.len().min(STEP_BYTES)];
        self.inner.write_all(piece)?;
        self.passed(piece);
        Ok(piece.len())
    }

    /// Nothing to do: the object is complete at its end, not before.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<R: Read> Read for Payload<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let room = to.len().min(STEP_BYTES);
        match self.inner.read(&mut to[..room]) {
            Ok(read) => {
                self.passed(&to[..read]);
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let told = io::Error::from(error.kind());
                self.failed.get_or_insert(error);
                Err(told)
            }
        }
    }
}

/// A stream whose errors are kept: the code above it, which is told only their kind, cannot hide or replace them.
struct Watched<T> {
    inner: T,
    bytes: u64,
    failed: Option<io::Error>,
}

impl<T> Watched<T> {
    fn new(inner: T) -> Self {
        Watched { inner, bytes: 0, failed: None }
    }

    fn note<V>(&mut self, result: io::Result<V>) -> io::Result<V> {
        result.map_err(|error| {
            if error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            let told = io::Error::from(error.kind());
            self.failed.get_or_insert(error);
            told
        })
    }
}

impl<W: Write> Write for Watched<W> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let result = self.inner.write(from).and_then(|written| match written {
            // What `write_all` above us would say, but said by the store.
            0 if !from.is_empty() => Err(io::ErrorKind::WriteZero.into()),
            written => Ok(written),
        });
        let written = self.note(result)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.inner.flush();
        self.note(result)
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(to);
        let read = self.note(result)?;
        self.bytes += read as u64;
        Ok(read)
    }
}
