//! Transfers of devices, beside the same with one step of the caches' maintenance forgotten or misplaced (S105).

use super::{Goes, Verdict, board, same};
use crate::linear_map::life_of_a_coherent_buffer;
use crate::support::{ROOT, SEEDS, World};
use kerncore::{
    addr::{PageRange, Pfn, PhysAddr, VirtAddr},
    coherent::Coherency,
    frames::FrameBlock,
    lines::{Edge, Level, Lines, WrongEdge},
    machine::Machine,
    streaming::{
        Flow, Handover, Levels, Piece, Step, StreamMachine, Upkeep, to_device, to_processor,
    },
};
use machine::{Behaviour, SoftCpu, SoftMachine, pass_on};
use std::cell::RefCell;

/// The first-level slot of 0xC0000000, and a table for it whose first slot is a page, write-back.
const L1_SLOT: PhysAddr = PhysAddr::new(0x6000_4000 + 0xc00 * 4);
const TABLE: PhysAddr = PhysAddr::new(0x6001_0000);
const DATA: u32 = 0x45f;

/// Three lines inside the page.
const BUFFER: Piece =
    Piece { address: VirtAddr::new(0xc000_0040), physical: PhysAddr::new(0x6010_0040), bytes: 96 };

/// How transfers go on `cpu`.
trait Transfers {
    fn begin(&self, cpu: SoftCpu<'_>, flow: Flow);
    fn end_of(&self, cpu: SoftCpu<'_>, flow: Flow, piece: Piece);

    fn end(&self, cpu: SoftCpu<'_>, flow: Flow) {
        self.end_of(cpu, flow, BUFFER);
    }
}

/// `kerncore`'s.
struct Right;

impl Transfers for Right {
    fn begin(&self, cpu: SoftCpu<'_>, flow: Flow) {
        to_device(&cpu, with(flow), BUFFER);
    }

    fn end_of(&self, cpu: SoftCpu<'_>, flow: Flow, piece: Piece) {
        to_processor(&cpu, with(flow), piece);
    }
}

/// A handover of a device that does not snoop.
const fn with(flow: Flow) -> Handover {
    Handover { call: "a transfer", coherency: Coherency::NonCoherent, flow, step: Step::Whole }
}

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    /// None.
    None,
    /// The data cache is not cleaned.
    SkipsClean,
    /// The outer cache is not.
    SkipsOuterClean,
    /// It is cleaned while the data cache still is at it.
    CleansOuterTooEarly,
    /// The device begins while the outer cache is still at it.
    DoesNotWait,
    /// Lines that the device will write are dropped at once.
    DropsOnTheWayOut,
    /// Lines that the device only read are dropped at the end.
    DropsOnTheWayBack,
    /// The data cache is not invalidated.
    SkipsInvalidate,
    /// The outer cache is not.
    SkipsOuterInvalidate,
    /// The data cache is, before the outer one.
    InnerFirst,
    /// Memory is used uncached that nobody has cleaned.
    LendsDirty,
    /// It was, while the linear map still had it.
    CleansBeforeWithdrawal,
    /// The transfer ends as if data had gone the other way.
    WrongDirection,
}

/// A ledger of lines, and the first wrong edge that it was told of.
type Ledger = RefCell<(Lines<16>, Result<(), WrongEdge>)>;

fn ledger() -> Ledger {
    RefCell::new((Lines::new(Levels::InnerAndOuter, 32), Ok(())))
}

struct Wrong<'machine> {
    cpu: SoftCpu<'machine>,
    mistake: Mistake,
    ledger: &'machine Ledger,
}

impl<'machine> Wrong<'machine> {
    const fn new(cpu: SoftCpu<'machine>, mistake: Mistake, ledger: &'machine Ledger) -> Self {
        Self { cpu, mistake, ledger }
    }

    fn tell(&self, step: impl FnOnce(&mut Lines<16>) -> Result<(), WrongEdge>) {
        let (lines, first) = &mut *self.ledger.borrow_mut();
        *first = first.and_then(|()| step(lines));
    }

    fn clean_now(&self, pages: PageRange, first: Pfn) {
        self.cpu.clean_and_invalidate(pages, first);
        let (what, bytes) = (Upkeep::CleanAndInvalidate, pages.bytes());
        let call = "the data cache";
        self.tell(|lines| lines.maintained(call, Level::Inner, what, first.base(), bytes));
    }

