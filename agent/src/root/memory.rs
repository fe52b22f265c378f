//! How much memory there is: what does not fit is said before it is fetched, not by a machine that hangs.
//!
//! Leaves out: what the system will use. Invariant: sizes are octets. Shown by the tests below.

use super::RootError;

/// For the system itself, at least, beside a root in memory.
const SPARE: u64 = 64 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    total: u64,
    available: u64,
}

impl Memory {
    pub(super) fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/meminfo").ok()?)
    }

    /// proc_meminfo(5)
    fn parse(text: &str) -> Option<Self> {
        let line = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name))?;
            value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        Some(Self { total: line("MemTotal:")?, available: line("MemAvailable:")? })
    }

    /// Whether a root of this size may be fetched.
    pub(super) fn takes(self, size: u64) -> Result<(), RootError> {
        if size.saturating_add(SPARE) <= self.available {
            return Ok(());
        }
        Err(RootError::Memory { need: size.div_ceil(1 << 20), available: self.available >> 20, total: self.total >> 20 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_said_with_numbers() {
        let memory = Memory::parse("MemTotal:         490000 kB\nMemFree:  1 kB\nMemAvailable:     409600 kB\n").unwrap();
        assert!(memory.takes(336 << 20).is_ok());
        assert_eq!(
            memory.takes((336 << 20) + 1).unwrap_err().to_string(),
            "the root of 337 MiB does not fit into memory: 400 of 478 MiB are free, and the system needs some of it"
        );
        assert!(memory.takes(u64::MAX).is_err());
        assert_eq!(Memory::parse("MemTotal: x kB"), None);
    }
}
