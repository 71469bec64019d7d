//! Random histories of devices behind IOMMUs: mappings are made and let go, devices attached and detached; pages, lists and coherent
//! buffers are given to them, used, synchronised and taken back, rightly and wrongly, and while allocations fail (S28, S81, S105, S108,
//! S109).
//!
//! ```text
//!   model     who is attached where and holds what, and where each page of it leads
//!   books     which device addresses are taken, by which runs; who holds a mapping
//!   tables    what a walk finds, ours and the processor's, for each page of every window
//!   device    what an engine reads and writes there
//! ```
//! After each step all agree, and the audit of the domains finds nothing. A history ends with everything given back.

extern crate alloc;

mod given;
mod held;
mod mistakes;
mod model;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use arch::user::copy_from;
use dma::coherent::{self, Buffer};
use dma::iommu::{AttachError, detach};
use dma::{bounce, debug, streaming};
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE, VirtAddr};
use ktest::{Completion, ktest};

use self::held::{Held, What};
use self::model::{DEVICES, Run, Side, WINDOWS, settle};
use super::iommu::pattern;
use super::witness::Numbers;

/// All that there is in one history.
struct World {
    numbers: Numbers,
    sides: [Option<Side>; 3],
    /// Behind which mapping each device is.
    places: [Option<usize>; 4],
    held: Vec<Held>,
    when: String,
}

impl World {
    const fn new(seed: u32) -> Self {
        let sides = [const { None }; 3];
        let numbers = Numbers::new(seed);
        Self { numbers, sides, places: [None; 4], held: Vec::new(), when: String::new() }
    }

    fn flip(&mut self) -> bool {
        self.numbers.below(2) == 0
    }

    fn side(&self, slot: usize) -> &Side {
        self.sides[slot].as_ref().expect("it is there")
    }

    fn side_mut(&mut self, slot: usize) -> &mut Side {
        self.sides[slot].as_mut().expect("it is there")
    }

    fn any_side(&mut self) -> Option<usize> {
        let slot = self.numbers.below(3) as usize;
        self.sides[slot].as_ref().map(|_| slot)
    }

    fn any_device(&mut self) -> usize {
        self.numbers.below(4) as usize
    }

    fn any_held(&mut self) -> Option<usize> {
        let count = u32::try_from(self.held.len()).expect("a few");
        (count != 0).then(|| self.numbers.below(count) as usize)
    }

    fn pattern(&mut self, bytes: u32) -> Vec<u8> {
        pattern(self.numbers.below(1000), bytes)
    }

    /// Whether a device may change its place: it has nothing, or buffers that come back (S108).
    fn may_move(&self, device: usize) -> bool {
        let stays = |held: &&Held| held.device == device;
        self.held.iter().filter(stays).all(|held| matches!(held.what, What::Buffer(_, true)))
    }

    fn buffers_of(&self, device: usize, slot: usize) -> usize {
        let is_its = |held: &&Held| {
            let is_scattered = matches!(held.what, What::Buffer(_, true));
            is_scattered && (held.device, held.slot) == (device, Some(slot))
        };
        self.held.iter().filter(is_its).count()
    }

    fn step(&mut self) {
        match self.numbers.below(20) {
            0 | 1 => self.make(),
            2 => self.let_go(),
            3 | 4 => self.attach(),
            5 => self.detach(),
            6..=8 => self.give_pages(),
            9 | 10 => self.give_list(),
            11 | 12 => self.allocate(),
            13 | 14 => self.use_one(),
            15 => self.synchronise(),
            16 | 17 => self.take_back(),
            _ => self.mistake(),
        }
    }

    fn make(&mut self) {
        let (slot, window) = (self.numbers.below(3) as usize, self.numbers.below(3) as usize);
        if self.sides[slot].is_none() {
            self.sides[slot] = Some(Side::new(WINDOWS[window]));
        }
    }

    /// The maker lets a mapping go, unless nobody could free a buffer then.
    fn let_go(&mut self) {
        let Some(slot) = self.any_side() else { return };
        let reached = |held: &Held| {
            held.slot != Some(slot)
                || !matches!(held.what, What::Buffer(_, true))
                || self.places[held.device] == Some(slot)
        };
        if self.held.iter().all(reached) {
            drop(self.side_mut(slot).mapping.take());
            self.forget_if_gone(slot);
        }
    }

    fn forget_if_gone(&mut self, slot: usize) {
        if self.side(slot).holders() == 0 {
            assert!(self.side(slot).runs.is_empty(), "{}: nobody has anything there", self.when);
            self.sides[slot] = None;
        }
    }

