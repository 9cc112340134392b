//! Any bytes as a trace file: an error or a trace, never a panic; and what was read can be shown and written again.
#![no_main]

use dagger_trace::{Lane, Trace};
use libfuzzer_sys::fuzz_target;

/// FNV-1a, as the format says: without it hardly any input would get past the checksum.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

fn read(bytes: &[u8]) {
    let Ok(trace) = Trace::from_bytes(bytes) else { return };
    let _ = (trace.describe(), trace.to_chrome());
    let _ = (trace.graph().chunks(true).to_svg(), trace.graph().boxes_max(2).to_dot());
    for lane in [Lane::Task, Lane::Processor, Lane::Scheduler] {
        let _ = trace.gantt(lane).to_svg();
    }
    assert_eq!(Trace::from_bytes(&trace.to_bytes()).expect("it was just written"), trace);
}

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    let mut fitting = [b"dagtrace\x03\0", bytes].concat();
    fitting.extend(checksum(&fitting).to_le_bytes());
    read(&fitting);
});
