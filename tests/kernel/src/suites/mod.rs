//! The suites, one a file.

mod ram;
