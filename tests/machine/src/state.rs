//! The machine itself: what is where, what was begun and has not completed, and how far it lies.

use crate::{
    Event, Kind, Privilege, SoftCpu,
    chance::Chance,
    context::{Context, Register},
    memory::{LINE, Memory, Snapshot},
    tlb::{Found, Reach, Scope, Tlb, Translation},
    walker,
};
use kerncore::addr::{PAGE_SIZE, PhysAddr};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// How far the machine uses the freedom that the architecture gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Keeps everything as long as it may, and reads ahead.
    Hoarding,
    /// Keeps nothing; everything completes at once.
    Forgetful,
    /// Anything between, by this seed, which also says how quickly things are forgotten and completed.
    Random(u64),
}

impl Behaviour {
    /// Both extremes and `seeds` random ones.
    pub fn all(seeds: u64) -> impl Iterator<Item = Self> {
        [Self::Hoarding, Self::Forgetful].into_iter().chain((0..seeds).map(Self::Random))
    }
}

/// Begun by a call, completed at the latest by the barrier of the same CPU.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pending {
    Clean(Snapshot),
    CleanAndInvalidate(PhysAddr),
    Drop(PhysAddr),
    ForgetInstructions,
    Invalidate(Scope, Reach),
    Write(Register),
}

/// Begun in the outer cache, completed at the latest when somebody waits for that.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PendingOuter {
    Clean(Snapshot),
    Evict(PhysAddr),
    Drop(PhysAddr),
}

#[derive(Debug)]
pub(crate) struct Cpu {
    pub(crate) tlb: Tlb,
    pub(crate) context: Context,
    pub(crate) pending: VecDeque<Pending>,
    /// Pages that this CPU has ever tried to reach: those that its walker reads ahead.
    pub(crate) tried: BTreeSet<u32>,
    seen: Seen,
    /// How many interrupts' handlers it runs, one inside the other.
    pub(crate) interrupts: u32,
}

/// What a CPU has seen when it last did something of its own accord. It does so between any two things that it is asked to do, and
/// mostly nothing has changed that it goes by: then there is nothing to do.
#[derive(Debug, Default)]
struct Seen {
    /// The pages that it has tried and that no small page in its TLB serves.
    worth: Vec<u32>,
    /// What they follow from.
    worth_by: Option<Known>,
    /// What else its walker went by: what was in the tables.
    walked_by: Option<(Known, u64)>,
    /// What its caches went by: its TLB, and the lines that they lack.
    ahead_by: Option<(u64, u64)>,
}

/// How often the TLB had changed, by which registers it translates, and how many pages it has tried.
type Known = (u64, Context, usize);

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) behaviour: Behaviour,
    pub(crate) chance: Chance,
    /// A thing that may happen at random happens once in so many times.
    pace: u64,
    pub(crate) memory: Memory,
    pub(crate) outer: VecDeque<PendingOuter>,
    pub(crate) cpus: Vec<Cpu>,
    pub(crate) log: Vec<(usize, Event)>,
}

/// Some CPUs, their TLBs, one data cache, and memory.
#[derive(Debug)]
pub struct SoftMachine {
    state: Mutex<State>,
}

impl SoftMachine {
    /// `cpus` CPUs that translate all addresses by the first-level table at `root`, in the address space 0. Memory is
    /// zero.
    pub fn new(behaviour: Behaviour, cpus: usize, root: PhysAddr) -> Self {
        let seed = match behaviour {
            Behaviour::Random(seed) => seed,
            Behaviour::Hoarding | Behaviour::Forgetful => 0,
        };
        let cpu = || Cpu {
            tlb: Tlb::default(),
            context: Context::new(root),
            pending: VecDeque::new(),
            seen: Seen::default(),
            tried: BTreeSet::new(),
            interrupts: 0,
        };
        let state = State {
            behaviour,
            chance: Chance::new(seed),
            pace: 4 << (seed % 4 * 3),
            memory: Memory::default(),
            outer: VecDeque::new(),
            cpus: (0..cpus).map(|_| cpu()).collect(),
            log: Vec::new(),
        };
        Self { state: Mutex::new(state) }
    }

    /// The same with an outer cache behind the data cache.
    #[must_use]
    pub fn with_outer_cache(self) -> Self {
        self.state().memory.add_outer();
        self
    }

