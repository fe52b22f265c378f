//! What an NFS client sends: see `embody::testing::fuzz::nfs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(what) = embody::testing::fuzz::nfs(bytes) {
        panic!("{what}");
    }
});
