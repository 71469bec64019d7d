//! The suites, one a file.

mod areas;
mod atomic_pool;
mod coherent;
mod faces;
mod ioremap;
mod ram;
mod serial;
mod stale;
mod virtio_block;
mod vmalloc;
mod vmap;
mod witness;
