//! Interrupts that are real: raised by software, timers and devices, taken through the controller (S115), and what their
//! handlers may do (S10, S35, S77, S89).

extern crate alloc;

use alloc::vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use arch::cpu;
use arch::exception::FaultStatus;
use arch::irq;
use arch::lock::IrqSpinLock;
use arch::probe;
use board::vexpress_a9::{
    GIC_CPU, GIC_DISTRIBUTOR, INTERRUPTS, PRIVATE_TIMER, PRIVATE_TIMER_INTERRUPT, TIMER_23,
    TIMER_23_INTERRUPT, UARTS,
};
use dma::coherent::{Coherent, CoherentBox};
use dma::device::Device;
use drivers::gic::{NoSuchLine, Receivers};
use drivers::interrupts::{self, Handler, InterruptError};
use drivers::private_timer::{PrivateTimer, Repeat};
use drivers::sp804::{DualTimer, NotAnSp804, Which};
use image::capture::capture_log;
use kerncore::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use kerncore::lock::Class;
use ktest::ktest;
use mm::io_mem::IoMem;
use mm::kernel;
use mm::mapped_pages::VmMap;
use mm::page_alloc::Pages;
use mm::vm_area::VmArea;
use sha2::{Digest, Sha256};

use super::witness::Books;

/// A software interrupt that is these tests' own.
const SOFTWARE: u16 = 5;
/// A shared line that no device of the board is wired to.
const UNUSED: u16 = 95;

/// Registers `handler` for `line` while `test` runs.
fn with_handler<R>(line: u16, handler: &'static dyn Handler, test: impl FnOnce() -> R) -> R {
    interrupts::register(line, handler).expect("a line without a handler");
    let result = test();
    interrupts::unregister(line).expect("registered above");
    result
}

/// Raises the tests' own interrupt at this CPU.
fn raise() {
    interrupts::send(SOFTWARE, Receivers::Own).expect("a software interrupt");
}

/// Runs `act` in interrupt context, once.
pub(super) fn in_handler(act: fn()) {
    static ACT: IrqSpinLock<Option<fn()>> = IrqSpinLock::new(Class::OuterTest(0), None);
    static DONE: AtomicBool = AtomicBool::new(false);
    fn handler() {
        let act = ACT.with(Option::take).expect("one act an interrupt");
        act();
        DONE.store(true, SeqCst);
    }
    ACT.with(|slot| *slot = Some(act));
    DONE.store(false, SeqCst);
    with_handler(SOFTWARE, &handler, || {
        raise();
        cpu::wait_until(|| DONE.load(SeqCst));
    });
}

/// S115: where code runs is answered from the processor's own state.
#[ktest]
fn a_handler_knows_that_it_is_one_s115() {
    static SEEN: IrqSpinLock<Option<(bool, bool, bool)>> =
        IrqSpinLock::new(Class::OuterTest(0), None);
    let context = || (cpu::in_interrupt(), cpu::may_sleep(), irq::are_masked());
    assert_eq!(context(), (false, true, false));
    in_handler(|| {
        let context = (cpu::in_interrupt(), cpu::may_sleep(), irq::are_masked());
        SEEN.with(|seen| *seen = Some(context));
    });
    assert_eq!(SEEN.with(Option::take), Some((true, false, true)));
    assert_eq!(context(), (false, true, false));
    assert_eq!(irq::masked(context), (false, false, true));
}

/// An interrupt that comes while interrupts are masked is taken once, when the outermost section ends and no earlier.
#[ktest]
fn no_interrupt_is_lost_or_taken_in_a_masked_section() {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    fn count() {
        TAKEN.fetch_add(1, SeqCst);
    }
    TAKEN.store(0, SeqCst);
    with_handler(SOFTWARE, &count, || {
        let outer = irq::save_and_mask();
        raise();
        let pending = || interrupts::with_distributor(|gic| gic.is_pending(SOFTWARE));
        for _ in 0..3 {
            let inner = irq::save_and_mask();
            assert_eq!(pending(), Ok(Ok(true)));
            inner.restore();
            assert!(irq::are_masked(), "the inner section has unmasked the outer one's interrupts");
            assert_eq!(TAKEN.load(SeqCst), 0);
        }
        // Raised again before it is taken, it is one interrupt.
        raise();
        outer.restore();
        cpu::wait_until(|| TAKEN.load(SeqCst) > 0);
        assert_eq!(pending(), Ok(Ok(false)));
        for expected in 2..100 {
            raise();
            cpu::wait_until(|| TAKEN.load(SeqCst) == expected);
        }
    });
    assert_eq!(TAKEN.load(SeqCst), 99);
}

