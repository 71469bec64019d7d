//! Every allocation of every operation fails in turn, on machines of every behaviour: afterwards nothing is missing, nothing is
//! mapped, and no CPU remembers what was mapped for a while (S9, S18, S19, S28, S29, S37, S44, S66).

use std::fmt::Debug;
use std::num::NonZeroU32;

use super::bed::{Bed, CALLER, WINDOW, page, pages};
use crate::mutants::user::{Programs, Right, audit};
use kerncore::{
    addr::{PAGE_SIZE, PhysAddr, VirtAddr},
    area::AreaFlags,
    attributes::Attributes,
    failure::{Afterwards, Point},
    frames::{AllocateError, FrameOwner},
    kernel_space::{
        ArrayError, CoherentError, ExecError, Fill, IoRemapError, NoArea, VmallocError, VmapError,
    },
    linear_map::LinearFault,
    page_table::{MapError, ReserveError},
    user::{PlaceError, Protection, WindowError},
    va_space::{self, Request},
};
use machine::{Behaviour, Fault, fail_nth};

const DEVICE: PhysAddr = PhysAddr::new(0x1001_3000);
/// Two pages on either side of the border between two second-level tables, in a program.
const PROGRAM: u32 = 0xff;

/// Makes each allocation of `operation` fail; an error must be the one that `is_right` of its point. Says how many there were.
#[track_caller]
fn survives<T, E: Debug>(
    bed: &Bed,
    operation: impl Fn() -> Result<T, E>,
    is_right: impl Fn(Point, &E) -> bool,
    undo: impl Fn(T),
) -> u32 {
    undo(operation().expect("memory"));
    let mut points = 0;
    for afterwards in [Afterwards::Plenty, Afterwards::Nothing] {
        for nth in (1..).filter_map(NonZeroU32::new) {
            let failed = bed.gives_back(|bed| {
                let (result, outcome) = fail_nth(nth, afterwards, &operation);
                match (result, outcome.failed) {
                    (Ok(made), _) => undo(made),
                    (Err(error), Some(point)) => {
                        assert!(is_right(point, &error), "{point} failed: {error:?}");
                        assert_nothing_is_reached(bed);
                    }
                    (Err(error), None) => panic!("nothing failed, and yet: {error:?}"),
                }
                outcome.failed
            });
            if failed.is_none() {
                break;
            }
            points = nth.get();
        }
    }
    println!("{points} of {points} points survived");
    points
}

/// The window of the bed is empty but for what a test put at its end: no CPU finds anything at its first pages.
#[track_caller]
fn assert_nothing_is_reached(bed: &Bed) {
    for number in [0, 1, 2, 255, 256, 257, 511, 512] {
        let address = page(WINDOW + number);
        for cpu in [0, 1].map(|cpu| bed.machine.cpu(cpu)) {
            assert_eq!(cpu.load(address), Err(Fault::Translation(address)), "{cpu:?}");
        }
    }
}

fn everywhere(test: impl Fn(&Bed)) {
    for behaviour in Behaviour::all(2) {
        println!("{behaviour:?}");
        test(&Bed::warm_on(behaviour));
    }
}

fn no_area(point: Point, error: &NoArea) -> bool {
    match error {
        NoArea::Record(AllocateError::Exhausted { .. }) => {
            matches!(point, Point::Record | Point::Frames)
        }
        NoArea::Addresses(va_space::ReserveError::NoSpace { .. }) => point == Point::Addresses,
        _ => false,
    }
}

fn no_table(point: Point, error: &MapError) -> bool {
    matches!(point, Point::Table | Point::Frames)
        && matches!(error, MapError::Table { reason: ReserveError::NoTable(_), .. })
}

fn no_frames(point: Point, error: &AllocateError) -> bool {
    point == Point::Frames && matches!(error, AllocateError::Exhausted { .. })
}

fn no_vmalloc(point: Point, error: &VmallocError) -> bool {
    match error {
        VmallocError::Area(error) => no_area(point, error),
        VmallocError::Frames(error) | VmallocError::PageArray(ArrayError::Frames(error)) => {
            no_frames(point, error)
        }
        VmallocError::Map(error) => no_table(point, error),
        _ => false,
    }
}

fn no_place(point: Point, error: &PlaceError) -> bool {
    match error {
        PlaceError::Window(WindowError::Full { .. }) => point == Point::Window,
        PlaceError::Frames(error) => no_frames(point, error),
        PlaceError::Linear(_) => point == Point::Linear,
        PlaceError::Map(error) => no_table(point, error),
        _ => false,
    }
}

/// Two second-level tables: what was mapped below the first is undone when the second fails.
#[test]
fn vmalloc_s19_s28_s29() {
    everywhere(|bed| {
        let bytes = 260 * PAGE_SIZE;
        let points = survives(
            bed,
            || bed.space.vmalloc(bytes, Fill::Uninitialised, CALLER),
            no_vmalloc,
            |area| bed.space.vfree((), area.pages.start()).expect("a live area"),
        );
        assert_eq!(points, 6, "record, addresses, the array's frame, frames, two tables");
    });
}

