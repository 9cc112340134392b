//! Any text as the pattern of a category, as `dagger-trace describe --category` takes it, tried on any name.
#![no_main]

use dagger_trace::Patterns;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|given: (&str, &str)| {
    let (pattern, name) = given;
    if let Ok(patterns) = Patterns::new([("a", pattern), ("b", "")]) {
        assert!(patterns.of(name).is_some(), "the empty pattern matches every name");
    }
});
