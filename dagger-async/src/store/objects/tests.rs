//! Contract tests over all kinds of stores, then the bad days one by one.

mod faulty;

use super::failure::{Altered, RETRIES, judge};
use super::threads::JOB_THREADS_MAX;
use super::*;
use faulty::{Faulty, Trouble};
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutPayload};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;

/// A folder that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("dagger-objects-test-{:016x}", unique()));
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    /// Names of what lies in it.
    fn names(&self) -> Vec<String> {
        names(&self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn compressions() -> Vec<Compression> {
    vec![
        Compression::None,
        #[cfg(feature = "lz4")]
        Compression::Lz4,
    ]
}

fn temporary_in(root: &Path) -> Objects {
    let backing = Backing::Temporary { root: Some(root.to_path_buf()) };
    Objects::new("test", backing, Compression::None)
}

fn over(store: impl ObjectStore) -> Objects {
    Objects::new("test", Backing::Store { store: Arc::new(store), local: None }, Compression::None)
}

fn local_in(root: &Path) -> Backing {
    let local = Arc::new(LocalFileSystem::new_with_prefix(root).unwrap());
    Backing::Store { store: local.clone(), local: Some(local) }
}

/// Bytes that do not repeat themselves, or do in runs of eight.
fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 64);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let word = if seed.is_multiple_of(2) { state } else { state & 3 };
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn fill(to: &mut dyn Write, value: &[u8]) -> io::Result<()> {
    // A few small writes, as a header would be, and a large one.
    let (head, body) = value.split_at(value.len().min(20));
    for piece in head.chunks(8) {
        to.write_all(piece)?;
    }
    to.flush()?;
    to.write_all(body)
}

fn put(objects: &Objects, name: u64, value: &[u8]) -> Result<Object, Failure> {
    objects.write(name, &mut |to| fill(to, value))
}

fn take(from: &mut dyn Read, length: usize) -> io::Result<Vec<u8>> {
    let mut value = vec![0; length];
    let (head, body) = value.split_at_mut(length.min(20));
    for piece in head.chunks_mut(8) {
        from.read_exact(piece)?;
    }
    from.read_exact(body)?;
    Ok(value)
}

fn get(objects: &Objects, object: &Object) -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    objects.read(object, &mut |from| {
        value = take(from, object.payload_bytes() as usize)?;
        Ok(())
    })?;
    Ok(value)
}

/// What must hold of objects in any store.
fn contract(objects: &Objects) {
    let lengths = [0, 1, 19, 4096, 70_000, 300_000, 700_001];
    let values: Vec<_> = (0..).zip(lengths).map(|(seed, length)| bytes(length, seed)).collect();
    assert_eq!(objects.list().unwrap(), Vec::<String>::new(), "a session begins empty");

    let written: Vec<_> =
        (0..).zip(&values).map(|(name, value)| put(objects, name, value).unwrap()).collect();
    for (object, value) in written.iter().zip(&values) {
        assert_eq!(object.payload_bytes(), value.len() as u64);
        assert!(get(objects, object).unwrap() == *value, "{} B", value.len());
        if objects.shared.compression == Compression::None {
            assert_eq!(object.stored_bytes(), value.len() as u64 + 32);
        }
    }
    let mut paths: Vec<_> = written.iter().map(Object::path).collect();
    let mut listed = objects.list().unwrap();
    paths.sort();
    listed.sort();
    assert_eq!(listed, paths);

    // Who does not read all of it gets what it reads, after all of it was checked.
    let mut first = [0; 7];
    objects.read(&written[5], &mut |from| from.read_exact(&mut first)).unwrap();
    assert_eq!(first, values[5][..7]);
    // Who reads more finds the end.
    let mut all = Vec::new();
    objects
        .read(&written[4], &mut |from| {
            all.clear();
            from.read_to_end(&mut all).map(drop)
        })
        .unwrap();
    assert!(all == values[4]);

    // Errors of the caller are its own.
    let mut calls = 0;
    let failure = objects.write(77, &mut |to| {
        calls += 1;
        to.write_all(&values[4])?;
        Err(io::Error::new(io::ErrorKind::NotFound, "mine"))
    });
    let failure = failure.unwrap_err();
    assert_eq!((failure.kind, calls), (FailureKind::Other, 1));
    assert!(failure.source.to_string().contains("mine"));
    let failure = objects.write(78, &mut |_| panic!("fill fell")).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Other);
    assert!(failure.to_string().contains("fill fell"), "{failure}");
    let mut calls = 0;
    let failure = objects.read(&written[5], &mut |_| {
        calls += 1;
        Err(io::Error::new(io::ErrorKind::InvalidData, "not a value"))
    });
    assert_eq!((failure.unwrap_err().kind, calls), (FailureKind::Other, 1));
    let failure = objects.read(&written[5], &mut |_| panic!("take fell")).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Other);
    assert!(failure.to_string().contains("take fell"), "{failure}");
    assert_eq!(objects.list().unwrap().len(), written.len(), "what failed is not there");

    let lost = written[2].clone();
    for object in written.iter().chain([&lost]) {
        objects.delete(object);
    }
    assert_eq!(objects.list().unwrap(), Vec::<String>::new());
    let failure = get(objects, &lost).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Missing);
    assert_eq!(*failure.path, *lost.path());

    contract_of_paths_that_last(objects);
}

