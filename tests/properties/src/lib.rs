//! Stateful code meets reference state machines.
//!
//! Each module drives one part of `kerncore` through random histories, side by side with a model of it that is too dull to be
//! wrong, and compares after every step. A history that fails is shrunk to a short one.
//!
//! The histories are a function of one seed, [`run::DEFAULT_SEED`] unless `PROPERTIES_SEED` says otherwise; a failure
//! prints the line that runs it again alone. `PROPERTIES_CASES` multiplies the number of histories.
//!
//! Histories of the page table and of the whole kernel space need SoftMachine and lie with it, in `tests/machine`.
//!
//! A new machine is a module here whose tests call [`run::prove`].

pub mod run;

#[cfg(test)]
mod bounce;
#[cfg(test)]
mod frames;
#[cfg(test)]
mod iova;
#[cfg(test)]
mod pool;
#[cfg(test)]
mod segments;
#[cfg(test)]
mod va_space;
