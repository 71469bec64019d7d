//! The rules of SoftMachine, and `kerncore`'s page table and linear map held to them.

mod linear_map;
mod mutants;
mod page_table;
mod page_table_oddities;
mod race;
mod rules;
mod support;
