//! Every edge, right and wrong.

use super::*;

const CALL: &str = "a call";
const FIRST: PhysAddr = PhysAddr::new(0x6010_0040);
const BYTES: u32 = 96;

fn ledger() -> Lines<8> {
    Lines::new(Levels::InnerAndOuter, 32)
}

fn wrong(line: u32, wrong: Wrong) -> Result<(), WrongEdge> {
    Err(WrongEdge { call: CALL, line: PhysAddr::new(line), wrong })
}

impl Lines<8> {
    fn step(&mut self, edge: Edge) -> Result<(), WrongEdge> {
        self.edge(CALL, edge, FIRST, BYTES)
    }

    fn keep(&mut self, level: Level, what: Upkeep) -> Result<(), WrongEdge> {
        self.maintained(CALL, level, what, FIRST, BYTES)
    }

    fn give(&mut self, flow: Flow) {
        assert_eq!(self.step(Edge::Giving(flow, Step::Whole)), Ok(()));
        assert_eq!(self.keep(Level::Inner, Upkeep::Clean), Ok(()));
        assert_eq!(self.keep(Level::Outer, Upkeep::Clean), Ok(()));
        assert_eq!(self.step(Edge::Given(flow, Step::Whole)), Ok(()));
    }
}

const FROM: Flow = Flow::FromDevice;

#[test]
fn a_transfer_of_each_flow_leaves_nothing_behind_s105() {
    let mut lines = ledger();
    for flow in Flow::ALL {
        lines.give(flow);
        assert_eq!(lines.runs(), 1);
        assert_eq!(lines.step(Edge::Taking(flow, Step::Whole)), Ok(()));
        if flow.device_writes() {
            assert_eq!(lines.keep(Level::Outer, Upkeep::Invalidate), Ok(()));
            assert_eq!(lines.keep(Level::Inner, Upkeep::Invalidate), Ok(()));
        }
        assert_eq!(lines.step(Edge::Taken(flow, Step::Whole)), Ok(()));
        assert_eq!(lines.runs(), 0);
    }
}

#[test]
fn what_is_not_cleaned_all_the_way_is_not_given_s105() {
    let mut lines = ledger();
    let _ = lines.step(Edge::Giving(FROM, Step::Whole));
    let inner = wrong(0x6010_0040, Wrong::StillDirty(Level::Inner));
    assert_eq!(lines.step(Edge::Given(FROM, Step::Whole)), inner);
    let _ = lines.keep(Level::Outer, Upkeep::Clean);
    assert_eq!(lines.step(Edge::Given(FROM, Step::Whole)), inner);
    let _ = lines.keep(Level::Inner, Upkeep::Clean);
    let outer = wrong(0x6010_0040, Wrong::StillDirty(Level::Outer));
    assert_eq!(lines.step(Edge::Given(FROM, Step::Whole)), outer, "the outer one has it by now");
    // The last line is forgotten.
    assert_eq!(lines.maintained(CALL, Level::Outer, Upkeep::Clean, FIRST, 64), Ok(()));
    assert_eq!(
        lines.step(Edge::Given(FROM, Step::Whole)),
        wrong(0x6010_0080, Wrong::StillDirty(Level::Outer))
    );
    // A byte of a line is the line.
    let last = PhysAddr::new(0x6010_009f);
    assert_eq!(lines.maintained(CALL, Level::Outer, Upkeep::CleanAndInvalidate, last, 1), Ok(()));
    assert_eq!(lines.step(Edge::Given(FROM, Step::Whole)), Ok(()));
}

#[test]
fn without_an_outer_cache_the_data_cache_is_all_s105() {
    let mut lines: Lines<8> = Lines::new(Levels::Inner, 32);
    let _ = lines.step(Edge::Giving(FROM, Step::Whole));
    let _ = lines.keep(Level::Inner, Upkeep::Clean);
    assert_eq!(lines.step(Edge::Given(FROM, Step::Whole)), Ok(()));
    let mut lines: Lines<8> = Lines::new(Levels::Inner, 32);
    lines.add_outer();
    let _ = lines.step(Edge::Giving(FROM, Step::Whole));
    let _ = lines.keep(Level::Inner, Upkeep::Clean);
    assert!(lines.step(Edge::Given(FROM, Step::Whole)).is_err());
}

#[test]
fn what_is_not_invalidated_from_the_outside_in_is_not_taken_back_s105() {
    let mut lines = ledger();
    lines.give(FROM);
    // Before the device is done it does not count.
    let _ = lines.keep(Level::Outer, Upkeep::Invalidate);
    let _ = lines.keep(Level::Inner, Upkeep::Invalidate);
    assert_eq!(lines.step(Edge::Taking(FROM, Step::Whole)), Ok(()));
    let inner = wrong(0x6010_0040, Wrong::StillStale(Level::Inner));
    assert_eq!(lines.step(Edge::Taken(FROM, Step::Whole)), inner);
    let _ = lines.keep(Level::Inner, Upkeep::Invalidate);
    assert_eq!(
        lines.step(Edge::Taken(FROM, Step::Whole)),
        inner,
        "read in again from the outer one"
    );
    let _ = lines.keep(Level::Outer, Upkeep::Invalidate);
    assert_eq!(lines.step(Edge::Taken(FROM, Step::Whole)), inner);
    let _ = lines.keep(Level::Inner, Upkeep::Invalidate);
    assert_eq!(lines.step(Edge::Taken(FROM, Step::Whole)), Ok(()));
}

