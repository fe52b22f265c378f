//! What a BMC sends: the replies of a handshake and of a session: see `embody::testing::fuzz::ipmi`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(what) = embody::testing::fuzz::ipmi(bytes) {
        panic!("{what}");
    }
});
