//! What a store holds: see `embody::testing::fuzz::stored`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(what) = embody::testing::fuzz::stored(bytes) {
        panic!("{what}");
    }
});
