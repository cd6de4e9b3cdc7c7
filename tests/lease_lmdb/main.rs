//! Leases in an LMDB file, between real processes of one machine.

mod crowd;
mod folder;
mod fork;
mod peer;
mod processes;
mod support;
