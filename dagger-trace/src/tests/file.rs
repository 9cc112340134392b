use super::traces;
use crate::{Trace, TraceError};
use proptest::prelude::*;

/// The error, which must be one of the file.
fn error(bytes: &[u8]) -> (u64, String) {
    match Trace::from_bytes(bytes) {
        Err(TraceError::BadFile { offset, what }) => (offset, what),
        other => panic!("{other:?}"),
    }
}

fn small() -> Trace {
    super::trace(
        vec![(0, vec![(1, 5)], 0, true), (1, vec![(20, 3), (4, 4)], 6, true), (300, vec![], 5, false)],
        &[(0, 1, 0), (0, 1, 3)],
        1,
        0,
    )
}

proptest! {
    #[test]
    fn what_is_read_is_what_was_written(mut trace in traces(20)) {
        trace.nanos = 1000;
        prop_assert_eq!(Trace::from_bytes(&trace.to_bytes()).unwrap(), trace);
    }

    #[test]
    fn a_changed_byte_is_an_error(place in any::<prop::sample::Index>(), with in 1..=255u8) {
        let mut trace = small();
        trace.nanos = 1000;
        let mut bytes = trace.to_bytes();
        bytes[place.index(trace.to_bytes().len())] ^= with;
        let (offset, _) = error(&bytes);
        prop_assert!(offset <= bytes.len() as u64);
    }

    /// With a checksum that fits, so that nothing but the decoder stands between the bytes and what uses the trace.
    #[test]
    fn no_bytes_make_it_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of((any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..40))),
    ) {
        let mut trace = small();
        trace.nanos = 1000;
        let mut bytes = trace.to_bytes();
        bytes.truncate(bytes.len() - 8);
        let header = 10;
        for (place, with) in changes {
            let body = bytes.len() - header;
            bytes[header + place.index(body)] = with;
        }
        if let Some((place, tail)) = cut {
            bytes.truncate(header + place.index(bytes.len() - header));
            bytes.extend(tail);
        }
        let sum = crate::file::checksum(&bytes);
        bytes.extend(sum.to_le_bytes());
        match Trace::from_bytes(&bytes) {
            Ok(trace) => {
                let _ = (trace.describe(), trace.to_chrome());
                prop_assert_eq!(Trace::from_bytes(&trace.to_bytes()).unwrap(), trace);
            }
            Err(TraceError::BadFile { offset, .. }) => prop_assert!(offset <= bytes.len() as u64),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn random_bytes_are_no_trace(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        error(&bytes);
    }
}

#[test]
fn every_shorter_file_is_an_error_that_says_where() {
    let mut trace = small();
    trace.nanos = 1000;
    let bytes = trace.to_bytes();
    for len in 0..bytes.len() {
        let (offset, what) = error(&bytes[..len]);
        assert!(offset <= len as u64, "{len}: byte {offset}, {what}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(error(&longer), (bytes.len() as u64, "more bytes than a trace has".into()));
}

#[test]
fn files_of_others_and_of_the_future_say_so() {
    assert_eq!(error(b"PNG"), (0, "this is no trace".into()));
    let mut bytes = small().to_bytes();
    bytes[8] = 7;
    let (offset, what) = error(&bytes);
    assert_eq!((offset, what.as_str()), (8, "version 7 of the format; this program reads versions 1 to 3"));
}

#[test]
fn numbers_and_times_out_of_bounds_say_where() {
    let bytes = small().to_bytes();
    let (_, what) = error(&bytes); // its last task is spawned 100 ns after the end
    assert_eq!(what, "a time after the end of the recording");
    let long = [&bytes[..11], &[0xff; 9], &[2]].concat();
    assert_eq!(error(&long), (11, "a number of more than 64 bits".into()));
}

#[test]
fn a_list_that_claims_too_much_takes_no_memory() {
    let mut trace = small();
    trace.tasks.clear();
    trace.edges.clear();
    let bytes = trace.to_bytes();
    let lists = bytes.len() - 8 - 20;
    for at in 10..lists {
        let mut bytes = bytes[..at].to_vec();
        bytes.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
        error(&bytes);
    }
}

#[test]
fn paths_that_do_not_work_are_named() {
    let shown = |result: Result<(), TraceError>| result.unwrap_err().to_string();
    let trace = small();
    assert!(shown(trace.save("/nowhere/at/all")).starts_with("/nowhere/at/all: "));
    assert!(shown(Trace::load("/nowhere/at/all").map(drop)).starts_with("/nowhere/at/all: "));
    assert_eq!(shown(trace.save_chrome("trace.png")), "trace.png: unknown suffix; supported: .json");
    assert!(matches!(trace.save_chrome("trace"), Err(TraceError::UnknownSuffix { .. })));
}
