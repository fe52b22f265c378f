//! Recordings of switches: see `embody::testing::fuzz::recording`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(what) = embody::testing::fuzz::recording(bytes) {
        panic!("{what}");
    }
});
