//! How a CPU makes what it holds, and what it does to that.

extern crate alloc;

use alloc::vec::Vec;

use board::vexpress_a9::{L2_CACHE_CONTROLLER, SYSTEM_REGISTERS};
use dma::coherent::CoherentBox;
use kerncore::addr::{PAGE_SIZE, SECTION_SIZE, VirtAddr};
use kerncore::kernel_space::Fill;
use mm::exec_area::ExecArea;
use mm::io_mem::IoMem;
use mm::kernel;
use mm::page_alloc::Pages;
use mm::vm_area::VmArea;

use super::held::{Held, Id, What};
use super::named::{self, Named, Reserve};
use super::on_bus::{By, OnBus};
use super::transfers::Block;
use super::{DEVICE, PAGES, Worker};

impl Worker<'_> {
    /// Makes something of some kind, with a pattern.
    pub(super) fn make(&mut self) {
        let pages = 1 + self.draw.below(PAGES);
        let bytes = pages * PAGE_SIZE - self.draw.below(PAGE_SIZE);
        let what = match self.draw.below(23) {
            0 | 1 => What::Memory(VmArea::new(bytes).expect("memory")),
            2 => What::Memory(VmArea::zeroed(bytes).expect("memory")),
            3 => What::Mapped(VmArea::map(blocks(pages)).expect("addresses")),
            4 => What::Block(Pages::exactly(pages).expect("memory")),
            5 => What::Coherent(CoherentBox::new(&DEVICE, bytes).expect("memory")),
            6 => What::Heap(alloc::vec![0; bytes as usize]),
            7 => What::Registers(self.registers()),
            8 => {
                let fill = Fill::Uninitialised;
                What::Huge(VmArea::huge(SECTION_SIZE + bytes, fill).expect("memory"))
            }
            9 => What::Code(ExecArea::new(bytes).expect("memory")),
            10 => {
                let code = ExecArea::new(bytes).expect("memory");
                return self.mine.push(Held::sealed(code, self.draw.next()));
            }
            11 => What::Named(Named::object(bytes)),
            // Of the heap.
            12 => What::Named(Named::object(1 + bytes % PAGE_SIZE)),
            13 | 14 => What::Named(Named::short_lived(blocks(pages))),
            15 => What::Named(Named::bare(blocks(pages), Reserve::Plainly)),
            16 | 17 => return self.map_of_bus(By::IoRemapWc),
            18 => return self.map_of_bus(By::MemRemap),
            19 => return self.map_of_bus(By::IoRemapShared),
            20 | 21 => What::Small(Block::new()),
            _ => What::Named(Named::bare(blocks(pages), Reserve::WithTables)),
        };
        let held = Held::new(what, self.draw.next());
        self.mine.push(held);
    }

    /// Registers that several CPUs have: each by a mapping of its own, by one that they share, or where the board has them.
    fn registers(&mut self) -> IoMem<Id> {
        let mapped = match self.draw.below(4) {
            0 => IoMem::map(SYSTEM_REGISTERS.base),
            1 | 2 => IoMem::map_shared(SYSTEM_REGISTERS.base),
            _ => IoMem::map(L2_CACHE_CONTROLLER.base),
        };
        mapped.expect("addresses")
    }

    /// Maps memory or registers on the bus, if a place is nobody's.
    fn map_of_bus(&mut self, by: By) {
        if let Some(memory) = OnBus::new(by, &mut self.draw) {
            let held = Held::new(What::OnBus(memory), self.draw.next());
            self.mine.push(held);
        }
    }

    /// Makes memory of vmalloc longer or shorter.
    pub(super) fn resize(&mut self) {
        let place = self.pick(|what| matches!(what, What::Memory(_)));
        let bytes = 1 + self.draw.below(2 * PAGES * PAGE_SIZE);
        if let Some(place) = place {
            self.mine[place].resize(bytes);
        }
    }

    /// Unmaps what is mapped in a bare area, and maps it again.
    pub(super) fn map_anew(&mut self) {
        if let Some(place) = self.pick(|what| matches!(what, What::Named(Named::Bare { .. }))) {
            self.mine[place].map_anew();
        }
    }

    /// Reads and writes what this CPU has through its area, and reads what others may have just now.
    pub(super) fn copy(&mut self) {
        let (offset, length) = (self.draw.next(), 1 + self.draw.below(4 * PAGE_SIZE));
        if let Some(place) = self.pick(|_| true) {
            self.mine[place].copy(offset, length);
        }
        let start = kernel().window().start().raw();
        // Where areas lie that come and go; whatever it finds there, it ends.
        let from = VirtAddr::new(start + self.draw.below(8 * SECTION_SIZE));
        let mut seen = alloc::vec![0; length as usize];
        assert!(named::read(from, &mut seen) <= seen.len());
    }
}

/// One block or some, of 1 to 7 pages together.
fn blocks(pages: u32) -> Vec<Pages> {
    (0..=pages % 3).map(|order| Pages::new(order).expect("memory")).collect()
}
