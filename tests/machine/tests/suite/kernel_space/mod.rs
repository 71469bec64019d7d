//! The kernel's whole address space on SoftMachine: what vmalloc, vmap, ioremap and coherent memory promise, what they leave
//! behind when they fail (nothing), and whether the audit sees what is done to the tables behind its back.

mod alias;
mod at_once;
mod bare;
mod coherent;
mod coherent_at_hand;
mod contiguous;
mod copy;
mod damage;
mod damage_to_areas;
mod device;
mod device_history;
mod exec;
mod exec_on_chip;
mod exhaustion;
mod failures;
mod family;
mod few;
mod history;
mod huge;
mod interrupt;
mod lock_order;
mod map;
mod map_ram;
mod occupied;
mod purge;
mod race;
mod realloc;
mod registers;
mod runs;
mod section;
mod sharing;
mod temporary;
mod vmalloc;
mod vmap_large;

use histories::bed;