/// A lock that a handler shares is free whenever the handler runs, or it would wait for ever.
#[ktest]
fn a_lock_that_a_handler_shares_masks_it() {
    static SHARED: IrqSpinLock<(u32, u32)> = IrqSpinLock::new(Class::OuterTest(0), (0, 0));
    fn handler() {
        let free = SHARED.try_with(|(thread, handler)| {
            assert_eq!(*thread % 2, 0, "in the middle of the other's critical section");
            *handler += 1;
        });
        assert!(free.is_some(), "interrupted within the critical section");
    }
    SHARED.with(|counts| *counts = (0, 0));
    with_handler(SOFTWARE, &handler, || {
        for round in 1..=100 {
            SHARED.with(|(thread, _)| {
                *thread += 1;
                raise();
                *thread += 1;
            });
            cpu::wait_until(|| SHARED.with(|(_, handler)| *handler) == round);
        }
    });
    assert_eq!(SHARED.with(|counts| *counts), (200, 100));
}

/// The private timer of this CPU: it repeats until it is stopped, and once means once.
#[ktest]
fn the_private_timer_interrupts_by_its_period_s115() {
    static TIMER: IrqSpinLock<Option<PrivateTimer>> = IrqSpinLock::new(Class::OuterTest(0), None);
    static TICKS: AtomicU32 = AtomicU32::new(0);
    fn tick() {
        let raised = TIMER.with(|timer| timer.as_mut().is_some_and(PrivateTimer::acknowledge));
        assert!(raised, "the timer's interrupt without its event");
        TICKS.fetch_add(1, SeqCst);
    }
    let with_timer = |act: &dyn Fn(&mut PrivateTimer)| {
        TIMER.with(|timer| act(timer.as_mut().expect("made below")));
    };
    let timer = PrivateTimer::new(IoMem::map(PRIVATE_TIMER.base).expect("addresses"));
    TIMER.with(|slot| *slot = Some(timer));
    TICKS.store(0, SeqCst);
    with_handler(PRIVATE_TIMER_INTERRUPT.id(), &tick, || {
        with_timer(&|timer| timer.start(20_000, Repeat::Periodic));
        cpu::wait_until(|| TICKS.load(SeqCst) >= 5);
        with_timer(&PrivateTimer::stop);
        TICKS.store(0, SeqCst);
        with_timer(&|timer| timer.start(20_000, Repeat::Once));
        cpu::wait_until(|| TICKS.load(SeqCst) == 1);
        with_timer(&|timer| assert_eq!(timer.counter(), 0, "it has stopped"));
        assert_eq!(TICKS.load(SeqCst), 1);
    });
    drop(TIMER.with(Option::take));
}

/// Both timers of a block raise its one interrupt, and each says for itself whether it did.
#[ktest]
fn a_dual_timer_interrupts_for_both_its_timers_s115() {
    static TIMERS: IrqSpinLock<Option<DualTimer>> = IrqSpinLock::new(Class::OuterTest(0), None);
    static TICKS: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
    fn tick() {
        TIMERS.with(|timers| {
            let timers = timers.as_mut().expect("made before the interrupt is let through");
            for (which, ticks) in [Which::First, Which::Second].into_iter().zip(&TICKS) {
                ticks.fetch_add(u32::from(timers.acknowledge(which)), SeqCst);
            }
        });
    }
    let timers = DualTimer::new(IoMem::map(TIMER_23.base).expect("addresses")).expect("an SP804");
    TIMERS.with(|slot| *slot = Some(timers));
    let with_timers = |act: &dyn Fn(&mut DualTimer)| {
        TIMERS.with(|timers| act(timers.as_mut().expect("made above")));
    };
    for ticks in &TICKS {
        ticks.store(0, SeqCst);
    }
    with_handler(TIMER_23_INTERRUPT.id(), &tick, || {
        with_timers(&|timers| {
            timers.start(Which::First, 200, Repeat::Periodic);
            timers.start(Which::Second, 300, Repeat::Once);
        });
        cpu::wait_until(|| TICKS[0].load(SeqCst) >= 4 && TICKS[1].load(SeqCst) >= 1);
        with_timers(&|timers| {
            timers.stop(Which::First);
            timers.stop(Which::Second);
        });
    });
    assert_eq!(TICKS[1].load(SeqCst), 1, "once is once");
    drop(TIMERS.with(Option::take));
}

#[ktest]
fn what_is_no_dual_timer_is_told_by_its_identification() {
    let books = Books::now();
    let registers = IoMem::map(UARTS[1].base).expect("addresses");
    let refused = DualTimer::new(registers).map(|_| ());
    assert_eq!(refused, Err(NotAnSp804 { register: 0, found: 0x11 }));
    books.assert_unchanged();
}