fn contract_of_paths_that_last(objects: &Objects) {
    let value = bytes(70_000, 3);
    let length = value.len();
    let failed = |result: Result<Object, Failure>| result.unwrap_err().kind;
    assert_eq!(failed(objects.check_at("keep/stage/1")), FailureKind::Missing);
    assert_eq!(objects.list_at("keep").unwrap(), vec![]);
    for durable in [false, true] {
        objects.write_at("keep/stage/1", durable, &mut |to| fill(to, b"an older one")).unwrap();
        let object = objects.write_at("keep/stage/1", durable, &mut |to| fill(to, &value)).unwrap();
        let again = objects.check_at("keep/stage/1").unwrap();
        assert_eq!((again.at, again.summary), (object.at.clone(), object.summary));
        let mut found = Vec::new();
        let read = objects.read_at("keep/stage/1", &mut |from| {
            found = take(from, length)?;
            Ok(())
        });
        assert_eq!(read.unwrap().summary, object.summary);
        assert!(found == value);
        objects.write_at("keep/2", durable, &mut |to| fill(to, b"x")).unwrap();
        let mut listed = objects.list_at("keep").unwrap();
        listed.sort();
        let sizes = [objects.check_at("keep/2").unwrap(), object.clone()].map(|object| object.stored_bytes());
        assert_eq!(listed, [("keep/2".into(), sizes[0]), ("keep/stage/1".into(), sizes[1])]);
        assert_eq!(objects.list().unwrap(), Vec::<String>::new(), "they are not of the session");

        objects.clear();
        assert_eq!(objects.list_at("keep").unwrap().len(), 2, "and last longer");
        objects.delete(&object);
        objects.delete(&objects.check_at("keep/2").unwrap());
        assert_eq!(objects.list_at("keep").unwrap(), vec![]);
    }
    for path in ["", "/", "a//b", "../x", "a/../../x", "a/./b"] {
        assert_eq!(failed(objects.write_at(path, false, &mut |_| Ok(()))), FailureKind::Other, "{path:?}");
    }
}

#[test]
fn objects_come_back_from_every_store() {
    for compression in compressions() {
        let scratch = Scratch::new();
        let root = Some(scratch.0.join("made/when/needed"));
        contract(&Objects::new("test", Backing::Temporary { root }, compression));
        contract(&Objects::new("test", local_in(&scratch.0), compression));
        let stores: [Arc<dyn ObjectStore>; 2] =
            [Arc::new(InMemory::new()), Arc::new(LocalFileSystem::new_with_prefix(&scratch.0).unwrap())];
        for store in stores {
            let backing = Backing::Store { store: Arc::clone(&store), local: None };
            contract(&Objects::new("test", backing, compression));
        }
    }
}

