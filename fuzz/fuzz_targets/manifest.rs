//! Manifests: see `embody::testing::fuzz::manifest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(what) = embody::testing::fuzz::manifest(bytes) {
        panic!("{what}");
    }
});
