//! Archives that are imported: see `embody::testing::fuzz::archive`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(what) = embody::testing::fuzz::archive(bytes) {
        panic!("{what}");
    }
});