#[test]
fn a_buffer_is_taken_with_the_flow_that_it_was_given_with_s107() {
    let mut lines = ledger();
    let nobodys = wrong(0x6010_0040, Wrong::NotTheDevices);
    for flow in Flow::ALL {
        assert_eq!(lines.step(Edge::Taking(flow, Step::Whole)), nobodys);
        lines.give(flow);
        for taken in Flow::ALL.into_iter().filter(|&taken| taken != flow) {
            let other = wrong(0x6010_0040, Wrong::OtherFlow { given: flow, taken });
            assert_eq!(lines.step(Edge::Taking(taken, Step::Whole)), other);
        }
        lines = ledger();
    }
}

#[test]
fn what_a_device_may_write_is_given_once_and_not_cleaned_s105() {
    let mut lines = ledger();
    lines.give(FROM);
    for flow in Flow::ALL {
        let twice = wrong(0x6010_0040, Wrong::TheDevices(FROM));
        assert_eq!(lines.step(Edge::Giving(flow, Step::Whole)), twice);
    }
    // The line in the middle, by a buffer beside.
    let beside =
        lines.edge(CALL, Edge::Giving(Flow::ToDevice, Step::Whole), PhysAddr::new(0x6010_0060), 32);
    assert_eq!(beside, wrong(0x6010_0060, Wrong::TheDevices(FROM)));
    for what in [Upkeep::Clean, Upkeep::CleanAndInvalidate] {
        assert_eq!(
            lines.keep(Level::Inner, what),
            wrong(0x6010_0040, Wrong::CleanedUnderTheDevice)
        );
    }
    assert_eq!(lines.runs(), 1, "nothing has changed");
}

#[test]
fn what_devices_only_read_several_may_have_at_once() {
    let to = Flow::ToDevice;
    let mut lines = ledger();
    lines.give(to);
    lines.give(to);
    assert_eq!(
        lines.step(Edge::Giving(FROM, Step::Whole)),
        wrong(0x6010_0040, Wrong::TheDevices(to))
    );
    for _ in 0..2 {
        assert_eq!(lines.runs(), 1);
        assert_eq!(lines.step(Edge::Taking(to, Step::Whole)), Ok(()));
        assert_eq!(lines.step(Edge::Taken(to, Step::Whole)), Ok(()));
    }
    assert_eq!(lines.runs(), 0);
    assert_eq!(lines.step(Edge::Taking(to, Step::Whole)), wrong(0x6010_0040, Wrong::NotTheDevices));
    // Of what is only read, lines that are shared with others are not followed.
    assert_eq!(
        lines.edge(CALL, Edge::Giving(to, Step::Whole), PhysAddr::new(0x6010_0041), 62),
        Ok(())
    );
    assert_eq!(lines.runs(), 0);
}

#[test]
fn memory_is_used_uncached_only_when_no_cache_holds_it_s85() {
    let mut lines = ledger();
    let cached = |level| wrong(0x6010_0040, Wrong::StillCached(level));
    // Cleaned while a cacheable mapping was there: it may be back.
    let _ = lines.keep(Level::Inner, Upkeep::CleanAndInvalidate);
    let _ = lines.keep(Level::Outer, Upkeep::CleanAndInvalidate);
    assert_eq!(lines.step(Edge::Lent), cached(Level::Inner));
    assert_eq!(lines.step(Edge::Lending), Ok(()));
    assert_eq!(lines.step(Edge::Lent), cached(Level::Inner));
    let _ = lines.keep(Level::Inner, Upkeep::CleanAndInvalidate);
    assert_eq!(lines.step(Edge::Lent), cached(Level::Outer));
    let _ = lines.keep(Level::Outer, Upkeep::CleanAndInvalidate);
    assert_eq!(lines.step(Edge::Lent), Ok(()));
    assert_eq!(lines.step(Edge::Giving(FROM, Step::Whole)), wrong(0x6010_0040, Wrong::Uncached));
    assert_eq!(lines.step(Edge::Lending), wrong(0x6010_0040, Wrong::Uncached));
    assert_eq!(lines.step(Edge::Returned), Ok(()));
    assert_eq!(lines.step(Edge::Returned), wrong(0x6010_0040, Wrong::NotUncached));
    lines.give(FROM);
    assert_eq!(lines.step(Edge::Lending), wrong(0x6010_0040, Wrong::TheDevices(FROM)));
}

