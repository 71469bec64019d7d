//! Who takes the room for copies (S106) away from others.

extern crate alloc;

use alloc::vec::Vec;

use dma::bounce::usage;
use dma::debug;
use dma::device::Device;
use dma::streaming::{self, Call, MapError, Memory};
use kerncore::addr::{DmaAddr, VirtAddr};
use kerncore::bounce::SLOT;
use kerncore::misuse::Family;
use kerncore::streaming::Flow;
use mm::vm_area::VmArea;

use super::witness::NOBODY;

static HOARDER: Device = Device::new("a hoarder");

/// Slots that others would like to have, each mapped for a device that is not there.
pub(super) struct Hoard {
    area: VmArea,
    pub(super) taken: Vec<DmaAddr>,
}

impl Hoard {
    pub(super) fn none() -> Self {
        let slots = usage().slots;
        let area = VmArea::new(slots * SLOT).expect("memory");
        Self { area, taken: Vec::with_capacity(slots as usize) }
    }

    /// Takes every slot until one is refused, and gives `left` back.
    pub(super) fn all_but(left: usize) -> Self {
        let mut hoard = Self::none();
        hoard.take_all();
        hoard.give_back(left);
        hoard
    }

    fn call() -> Call<'static> {
        let (device, flow) = (&HOARDER, Flow::ToDevice);
        Call { name: "a test", device, flow, caller: NOBODY, family: Family::Single }
    }

    pub(super) fn take_all(&mut self) {
        self.take(usize::MAX);
    }

    /// Takes so many, or as many as there are.
    pub(super) fn take(&mut self, count: usize) {
        while self.taken.len() < count {
            let start = self.area.address().raw();
            let next = start + u32::try_from(self.taken.len()).expect("few") * SLOT;
            let memory = Memory::Anywhere(VirtAddr::new(next));
            // SAFETY: the memory is mapped until it is unmapped below, and nobody uses it.
            match unsafe { streaming::map(Self::call(), memory, SLOT) } {
                Ok(dma) => {
                    debug::asked(&HOARDER, dma);
                    self.taken.push(dma);
                }
                Err(MapError::Exhausted { .. }) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(super) fn give_back(&mut self, count: usize) {
        for _ in 0..count {
            let dma = self.taken.pop().expect("as many slots");
            // SAFETY: mapped above, and there is no such device.
            assert_eq!(unsafe { streaming::unmap(Self::call(), dma, SLOT) }, Ok(()));
        }
    }
}

impl Drop for Hoard {
    fn drop(&mut self) {
        self.give_back(self.taken.len());
    }
}
