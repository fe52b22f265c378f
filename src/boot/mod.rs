//! What a server boots: the answer of the moment (pure), and the HTTP endpoint that gives it.
//!
//! Leaves out DHCP, TFTP, NFS and iSCSI servers: whoever answers DHCP on the boot network points iPXE at `/boot/<mac>`.

pub(crate) mod answer;
