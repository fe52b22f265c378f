//! Indexes of images: see `embody::testing::fuzz::index`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(what) = embody::testing::fuzz::index(bytes) {
        panic!("{what}");
    }
});