#[test]
fn vmap_s18_s37() {
    everywhere(|bed| {
        let (list, frames) = bed.frames(3);
        let is_right = |point, error: &VmapError| match error {
            VmapError::Area(error) => no_area(point, error),
            VmapError::Map(error) => no_table(point, error),
            _ => false,
        };
        let points = survives(
            bed,
            || bed.space.vmap(&frames, Attributes::KERNEL_DATA, CALLER),
            is_right,
            |area| bed.space.vunmap((), area.pages.start()).expect("a live area"),
        );
        assert_eq!(points, 3, "record, addresses, a table");
        bed.feed(list);
    });
}

#[test]
fn ioremap_s8_s9() {
    everywhere(|bed| {
        let is_right = |point, error: &IoRemapError| match error {
            IoRemapError::Area(error) => no_area(point, error),
            IoRemapError::Map(error) => no_table(point, error),
            _ => false,
        };
        let points = survives(
            bed,
            || bed.space.ioremap(DEVICE, 0x1_0000, Attributes::DEVICE, CALLER),
            is_right,
            |address| bed.space.iounmap((), address).expect("a live area"),
        );
        assert_eq!(points, 3, "record, addresses, a table");
    });
}

/// The linear entries are back after each failure that comes behind their withdrawal (S97), as the audit says.
#[test]
fn coherent_memory_s66_s97() {
    everywhere(|bed| {
        let is_right = |point, error: &CoherentError| match error {
            CoherentError::Frames(error) => no_frames(point, error),
            CoherentError::Contiguous(_) => false,
            CoherentError::Linear(_) => point == Point::Linear,
            CoherentError::Area(error) => no_area(point, error),
            CoherentError::Map(error) => no_table(point, error),
        };
        let bytes = 5 * PAGE_SIZE;
        let free = |base| bed.space.coherent_free((), base, bytes).expect("a live area");
        let points = survives(
            bed,
            || bed.space.coherent_alloc(bytes, FrameOwner::Dma, CALLER),
            is_right,
            |area| _ = free(area.pages.start()),
        );
        assert_eq!(points, 5, "frames, linear map, record, addresses, a table");
    });
}

/// Of scattered frames behind two second-level tables: each linear entry is back, and each frame (S112).
#[test]
fn memory_for_code_s28_s112() {
    everywhere(|bed| {
        let kept = bed.scatter();
        // What is left in front of the border is ten pages.
        let request = Request::of_bytes(245 * PAGE_SIZE);
        let before = bed.space.reserve_area(request, AreaFlags::NONE, CALLER).expect("addresses");
        let is_right = |point, error: &ExecError| match error {
            ExecError::Area(error) => no_area(point, error),
            ExecError::PageArray(ArrayError::Frames(error)) | ExecError::Frames(error) => {
                no_frames(point, error)
            }
            ExecError::Linear(LinearFault::NoAddress { .. }) => point == Point::Linear,
            ExecError::Map(error) => no_table(point, error),
            _ => false,
        };
        let points = survives(
            bed,
            || bed.space.vmalloc_exec(20 * PAGE_SIZE, CALLER),
            is_right,
            |area| bed.space.vfree((), area.pages.start()).expect("a live area"),
        );
        assert_eq!(
            points, 7,
            "record, addresses, the array's frame, frames, linear map, two tables"
        );
        bed.space.vunmap((), before.area.pages.start()).expect("a live area");
        bed.feed(kept);
    });
}

#[test]
fn windows_of_programs_s44() {
    everywhere(|bed| {
        let programs = Programs::new(bed, &Right);
        let space = programs.space();
        let window = pages(PROGRAM, 2);
        let unmap = |()| space.unmap(page(PROGRAM)).expect("a window");
        let data = || space.map_data(window, Protection::ReadWrite);
        // What a space has of tables stays with it.
        data().expect("memory");
        unmap(());
        let _beside = bed.beside(audit(&space).table_frames);
        let points = survives(bed, data, no_place, unmap);
        assert_eq!(points, 4, "window, frames, two tables");
        let points = survives(bed, || space.map_text(window, &[1; 5000]), no_place, unmap);
        assert_eq!(points, 5, "window, frames, linear map, two tables");
    });
}

/// In a space without tables the tables themselves fail, and the frames that they are to be cut from.
#[test]
fn the_first_window_of_a_space_s44() {
    everywhere(|bed| {
        let programs = Programs::new(bed, &Right);
        let points = survives(
            bed,
            || {
                let space = programs.try_space().map_err(PlaceError::Frames)?;
                space.map_data(pages(PROGRAM, 2), Protection::ReadWrite)
            },
            no_place,
            drop,
        );
        assert_eq!(points, 6, "first level, window, frames, two tables, the frame for both");
    });
}

