//! What stands before the value in a checkpoint: of which version, key and type it is.
//!
//! ```text
//!   "CKPT" │ format u32 │ length u32, version │ length u32, key │ length u32, type │ crc32 of all that │ value ..
//! ```
//! The checksum is for those who read no further: that of the whole object is behind the value.

use std::fmt;
use std::io::{self, Read, Write};

const MAGIC: &[u8; 4] = b"CKPT";
const FORMAT: u32 = 1;
/// No text of ours is as long; a number that is larger is no length.
const TEXT_MAX: u32 = 1 << 24;

/// Whose value a checkpoint has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) version: String,
    pub(super) key: String,
    pub(super) type_name: String,
}

impl Head {
    pub(super) fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let mut bytes = Vec::from(MAGIC);
        bytes.extend(FORMAT.to_le_bytes());
        for text in [&self.version, &self.key, &self.type_name] {
            let len = u32::try_from(text.len()).ok().filter(|&len| len <= TEXT_MAX);
            let len = len.ok_or_else(|| invalid("the key of the checkpoint is longer than 16 MiB"))?;
            bytes.extend(len.to_le_bytes());
            bytes.extend(text.as_bytes());
        }
        let crc = crc32fast::hash(&bytes);
        bytes.extend(crc.to_le_bytes());
        to.write_all(&bytes)
    }

    pub(super) fn read(from: &mut dyn Read) -> io::Result<Head> {
        let mut from = Summed { from, crc: crc32fast::Hasher::new() };
        if from.take::<4>()? != *MAGIC {
            return Err(invalid("this is no checkpoint"));
        }
        let format = u32::from_le_bytes(from.take()?);
        if format != FORMAT {
            return Err(invalid(format!("this is a checkpoint of format {format}, which is not known")));
        }
        let [version, key, type_name] = [from.text()?, from.text()?, from.text()?];
        let expected = from.crc.clone().finalize();
        if u32::from_le_bytes(from.take()?) != expected {
            return Err(invalid("the head of the checkpoint is damaged"));
        }
        Ok(Head { version, key, type_name })
    }

    /// Says what is wrong if that is not what was asked for.
    pub(super) fn check(&self, asked: &Head) -> io::Result<()> {
        if self == asked { Ok(()) } else { Err(invalid(format!("it is {self}, not {asked}"))) }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Head { version, key, type_name } = self;
        write!(f, "a `{type_name}` of the key `{key}`, version `{version}`")
    }
}

fn invalid(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A reader that sums what it reads.
struct Summed<'a> {
    from: &'a mut dyn Read,
    crc: crc32fast::Hasher,
}

impl Summed<'_> {
    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes)?;
        self.crc.update(&bytes);
        Ok(bytes)
    }

    fn text(&mut self) -> io::Result<String> {
        let len = u32::from_le_bytes(self.take()?);
        if len > TEXT_MAX {
            return Err(invalid("the head of the checkpoint is damaged"));
        }
        // Grows with what is there: the length may be a lie.
        let mut bytes = Vec::new();
        (&mut *self.from).take(u64::from(len)).read_to_end(&mut bytes)?;
        if bytes.len() != len as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.crc.update(&bytes);
        String::from_utf8(bytes).map_err(|_| invalid("the head of the checkpoint is damaged"))
    }
}

#[cfg(all(test, not(dagger_loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_altered_byte_of_a_head_is_noticed() {
        let head =
            Head { version: "1".into(), key: "stage/ä".into(), type_name: "alloc::vec::Vec<f64>".into() };
        let mut bytes = Vec::new();
        head.write(&mut bytes).unwrap();
        assert_eq!(Head::read(&mut &bytes[..]).unwrap(), head);
        for at in 0..bytes.len() {
            assert!(Head::read(&mut &bytes[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                assert!(Head::read(&mut &bytes[..]).is_err(), "bit {bit} of byte {at}");
                bytes[at] ^= 1 << bit;
            }
        }
    }
}
