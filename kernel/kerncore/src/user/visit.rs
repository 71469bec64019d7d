//! Tables that are no program's, by which a processor translates the lower half for a while: those of an IOMMU's domain, for which
//! it stands in as the device (S110).

use crate::addr::{PageRange, PhysAddr};
use crate::lock::{Lock, Locks};
use crate::user::asid::{Asid, Asids, Current, SpaceId};
use crate::user::machine::{UserMachine, close, open};
use crate::user::space::Spaces;

/// The number that what is read from such tables is remembered under, as a program's is.
///
/// Whoever changes the tables calls [`Visitor::invalidate`]; who lets it go calls [`Visitor::invalidate_all`], and then
/// [`Spaces::retire`].
#[derive(Debug)]
pub struct Visitor {
    id: SpaceId,
    current: Current,
}

impl Visitor {
    /// The number that it last had; the kernel's if its tables were never in use.
    pub fn asid(&self) -> Asid {
        self.current.asid()
    }

    /// Invalidates what any CPU's TLB holds for `pages` of the tables. Complete after the machine's barrier.
    pub fn invalidate(&self, machine: &impl UserMachine, pages: PageRange) {
        machine.invalidate_tlb_in(self.asid(), pages);
    }

    /// Invalidates what any CPU's TLB holds of the tables. Complete after the machine's barrier.
    pub fn invalidate_all(&self, machine: &impl UserMachine) {
        machine.invalidate_tlb_space(self.asid());
    }
}

impl<L: Locks> Spaces<L> {
    /// A number for tables that are no program's.
    pub fn visitor(&self) -> Visitor {
        Visitor { id: self.asids.with(Asids::register), current: Current::new() }
    }

    /// Runs `act` while this CPU, `machine`, translates the lower half by the first-level table at `table`, whose entries are not
    /// global. As [`crate::user::UserSpace::with_open`].
    ///
    /// # Panics
    /// In interrupt context, or if this CPU has a space open already.
    pub fn with_table<R>(
        &self,
        machine: &impl UserMachine,
        visitor: &Visitor,
        table: PhysAddr,
        act: impl FnOnce() -> R,
    ) -> R {
        self.with_open(machine, (visitor.id, &visitor.current), table, act)
    }

    /// The number of tables that no TLB remembers is free.
    ///
    /// # Panics
    /// If a CPU is using them.
    pub fn retire(&self, visitor: &Visitor) {
        self.asids.with(|asids| asids.retire(visitor.id, &visitor.current));
    }

    #[inline(always)]
    pub(super) fn with_open<R>(
        &self,
        machine: &impl UserMachine,
        (id, current): (SpaceId, &Current),
        table: PhysAddr,
        act: impl FnOnce() -> R,
    ) -> R {
        assert!(!machine.in_interrupt(), "user memory is opened in interrupt context");
        let cpu = machine.cpu();
        let asid = self.asids.with(|asids| {
            asids.enter(cpu, id, current, || {
                machine.invalidate_tlb_everything();
                machine.barrier();
            })
        });
        open(machine, table, asid);
        let result = act();
        close(machine, self.empty);
        self.asids.with(|asids| asids.leave(cpu));
        result
    }
}
