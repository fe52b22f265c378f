//! Images: from a directory, tar or container image to an immutable, content-addressed revision, and back.
//!
//! ```text
//!  dir │ tar │ oci ──source──▶ Tree (owners, modes, devices: in memory only) ──generalise──▶ Tree ──index──▶ Index ──sha256──▶ digest
//!         └─ contents ──hash──▶ Objects (objects/ab/cdef…)                                          └── index/<digest>, visible last
//!                                   └──── open_verified ◀── NFS, export_tar (squashfs), export_dir
//! ```
//!
//! Words: an **index** is the canonical text of a tree; an **image's digest** is the sha256 of its index; an **object** is the contents of a file under
//! its sha256; a **session** is one import that is running.
//!
//! Leaves out: serving (NFS), building squashfs, where images are named. Invariants: an image never changes, another tree is another digest; all of it
//! works as an ordinary user, since owners, modes and device nodes live only in the index; a byte that was flipped on the disk is an error that names
//! the object, never contents. Each module's header names the test that shows its own.

pub(crate) mod agent;
pub(crate) mod digest;
pub(crate) mod export;
pub(crate) mod files;
pub(crate) mod generalise;
mod import;
pub(crate) mod index;
pub(crate) mod initrd;
pub(crate) mod kernel;
pub(crate) mod pack;
pub(crate) mod source;
pub(crate) mod squash;
pub(crate) mod store;
pub(crate) mod tree;
pub(crate) mod warnings;

pub use import::{ImportError, Imported, Options, import};
