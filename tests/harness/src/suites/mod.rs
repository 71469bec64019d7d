//! The wrong tests, by what is wrong with them.

mod audit;
mod dies;
mod ends;
mod leaks;
mod locks;
mod output;
mod smp;
mod touches;
mod well;
mod witness;