    fn attach(&mut self) {
        let device = self.any_device();
        let Some(slot) = self.any_side() else { return };
        let Some(mapping) = &self.side(slot).mapping else { return };
        if !self.may_move(device) && self.places[device].is_none() {
            return;
        }
        // SAFETY: it has nothing that would be lost, or is attached and refused.
        let attached = unsafe { mapping.attach(&DEVICES[device]) };
        if self.places[device].is_some() {
            let again = AttachError::Again { device: DEVICES[device].name() };
            assert_eq!(attached, Err(again), "{}", self.when);
        } else {
            assert_eq!(attached, Ok(()), "{}", self.when);
            self.places[device] = Some(slot);
            self.side_mut(slot).attached.push(device);
        }
    }

    fn detach(&mut self) {
        let device = self.any_device();
        if !self.may_move(device) {
            return;
        }
        let place = self.places[device];
        if let Some(slot) = place
            && self.buffers_of(device, slot) != 0
            && self.side(slot).mapping.is_none()
        {
            return;
        }
        self.take_out(device);
    }

    fn take_out(&mut self, device: usize) {
        let place = self.places[device].take();
        // SAFETY: it has nothing that would be lost.
        let (detached, log) = capture_log(|| unsafe { detach(&DEVICES[device]) });
        assert_eq!(detached.is_ok(), place.is_some(), "{}", self.when);
        let Some(slot) = place else { return };
        let left = self.buffers_of(device, slot);
        let told = log.text().contains(&format!("leaves its IOMMU, and {left} buffers"));
        assert_eq!(told, left != 0, "{}: {log:?}", self.when);
        self.side_mut(slot).attached.retain(|&other| other != device);
        self.forget_if_gone(slot);
    }

    /// Whether the engine reaches it: on the bus by linear addresses, which buffers of devices that do not snoop have none of.
    fn is_reached(&self, index: usize) -> bool {
        let held = &self.held[index];
        held.slot == self.places[held.device] && (held.slot.is_some() || held.what.is_streamed())
    }

    fn use_one(&mut self) {
        let Some(index) = self.any_held().filter(|&index| self.is_reached(index)) else { return };
        let held = &self.held[index];
        if held.flow.device_reads() && held.is_known {
            assert!(held.seen() == held.bytes, "{}: what the device finds", self.when);
        }
        if held.flow.device_writes() {
            let new = self.pattern(self.held[index].count());
            let held = &mut self.held[index];
            held.device_writes(new);
            let bytes = held.bytes.len();
            let own = held.what.is_streamed() || held.own(0, bytes) == held.bytes;
            assert!(own, "{}: what the processor finds in a buffer", self.when);
        }
    }

    /// A part of something becomes the processor's, which writes there, and the device's again.
    fn synchronise(&mut self) {
        let Some(index) = self.any_held().filter(|&index| self.is_reached(index)) else { return };
        if !self.held[index].what.is_streamed() {
            return;
        }
        let which = self.held[index].segments.len();
        let which = self.numbers.below(u32::try_from(which).expect("a few")) as usize;
        let (dma, bytes) = self.held[index].segments[which];
        let before: u32 = self.held[index].segments[..which].iter().map(|(_, bytes)| bytes).sum();
        let from = self.numbers.below(bytes.div_ceil(64)) * 64;
        let count = (1 + self.numbers.below(bytes - from)).next_multiple_of(64).min(bytes - from);
        let new = self.pattern(count);
        let held = &mut self.held[index];
        let (call, start) = (held.call(), DmaAddr::new(dma + from));
        // SAFETY: it was mapped so, and the engine waits.
        let synced = unsafe { streaming::sync_for_cpu(call, start, count) };
        assert_eq!(synced, Ok(()), "{}", self.when);
        let place = (before + from) as usize;
        let wanted = held.bytes[place..place + count as usize].to_vec();
        let own = held.own(place, count as usize);
        assert!(!held.is_known || own == wanted, "{}: what the processor finds", self.when);
        if held.flow.device_reads() {
            held.write(place, &new);
        }
        // SAFETY: as above; the processor is done.
        let synced = unsafe { streaming::sync_for_device(call, start, count) };
        assert_eq!(synced, Ok(()), "{}", self.when);
        if held.flow.device_reads() && held.is_known {
            assert!(held.seen() == held.bytes, "{}: what the device finds", self.when);
        }
    }

    fn take_back(&mut self) {
        let Some(index) = self.any_held() else { return };
        let held = &self.held[index];
        if held.slot == self.places[held.device] {
            self.end(index);
        }
    }