#[test]
fn objects_come_back_from_stores_that_fail_now_and_then() {
    for compression in compressions() {
        let scratch = Scratch::new();
        let stores: [Arc<dyn ObjectStore>; 2] =
            [Arc::new(InMemory::new()), Arc::new(LocalFileSystem::new_with_prefix(&scratch.0).unwrap())];
        for store in stores {
            let faulty = Faulty::new(store);
            faulty.fail_every(4, Trouble::Passing);
            faulty.delay(Duration::from_micros(1));
            let backing = Backing::Store { store: Arc::new(faulty.clone()), local: None };
            contract(&Objects::new("test", backing, compression));
            assert!(faulty.requests().1 > 10, "{:?}", faulty.requests());
        }
    }
}

#[test]
fn nothing_is_made_before_it_is_needed() {
    let scratch = Scratch::new();
    let objects = temporary_in(&scratch.0.join("root"));
    assert_eq!(objects.list().unwrap(), Vec::<String>::new());
    assert!(objects.threads().started().is_none());
    assert_eq!(scratch.names(), Vec::<String>::new());
}

#[test]
fn a_large_object_goes_in_parts() {
    let store = Faulty::new(Arc::new(InMemory::new()));
    let objects = over(store.clone());
    let value = bytes(20 << 20, 2);
    for length in [remote::PART_BYTES - 33, remote::PART_BYTES - 32, remote::PART_BYTES, value.len()] {
        let (before, _) = store.requests();
        let object = put(&objects, length as u64, &value[..length]).unwrap();
        let requests = store.requests().0 - before;
        // One put, or what begins and ends an upload besides its parts.
        let parts = (length + 32).div_ceil(remote::PART_BYTES) as u64;
        let expected = if length + 32 < remote::PART_BYTES { 1 } else { parts + 2 };
        assert_eq!(requests, expected, "{length} B");
        assert!(get(&objects, &object).unwrap() == value[..length]);
    }
}

#[test]
fn few_parts_are_on_their_way_at_a_time() {
    let store = Faulty::new(Arc::new(InMemory::new()));
    let objects = over(store.clone());
    store.delay(Duration::from_millis(20));
    let piece = vec![7; 1 << 20];
    let mut pieces = |to: &mut dyn Write| (0..60).try_for_each(|_| to.write_all(&piece));
    let object = objects.write(1, &mut pieces).unwrap();
    assert_eq!(object.payload_bytes(), 60 << 20);
    assert!((2..=4).contains(&store.parts_max()), "{}", store.parts_max());
}

#[test]
fn an_upload_that_fails_is_aborted_and_made_again() {
    let store = Faulty::new(Arc::new(InMemory::new()));
    let objects = over(store.clone());
    let value = bytes(18 << 20, 2);
    let mut calls = 0;
    let object = objects.write(1, &mut |to| {
        calls += 1;
        if calls > 1 {
            store.heal();
        }
        to.write_all(&value[..10 << 20])?;
        if calls == 1 {
            assert_eq!(store.open_uploads(), 1);
            store.fail_every(1, Trouble::Passing);
        }
        to.write_all(&value[10 << 20..])
    });
    assert!(get(&objects, &object.unwrap()).unwrap() == value);
    assert_eq!((calls, store.open_uploads()), (2, 0));

    // The caller's own failure, after parts are on their way.
    let failure = objects.write(2, &mut |to| {
        to.write_all(&value[..10 << 20])?;
        panic!("enough")
    });
    assert_eq!(failure.unwrap_err().kind, FailureKind::Other);
    assert_eq!((objects.list().unwrap().len(), store.open_uploads()), (1, 0));
}

#[test]
fn what_a_store_says_decides_kind_and_tries() {
    let store = Faulty::new(Arc::new(InMemory::new()));
    let objects = over(store.clone());
    let object = put(&objects, 1, b"here").unwrap();
    for (trouble, kind, tries) in [
        (Trouble::Full, FailureKind::Full, 1),
        (Trouble::Denied, FailureKind::Denied, 1),
        (Trouble::Passing, FailureKind::Other, u64::from(RETRIES) + 1),
    ] {
        store.fail_every(1, trouble);
        let (before, _) = store.requests();
        let failure = put(&objects, 2, b"more").unwrap_err();
        assert_eq!((failure.kind, store.requests().0 - before), (kind, tries), "{failure}");
        assert!(failure.path.ends_with("/object-2"), "{failure}");
        if trouble != Trouble::Full {
            assert_eq!(get(&objects, &object).unwrap_err().kind, kind);
            assert_eq!(objects.check_at("x").unwrap_err().kind, kind);
        }
        store.heal();
        assert_eq!(get(&objects, &object).unwrap(), b"here");
    }
}

