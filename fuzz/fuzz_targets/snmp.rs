//! What an SNMP agent sends: see `embody::testing::fuzz::snmp`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(what) = embody::testing::fuzz::snmp(bytes) {
        panic!("{what}");
    }
});
