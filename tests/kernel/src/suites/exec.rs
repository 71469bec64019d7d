//! Memory for code on the live tables: writable, then sealed, then run, on every CPU; never both (S14a, S30, S112).

use core::ffi::{c_int, c_uint, c_ulong, c_void};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use arch::exception::{Access, Fault, FaultStatus, Level};
use arch::{probe, smp};
use image::capture::capture_log;
use kerncore::addr::{PAGE_SIZE, VirtAddr};
use kerncore::area::AreaFlags;
use kerncore::frames::FrameOwner;
use kerncore::kernel_space::{ChangeError, ExecError, SealError};
use ktest::{assert_err, ktest};
use mm::exec_area::{ExecArea, ExecText};
use mm::kernel;
use mm::vm_area::VmArea;

use super::witness::{
    Books, NOBODY, ask_host, assert_absent, assert_fenced, assert_leads, authority, frame_at,
    linear, plus, word_at,
};

unsafe extern "C" {
    safe fn vmalloc_exec(size: c_uint) -> *mut c_void;
    fn vfree(address: *const c_void);
    fn set_memory_rox(address: c_ulong, pages: c_int) -> c_int;
}

const EINVAL: c_int = 22;
/// `mov r0, #n`, for n below 256.
pub(super) const MOVE: u32 = 0xe3a0_0000;
/// `bx lr`.
pub(super) const RETURN: u32 = 0xe12f_ff1e;

/// No right to an entry of a second-level table.
const FORBIDDEN: FaultStatus = FaultStatus::Permission(Level::Second);

/// Code at `offset` of `area` that gives `answer`.
pub(super) fn write_code(area: &mut ExecArea, offset: usize, answer: u32) {
    area[offset..offset + 4].copy_from_slice(&(MOVE | answer).to_le_bytes());
    area[offset + 4..offset + 8].copy_from_slice(&RETURN.to_le_bytes());
}

/// An area of `pages`, each of which begins with code that gives its number and `first`.
fn written(pages: u32, first: u32) -> ExecArea {
    let mut area = ExecArea::new(pages * PAGE_SIZE).expect("memory");
    for page in 0..pages {
        write_code(&mut area, (page * PAGE_SIZE) as usize, first + page);
    }
    area
}

/// Calls what lies at `offset` of `text`.
pub(super) fn run(text: &ExecText, offset: u32) -> u32 {
    let code: *const () =
        core::ptr::with_exposed_provenance(plus(text.address(), offset).raw() as usize);
    // SAFETY: `write_code` has put a function there that gives a number, and it is sealed.
    let code: extern "C" fn() -> u32 = unsafe { core::mem::transmute(code) };
    code()
}

/// `fault` is a refusal of `access` at `address`.
#[track_caller]
fn assert_forbidden<T: core::fmt::Debug>(
    outcome: Result<T, Fault>,
    access: Access,
    address: VirtAddr,
) {
    let fault = outcome.expect_err("forbidden");
    assert_eq!((fault.status, fault.access, fault.address), (FORBIDDEN, access, Some(address)));
}

/// Executing at `address` faults, without an instruction being executed.
#[track_caller]
pub(super) fn assert_not_executed(address: VirtAddr) {
    // SAFETY: what lies there returns at once, if it is executed at all.
    assert_forbidden(unsafe { probe::execute(address) }, Access::Execute, address);
}

/// Writing at `address` faults, and changes nothing.
#[track_caller]
fn assert_not_written(address: VirtAddr) {
    let before = word_at(address);
    // SAFETY: it faults; otherwise the test fails and nothing is relied upon.
    assert_forbidden(unsafe { probe::write_u32(address, !before) }, Access::Write, address);
    assert_eq!(word_at(address), before);
}

/// Every frame of `text` has one address, and no right to write it.
#[track_caller]
pub(super) fn assert_text_only(text: &ExecText) {
    for page in (0..text.pages().count()).map(|page| plus(text.address(), page * PAGE_SIZE)) {
        let frame = frame_at(page);
        assert_eq!(kernel().zones().table().owner_of(frame), FrameOwner::Text);
        assert_absent(linear(frame));
        assert_leads(page, frame.base());
        assert_not_written(page);
    }
    assert_fenced(text.pages());
}

#[ktest]
fn code_runs_when_it_is_sealed_and_not_before_s30_s112() {
    let books = Books::now();
    for pages in [1, 3, 257] {
        let area = written(pages, 0);
        let start = area.pages().start();
        let last = plus(start, (pages - 1) * PAGE_SIZE);
        for page in [start, last] {
            assert_not_executed(page);
            assert_absent(linear(frame_at(page)));
            ask_host(page);
        }
        let flags = kernel().find(start).expect("an area").flags;
        assert_eq!(flags, AreaFlags::ALLOC);
        let text = area.seal().expect("its own");
        for page in [0, pages / 2, pages - 1].map(|page| page & 0xff) {
            assert_eq!(run(&text, page * PAGE_SIZE), page);
        }
        assert_text_only(&text);
        let frames = [frame_at(start), frame_at(last)];
        drop(text);
        assert_absent(start);
        for frame in frames {
            assert_leads(linear(frame), frame.base());
            ask_host(linear(frame));
        }
        books.assert_unchanged();
    }
}

/// S14a, S23: what ran at an address before is forgotten there at once, in the same frames and at the same addresses.
#[ktest]
fn new_code_at_the_same_place_is_what_runs_s14a_s30() {
    let mut before = None;
    for answer in 0..40 {
        let text = written(1, answer).seal().expect("its own");
        let place = (text.address(), frame_at(text.address()));
        assert_eq!(*before.get_or_insert(place), place, "the same place: else this has no teeth");
        assert_eq!(run(&text, 0), answer);
    }
}