#[test]
fn errors_are_judged_through_their_wrappers() {
    let io = |kind: io::ErrorKind| io::Error::from(kind);
    let generic = |source: io::Error| object_store::Error::Generic { store: "S", source: source.into() };
    let full = io::Error::other(generic(io::Error::other(generic(io(io::ErrorKind::QuotaExceeded)))));
    assert_eq!(judge(&full), (FailureKind::Full, false));
    assert_eq!(judge(&io(io::ErrorKind::ReadOnlyFilesystem)), (FailureKind::Denied, false));
    assert_eq!(judge(&io(io::ErrorKind::ConnectionReset)), (FailureKind::Other, true));
    assert_eq!(judge(&io(io::ErrorKind::Unsupported)), (FailureKind::Other, false));
    assert_eq!(judge(&io::Error::from(Altered::Ends)), (FailureKind::Altered, false));
    let denied = object_store::Error::Unauthenticated { path: "p".into(), source: "who?".into() };
    assert_eq!(judge(&io::Error::other(denied)), (FailureKind::Denied, false));
}

/// Reads the object in `altered`, with what is remembered of it and without.
fn kinds_of(objects: &Objects, object: &Object, altered: &[u8], value: &[u8]) -> [Option<FailureKind>; 2] {
    fs::write(object.path(), altered).unwrap();
    let outcome = |result: Result<Vec<u8>, Failure>| match result {
        Ok(found) => {
            assert!(found == value, "altered bytes were taken for good");
            None
        }
        Err(failure) => {
            assert_eq!(*failure.path, *object.path());
            Some(failure.kind)
        }
    };
    let mut found = Vec::new();
    let at = objects.read_at("kept", &mut |from| {
        found = take(from, value.len())?;
        Ok(())
    });
    [outcome(get(objects, object)), outcome(at.map(|_| found))]
}

#[test]
fn every_altered_byte_and_every_other_length_is_found() {
    for compression in compressions() {
        let scratch = Scratch::new();
        let objects = Objects::new("test", local_in(&scratch.0), compression);
        let value = bytes(150, 1);
        let object = objects.write_at("kept", false, &mut |to| fill(to, &value)).unwrap();
        let good = fs::read(object.path()).unwrap();
        assert_eq!(kinds_of(&objects, &object, &good, &value), [None; 2]);
        for at in 0..good.len() {
            for flip in [1, 0x80] {
                let mut altered = good.clone();
                altered[at] ^= flip;
                let kinds = kinds_of(&objects, &object, &altered, &value);
                // Another way to write the same bytes compressed is no harm (its bytes were compared).
                let no_harm = compression != Compression::None && kinds == [None; 2];
                // Without lz4 nobody can tell this from an object that another build has compressed.
                let says_lz4 = cfg!(not(feature = "lz4")) && (at, flip) == (10, 1);
                let kind = if says_lz4 { FailureKind::Other } else { FailureKind::Altered };
                assert!(no_harm || kinds == [Some(kind); 2], "byte {at}: {kinds:?}");
            }
        }
        for length in 0..good.len() {
            let kinds = kinds_of(&objects, &object, &good[..length], &value);
            assert_eq!(kinds, [Some(FailureKind::Altered); 2], "{length} B");
            assert_eq!(objects.check_at("kept").unwrap_err().kind, FailureKind::Altered);
        }
        for more in [1, 32] {
            let longer = [&good[..], &vec![0; more]].concat();
            assert_eq!(kinds_of(&objects, &object, &longer, &value), [Some(FailureKind::Altered); 2]);
        }
    }
}

