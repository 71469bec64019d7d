//! Histories of registers: whoever maps what is no RAM, by whatever name, gets what a list of who has what says he gets, at odd
//! places as at even ones, and whatever fails on the way (S57 to S59, S93 to S97).

mod wants;

use super::bed::{Bed, RAM, RAM_PAGES, page};
use histories::bed::{Furniture, LowMemory};
use kerncore::{
    addr::{PAGE_SIZE, PAGES_PER_SUPERSECTION, PageRange, PhysAddr, VirtAddr},
    area::AreaKind,
    attributes::Attributes,
    bus::BusRange,
    failure::Afterwards,
    kernel_space::{RemoveError, StaticMapping, StaticRequest},
};
use machine::{Behaviour, Fault, Kind, Privilege, fail_nth};
use std::num::NonZeroU32;
use wants::{Name, No, Want};

/// Pages of the window.
const WIDE: u32 = 96 << 8;
/// Two pages that are mapped for good.
const STATIC: u32 = 0x1e00_a000;
const ON_CHIP: BusRange =
    BusRange { name: "sram", first: PhysAddr::new(0x4800_0000), last: PhysAddr::new(0x49ff_ffff) };
/// Where the linear map has the first byte of RAM, counted from there.
const LINEAR: u32 = 0x2000_0000;

/// As good as random, and the same for the same seed.
pub(super) struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let mixed = (self.0 ^ self.0 >> 31) >> 17;
        u32::try_from(mixed % u64::from(end)).expect("less than the end")
    }

    fn index_of<T>(&mut self, list: &[T]) -> usize {
        self.below(u32::try_from(list.len()).expect("few")) as usize
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.index_of(list)]
    }
}

/// What is known of a mapping.
#[derive(Debug)]
struct Live {
    /// Its first page, by number.
    base: u32,
    /// Its first frame, by number.
    first: u32,
    pages: u32,
    attributes: Attributes,
    kind: AreaKind,
    /// None, if it is one user's own.
    users: u32,
}

impl Live {
    fn last(&self) -> u32 {
        self.first + (self.pages - 1)
    }

    fn end(&self) -> u32 {
        self.base + self.pages
    }

    /// The address of its byte of that number, and where that leads.
    fn byte(&self, number: u32) -> (VirtAddr, PhysAddr) {
        let base = page(self.base).raw();
        (VirtAddr::new(base + number), PhysAddr::new(self.first * PAGE_SIZE + number))
    }
}

struct World {
    bed: Bed,
    live: Vec<Live>,
    statics: StaticMapping,
    chance: Chance,
    /// Whether ioremap shares by default.
    shares: bool,
    /// How often somebody was refused, by the reason.
    refusals: [u32; No::COUNT],
}

fn clash(one: Attributes, other: Attributes) -> bool {
    one.memory() != other.memory()
        || one.is_executable() && other.is_writable()
        || one.is_writable() && other.is_executable()
}

impl World {
    fn new(seed: u64) -> Self {
        let furniture = Furniture { window_pages: WIDE, ..Furniture::with(LowMemory::All) };
        let behaviour = match seed % 3 {
            0 => Behaviour::Forgetful,
            1 => Behaviour::Hoarding,
            _ => Behaviour::Random(seed),
        };
        let mut bed = Bed::furnished(behaviour, furniture, |machine| machine.cpu(0));
        let last = PhysAddr::new(STATIC + 2 * PAGE_SIZE - 1);
        let range = BusRange { name: "l2", first: PhysAddr::new(STATIC), last };
        let wanted = [StaticRequest { range, attributes: Attributes::DEVICE }];
        bed.map_statics(&wanted).expect("room");
        bed.warm_up();
        let statics = *bed.space.static_mappings().next().expect("one");
        let refusals = [0; No::COUNT];
        Self { bed, live: Vec::new(), statics, chance: Chance(seed), shares: false, refusals }
    }