    fn end(&mut self, index: usize) {
        let mut held = self.held.remove(index);
        let runs = if held.slot.is_some() { held.runs() } else { Vec::new() };
        if let Some(slot) = held.slot {
            // Between two looks of one device, so that what its IOTLB remembers shows.
            self.side(slot).shared().domain().with_open(|| {
                let looks = || runs.iter().flat_map(|(first, run)| each_page(*first, run));
                assert!(looks().all(look), "{}: it is seen", self.when);
                self.end_now(&mut held);
                assert!(!looks().any(look), "{}: it is seen no more", self.when);
            });
        } else {
            self.end_now(&mut held);
        }
        if held.what.is_streamed() && held.is_known {
            let own = held.own(0, held.bytes.len());
            assert!(own == held.bytes, "{}: what the processor has again", self.when);
        }
        if let Some(slot) = held.slot {
            let side = self.side_mut(slot);
            for (first, _) in runs {
                assert!(side.runs.remove(&first).is_some());
            }
            side.buffers -= u32::from(matches!(held.what, What::Buffer(_, true)));
            self.forget_if_gone(slot);
        }
    }

    fn end_now(&self, held: &mut Held) {
        let (device, bytes) = (held.device, held.count());
        let (call, start) = (held.call(), held.start());
        match &mut held.what {
            What::Pages(..) => {
                // SAFETY: mapped by the history, and the engine waits.
                let ended = unsafe { streaming::unmap(call, start, bytes) };
                assert_eq!(ended, Ok(()), "{}", self.when);
            }
            What::List(list) => {
                let ((), log) = capture_log(|| list.unmap(&DEVICES[device], held.flow as u32));
                assert_eq!(log.text(), "", "{}", self.when);
            }
            What::Buffer(buffer, _) => {
                let Buffer { address, dma } = *buffer;
                // SAFETY: the history's own, and the engine waits.
                let freed = unsafe { coherent::free(&DEVICES[device], bytes, address, dma) };
                assert_eq!(freed, Ok(()), "{}", self.when);
            }
        }
    }

    /// All sides agree.
    fn check(&self) {
        let alive = self.sides.iter().flatten();
        alive.clone().for_each(|side| side.check(&self.when));
        let wanted = (u32::try_from(alive.clone().count()), alive.map(Side::taken).sum::<u32>());
        let usage = mm::domain::usage();
        assert_eq!((Ok(usage.0), usage.1), wanted, "{}: domains and their pages", self.when);
        mm::domain::audit(&mut |violation| panic!("{}: {violation}", self.when));
    }

    fn finish(&mut self) {
        while let Some(held) = self.held.last() {
            let (device, slot) = (held.device, held.slot);
            if self.places[device] != slot {
                // All that would be lost has gone before what is further up in the list.
                let at_hand =
                    |held: &Held| held.device == device && held.slot == self.places[device];
                if let Some(index) = self.held.iter().position(at_hand) {
                    self.end(index);
                    continue;
                }
                if self.places[device].is_some() {
                    self.take_out(device);
                }
                let slot = slot.expect("what is on the bus stays there");
                let mapping = self.side(slot).mapping.as_ref().expect("its maker has kept it");
                // SAFETY: it has nothing but what comes back by this.
                assert_eq!(unsafe { mapping.attach(&DEVICES[device]) }, Ok(()));
                self.places[device] = Some(slot);
                self.side_mut(slot).attached.push(device);
            }
            self.end(self.held.len() - 1);
            self.check();
        }
        for device in 0..DEVICES.len() {
            if self.places[device].is_some() {
                self.take_out(device);
            }
        }
        for slot in 0..self.sides.len() {
            if self.sides[slot].is_some() {
                drop(self.side_mut(slot).mapping.take());
                self.forget_if_gone(slot);
            }
        }
        self.check();
    }
}

/// A device's look at a page. Says whether it saw it.
fn look(page: VirtAddr) -> bool {
    copy_from(&mut [0], page).is_ok()
}

fn each_page(first: u32, run: &Run) -> impl Iterator<Item = VirtAddr> {
    (first..).take(run.frames.len()).map(|page| VirtAddr::new(page * PAGE_SIZE + 8))
}

/// S81, S105, S108, S109: whatever is done in whatever order.
#[ktest]
fn books_tables_and_devices_agree_with_a_model_through_random_histories_s108_s109() -> Completion {
    const HISTORIES: u32 = 24;
    const STEPS: u32 = 60;
    if bounce::is_forced() {
        return Completion::Skipped("whatever is mapped is copied");
    }
    settle();
    let before = || (bounce::usage(), arch::lines::runs(), debug::mappings(), mm::domain::usage());
    let books = before();
    for seed in 1..=HISTORIES {
        let mut world = World::new(seed.wrapping_mul(0x9e37_79b9));
        for step in 0..STEPS {
            world.when = format!("history {seed}, step {step}");
            world.step();
            world.check();
        }
        world.when = format!("the end of history {seed}");
        world.finish();
        assert_eq!(before(), books, "history {seed} leaves nothing");
    }
    Completion::Ran
}
