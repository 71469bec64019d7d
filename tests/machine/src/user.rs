//! A CPU as address spaces of programs see it: TTBCR.N is 1, and walks of the lower half are allowed or not.

use crate::{
    Asid, Reach, Register, Scope, SoftCpu, Ttbcr,
    cpu::{number_of, state_of},
    state::Pending,
};
use kerncore::{
    addr::{PAGE_SIZE, PageRange, Pfn, PhysAddr},
    machine::Machine,
    user::{
        asid,
        machine::{UserMachine, Walks},
    },
};

impl SoftCpu<'_> {
    /// Translates the upper half by the table at `kernel` and the lower by none, as the stub leaves a CPU.
    pub fn split(&self, kernel: PhysAddr, empty: PhysAddr) {
        self.write_register(Register::Ttbr1(kernel));
        self.set_user_walks(Walks::Forbidden);
        self.barrier();
        self.set_asid(asid::Asid::KERNEL);
        self.set_user_table(empty);
        self.barrier();
    }
}

impl UserMachine for SoftCpu<'_> {
    fn invalidate_tlb_in(&self, space: asid::Asid, pages: PageRange) {
        self.invalidate(Scope::PagesOf(pages, Asid(space.number())), Reach::InnerShareable);
    }

    fn invalidate_tlb_space(&self, space: asid::Asid) {
        self.invalidate(Scope::Space(Asid(space.number())), Reach::InnerShareable);
    }

    fn invalidate_tlb_everything(&self) {
        self.invalidate(Scope::All, Reach::InnerShareable);
    }

    fn set_user_table(&self, table: PhysAddr) {
        self.write_register(Register::Ttbr0(table));
    }

    fn set_asid(&self, asid: asid::Asid) {
        self.write_register(Register::ContextId(Asid(asid.number())));
    }

    fn set_user_walks(&self, walks: Walks) {
        let no_walk_by_ttbr0 = walks == Walks::Forbidden;
        let ttbcr = Ttbcr { split: 1, no_walk_by_ttbr0, no_walk_by_ttbr1: false };
        self.write_register(Register::Ttbcr(ttbcr));
    }

    fn write_frames(&self, first: Pfn, bytes: &[u8]) {
        let mut state = state_of(self);
        for (word, address) in bytes.chunks(4).zip((first.base().raw()..).step_by(4)) {
            let mut whole = [0; 4];
            whole[..word.len()].copy_from_slice(word);
            state.memory.write_cached(address, u32::from_le_bytes(whole));
        }
    }

    fn copy_frame(&self, from: Pfn, to: Pfn) {
        let mut state = state_of(self);
        for offset in (0..PAGE_SIZE).step_by(4) {
            let word = state.memory.read_cached(from.base().raw() + offset);
            state.memory.write_cached(to.base().raw() + offset, word);
        }
    }

    fn clean_instructions(&self, first: Pfn, count: u32) {
        state_of(self).begin_clean(number_of(self), first.base(), count * PAGE_SIZE);
    }

    fn invalidate_instructions(&self) {
        state_of(self).begin(number_of(self), Pending::ForgetInstructions);
    }
}
