//! What a test must give back, and what must hold after it: one ledger a layer that owns something.

use core::fmt;
use core::num::NonZeroU32;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use kerncore::failure::{Afterwards, Outcome};
use ktest::{Ledger, Snapshot};

/// How many ledgers there are.
pub(crate) const COUNT: usize = 5;

/// The ledgers of every layer, and those who look at them from outside.
pub(crate) fn all() -> [&'static dyn Ledger; COUNT] {
    [&Failures, &Memory, &Dma, &Interrupts, &Witnesses]
}

/// `fail_nth=`; 0 while nothing is to fail.
static FAIL_NTH: AtomicU32 = AtomicU32::new(0);

/// From now on the `nth` allocation of each test fails.
pub(crate) fn fail_nth(nth: Option<NonZeroU32>) {
    FAIL_NTH.store(nth.map_or(0, NonZeroU32::get), Relaxed);
}

/// Not a ledger of anything: it makes an allocation of each test fail, if the command line says so, and of nothing else.
struct Failures;

impl Ledger for Failures {
    fn name(&self) -> &'static str {
        "failures"
    }

    fn test_begins(&self) {
        if let Some(nth) = NonZeroU32::new(FAIL_NTH.load(Relaxed)) {
            arch::failure::arm(nth, Afterwards::Plenty);
        }
    }

    fn settle(&self) {
        if let Outcome { failed: Some(point), asked } = arch::failure::disarm() {
            log::info!("of {asked} allocations one failed: {point}");
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::new()
    }

    fn audit(&self, _violation: &mut dyn FnMut(fmt::Arguments<'_>)) {}
}

/// Frames, addresses, areas, records, tables, the heap; the audit of the live tables and registers.
struct Memory;

impl Ledger for Memory {
    fn name(&self) -> &'static str {
        "mm"
    }

    fn settle(&self) {
        mm::ledger::settle();
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::from(&mm::ledger::snapshot())
    }

    fn audit(&self, violation: &mut dyn FnMut(fmt::Arguments<'_>)) {
        mm::audit::audit(&mut |finding| violation(format_args!("{finding}")));
    }
}

/// The atomic pool's bits, and the buffers that devices hold.
struct Dma;

impl Ledger for Dma {
    fn name(&self) -> &'static str {
        "dma"
    }

    fn settle(&self) {}

    fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::new();
        let taken = dma::atomic_pool::usage().map_or(0, |pool| pool.taken);
        let (parts, taken_of_them) = dma::pool_growth::grown();
        snapshot.record_in("pages", "atomic pool", u64::from(taken + taken_of_them));
        snapshot.record_in("pages", "atomic pool's further parts", u64::from(parts));
        snapshot.record("buffers shared with devices", virtio_hal::shared_buffers() as u64);
        snapshot.record("slots of bounce buffers", u64::from(dma::bounce::usage().taken));
        snapshot
            .record("runs of cache lines that are not the processor's", arch::lines::runs() as u64);
        let (domains, pages) = mm::domain::usage();
        snapshot.record("domains of devices", u64::from(domains));
        snapshot.record_in("pages", "device addresses", u64::from(pages));
        snapshot.record("mappings that are checked", dma::debug::mappings() as u64);
        snapshot
    }

    fn audit(&self, _violation: &mut dyn FnMut(fmt::Arguments<'_>)) {}
}

/// Handlers that are registered, and this CPU's mask.
struct Interrupts;

impl Ledger for Interrupts {
    fn name(&self) -> &'static str {
        "interrupts"
    }

    fn settle(&self) {}

    fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::new();
        snapshot.record("interrupt handlers", drivers::interrupts::registered() as u64);
        snapshot.record("interrupts masked", u64::from(arch::irq::are_masked()));
        snapshot
    }

    fn audit(&self, _violation: &mut dyn FnMut(fmt::Arguments<'_>)) {}
}

/// Who else reads the tables, the host among them. Nothing is counted.
struct Witnesses;

impl Ledger for Witnesses {
    fn name(&self) -> &'static str {
        "witness"
    }

    fn settle(&self) {}

    fn snapshot(&self) -> Snapshot {
        Snapshot::new()
    }

    fn audit(&self, violation: &mut dyn FnMut(fmt::Arguments<'_>)) {
        if let Err(failure) = witness::after_a_test() {
            violation(format_args!("{failure}"));
        }
    }
}
