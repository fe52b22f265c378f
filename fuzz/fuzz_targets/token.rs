//! What a start is recognised by: see `embody::testing::fuzz::token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(what) = embody::testing::fuzz::token(bytes) {
        panic!("{what}");
    }
});