/// Records and tables that are made once and kept may fail too, the first time.
#[test]
fn the_first_area_of_a_kernel_s9() {
    for behaviour in Behaviour::all(2) {
        let mut survived = Vec::new();
        for nth in (1..).filter_map(NonZeroU32::new) {
            let bed = Bed::on(behaviour);
            let failed = bed.gives_back(|bed| {
                let make = || bed.space.vmalloc(PAGE_SIZE, Fill::Uninitialised, CALLER);
                let (result, outcome) = fail_nth(nth, Afterwards::Nothing, make);
                match result {
                    Ok(area) => bed.space.vfree((), area.pages.start()).expect("a live area"),
                    Err(error) => {
                        let point = outcome.failed.expect("something failed");
                        assert!(no_vmalloc(point, &error), "{point} failed: {error:?}");
                    }
                }
                outcome.failed
            });
            let Some(point) = failed else { break };
            survived.push(point);
        }
        let chunk = [Point::Record, Point::Frames, Point::Record, Point::Addresses];
        let memory = [Point::Frames, Point::Table];
        assert_eq!(survived[..6], [&chunk[..], &memory].concat());
    }
}

/// However few the pages: a table is asked for once, and who is refused learns it (no other way is tried that succeeds).
#[test]
fn the_first_table_that_fails_reaches_the_caller_s18_s28_s37() {
    #[track_caller]
    fn assert_said<T>(what: &str, make: impl Fn() -> Result<T, bool>, undo: impl Fn(T), bed: &Bed) {
        let mut tables = 0;
        for nth in (1..).filter_map(NonZeroU32::new) {
            let failed = bed.gives_back(|_| {
                let (made, outcome) = fail_nth(nth, Afterwards::Plenty, &make);
                match (made, outcome.failed) {
                    (Err(is_table), Some(Point::Table)) => assert!(is_table, "{what}"),
                    (Ok(_), Some(Point::Table)) => panic!("{what} survives without its table"),
                    (made, _) => _ = made.map(&undo),
                }
                outcome.failed
            });
            tables += u32::from(failed == Some(Point::Table));
            if failed.is_none() {
                break;
            }
        }
        assert_eq!(tables, 1, "{what}: asked for once");
    }
    everywhere(|bed| {
        let is_table = |error: &MapError| no_table(Point::Table, error);
        let (list, mut frames) = bed.frames(20);
        // No run that a large page could map.
        frames.reverse();
        for count in [1, 3, 16, 17, 20] {
            let make = || bed.space.vmalloc(count * PAGE_SIZE, Fill::Zeroed, CALLER);
            let said = || {
                make().map_err(|error| matches!(error, VmallocError::Map(map) if is_table(&map)))
            };
            let undo = |base: VirtAddr| bed.space.vfree((), base).expect("a live area");
            assert_said("vmalloc", said, |area| undo(area.pages.start()), bed);
            let frames = &frames[..count as usize];
            let make = || bed.space.vmap(frames, Attributes::KERNEL_DATA, CALLER);
            let said =
                || make().map_err(|error| matches!(error, VmapError::Map(map) if is_table(&map)));
            let undo = |base: VirtAddr| bed.space.vunmap((), base).expect("a live area");
            assert_said("vmap", said, |area| undo(area.pages.start()), bed);
            let records = bed.records(frames);
            let make = || bed.space.vmap_pages(&records, AreaFlags::MAP, CALLER);
            let said =
                || make().map_err(|error| matches!(error, VmapError::Map(map) if is_table(&map)));
            assert_said("vmap of records", said, undo, bed);
        }
        bed.feed(list);
    });
}

/// The same address is found again, and leads elsewhere: nobody remembers the mapping that failed.
#[test]
fn what_failed_is_remembered_by_nobody_s23() {
    everywhere(|bed| {
        let make = || bed.space.vmalloc(258 * PAGE_SIZE, Fill::Uninitialised, CALLER);
        let fifth = NonZeroU32::new(5).expect("the second table");
        let (failed, outcome) = fail_nth(fifth, Afterwards::Plenty, make);
        assert_eq!((failed.is_err(), outcome.failed), (true, Some(Point::Table)));
        let base: VirtAddr = bed.vmalloc(1);
        assert_eq!(base, page(WINDOW), "the lowest, as before");
        for cpu in [0, 1].map(|cpu| bed.machine.cpu(cpu)) {
            cpu.store(base, 7).expect("mapped");
            assert_eq!(bed.machine.cpu(0).load(base), Ok(7));
            let beyond = page(WINDOW + 1);
            assert_eq!(cpu.load(beyond), Err(Fault::Translation(beyond)), "the guard");
        }
        bed.space.vfree((), base).expect("a live area");
    });
}