/// Registers and flags are those of the interrupted code, wherever it was interrupted.
#[ktest]
fn interrupted_code_does_not_notice() {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    fn work() {
        // Uses every register that a handler may.
        let digest = Sha256::digest(TAKEN.fetch_add(1, SeqCst).to_le_bytes());
        core::hint::black_box(digest);
    }
    let text = [0x5a_u8; 512];
    let quiet = Sha256::digest(text);
    TAKEN.store(0, SeqCst);
    with_handler(SOFTWARE, &work, || {
        for round in 0..200_usize {
            raise();
            let (front, back) = text.split_at(round * 2);
            let digest = Sha256::new().chain_update(front).chain_update(back).finalize();
            assert_eq!(digest, quiet, "round {round}");
        }
        cpu::wait_until(|| TAKEN.load(SeqCst) > 0);
    });
}

/// A fault that a handler's probe takes is a value there too, and the interrupted code goes on.
#[ktest]
fn a_handler_may_probe_s113() {
    static SEEN: IrqSpinLock<Option<FaultStatus>> = IrqSpinLock::new(Class::OuterTest(0), None);
    in_handler(|| {
        let status = probe::read_u8(VirtAddr::new(0)).map_err(|fault| fault.status);
        SEEN.with(|seen| *seen = status.err());
        assert!(cpu::in_interrupt(), "back in the handler's own mode");
    });
    assert!(matches!(SEEN.with(Option::take), Some(FaultStatus::Translation(_))));
}

static DEVICE: Device = Device::new("a test's device");

/// S77: a handler takes, uses and gives back coherent memory of the atomic pool.
#[ktest]
fn a_handler_takes_atomic_memory_s76_s77() {
    static KEPT: IrqSpinLock<Option<Coherent>> = IrqSpinLock::new(Class::OuterTest(0), None);
    let books = Books::now();
    in_handler(|| {
        let first = CoherentBox::new_atomic(&DEVICE, 3 * PAGE_SIZE).expect("a page of the pool");
        let second = CoherentBox::new_atomic(&DEVICE, 16).expect("a page of the pool");
        let mut second = second.share();
        second.write(&[0x77; 16]);
        drop(first);
        KEPT.with(|kept| *kept = Some(second));
    });
    let kept = KEPT.with(Option::take).expect("made in the handler");
    let mut bytes = [0; 16];
    kept.read(&mut bytes);
    assert_eq!(bytes, [0x77; 16]);
    KEPT.with(|slot| *slot = Some(kept));
    in_handler(|| drop(KEPT.with(Option::take)));
    books.assert_unchanged();
}

/// S89: what a handler frees is queued, and everything queued is freed by who waits next, without anybody's asking for it.
#[ktest]
fn a_handler_queues_what_it_frees_s89() {
    static AREAS: IrqSpinLock<[Option<VmArea>; 8]> =
        IrqSpinLock::new(Class::OuterTest(0), [const { None }; 8]);
    static QUEUED: AtomicU32 = AtomicU32::new(0);
    fn free_all_later() {
        let areas = AREAS.with(|areas| core::mem::replace(areas, [const { None }; 8]));
        areas.into_iter().flatten().for_each(VmArea::free_later);
        QUEUED.store(kernel().deferred(), SeqCst);
    }
    let books = Books::now();
    for round in 1..=3 {
        for index in 0..8 {
            let area = VmArea::new(round * PAGE_SIZE).expect("memory");
            AREAS.with(|areas| areas[index] = Some(area));
        }
        QUEUED.store(0, SeqCst);
        with_handler(SOFTWARE, &free_all_later, || {
            raise();
            cpu::wait_until(|| QUEUED.load(SeqCst) != 0);
            cpu::wait_until(|| kernel().deferred() == 0);
        });
        assert_eq!(QUEUED.load(SeqCst), 8);
        books.assert_unchanged();
    }
}

/// What is wrong with a registration is said, and changes nothing.
#[ktest]
fn wrong_registrations_are_refused_by_name() {
    fn nothing() {}
    let before = interrupts::registered();
    let no_line = |line| InterruptError::Line(NoSuchLine { line, lines: INTERRUPTS });
    for line in [INTERRUPTS, INTERRUPTS + 1, 127, 128, 1019, 1020, u16::MAX] {
        assert_eq!(interrupts::register(line, &nothing), Err(no_line(line)));
        assert_eq!(interrupts::unregister(line), Err(no_line(line)));
        assert_eq!(interrupts::enable_here(line), Err(no_line(line)));
    }
    assert_eq!(interrupts::unregister(UNUSED), Err(InterruptError::Free { line: UNUSED }));
    assert_eq!(interrupts::enable_here(UNUSED), Err(InterruptError::Free { line: UNUSED }));
    with_handler(UNUSED, &nothing, || {
        let again = interrupts::register(UNUSED, &nothing);
        assert_eq!(again, Err(InterruptError::Taken { line: UNUSED }));
        let enabled = interrupts::with_distributor(|gic| gic.is_enabled(UNUSED));
        assert_eq!(enabled, Ok(Ok(true)));
    });
    let enabled = interrupts::with_distributor(|gic| gic.is_enabled(UNUSED));
    assert_eq!(enabled, Ok(Ok(false)));
    for line in [16, 31, 95, 1020] {
        let refused = InterruptError::Line(NoSuchLine { line, lines: 16 });
        assert_eq!(interrupts::send(line, Receivers::Own), Err(refused));
    }
    let registers = IoMem::map(GIC_DISTRIBUTOR.base).expect("addresses");
    assert_eq!(interrupts::start(registers), Err(InterruptError::Started));
    let registers = IoMem::map(GIC_CPU.base).expect("addresses");
    assert_eq!(interrupts::start_cpu(registers), Err(InterruptError::Started));
    assert_eq!(interrupts::registered(), before);
}