#[test]
fn a_stream_that_is_short_or_altered_is_found() {
    let store = Arc::new(InMemory::new());
    let backing = Backing::Store { store: store.clone(), local: None };
    let objects = Objects::new("test", backing, Compression::None);
    let object = put(&objects, 1, &bytes(40, 2)).unwrap();
    let path = StorePath::from(object.path());
    let handle = objects.threads().handle().unwrap();
    let good = handle.block_on(async { store.get(&path).await.unwrap().bytes().await.unwrap() });
    for at in 0..good.len() {
        let mut altered = good.to_vec();
        altered[at] ^= 4;
        for altered in [altered, good[..at].to_vec()] {
            handle.block_on(store.put(&path, PutPayload::from(altered))).unwrap();
            assert_eq!(get(&objects, &object).unwrap_err().kind, FailureKind::Altered, "byte {at}");
        }
    }
}

#[test]
fn another_object_in_its_place_is_found() {
    let scratch = Scratch::new();
    let objects = temporary_in(&scratch.0);
    let one = put(&objects, 1, b"one").unwrap();
    let two = put(&objects, 2, b"two").unwrap();
    fs::copy(two.path(), one.path()).unwrap();
    assert_eq!(get(&objects, &one).unwrap_err().kind, FailureKind::Altered);
}

/// A caller that stumbles over altered bytes is not to blame for it.
#[test]
fn an_altered_object_is_reported_as_that_whatever_the_caller_says() {
    let scratch = Scratch::new();
    let objects = temporary_in(&scratch.0);
    let object = put(&objects, 1, &bytes(100_000, 2)).unwrap();
    let mut altered = fs::read(object.path()).unwrap();
    altered[90_000] ^= 1;
    fs::write(object.path(), altered).unwrap();
    let failure = objects.read(&object, &mut |_| Err(io::ErrorKind::UnexpectedEof.into())).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Altered);
    assert_eq!(objects.read(&object, &mut |_| panic!("?")).unwrap_err().kind, FailureKind::Altered);
    assert_eq!(objects.read(&object, &mut |_| Ok(())).unwrap_err().kind, FailureKind::Altered);
}

