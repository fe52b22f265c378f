//! What systems and their controller say to each other: see `embody::testing::fuzz::exchange`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(what) = embody::testing::fuzz::exchange(bytes) {
        panic!("{what}");
    }
});
