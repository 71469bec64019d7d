//! One CPU: the [`Machine`] that the code under test drives, and the accesses that show what it did.

use crate::{
    Event, Fault, Kind, Privilege, Reach, Register, Scope, SoftMachine,
    state::{Behaviour, Pending, State},
    tlb::{Found, Translation},
};
use kerncore::{
    addr::{PAGE_SIZE, PageRange, Pfn, PhysAddr, VirtAddr},
    descriptor::SLOT_SIZE,
    machine::Machine,
};
use std::fmt;

/// A CPU of a [`SoftMachine`].
#[derive(Clone, Copy)]
pub struct SoftCpu<'machine> {
    machine: &'machine SoftMachine,
    number: usize,
}

/// The number of `cpu`.
pub(crate) const fn number_of(cpu: &SoftCpu<'_>) -> usize {
    cpu.number
}

/// The state of the machine of `cpu`, which may do something of its own accord first.
pub(crate) fn state_of<'machine>(
    cpu: &SoftCpu<'machine>,
) -> std::sync::MutexGuard<'machine, State> {
    cpu.begin(None)
}

impl<'machine> SoftCpu<'machine> {
    pub(crate) const fn new(machine: &'machine SoftMachine, number: usize) -> Self {
        Self { machine, number }
    }

    /// The machine that it belongs to.
    pub const fn machine(&self) -> &'machine SoftMachine {
        self.machine
    }

    /// Where an access would go, TLB first.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn access(
        &self,
        address: VirtAddr,
        kind: Kind,
        privilege: Privilege,
    ) -> Result<PhysAddr, Fault> {
        let mut state = self.begin(None);
        let entry = self.translate(&mut state, address, kind, privilege)?;
        Ok(entry.leads(address))
    }

    /// The kernel loads the word at `address`.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn load(&self, address: VirtAddr) -> Result<u32, Fault> {
        let mut state = self.begin(None);
        let entry = self.translate(&mut state, address, Kind::Read, Privilege::Kernel)?;
        let physical = entry.leads(address).raw();
        if entry.cacheable {
            return Ok(state.memory.read_cached(physical));
        }
        let hit = state.memory.unexpected_hit(physical);
        let memory = state.memory.read_memory(physical);
        Ok(match (state.behaviour, hit) {
            (_, None) | (Behaviour::Forgetful, _) => memory,
            (Behaviour::Hoarding, Some(word)) => word,
            (Behaviour::Random(_), Some(word)) => {
                if state.chance.one_in(2) {
                    word
                } else {
                    memory
                }
            }
        })
    }

    /// The kernel stores `word` at `address`.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn store(&self, address: VirtAddr, word: u32) -> Result<(), Fault> {
        let mut state = self.begin(None);
        let entry = self.translate(&mut state, address, Kind::Write, Privilege::Kernel)?;
        let physical = entry.leads(address).raw();
        if entry.cacheable {
            state.memory.write_cached(physical, word);
        } else {
            state.memory.write_memory(physical, word);
        }
        Ok(())
    }

    /// The kernel fetches the instruction at `address`.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn fetch(&self, address: VirtAddr) -> Result<u32, Fault> {
        let mut state = self.begin(None);
        let entry = self.translate(&mut state, address, Kind::Execute, Privilege::Kernel)?;
        Ok(state.memory.fetch(entry.leads(address).raw()))
    }

    /// Runs `handler` as the handler of an interrupt.
    pub fn interrupt<R>(&self, handler: impl FnOnce() -> R) -> R {
        struct Handler<'cpu, 'machine>(&'cpu SoftCpu<'machine>);
        impl Drop for Handler<'_, '_> {
            fn drop(&mut self) {
                self.0.machine.state().cpus[self.0.number].interrupts -= 1;
            }
        }
        self.machine.state().cpus[self.number].interrupts += 1;
        let _returns = Handler(self);
        handler()
    }

    /// Invalidates `pages` in this CPU's TLB alone: what the wrong instruction would do.
    pub fn invalidate_tlb_local(&self, pages: PageRange) {
        self.invalidate(Scope::Pages(pages), Reach::Local);
    }

    /// Begins an invalidation of any kind; the next barrier completes it.
    pub fn invalidate(&self, scope: Scope, reach: Reach) {
        let mut state = self.begin(Some(Event::Invalidate(scope, reach)));
        state.begin(self.number, Pending::Invalidate(scope, reach));
    }

    /// Begins to write a register; the next barrier completes it.
    pub fn write_register(&self, register: Register) {
        let mut state = self.begin(None);
        state.begin(self.number, Pending::Write(register));
    }

    /// Lets the machine do something of its own accord, then notes what it is asked.
    fn begin(&self, event: Option<Event>) -> std::sync::MutexGuard<'machine, State> {
        let mut state = self.machine.state();
        state.drift();
        if let Some(event) = event {
            state.log.push((self.number, event));
        }
        state
    }

    fn translate(
        &self,
        state: &mut State,
        address: VirtAddr,
        kind: Kind,
        privilege: Privilege,
    ) -> Result<Translation, Fault> {
        match state.translate(self.number, address.page_number()) {
            Found::Nothing => Err(Fault::Translation(address)),
            Found::Conflict => Err(Fault::Conflict(address)),
            Found::Entry(entry) if entry.allows(kind, privilege) => Ok(entry),
            Found::Entry(_) => Err(Fault::Permission(address)),
        }
    }
}

