//! The agent: the first program of every initrd that is made here, built with this program (`agent/`, `build.rs`) and carried in it.

/// For the processor architecture that this program was built for.
pub(crate) fn of_this_machine() -> &'static [u8] {
    include_bytes!(env!("EMBODY_AGENT"))
}