#[test]
fn runs_are_cut_and_joined_and_a_full_ledger_says_so() {
    let mut lines = ledger();
    let at = |line: u32| PhysAddr::new(line * 32);
    let lend = |lines: &mut Lines<8>, line| lines.edge(CALL, Edge::Lending, at(line), 32);
    for line in [2, 0, 1, 5, 4, 3] {
        assert_eq!(lend(&mut lines, line), Ok(()));
    }
    assert_eq!(lines.runs(), 1);
    // Three runs of one, whose middle is cleaned; and one again.
    assert_eq!(lines.maintained(CALL, Level::Inner, Upkeep::Clean, at(2), 64), Ok(()));
    assert_eq!(lines.runs(), 3);
    assert_eq!(lines.maintained(CALL, Level::Inner, Upkeep::Clean, at(0), 256), Ok(()));
    assert_eq!(lines.runs(), 1);
    for line in 1..8 {
        assert_eq!(lend(&mut lines, 10 * line), Ok(()));
    }
    assert_eq!(lend(&mut lines, 100), wrong(3200, Wrong::NoRoom));
    assert_eq!(lines.runs(), 8);
    let top = PhysAddr::new(0xffff_ffe0);
    assert_eq!(lines.edge(CALL, Edge::Lending, top, 32), wrong(0xffff_ffe0, Wrong::NoRoom));
    assert_eq!(ledger().edge(CALL, Edge::Lending, top, 32), Ok(()));
}

#[test]
fn a_wrong_edge_names_the_call_and_the_line() {
    let of = |wrong| WrongEdge { call: "dma_map_single", line: FIRST, wrong }.to_string();
    let begin = "dma_map_single: the cache line at 0x60100040 is ";
    for (wrong, end) in [
        (Wrong::StillDirty(Level::Inner), "given away while the data cache may hold it dirty"),
        (
            Wrong::StillStale(Level::Outer),
            "taken back while the outer cache may hold what was there before",
        ),
        (Wrong::StillCached(Level::Inner), "used uncached while the data cache may hold it"),
        (Wrong::TheDevices(FROM), "given away, and a device has it (from the device)"),
        (Wrong::NotTheDevices, "taken back, and no device has it"),
        (
            Wrong::OtherFlow { given: FROM, taken: Flow::ToDevice },
            "given from the device, taken back to the device",
        ),
        (Wrong::Uncached, "given away, and it is used uncached"),
        (Wrong::NotUncached, "returned, and it was not used uncached"),
        (Wrong::CleanedUnderTheDevice, "cleaned while a device may write it"),
        (Wrong::NoRoom, "the ledger of lines is full"),
    ] {
        assert_eq!(of(wrong), format!("{begin}{end}"));
    }
}

#[test]
fn a_mapped_buffer_is_synchronised_any_number_of_times_in_either_direction_s105() {
    let back = |lines: &mut Lines<8>, flow, step| {
        assert_eq!(lines.step(Edge::Taking(flow, step)), Ok(()));
        if flow.device_writes() {
            let stale = lines.step(Edge::Taken(flow, step));
            assert_eq!(stale, wrong(0x6010_0040, Wrong::StillStale(Level::Inner)));
        }
        assert_eq!(lines.keep(Level::Outer, Upkeep::Invalidate), Ok(()));
        assert_eq!(lines.keep(Level::Inner, Upkeep::Invalidate), Ok(()));
        assert_eq!(lines.step(Edge::Taken(flow, step)), Ok(()));
    };
    let out = |lines: &mut Lines<8>, flow| {
        assert_eq!(lines.step(Edge::Giving(flow, Step::Sync)), Ok(()));
        let dirty = lines.step(Edge::Given(flow, Step::Sync));
        assert_eq!(dirty, wrong(0x6010_0040, Wrong::StillDirty(Level::Inner)));
        assert_eq!(lines.keep(Level::Inner, Upkeep::Clean), Ok(()));
        assert_eq!(lines.keep(Level::Outer, Upkeep::Clean), Ok(()));
        assert_eq!(lines.step(Edge::Given(flow, Step::Sync)), Ok(()));
    };
    for flow in Flow::ALL {
        let mut lines = ledger();
        let nobodys = wrong(0x6010_0040, Wrong::NotTheDevices);
        assert_eq!(lines.step(Edge::Giving(flow, Step::Sync)), nobodys);
        lines.give(flow);
        out(&mut lines, flow);
        back(&mut lines, flow, Step::Sync);
        back(&mut lines, flow, Step::Sync);
        assert_eq!(lines.runs(), 1, "it is mapped");
        out(&mut lines, flow);
        out(&mut lines, flow);
        for other in Flow::ALL.into_iter().filter(|&other| other != flow) {
            let other_way = wrong(0x6010_0040, Wrong::OtherFlow { given: flow, taken: other });
            assert_eq!(lines.step(Edge::Giving(other, Step::Sync)), other_way);
            assert_eq!(lines.step(Edge::Taking(other, Step::Sync)), other_way);
        }
        back(&mut lines, flow, Step::Sync);
        back(&mut lines, flow, Step::Whole);
        assert_eq!(lines.runs(), 0);
    }
}