    /// What the kernel is to say; an address that nobody can foretell is `None`.
    fn foretold(&self, want: Want) -> Result<Option<VirtAddr>, No> {
        let Want { name, physical, bytes, attributes } = want;
        let last = physical.checked_add(bytes.checked_sub(1).ok_or(No::Zero)?).ok_or(No::Wraps)?;
        let is_on_chip = ON_CHIP.has_all(PhysAddr::new(physical), PhysAddr::new(last));
        if name == Name::Exec && !is_on_chip {
            return Err(No::NotOnChip);
        }
        let (ram, end) = (RAM * PAGE_SIZE, (RAM + RAM_PAGES) * PAGE_SIZE);
        if last >= ram && physical < end {
            // The image lies between.
            let is_plain = physical >= ram && last < ram + 16 * PAGE_SIZE
                || physical >= ram + 32 * PAGE_SIZE && last < end;
            let is_linear = name == Name::Memory && attributes == Attributes::KERNEL_DATA;
            let linear = VirtAddr::new(physical.wrapping_add(LINEAR));
            return if is_linear && is_plain { Ok(Some(linear)) } else { Err(No::Ram) };
        }
        let range = self.statics.range;
        let (from, to) = (range.first.raw(), range.last.raw());
        if last | 0xfff >= from && physical & !0xfff <= to {
            if attributes != self.statics.attributes {
                return Err(No::Static);
            }
            // A list of frames is always mapped anew.
            if name != Name::List && physical >= from && last <= to {
                let start = self.statics.pages.start().raw();
                return Ok(Some(VirtAddr::new(start + (physical - from))));
            }
        }
        let (first, last) = (physical >> 12, last >> 12);
        if want.is_shared(self.shares) {
            let has_all = |live: &&Live| {
                let is_inside = live.first <= first && last <= live.last();
                live.users != 0 && live.attributes == attributes && is_inside
            };
            let mut all = self.live.iter().filter(has_all);
            match (all.next(), all.next()) {
                (None, _) => {}
                (Some(live), None) => {
                    return Ok(Some(live.byte(physical - live.first * PAGE_SIZE).0));
                }
                // Any will do.
                (Some(_), Some(_)) => return Ok(None),
            }
        }
        let clashes = |live: &Live| {
            live.first <= last && first <= live.last() && clash(live.attributes, attributes)
        };
        if self.live.iter().any(clashes) { Err(No::Alias) } else { Ok(None) }
    }

    fn map(&mut self) {
        let want = Want::any(&mut self.chance);
        let foretold = self.foretold(want);
        let fails = NonZeroU32::new(self.chance.below(4)).is_none();
        let nth = NonZeroU32::MIN.saturating_add(self.chance.below(12));
        let afterwards = self.chance.of(&[Afterwards::Plenty, Afterwards::Nothing]);
        let before = self.bed.space.area_counts();
        let ask = || want.ask(&self.bed);
        let (said, failed) = if fails {
            let (said, outcome) = fail_nth(nth, afterwards, ask);
            (said, outcome.failed)
        } else {
            (ask(), None)
        };
        match (said, foretold) {
            (Err(No::Short), _) if failed.is_some() => self.refused(No::Short),
            // Of a few pages there is always room.
            (Err(No::Short), Ok(None)) if want.bytes > 16 * PAGE_SIZE => self.refused(No::Short),
            (Err(said), Err(wanted)) => {
                assert_eq!(said, wanted, "{want:?}");
                self.refused(said);
            }
            (Ok(address), Ok(wanted)) => {
                assert!(wanted.is_none_or(|wanted| wanted == address), "{want:?}: {address}");
                return self.came(want, address);
            }
            (said, foretold) => panic!("{want:?}: {said:?}, not {foretold:?}; {:#x?}", self.live),
        }
        let after = self.bed.space.area_counts();
        let taken = [before, after].map(|counts| (counts.areas, counts.pages_taken));
        assert_eq!(taken[0], taken[1], "{want:?} left something behind");
    }

    fn refused(&mut self, no: No) {
        self.refusals[no as usize] += 1;
    }

    fn came(&mut self, want: Want, address: VirtAddr) {
        let Want { name, physical, bytes, attributes } = want;
        let entry = self.bed.space.table().translate(address).expect("mapped");
        assert_eq!(entry.physical, PhysAddr::new(physical), "{want:?}");
        if !self.bed.space.window().contains(address) {
            return;
        }
        let at = address.page_number();
        let shares = want.is_shared(self.shares);
        if let Some(live) = self.live.iter_mut().find(|live| live.base <= at && at < live.end()) {
            assert!(
                shares && live.users != 0 && live.attributes == attributes,
                "{want:?}: {live:?}"
            );
            live.users += 1;
            return;
        }
        let area = self.bed.space.find(address.page_base()).expect("its first page");
        let (first, last) = (physical >> 12, (physical + (bytes - 1)) >> 12);
        let (pages, is_list) = (last - first + 1, name == Name::List);
        let kind = if is_list { AreaKind::Vmap } else { AreaKind::IoRemap };
        assert_eq!((area.pages.count(), area.kind), (pages, kind), "{want:?}");
        let border = pages.next_power_of_two().min(PAGES_PER_SUPERSECTION);
        assert!(is_list || at.is_multiple_of(border), "S4: {want:?} at {address}");
        let beside = |live: &Live| at + pages < live.base || live.end() < at;
        assert!(self.live.iter().all(beside), "{want:?} at {address}, where another is");
        let users = u32::from(shares);
        self.live.push(Live { base: at, first, pages, attributes, kind, users });
        self.look(self.live.len() - 1);
    }