    fn inner(&self, what: Upkeep, start: VirtAddr, bytes: u32) {
        self.cpu.maintain_inner(what, start, bytes);
        let first = PhysAddr::new(start.raw() - BUFFER.address.raw() + BUFFER.physical.raw());
        self.tell(|lines| lines.maintained("the data cache", Level::Inner, what, first, bytes));
    }

    fn outer(&self, what: Upkeep, first: PhysAddr, bytes: u32) {
        self.cpu.maintain_outer(what, first, bytes);
        self.tell(|lines| lines.maintained("the outer cache", Level::Outer, what, first, bytes));
    }
}

impl Machine for Wrong<'_> {
    type Authority = ();

    fn barrier(&self) {
        if self.mistake != Mistake::CleansOuterTooEarly {
            self.cpu.barrier();
        }
    }

    fn note(&self, call: &'static str, edge: Edge, first: PhysAddr, bytes: u32) {
        self.tell(|lines| lines.edge(call, edge, first, bytes));
    }

    fn clean_and_invalidate(&self, pages: PageRange, first: Pfn) {
        if !matches!(self.mistake, Mistake::LendsDirty | Mistake::CleansBeforeWithdrawal) {
            self.clean_now(pages, first);
        }
    }

    pass_on!(cpu: read_descriptor write_descriptors clean_descriptors invalidate_tlb zero_pages in_interrupt cpu);
}

impl StreamMachine for Wrong<'_> {
    fn line_bytes(&self) -> u32 {
        self.cpu.line_bytes()
    }

    fn maintain_inner(&self, what: Upkeep, start: VirtAddr, bytes: u32) {
        match (self.mistake, what) {
            (Mistake::SkipsClean, Upkeep::Clean)
            | (Mistake::SkipsInvalidate | Mistake::InnerFirst, Upkeep::Invalidate) => {}
            _ => self.inner(what, start, bytes),
        }
    }

    fn maintain_outer(&self, what: Upkeep, first: PhysAddr, bytes: u32) {
        match (self.mistake, what) {
            (Mistake::SkipsOuterClean, Upkeep::Clean)
            | (Mistake::SkipsOuterInvalidate, Upkeep::Invalidate) => {}
            (Mistake::InnerFirst, Upkeep::Invalidate) => {
                self.inner(what, BUFFER.address, BUFFER.bytes);
                self.cpu.barrier();
                self.outer(what, first, bytes);
            }
            _ => self.outer(what, first, bytes),
        }
    }

    fn wait_outer(&self) {
        if self.mistake != Mistake::DoesNotWait {
            self.cpu.wait_outer();
        }
    }
}

impl Mistake {
    /// The flow with which a transfer ends.
    fn turned(self, flow: Flow) -> Flow {
        match self {
            Self::WrongDirection => Flow::ToDevice,
            Self::DropsOnTheWayBack => Flow::FromDevice,
            _ => flow,
        }
    }
}

impl Transfers for Mistake {
    fn begin(&self, cpu: SoftCpu<'_>, flow: Flow) {
        if *self == Self::DropsOnTheWayOut && flow == Flow::FromDevice {
            to_processor(&cpu, with(flow), BUFFER);
        } else {
            to_device(&Wrong::new(cpu, *self, &ledger()), with(flow), BUFFER);
        }
    }

    fn end_of(&self, cpu: SoftCpu<'_>, flow: Flow, piece: Piece) {
        to_processor(&Wrong::new(cpu, *self, &ledger()), with(self.turned(flow)), piece);
    }
}

