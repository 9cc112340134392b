//! With feature `hwloc`: looks for the C library, so that its absence is one clear line and not a linker error.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for variable in ["PKG_CONFIG", "PKG_CONFIG_PATH", "PKG_CONFIG_LIBDIR"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if std::env::var_os("CARGO_FEATURE_HWLOC").is_none() {
        return;
    }
    // `hwloc2` asks the same program and ignores its answer; we do not.
    let program = std::env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let found = Command::new(program).args(["--exists", "hwloc >= 2.0"]).status();
    if !found.is_ok_and(|status| status.success()) {
        println!(
            "cargo::error=feature `hwloc` needs the C library hwloc (2.0 or later) and pkg-config: \
             apt-get install -y libhwloc-dev pkg-config (or build without the feature)"
        );
    }
}