/// A write that fails once is a failed write, though the caller says nothing and the next one succeeds.
#[test]
fn an_error_that_the_caller_hides_is_found() {
    struct Once(bool);
    impl Write for Once {
        fn write(&mut self, from: &[u8]) -> io::Result<usize> {
            match from.len() {
                100 if !std::mem::replace(&mut self.0, true) => Err(io::Error::other("once")),
                length => Ok(length),
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let result = format::encode(&mut Once(false), Compression::None, &mut |to| {
        let _ = to.write_all(&[0; 100]);
        to.write_all(&[0; 100])
    });
    assert!(matches!(result.unwrap_err(), failure::Cause::Store(error) if error.to_string() == "once"));

    // The same of a read.
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::TimedOut.into())
        }
    }
    let mut object = Vec::new();
    let summary = format::encode(&mut object, Compression::None, &mut |to| to.write_all(&[7; 100])).unwrap();
    let mut from = object[..60].chain(Broken);
    let result = format::decode(&mut from, summary.stored, Some(&summary), &mut |from| {
        let _ = from.read_exact(&mut [0; 100]);
        Ok(())
    });
    assert!(matches!(result.unwrap_err(), failure::Cause::Store(error) if judge(&error).1));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_no_half_object() {
    let scratch = Scratch::new();
    let objects = temporary_in(&scratch.0);
    let first = put(&objects, 1, b"first").unwrap();
    let folder = Path::new(&first.path()).parent().unwrap().to_path_buf();
    for swallowed in [false, true] {
        // What is written there finds no room.
        std::os::unix::fs::symlink("/dev/full", folder.join("object-2.part")).unwrap();
        let mut calls = 0;
        let failure = objects.write(2, &mut |to| {
            calls += 1;
            let result = fill(to, &bytes(100_000, 2));
            if swallowed { Ok(()) } else { result }
        });
        let failure = failure.unwrap_err();
        assert_eq!((failure.kind, calls), (FailureKind::Full, 1), "{failure}");
        assert!(failure.path.ends_with("/object-2") && failure.to_string().contains("No space"), "{failure}");
        assert_eq!(names(&folder), ["lock", "object-1"]);
    }
    assert_eq!(get(&objects, &first).unwrap(), b"first");
}

#[cfg(target_os = "linux")]
#[test]
fn a_root_that_nobody_may_write_is_denied() {
    let root = Path::new("/sys/dagger-spill");
    let failure = put(&temporary_in(root), 1, b"x").unwrap_err();
    assert_eq!((failure.kind, &*failure.path), (FailureKind::Denied, "/sys/dagger-spill"), "{failure}");
}

#[test]
fn a_folder_that_is_deleted_under_us_is_made_again() {
    let scratch = Scratch::new();
    let objects = temporary_in(&scratch.0);
    let lost = put(&objects, 1, b"lost").unwrap();
    fs::remove_dir_all(Path::new(&lost.path()).parent().unwrap()).unwrap();
    let failure = get(&objects, &lost).unwrap_err();
    assert_eq!((failure.kind, &*failure.path), (FailureKind::Missing, &*lost.path()));

    let found = put(&objects, 2, b"found").unwrap();
    folder::sweep(&scratch.0);
    assert_eq!(get(&objects, &found).unwrap(), b"found");
    assert_eq!(objects.list().unwrap(), [found.path()]);

    // Even while an object is being written.
    let mut calls = 0;
    let object = objects.write(3, &mut |to| {
        calls += 1;
        if calls == 1 {
            fs::remove_dir_all(&scratch.0)?;
        }
        to.write_all(b"third")
    });
    assert_eq!(get(&objects, &object.unwrap()).unwrap(), b"third");
    assert_eq!(calls, 2);
    drop(objects);
    assert_eq!(scratch.names(), Vec::<String>::new());
}

/// A folder as a killed process leaves it.
fn leftover(root: &Path, name: &str, files: &[&str]) -> PathBuf {
    let folder = root.join(name);
    fs::create_dir_all(&folder).unwrap();
    files.iter().for_each(|file| fs::write(folder.join(file), b"old").unwrap());
    folder
}

#[test]
fn folders_of_the_dead_are_swept_and_no_others() {
    let scratch = Scratch::new();
    for backing in [Backing::Temporary { root: Some(scratch.0.clone()) }, local_in(&scratch.0)] {
        let dead = "dagger-17-00000000000000aa";
        leftover(&scratch.0, dead, &["lock", "object-1", "object-2.part"]);
        let unborn = leftover(&scratch.0, "dagger-18-00000000000000bb", &[]);
        let stranger = leftover(&scratch.0, "dagger-19-00000000000000cc", &["no lock"]);
        let others = ["dagger-data", "dagger-20-xyz", "20-00000000000000aa", "checkpoints"];
        others.iter().for_each(|name| drop(leftover(&scratch.0, name, &["lock", "object-1"])));

        let live = temporary_in(&scratch.0);
        let object = put(&live, 1, b"alive").unwrap();
        assert!(!scratch.0.join(dead).exists() && !unborn.exists());

        leftover(&scratch.0, dead, &["lock"]);
        let second = Objects::new("test", backing, Compression::None);
        let other = put(&second, 1, b"alive, too").unwrap();
        assert_ne!(object.path(), other.path());
        assert!(!scratch.0.join(dead).exists() && stranger.exists());
        assert_eq!(get(&live, &object).unwrap(), b"alive");
        drop((live, second));
        let mut left: Vec<_> = others.to_vec();
        left.push("dagger-19-00000000000000cc");
        left.sort_unstable();
        assert_eq!(scratch.names(), left);
    }
}

/// ```text
/// owner                    sweeper
/// begin
///                   ╳      sweep      finds a folder whose lock is free
/// own
/// ```
#[test]
fn a_folder_that_is_swept_before_it_is_locked_is_not_owned() {
    let scratch = Scratch::new();
    let path = scratch.0.join(folder::session_name());
    let lock = Folder::begin(&path).unwrap();
    folder::sweep(&scratch.0);
    let error = Folder::own(path.clone(), lock).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);

    // The sweeper has the lock, and has removed nothing yet.
    let lock = Folder::begin(&path).unwrap();
    let sweeper = fs::File::open(path.join(LOCK)).unwrap();
    sweeper.try_lock().unwrap();
    let error = Folder::own(path.clone(), lock).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    drop(sweeper);
    folder::sweep(&scratch.0);
    assert_eq!(scratch.names(), Vec::<String>::new());

    // Killed before it had a lock file.
    fs::create_dir(&path).unwrap();
    folder::sweep(&scratch.0);
    let owned = Folder::begin(&path).and_then(|lock| Folder::own(path.clone(), lock)).unwrap();
    folder::sweep(&scratch.0);
    assert!(!owned.is_gone());
}