/// A machine of each behaviour, with an outer cache and the buffer mapped; on it `test`.
fn on_each(test: impl Fn(&SoftMachine, SoftCpu<'_>) -> Verdict) -> Verdict {
    Behaviour::all(SEEDS).try_for_each(|behaviour| {
        let machine = SoftMachine::new(behaviour, 1, ROOT).with_outer_cache();
        machine.device_write(L1_SLOT, TABLE.raw() | 1);
        machine.device_write(TABLE, 0x6010_0000 | DATA);
        test(&machine, machine.cpu(0)).map_err(|saw| format!("{behaviour:?}: {saw}"))
    })
}

fn word(index: u32) -> (VirtAddr, PhysAddr) {
    (
        VirtAddr::new(BUFFER.address.raw() + 4 * index),
        PhysAddr::new(BUFFER.physical.raw() + 4 * index),
    )
}

const WORDS: u32 = BUFFER.bytes / 4;

fn store_all(cpu: SoftCpu<'_>, what: u32) {
    for index in 0..WORDS {
        assert_eq!(cpu.store(word(index).0, what + index), Ok(()), "the buffer is mapped");
    }
}

fn device_finds(machine: &SoftMachine, what: u32) -> Verdict {
    let found = (0..WORDS).map(|index| machine.device_read(word(index).1)).collect::<Vec<_>>();
    same("the device reads", &found, &(what..what + WORDS).collect())
}

fn processor_finds(cpu: SoftCpu<'_>, what: u32) -> Verdict {
    let found = (0..WORDS).filter_map(|index| cpu.load(word(index).0).ok()).collect::<Vec<_>>();
    same("the processor reads", &found, &(what..what + WORDS).collect())
}

/// A device reads what the processor wrote last, each time.
fn a_device_reads_what_the_processor_wrote(transfers: &impl Transfers) -> Verdict {
    on_each(|machine, cpu| {
        (1..4).try_for_each(|time| {
            store_all(cpu, time * 0x100);
            transfers.begin(cpu, Flow::ToDevice);
            device_finds(machine, time * 0x100)?;
            transfers.end(cpu, Flow::ToDevice);
            Ok(())
        })
    })
}

/// The processor reads what a device wrote, also if it had written there itself, and it stays.
fn the_processor_reads_what_a_device_wrote(transfers: &impl Transfers) -> Verdict {
    on_each(|machine, cpu| {
        [Flow::FromDevice, Flow::Bidirectional].into_iter().try_for_each(|flow| {
            store_all(cpu, 0x100);
            transfers.begin(cpu, flow);
            (0..WORDS).for_each(|index| machine.device_write(word(index).1, 0x900 + index));
            transfers.end(cpu, flow);
            processor_finds(cpu, 0x900)?;
            // Nothing old is written back later.
            device_finds(machine, 0x900)
        })
    })
}

/// What a device leaves alone of a buffer that it could have written is what the processor wrote last.
fn what_a_device_leaves_alone_is_what_the_processor_wrote(transfers: &impl Transfers) -> Verdict {
    on_each(|_, cpu| {
        store_all(cpu, 0x100);
        transfers.begin(cpu, Flow::FromDevice);
        transfers.end(cpu, Flow::FromDevice);
        processor_finds(cpu, 0x100)
    })
}

/// What the processor wrote meanwhile beside a buffer that a device only reads, in the last line of that, is there still.
fn what_lies_beside_a_buffer_that_a_device_reads_stays(transfers: &impl Transfers) -> Verdict {
    on_each(|_, cpu| {
        let shorter = Piece { bytes: BUFFER.bytes - 4, ..BUFFER };
        store_all(cpu, 0x100);
        transfers.begin(cpu, Flow::ToDevice);
        let beside = word(WORDS - 1).0;
        assert_eq!(cpu.store(beside, 0x777), Ok(()), "the buffer is mapped");
        transfers.end_of(cpu, Flow::ToDevice, shorter);
        same("the processor reads", &cpu.load(beside).ok(), &Some(0x777))
    })
}

/// The ledger of lines finds nothing wrong with transfers of each flow, one after the other, and remembers nothing of them; also on
/// the machine that never shows that something is (S105).
fn the_ledger_of_lines_finds_every_edge_right(way: &impl Goes<Mistake>) -> Verdict {
    let machine = SoftMachine::new(Behaviour::Forgetful, 1, ROOT).with_outer_cache();
    machine.device_write(L1_SLOT, TABLE.raw() | 1);
    machine.device_write(TABLE, 0x6010_0000 | DATA);
    let ledger = ledger();
    for flow in [Flow::ToDevice, Flow::FromDevice, Flow::Bidirectional, Flow::FromDevice] {
        let wrong = Wrong::new(machine.cpu(0), way.how(), &ledger);
        to_device(&wrong, with(flow), BUFFER);
        to_processor(&wrong, with(way.how().turned(flow)), BUFFER);
    }
    let (lines, first) = ledger.into_inner();
    first.map_err(|wrong| wrong.to_string())?;
    same("runs that are left", &lines.runs(), &0)
}

/// The ledger of lines finds that no cache holds anything of memory that is used uncached (S85); also on the machine that never shows
/// that one does.
fn the_ledger_of_lines_finds_lent_memory_in_no_cache(way: &impl Goes<Mistake>) -> Verdict {
    let world = World::new(Behaviour::Forgetful);
    let ledger = RefCell::new((Lines::new(Levels::Inner, 32), Ok(())));
    let machine = Wrong::new(world.cpu(0), way.how(), &ledger);
    let before = |machine: &&Wrong<'_>, block: &FrameBlock| {
        if machine.mistake == Mistake::CleansBeforeWithdrawal {
            let (first, count) = (block.first(), block.pages());
            // The linear map of that world lies 0x20000 pages above memory.
            let pages = PageRange::from_numbers(first.number() + 0x2_0000, count);
            machine.clean_now(pages.expect("linear pages"), first);
        }
    };
    life_of_a_coherent_buffer(&world, &machine, before)?;
    let (lines, first) = ledger.into_inner();
    first.map_err(|wrong| wrong.to_string())?;
    same("runs that are left", &lines.runs(), &0)
}