#[ktest]
fn code_runs_on_every_cpu_s30_s116() {
    for answer in 1..20 {
        let text = written(2, answer).seal().expect("its own");
        let (sum, cpus) = (AtomicU32::new(0), AtomicU32::new(0));
        smp::run_on_each(|_| {
            sum.fetch_add(run(&text, 0) + run(&text, PAGE_SIZE), Relaxed);
            cpus.fetch_add(1, Relaxed);
            assert_not_written(text.address());
        });
        assert_eq!(sum.load(Relaxed), cpus.load(Relaxed) * (2 * answer + 1), "{answer}");
    }
}

/// S23, S116: every CPU has written there just before, so that each remembers the writable entry; none does afterwards.
#[ktest]
fn no_cpu_writes_sealed_code_s112_s116() {
    for _ in 0..20 {
        let area = written(1, 7);
        let spare = plus(area.pages().start(), 64);
        smp::run_on_each(|number| {
            // SAFETY: the word belongs to this test, and nobody has a slice of it just now.
            assert_eq!(unsafe { probe::write_u32(plus(spare, 4 * number), number) }, Ok(()));
        });
        let text = area.seal().expect("its own");
        smp::run_on_each(|number| {
            assert_not_written(plus(spare, 4 * number));
            assert_eq!(run(&text, 0), 7);
        });
    }
}

#[ktest]
fn ordinary_memory_of_vmalloc_faults_when_it_is_executed_s30_s112() {
    let mut area = VmArea::zeroed(2 * PAGE_SIZE).expect("memory");
    for offset in [0, PAGE_SIZE as usize] {
        area[offset..offset + 4].copy_from_slice(&RETURN.to_le_bytes());
    }
    arch::cache::synchronize_instructions(area.address(), area.pages().bytes());
    assert_not_executed(area.address());
    assert_not_executed(plus(area.address(), PAGE_SIZE));
}

#[ktest]
fn what_is_not_all_of_an_area_for_code_is_not_sealed_and_named_s30() {
    let books = Books::now();
    assert_err!(ExecArea::new(0), ExecError::ZeroSize);
    assert_err!(ExecArea::new(u32::MAX), ExecError::MoreThanMemory { wanted: 0x10_0000, .. });
    books.assert_unchanged();
    let (area, data) = (written(3, 1), VmArea::new(1).expect("memory"));
    let start = area.pages().start();
    let seal = |address, pages| kernel().seal(authority(), address, pages).expect_err("refused");
    assert!(
        matches!(seal(data.address(), 1), SealError::NotExec { address, .. } if address == data.address())
    );
    for given in [0, 2, 4] {
        assert_eq!(seal(start, given), SealError::Partial { address: start, area: 3, given });
    }
    let inside = plus(start, PAGE_SIZE);
    assert_eq!(seal(inside, 2), SealError::Area(ChangeError::Unknown { address: inside }));
    assert_not_executed(start);
    let text = area.seal().expect("its own");
    assert_eq!(seal(start, 3), SealError::Sealed { address: start });
    assert_eq!(run(&text, 0), 1);
    drop((text, data));
    books.assert_unchanged();
}

#[ktest]
fn c_callers_write_seal_and_run_s30() {
    let books = Books::now();
    assert!(vmalloc_exec(0).is_null());
    let code = vmalloc_exec(100);
    let words: *mut [u32; 2] = code.cast();
    assert!(!code.is_null());
    // SAFETY: a page for this test alone, which can be written.
    unsafe { words.write([MOVE | 0x2a, RETURN]) };
    let at = c_ulong::try_from(code.expose_provenance()).expect("pointers have 32 bits");
    let rox = |address, pages| {
        // SAFETY: nobody writes there meanwhile.
        capture_log(|| unsafe { set_memory_rox(address, pages) })
    };
    for (address, pages, said) in [
        (at, 2, "2 pages of the 1 at"),
        (at, -1, "0 pages of the 1 at"),
        (at + 4, 1, "is not the address of a page"),
        (at + PAGE_SIZE, 1, "no area begins at"),
    ] {
        let (refused, log) = rox(address, pages);
        assert_eq!(refused, -EINVAL);
        assert!(log.text().starts_with("set_memory_rox: ") && log.text().contains(said), "{log:?}");
    }
    let (sealed, log) = rox(at, 1);
    assert_eq!((sealed, log.text()), (0, ""));
    // SAFETY: a function that gives a number, sealed.
    let function: extern "C" fn() -> u32 = unsafe { core::mem::transmute(code) };
    assert_eq!(function(), 0x2a);
    let (twice, log) = rox(at, 1);
    assert_eq!(twice, -EINVAL);
    assert!(log.text().contains("is sealed already"), "{log:?}");
    // SAFETY: nobody executes it any more.
    unsafe { vfree(code) };
    assert_absent(VirtAddr::new(at));
    books.assert_unchanged();
}

#[ktest(fatal = "vmalloc_exec in interrupt context, where no area is made or removed")]
fn to_make_memory_for_code_in_a_handler_is_fatal_s10_s30() {
    super::interrupts::in_handler(|| _ = kernel().vmalloc_exec(1, NOBODY));
}

#[ktest(fatal = "set_memory_rox in interrupt context, where no area is made or removed")]
fn to_seal_memory_for_code_in_a_handler_is_fatal_s10_s30() {
    super::interrupts::in_handler(|| _ = kernel().seal(authority(), VirtAddr::new(0), 1));
}