/// Sessions begin and end while others sweep: nobody loses what it has written.
#[test]
fn sessions_that_start_together_do_not_sweep_each_other() {
    let scratch = Scratch::new();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sweepers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !over.load(Relaxed) {
                        folder::sweep(&scratch.0);
                    }
                })
            })
            .collect();
        let sessions: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for round in 0..100 {
                        let objects = temporary_in(&scratch.0);
                        let object = put(&objects, round, b"mine").unwrap();
                        assert_eq!(get(&objects, &object).unwrap(), b"mine");
                        let lock = Path::new(&object.path()).with_file_name(LOCK);
                        assert!(lock.exists(), "a folder without a lock file");
                    }
                })
            })
            .collect();
        let results: Vec<_> = sessions.into_iter().map(|session| session.join()).collect();
        over.store(true, Relaxed);
        sweepers.into_iter().for_each(|sweeper| sweeper.join().unwrap());
        results.into_iter().for_each(|result| result.unwrap());
    });
    assert_eq!(scratch.names(), Vec::<String>::new());
}

#[test]
fn parts_of_the_dead_are_removed_where_objects_last() {
    let scratch = Scratch::new();
    let objects = Objects::new("test", local_in(&scratch.0), Compression::None);
    objects.write_at("keep/1", false, &mut |to| to.write_all(b"1")).unwrap();
    let keep = scratch.0.join("keep");
    let dead = keep.join("2.00000000000000aa.dagger-part");
    let live = keep.join("2.00000000000000bb.dagger-part");
    fs::write(&dead, b"half").unwrap();
    let writer = fs::File::create(&live).unwrap();
    writer.try_lock().unwrap();
    assert_eq!(objects.list_at("keep").unwrap(), [("keep/1".to_string(), 33)]);
    assert!(live.exists() && !dead.exists());
    // Two write the same object: each writes its own part, one after the other is there.
    let object = objects.write_at("keep/2", false, &mut |to| {
        objects.write_at("keep/2", false, &mut |to| to.write_all(b"inner")).map_err(io::Error::other)?;
        to.write_all(b"outer")
    });
    let mut text = String::new();
    objects.read(&object.unwrap(), &mut |from| from.read_to_string(&mut text).map(drop)).unwrap();
    assert_eq!(text, "outer");
}

#[test]
fn dropping_removes_everything() {
    let scratch = Scratch::new();
    let objects = Objects::new("test", local_in(&scratch.0), Compression::None);
    (0..20).for_each(|name| drop(put(&objects, name, b"spilled").unwrap()));
    objects.write_at("keep", false, &mut |to| to.write_all(b"kept")).unwrap();
    drop(objects);
    assert_eq!(scratch.names(), ["keep"]);

    let inner = Arc::new(InMemory::new());
    let store = Faulty::new(inner.clone());
    let objects = over(store.clone());
    (0..20).for_each(|name| drop(put(&objects, name, b"spilled").unwrap()));
    objects.write_at("keep", false, &mut |to| to.write_all(b"kept")).unwrap();
    let other = over(store.clone());
    let others = put(&other, 1, b"another session").unwrap();
    store.fail_every(3, Trouble::Passing);
    drop(objects);
    assert!(store.wait_for_deleted(20));
    store.heal();
    let mut listed: Vec<_> = other.list_at("keep").unwrap();
    listed.extend(other.list().unwrap().into_iter().map(|path| (path, 0)));
    let runtime = other.threads().handle().unwrap();
    let all = runtime.block_on(futures::StreamExt::count(inner.list(None)));
    assert_eq!(all, 2, "{listed:?}");
    assert_eq!(get(&other, &others).unwrap(), b"another session");
}

