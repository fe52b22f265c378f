//! What machines that boot send: DHCP packets: see `embody::testing::fuzz::dhcp`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(what) = embody::testing::fuzz::dhcp(bytes) {
        panic!("{what}");
    }
});
