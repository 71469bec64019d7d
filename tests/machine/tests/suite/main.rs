//! On SoftMachine: its own rules; `kerncore`'s page table and linear map held to them; the kernel's whole address space;
//! and the board of mutants, which says of the tests that they bite.

mod iommu;
mod iommu_at_hand;
mod iommu_edges;
mod kernel_space;
mod linear_list;
mod linear_map;
mod messages;
pub(crate) mod mutants;
mod page_table;
mod page_table_history;
mod page_table_oddities;
mod race;
mod rules;
mod rules_contexts;
mod rules_large;
mod scattered;
mod scattered_oddities;
mod scattered_refusals;
pub(crate) mod schedules;
pub(crate) mod schedules_types;
mod support;
mod user_lent;
mod user_show;
mod user_show_devices;
mod user_space;
mod zones;
