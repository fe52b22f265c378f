//! Images from the inside: every corner of directories, tars and container images, their index, the store of their files, and the initrd of one.
//!
//! GNU tar, cpio and skopeo are the referees. Imports run as the user whom nothing belongs to, where we are root. Leaves out: the command line and the
//! controller (`tests/images.rs`), machines that run an image (`tests/machines.rs`).

#[path = "importing/bench.rs"]
mod bench;
#[path = "importing/dir.rs"]
mod dir;
#[path = "importing/directory.rs"]
mod directory;
#[path = "importing/generalise.rs"]
mod generalise;
#[path = "importing/index.rs"]
mod index;
#[path = "importing/initrd.rs"]
mod initrd;
#[path = "importing/oci.rs"]
mod oci;
#[path = "importing/store.rs"]
mod store;
#[path = "importing/tar.rs"]
mod tar;
#[path = "importing/tool.rs"]
mod tool;