impl Machine for SoftCpu<'_> {
    type Authority = ();

    fn read_descriptor(&self, slot: PhysAddr) -> u32 {
        assert!(slot.raw().is_multiple_of(SLOT_SIZE), "{slot} is no slot");
        self.machine.state().memory.read_cached(slot.raw())
    }

    fn write_descriptors(&self, first: PhysAddr, descriptors: impl Iterator<Item = u32>) {
        assert!(first.raw().is_multiple_of(SLOT_SIZE), "{first} is no slot");
        let mut slot = first.raw();
        for descriptor in descriptors {
            // Taken anew for each word: iterators may ask the machine themselves, and other CPUs go on.
            let mut state = self.begin(None);
            state.memory.write_cached(slot, descriptor);
            slot += SLOT_SIZE;
        }
        let event = Event::Write(first, (slot - first.raw()) / SLOT_SIZE);
        drop(self.begin(Some(event)));
    }

    fn clean_descriptors(&self, first: PhysAddr, count: u32) {
        let mut state = self.begin(Some(Event::Clean(first, count)));
        state.begin_clean(self.number, first, count * SLOT_SIZE);
    }

    fn barrier(&self) {
        let mut state = self.begin(Some(Event::Barrier));
        state.barrier(self.number);
    }

    fn invalidate_tlb(&self, pages: PageRange) {
        self.invalidate(Scope::Pages(pages), Reach::InnerShareable);
    }

    /// By MVA, as hardware does it: every page must translate, and to the frame that it is said to be.
    fn clean_and_invalidate(&self, pages: PageRange, first: Pfn) {
        let mut state = self.begin(Some(Event::CleanAndInvalidate(pages, first)));
        for offset in 0..pages.count() {
            let page = pages.first() + offset;
            let entry = match state.translate(self.number, page) {
                Found::Entry(entry) => entry,
                Found::Nothing => {
                    panic!("maintenance by MVA of page {page:#x}, which is not mapped")
                }
                Found::Conflict => panic!("maintenance by MVA of page {page:#x}, mapped twice"),
            };
            let frame = entry.leads(VirtAddr::new(page * PAGE_SIZE));
            assert_eq!(
                Some(frame.pfn()),
                first.checked_add(offset),
                "page {page:#x} is not mapped to the frame that is to be cleaned"
            );
            state.begin_clean_and_invalidate(self.number, frame);
        }
    }

    /// Through the TLB, as hardware does it: what a stale entry leads to is what becomes zero.
    fn zero_pages(&self, pages: PageRange) {
        let mut state = self.begin(Some(Event::Zero(pages)));
        for page in pages.first()..pages.end() {
            let (kind, privilege) = (Kind::Write, Privilege::Kernel);
            let address = VirtAddr::new(page * PAGE_SIZE);
            let entry = match self.translate(&mut state, address, kind, privilege) {
                Ok(entry) => entry,
                Err(fault) => panic!("page {page:#x} cannot be filled with zeros: {fault:?}"),
            };
            assert!(entry.cacheable, "page {page:#x} is filled with zeros past the cache");
            let start = entry.leads(address).raw();
            for word in (start..start + PAGE_SIZE).step_by(4) {
                state.memory.write_cached(word, 0);
            }
        }
    }

    fn in_interrupt(&self) -> bool {
        self.machine.state().cpus[self.number].interrupts > 0
    }

    fn cpu(&self) -> usize {
        self.number
    }
}

impl fmt::Debug for SoftCpu<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SoftCpu({})", self.number)
    }
}