    /// The tables and both CPUs lead to both ends of a mapping and some place between, and nowhere behind it.
    fn look(&mut self, which: usize) {
        let live = &self.live[which];
        let bytes = live.pages * PAGE_SIZE;
        let guard = page(live.end());
        for number in [0, self.chance.below(bytes), bytes - 1] {
            let (address, wanted) = live.byte(number);
            let entry = self.bed.space.table().translate(address).expect("mapped");
            assert_eq!((entry.physical, entry.attributes()), (wanted, Ok(live.attributes)));
            for cpu in [0, 1].map(|cpu| self.bed.machine.cpu(cpu)) {
                assert_eq!(cpu.access(address, Kind::Read, Privilege::Kernel), Ok(wanted));
                let behind = cpu.access(guard, Kind::Read, Privilege::Kernel);
                assert_eq!(behind, Err(Fault::Translation(guard)));
            }
        }
    }

    /// Ends a use, by any of its addresses; wrong ways come first, and change nothing.
    fn unmap(&mut self) {
        if self.live.is_empty() {
            return;
        }
        let which = self.chance.index_of(&self.live);
        let live = &self.live[which];
        let bytes = live.pages * PAGE_SIZE;
        let inside = self.chance.below(bytes);
        let inside = self.chance.of(&[0, 1, inside, bytes - 1]);
        let by_memunmap = self.chance.below(2) == 0;
        let (space, base, found) = (&self.bed.space, page(live.base), live.kind);
        let (address, users) = (live.byte(inside).0, live.users);
        let iounmap = |address| {
            if by_memunmap { space.memunmap((), address) } else { space.iounmap((), address) }
        };
        let guard = page(live.end());
        assert_eq!(iounmap(guard), Err(RemoveError::Unknown { address: guard }));
        let wrong = Err(RemoveError::WrongKind { address: base, found });
        assert_eq!(space.vfree((), base), wrong);
        if found == AreaKind::Vmap {
            assert_eq!(iounmap(address), wrong);
            space.vunmap((), base).expect("a live area");
        } else {
            assert_eq!(space.vunmap((), base), wrong);
            assert_eq!(space.remove_area((), base).map(drop), wrong);
            let first = PageRange::from_numbers(base.page_number(), 1).expect("a page");
            assert!(space.unmap_area((), first).is_err());
            assert_eq!(space.users_of(address), Some(users));
            iounmap(address).expect("a use");
        }
        let left = users.saturating_sub(1);
        if left != 0 {
            assert_eq!(space.users_of(address), Some(left));
            self.live[which].users = left;
            return self.look(which);
        }
        assert_eq!(iounmap(address), Err(RemoveError::Unknown { address }));
        let gone = self.live.swap_remove(which);
        for address in [0, inside, bytes - 1].map(|number| gone.byte(number).0) {
            for cpu in [0, 1].map(|cpu| self.bed.machine.cpu(cpu)) {
                let found = cpu.access(address, Kind::Read, Privilege::Kernel);
                assert_eq!(found, Err(Fault::Translation(address)), "{gone:?}");
            }
        }
    }

    fn run(&mut self, steps: u32) {
        for step in 0..steps {
            if step == steps / 2 {
                self.bed.space.share_by_default();
                self.shares = true;
            }
            let is_full = self.live.len() > 60;
            if !is_full && self.chance.below(10) < 6 {
                self.map();
            } else {
                self.unmap();
            }
            if step.is_multiple_of(50) {
                self.bed.clean();
            }
        }
        while !self.live.is_empty() {
            self.unmap();
        }
        self.bed.clean();
        assert_eq!(self.bed.space.area_counts().areas, 0);
    }
}

#[test]
fn whoever_maps_devices_gets_what_a_list_of_them_says_s57_s58_s93_s97() {
    let mut refusals = [0; No::COUNT];
    for seed in 0..6 {
        let mut world = World::new(seed);
        world.run(300);
        refusals.iter_mut().zip(world.refusals).for_each(|(all, some)| *all += some);
    }
    assert!(refusals.iter().all(|&times| times > 0), "each reason is met: {refusals:?}");
}