#[test]
fn clearing_removes_everything_and_waits() {
    let store = Faulty::new(Arc::new(InMemory::new()));
    let objects = over(store.clone());
    (0..20).for_each(|name| drop(put(&objects, name, b"spilled").unwrap()));
    store.fail_every(3, Trouble::Passing);
    objects.clear();
    assert_eq!(objects.list().unwrap(), Vec::<String>::new());
    put(&objects, 1, b"and it goes on").unwrap();
}

#[tokio::test]
async fn dropping_never_waits() {
    // Inside of async code, while the store takes an hour.
    let store = Faulty::new(Arc::new(InMemory::new()));
    let (objects, told) = (over(store.clone()), store.clone());
    let objects = tokio::task::spawn_blocking(move || {
        put(&objects, 1, b"x").unwrap();
        told.delay(Duration::from_secs(3600));
        objects
    });
    drop(objects.await.unwrap());

    // Where there is nothing to remove.
    let scratch = Scratch::new();
    let objects = temporary_in(&scratch.0);
    objects.threads().handle().unwrap();
    drop(objects);

    // By the last job, on a thread of its own.
    for _ in 0..10 {
        let scratch = Scratch::new();
        let objects = temporary_in(&scratch.0);
        let (done, dropped) = tokio::sync::oneshot::channel();
        let root = scratch.0.clone();
        struct Last(Option<tokio::sync::oneshot::Sender<()>>);
        impl Drop for Last {
            fn drop(&mut self) {
                self.0.take().unwrap().send(()).unwrap();
            }
        }
        let last = Last(Some(done));
        assert!(objects.run(move |objects| {
            put(objects, 1, b"x").unwrap();
            assert_eq!(names(&root).len(), 1);
            drop(last);
        }));
        drop(objects);
        dropped.await.unwrap();
    }
}

/// A local store, asked through a wrapper, does blocking calls of its own on our runtime: jobs must leave it threads.
#[test]
fn many_jobs_leave_threads_for_the_store() {
    let scratch = Scratch::new();
    let store = Faulty::new(Arc::new(LocalFileSystem::new_with_prefix(&scratch.0).unwrap()));
    let objects = over(store);
    let (done, results) = mpsc::channel();
    let jobs = 40 * JOB_THREADS_MAX as u64;
    for name in 0..jobs {
        let done = done.clone();
        assert!(objects.run(move |objects| {
            let result = put(objects, name, b"x").and_then(|object| get(objects, &object));
            done.send(result).unwrap();
        }));
    }
    for _ in 0..jobs {
        assert_eq!(results.recv_timeout(Duration::from_secs(30)).unwrap().unwrap(), b"x");
    }
    assert_eq!(objects.list().unwrap().len(), jobs as usize);
}

#[test]
fn a_job_that_panics_costs_nothing_else() {
    let scratch = Scratch::new();
    let objects = temporary_in(&scratch.0);
    let (done, results) = mpsc::channel();
    for job in 0..100 {
        let done = done.clone();
        assert!(objects.run(move |_| if job % 2 == 0 {
            panic!("on purpose")
        } else {
            done.send(job).unwrap()
        }));
    }
    let mut seen: Vec<i32> =
        (0..50).map(|_| results.recv_timeout(Duration::from_secs(30)).unwrap()).collect();
    seen.sort_unstable();
    assert!(seen.into_iter().eq((1..100).step_by(2)));
}

#[cfg(feature = "lz4")]
#[test]
fn what_repeats_itself_is_stored_smaller() {
    let scratch = Scratch::new();
    let backing = Backing::Temporary { root: Some(scratch.0.clone()) };
    let objects = Objects::new("test", backing, Compression::Lz4);
    let value = bytes(1_000_000, 1);
    let object = put(&objects, 1, &value).unwrap();
    assert!(object.stored_bytes() < object.payload_bytes() / 2, "{}", object.stored_bytes());
    assert!(get(&objects, &object).unwrap() == value);
    // It says itself how it was written.
    let plain = temporary_in(&scratch.0);
    assert!(get(&plain, &object).unwrap() == value);
}
