//! redb at arm's length: on a damaged page it may panic where it should answer, and nothing else shall hear of that.
//!
//! Leaves out: what is done then. Invariant: no panic of redb passes `caught`, and none is printed. Test: `tests/store/damage.rs`.

use std::{
    any::Any,
    cell::Cell,
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// What the work gives; a panic is a damaged file.
pub(super) fn caught<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !INSIDE.get() {
                print(panic);
            }
        }));
    });
    let outer = INSIDE.replace(true);
    // What the work leaves behind is never used again: after an error the database is closed and opened anew.
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    INSIDE.set(outer);
    done.unwrap_or_else(|panic| Err(redb::Error::Corrupted(format!("redb gave up: {}", text(&*panic)))))
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let owned = || panic.downcast_ref::<String>().map(String::as_str);
    panic.downcast_ref::<&str>().copied().or_else(owned).unwrap_or("without a word")
}
