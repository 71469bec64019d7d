//! The areas of the vmalloc window, one line each (S91).

use core::fmt;

use kerncore::addr::PAGE_SIZE;
use kerncore::area::AreaSummary;

use crate::kernel;
use crate::report::Named;

/// A live area: `start-end bytes caller pages physical words`, guard included in end and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line(pub AreaSummary);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AreaSummary { pages, flags, physical, caller, .. } = self.0;
        let (start, bytes) = (pages.start(), self.0.bytes_with_guard());
        let end = u64::from(start.raw()) + u64::from(bytes);
        write!(f, "{start}-{end:#010x} {bytes:>9} {} pages={}", Named(caller), pages.count())?;
        if physical.raw() != 0 {
            write!(f, " phys={physical}")?;
        }
        write!(f, " {flags}")
    }
}

/// All areas together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Live areas.
    pub areas: u32,
    /// Pages that they may use.
    pub pages: u32,
    /// Pages of addresses that are taken: guards too, and areas that are being made or removed.
    pub taken: u32,
    /// Pages of the window.
    pub window: u32,
    /// Pages in the largest hole; a request may have one less, for its guard.
    pub largest_hole: u32,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kibibytes = |pages: u32| pages * (PAGE_SIZE >> 10);
        write!(
            f,
            "{} areas, {} KiB; {} of {} KiB of addresses taken, largest hole {} KiB",
            self.areas,
            kibibytes(self.pages),
            kibibytes(self.taken),
            kibibytes(self.window),
            kibibytes(self.largest_hole),
        )
    }
}

/// Shows every live area to `visit`, in order of addresses, and adds them up. No lock is held while `visit` runs; what is made
/// or removed meanwhile may be shown or not. Any context.
pub fn for_each_line(mut visit: impl FnMut(&Line)) -> Totals {
    let kernel = kernel();
    let counts = kernel.area_counts();
    let window = kernel.window();
    let mut totals = Totals {
        taken: counts.pages_taken,
        window: window.count(),
        largest_hole: counts.largest_hole,
        ..Totals::default()
    };
    let mut next = Some(window.start());
    while let Some(area) = next.and_then(|from| kernel.next_area(from)) {
        totals.areas += 1;
        totals.pages += area.pages.count();
        visit(&Line(area));
        next = area.pages.start().checked_add(area.bytes_with_guard());
    }
    totals
}
