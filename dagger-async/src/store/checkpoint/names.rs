//! Where the checkpoint of a key lies: `checkpoints/v1/stage1/42.ckpt`.
//!
//! 1. Any key and version has a path, and no two have the same (but for a chance of 2⁻¹²⁸, which the head of the object tells).
//! 2. A path is one for files and for objects: no part is empty, too long, `.` or `..`, and all bytes are plain ASCII.
//! 3. A file never has the name of a folder: it ends in `.ckpt`, which folders do not.

use std::fmt::Write;

/// All checkpoints are below it.
pub(super) const ROOT: &str = "checkpoints";

const SUFFIX: &str = ".ckpt";
/// File systems take 255 bytes, less the suffix and what a file has while it is written.
const SEGMENT_MAX: usize = 200;
/// Stores take 1024 bytes.
const PATH_MAX: usize = 800;

/// The folder of a version; `None` if there can be none.
fn folder_of(version: &str) -> Option<String> {
    let mut folder = format!("{ROOT}/");
    let start = folder.len();
    encode(&format!("v{version}"), &mut folder);
    (folder.len() - start <= SEGMENT_MAX).then_some(folder)
}

/// True if results can have this version.
pub(super) fn is_version(version: &str) -> bool {
    folder_of(version).is_some()
}

/// The path of a key; `None` if there can be none of this version.
pub(super) fn path_of(version: &str, key: &str) -> Option<String> {
    let mut path = folder_of(version)?;
    let start = path.len();
    for segment in key.split('/') {
        path.push('/');
        let begin = path.len();
        match segment {
            "" => path.push('%'), // No encoded byte is that short.
            segment => encode(segment, &mut path),
        }
        if path.len() - begin > SEGMENT_MAX {
            let mut end = begin + 150;
            // Not in the middle of an encoded byte.
            end -=
                path[begin..end].bytes().rev().take(2).position(|byte| byte == b'%').map_or(0, |at| at + 1);
            path.truncate(end);
            let _ = write!(path, "%%{:032x}", hash(segment)); // No encoded byte begins so.
        }
    }
    if path.len() - start > PATH_MAX {
        path.truncate(start);
        let _ = write!(path, "/%%{:032x}", hash(key));
    }
    path.push_str(SUFFIX);
    Some(path)
}

/// The version of a path, if it is that of a checkpoint.
pub(super) fn version_in(path: &str) -> Option<String> {
    let (folder, _) = path.strip_prefix(ROOT)?.strip_prefix('/')?.split_once('/')?;
    path.ends_with(SUFFIX).then_some(())?;
    decode(folder.strip_prefix('v')?)
}

fn encode(text: &str, to: &mut String) {
    let bytes = text.as_bytes();
    let last = bytes.len() - 1;
    for (at, &byte) in bytes.iter().enumerate() {
        let ends_as_file = || at + SUFFIX.len() == bytes.len() && text.ends_with(SUFFIX);
        match byte {
            b'.' if at == 0 || at == last || ends_as_file() => to.push_str("%2E"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'=' | b'+' | b',' => {
                to.push(char::from(byte));
            }
            _ => _ = write!(to, "%{byte:02X}"),
        }
    }
}

fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = segment;
    while let Some(at) = rest.find('%') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        bytes.push(u8::from_str_radix(rest.get(at + 1..at + 3)?, 16).ok()?);
        rest = &rest[at + 3..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}

/// FNV-1a of 128 bits: the same in every build, for as long as there are files.
fn hash(text: &str) -> u128 {
    const START: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    text.bytes().fold(START, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

#[cfg(all(test, not(dagger_loom)))]
mod tests {
    use super::*;
    use object_store::path::Path;
    use std::collections::HashMap;

    #[test]
    fn plain_keys_are_plain_paths() {
        assert_eq!(path_of("1", "stage1/42").unwrap(), "checkpoints/v1/stage1/42.ckpt");
        assert_eq!(path_of("", "x").unwrap(), "checkpoints/v/x.ckpt");
        assert_eq!(path_of("v 1/2", "größe").unwrap(), "checkpoints/vv%201%2F2/gr%C3%B6%C3%9Fe.ckpt");
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(hash(""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(hash("a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }

    #[test]
    fn every_key_has_a_path_of_its_own_that_stores_take() {
        let long = |end: &str| format!("{}{end}", "x".repeat(500));
        let keys = [
            "a",
            "a/b",
            "a//b",
            "/a",
            "a/",
            "/",
            "//",
            ".",
            "..",
            "../a",
            "a/..",
            "a/.",
            "a.ckpt",
            "a.ckpt/b",
            "a%2E",
            "%",
            "%%",
            "a\\b",
            "a\0b",
            "ä",
            "a ",
            " a",
            "A",
            "a.ckpt.ckpt",
            "a%2Eckpt",
            "v",
            "con",
            "x.dagger-part",
            "a\nb",
            "😀",
        ];
        let mut keys: Vec<String> = keys.map(str::to_owned).to_vec();
        keys.extend(["", "1", "/1", "é"].map(long));
        keys.extend(["a", "b"].map(|end| format!("{}{end}", "deep/".repeat(400))));
        keys.extend((0..4).map(|shift| format!("{}{}", "a".repeat(shift), "é".repeat(90))));
        let mut seen = HashMap::new();
        for version in ["", "1", ".", "..", "1/2", "ä", "a.ckpt"] {
            for key in &keys {
                let path = path_of(version, key).unwrap();
                assert!(path.len() < 1024 && path.split('/').all(|part| part.len() < 230), "{path}");
                assert!(path.is_ascii() && Path::parse(&path).unwrap().as_ref() == path, "{path}");
                assert_eq!(version_in(&path).as_deref(), Some(version));
                if let Some((other, _)) = seen.insert(path.clone(), (key.clone(), version)) {
                    panic!("{other:?} and {key:?} of {version:?} are both {path}");
                }
            }
        }
        // No file is a folder of another one.
        for path in seen.keys() {
            let folder = format!("{path}/");
            assert!(!seen.keys().any(|other| other.starts_with(&folder)), "{path}");
        }
        assert_eq!(path_of(&long(""), "a"), None);
    }
}