    /// The CPU with this number, from zero.
    ///
    /// # Panics
    /// If there is none.
    pub fn cpu(&self, number: usize) -> SoftCpu<'_> {
        assert!(number < self.state().cpus.len(), "no CPU {number}");
        SoftCpu::new(self, number)
    }

    /// What a device that does not look into the cache reads at `address`.
    pub fn device_read(&self, address: PhysAddr) -> u32 {
        let mut state = self.state();
        state.drift();
        state.memory.read_memory(address.raw())
    }

    /// A device writes past the cache. Also how a test fills memory before anything runs.
    pub fn device_write(&self, address: PhysAddr, word: u32) {
        let mut state = self.state();
        // What lay there before may be in the cache by now, although nobody has asked for it.
        state.memory.touch(address.raw());
        state.drift();
        state.memory.write_memory(address.raw(), word);
        state.drift();
    }

    /// Everything asked since the last call, with the CPU that asked.
    pub fn take_log(&self) -> Vec<(usize, Event)> {
        std::mem::take(&mut self.state().log)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked on purpose leaves a state that is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cpu {
    fn remembered(&self, page: u32) -> Found {
        self.tlb.find(page, self.context.asid())
    }

    /// A page that is remembered by a larger entry may be walked for as well: if the tables say now that one of another size
    /// serves it, or its slot of a large page says what the others do not, both are held.
    fn is_worth(&self, page: u32) -> bool {
        match self.remembered(page) {
            Found::Nothing => true,
            Found::Entry(held) => held.count > 1,
            Found::Conflict => false,
        }
    }

    fn known(&self) -> Known {
        (self.tlb.changes(), self.context, self.tried.len())
    }

    /// Takes the pages that it is worth to walk for.
    fn take_worth(&mut self) -> Vec<u32> {
        let mut pages = std::mem::take(&mut self.seen.worth);
        let known = Some(self.known());
        if self.seen.worth_by != known {
            pages.clear();
            let (asid, tried) = (self.context.asid(), self.tried.iter().copied());
            pages.extend(
                self.tlb.not_by_small_pages(tried, asid).filter(|&page| self.is_worth(page)),
            );
            self.seen.worth_by = known;
        }
        pages
    }
}

impl State {
    /// What CPU `cpu` translates `page` with: its TLB first, then the tables as memory holds them.
    pub(crate) fn translate(&mut self, cpu: usize, page: u32) -> Found {
        self.cpus[cpu].tried.insert(page);
        match self.remembered(cpu, page) {
            Found::Nothing => match self.walk(cpu, page) {
                Some(entry) => {
                    self.cpus[cpu].tlb.insert(entry);
                    Found::Entry(entry)
                }
                None => Found::Nothing,
            },
            found => found,
        }
    }

    /// What the TLB of `cpu` holds for `page` in the current address space.
    fn remembered(&self, cpu: usize, page: u32) -> Found {
        self.cpus[cpu].remembered(page)
    }

    fn walk(&self, cpu: usize, page: u32) -> Option<Translation> {
        let context = &self.cpus[cpu].context;
        let table = context.table_for(page)?.raw();
        walker::walk(table, page, context.asid(), |address| self.memory.read_walked(address))
    }

    /// Begins `pending` on behalf of `cpu`.
    pub(crate) fn begin(&mut self, cpu: usize, pending: Pending) {
        if let Pending::Write(register) = pending {
            // Writes to one register come true in their order, so the last one is done by now.
            let same = |other: &Pending| matches!(other, Pending::Write(earlier) if earlier.is_that_of(register));
            if let Some(index) = self.cpus[cpu].pending.iter().position(same) {
                self.complete(cpu, index);
            }
        }
        self.cpus[cpu].pending.push_back(pending);
    }

    /// Completes what `cpu` has begun, in whatever order the architecture leaves open: any.
    pub(crate) fn barrier(&mut self, cpu: usize) {
        while let Some(last) = self.cpus[cpu].pending.len().checked_sub(1) {
            let index = match self.behaviour {
                Behaviour::Hoarding => last,
                Behaviour::Forgetful => 0,
                Behaviour::Random(_) => self.chance.below(last + 1),
            };
            self.complete(cpu, index);
        }
    }

    fn complete(&mut self, cpu: usize, index: usize) {
        let Some(pending) = self.cpus[cpu].pending.remove(index) else { return };
        match pending {
            Pending::Clean(snapshot) => self.memory.complete_clean(snapshot),
            Pending::CleanAndInvalidate(line) => self.memory.evict(line.raw()),
            Pending::Drop(line) => self.memory.drop_line(line.raw()),
            Pending::ForgetInstructions => self.memory.forget_instructions(),
            Pending::Invalidate(scope, Reach::Local) => self.cpus[cpu].tlb.invalidate(scope),
            Pending::Invalidate(scope, Reach::InnerShareable) => {
                self.cpus.iter_mut().for_each(|cpu| cpu.tlb.invalidate(scope));
            }
            Pending::Write(register) => self.cpus[cpu].context.write(register),
        }
        self.speculate();
    }

    /// Completes what was begun in the outer cache, in any order.
    pub(crate) fn wait_outer(&mut self) {
        while let Some(last) = self.outer.len().checked_sub(1) {
            let index = match self.behaviour {
                Behaviour::Hoarding => last,
                Behaviour::Forgetful => 0,
                Behaviour::Random(_) => self.chance.below(last + 1),
            };
            self.complete_outer(index);
        }
    }

    fn complete_outer(&mut self, index: usize) {
        let Some(pending) = self.outer.remove(index) else { return };
        match pending {
            PendingOuter::Clean(snapshot) => self.memory.complete_clean_outer(snapshot),
            PendingOuter::Evict(line) => self.memory.evict_outer(line.raw()),
            PendingOuter::Drop(line) => self.memory.drop_outer(line.raw()),
        }
        self.speculate();
    }

    /// What the machine does of its own accord, between any two things that it is asked to do.
    pub(crate) fn drift(&mut self) {
        match self.behaviour {
            Behaviour::Hoarding => self.speculate(),
            Behaviour::Forgetful => {
                (0..self.cpus.len()).for_each(|cpu| self.barrier(cpu));
                self.wait_outer();
                self.memory.cached_lines().into_iter().for_each(|line| self.memory.evict(line));
                self.memory
                    .outer_lines()
                    .into_iter()
                    .for_each(|line| self.memory.evict_outer(line));
                self.memory.forget_instructions();
                self.cpus.iter_mut().for_each(|cpu| cpu.tlb.retain(|_| false));
            }
            Behaviour::Random(_) => {
                self.forget_some();
                self.speculate();
            }
        }
    }

    fn forget_some(&mut self) {
        let pace = self.pace;
        for cpu in 0..self.cpus.len() {
            let pending = self.cpus[cpu].pending.len();
            if pending != 0 && self.chance.one_in(pace) {
                let index = self.chance.below(pending);
                self.complete(cpu, index);
            }
            let chance = &mut self.chance;
            self.cpus[cpu].tlb.retain(|_| !chance.one_in(pace));
        }
        if !self.outer.is_empty() && self.chance.one_in(pace) {
            let index = self.chance.below(self.outer.len());
            self.complete_outer(index);
        }
        for line in self.memory.cached_lines() {
            if self.chance.one_in(pace) {
                self.memory.evict(line);
            }
        }
        for line in self.memory.outer_lines() {
            if self.chance.one_in(pace) {
                self.memory.evict_outer(line);
            }
        }
    }

    /// Walks and reads ahead: legal at any time for whatever the tables offer (B3.10, A3.5.7).
    fn speculate(&mut self) {
        match self.behaviour {
            Behaviour::Forgetful => return,
            Behaviour::Random(_) if self.chance.one_in(2) => return,
            Behaviour::Hoarding | Behaviour::Random(_) => {}
        }
        for cpu in 0..self.cpus.len() {
            self.walk_ahead(cpu);
            self.read_ahead(cpu);
        }
    }

    fn walk_ahead(&mut self, cpu: usize) {
        let by = Some((self.cpus[cpu].known(), self.memory.changes().walked));
        if self.cpus[cpu].seen.walked_by == by {
            return;
        }
        let pages = self.cpus[cpu].take_worth();
        for &page in &pages {
            // Another page of the same section may have brought its entry in meanwhile.
            let entry = match (self.walk(cpu, page), self.remembered(cpu, page)) {
                (Some(entry), Found::Nothing) => entry,
                (Some(entry), Found::Entry(held)) if held.clashes_with(&entry) => entry,
                _ => continue,
            };
            self.cpus[cpu].tlb.insert(entry);
        }
        self.cpus[cpu].seen.worth = pages;
        self.cpus[cpu].seen.walked_by = by;
    }

    fn read_ahead(&mut self, cpu: usize) {
        let Cpu { tlb, seen, .. } = &mut self.cpus[cpu];
        let by = Some((tlb.changes(), self.memory.changes().lines));
        if seen.ahead_by == by {
            return;
        }
        for entry in tlb.entries() {
            if entry.cacheable {
                self.memory.read_ahead(entry.physical, entry.bytes());
            }
            if entry.allows(Kind::Execute, Privilege::Kernel) {
                self.memory.fetch_ahead(entry.physical, entry.bytes());
            }
        }
        seen.ahead_by = by;
    }

    /// Begins to clean every line of `bytes` from `first`.
    pub(crate) fn begin_clean(&mut self, cpu: usize, first: PhysAddr, bytes: u32) {
        let mut line = first.raw() & !(LINE - 1);
        while line < first.raw() + bytes {
            if let Some(snapshot) = self.memory.begin_clean(line) {
                self.begin(cpu, Pending::Clean(snapshot));
            }
            line += LINE;
        }
    }

    /// Begins to clean and invalidate every line of the page at `page`.
    pub(crate) fn begin_clean_and_invalidate(&mut self, cpu: usize, page: PhysAddr) {
        for line in (page.raw()..page.raw() + PAGE_SIZE).step_by(LINE as usize) {
            self.begin(cpu, Pending::CleanAndInvalidate(PhysAddr::new(line)));
        }
    }
}
