//! The suites, one a file.

mod areas;
mod atomic_pool;
mod boot;
mod coherent;
mod command_line;
mod dma;
mod faces;
mod faults;
mod handover;
mod heap;
mod instructions;
mod ioremap;
mod locks;
mod memory_functions;
mod monitor;
mod pages;
mod ram;
mod serial;
mod stale;
mod stub;
mod symbols;
mod tables;
mod virtio_block;
mod vmalloc;
mod vmap;
mod witness;