/// An interrupt that nobody registered for is said and switched off, and the others go on.
#[ktest]
fn an_interrupt_without_a_handler_is_switched_off() {
    let enabled = || interrupts::with_distributor(|gic| gic.is_enabled(UNUSED));
    let ((), log) = capture_log(|| {
        let raised = interrupts::with_distributor(|gic| {
            gic.enable(UNUSED, cpu::id())?;
            gic.raise(UNUSED)
        });
        assert_eq!(raised, Ok(Ok(())));
        cpu::wait_until(|| enabled() == Ok(Ok(false)));
    });
    assert_eq!(log.count("interrupt 95 has no handler; switched off: Ok(())"), 1, "{log:?}");
    in_handler(|| {});
}

/// S10, S35: the kernel ends with a report, in the handler.
#[ktest(fatal = "vmalloc in interrupt context, where no area is made or removed")]
fn vmalloc_in_a_handler_is_fatal_s10() {
    in_handler(|| {
        let _area = VmArea::new(PAGE_SIZE);
    });
}

#[ktest(fatal = "ioremap in interrupt context, where no area is made or removed")]
fn ioremap_in_a_handler_is_fatal_s10() {
    in_handler(|| {
        let _registers = IoMem::<u32>::map(PhysAddr::new(0x1000_0000));
    });
}

#[ktest(fatal = "vfree in interrupt context, where no area is made or removed")]
fn vfree_in_a_handler_is_fatal_s35() {
    static AREA: IrqSpinLock<Option<VmArea>> = IrqSpinLock::new(Class::OuterTest(0), None);
    let area = VmArea::new(PAGE_SIZE).expect("memory");
    AREA.with(|slot| *slot = Some(area));
    in_handler(|| drop(AREA.with(Option::take)));
}

#[ktest(fatal = "vunmap in interrupt context, where no area is made or removed")]
fn vunmap_in_a_handler_is_fatal_s35() {
    static MAP: IrqSpinLock<Option<VmMap>> = IrqSpinLock::new(Class::OuterTest(0), None);
    let page = Pages::new(0).expect("memory");
    let map = VmArea::map(vec![page]).expect("addresses");
    MAP.with(|slot| *slot = Some(map));
    in_handler(|| drop(MAP.with(Option::take)));
}

#[ktest(fatal = "iounmap in interrupt context, where no area is made or removed")]
fn iounmap_in_a_handler_is_fatal_s35() {
    static REGISTERS: IrqSpinLock<Option<IoMem<u32>>> = IrqSpinLock::new(Class::OuterTest(0), None);
    let registers = IoMem::<u32>::map(PhysAddr::new(0x1000_0000)).expect("addresses");
    REGISTERS.with(|slot| *slot = Some(registers));
    in_handler(|| drop(REGISTERS.with(Option::take)));
}

/// Coherent memory for who may sleep is made and removed by remapping.
#[ktest(fatal = "dma_free_coherent in interrupt context, where no area is made or removed")]
fn a_remapped_buffer_in_a_handler_is_fatal_s35() {
    static BUFFER: IrqSpinLock<Option<Coherent>> = IrqSpinLock::new(Class::OuterTest(0), None);
    let buffer = CoherentBox::new(&DEVICE, PAGE_SIZE).expect("memory").share();
    BUFFER.with(|slot| *slot = Some(buffer));
    in_handler(|| drop(BUFFER.with(Option::take)));
}

#[ktest(fatal = "waiting with interrupts masked, or in a handler")]
fn to_wait_in_a_handler_is_fatal_s115() {
    in_handler(|| cpu::wait_until(|| true));
}

#[ktest(fatal = "waiting with interrupts masked, or in a handler")]
fn to_wait_with_interrupts_masked_is_fatal_s115() {
    irq::masked(|| cpu::wait_until(|| true));
}