board! {
    the_ledger_of_lines_finds_lent_memory_in_no_cache(Mistake::None) {
        ledger_sees_a_dirty_alias: "S85", "memory is used uncached that was never cleaned", Mistake::LendsDirty;
        ledger_sees_a_clean_too_early: "S85", "it was cleaned while the linear map still had it",
            Mistake::CleansBeforeWithdrawal;
    }
    the_ledger_of_lines_finds_every_edge_right(Mistake::None) {
        ledger_sees_no_clean: "S105", "the data cache is not cleaned before the device has the buffer", Mistake::SkipsClean;
        ledger_sees_no_outer_clean: "S105", "the outer cache is not cleaned", Mistake::SkipsOuterClean;
        ledger_sees_no_invalidate: "S105", "the data cache is not invalidated at the end", Mistake::SkipsInvalidate;
        ledger_sees_no_outer_invalidate: "S105", "the outer cache is not", Mistake::SkipsOuterInvalidate;
        ledger_sees_inner_first: "S105", "the data cache is invalidated before the outer one", Mistake::InnerFirst;
        ledger_sees_wrong_direction: "S105", "a transfer from the device ends as one to it", Mistake::WrongDirection;
    }
    a_device_reads_what_the_processor_wrote(Right, Mistake::None) {
        stream_skips_clean: "S105", "the data cache is not cleaned before the device reads", Mistake::SkipsClean;
        stream_skips_outer_clean: "S105", "the outer cache is not cleaned", Mistake::SkipsOuterClean;
        stream_cleans_outer_too_early: "S105", "the outer cache is cleaned before the data cache is done",
            Mistake::CleansOuterTooEarly;
        stream_does_not_wait: "S105", "the device begins before the outer cache is done", Mistake::DoesNotWait;
    }
    what_lies_beside_a_buffer_that_a_device_reads_stays(Right, Mistake::None) {
        stream_drops_on_the_way_back: "S105", "lines that a device only read are dropped at the end", Mistake::DropsOnTheWayBack;
    }
    the_processor_reads_what_a_device_wrote(Right, Mistake::None) {
        stream_skips_invalidate: "S105", "the data cache is not invalidated at the end", Mistake::SkipsInvalidate;
        stream_skips_outer_invalidate: "S105", "the outer cache is not", Mistake::SkipsOuterInvalidate;
        stream_invalidates_inner_first: "S105", "the data cache is invalidated while the outer one holds what is old",
            Mistake::InnerFirst;
        stream_wrong_direction: "S105", "a transfer from the device ends as one to it", Mistake::WrongDirection;
        stream_skips_clean_before_writes: "S105", "dirty lines stay and are written back over what the device wrote",
            Mistake::SkipsClean;
    }
    what_a_device_leaves_alone_is_what_the_processor_wrote(Right, Mistake::None) {
        stream_drops_on_the_way_out: "S105", "lines are dropped when the device is given them", Mistake::DropsOnTheWayOut;
    }
}
