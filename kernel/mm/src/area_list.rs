//! The areas of the vmalloc window, one line each (S91), in the words of Linux's `/proc/vmallocinfo`.
//!
//! ```text
//!   0xc0000000-0xc0003000     12288 main+0x40/0x2c8 pages=2 vmalloc N0=1 N1=1
//!   └─ addresses ───────┘ └─ bytes ┘ └─ caller ────┘ └ pages ┘ └ flags ┘ └ frames by node, if there are two
//!       guard included               within its function, and that one's size
//! ```
//!
//! | words | |
//! |---|---|
//! | `phys=` | the physical base of a contiguous mapping |
//! | `ioremap` `vmalloc` `vmap` `user` `vpages` `dma` | the area's flags, which are its caller's to choose: an area of `vmap` whose caller passed none has no word |
//! | `supersections=` `sections=` `large_pages=` | how many entries of 16 MiB, of 1 MiB and of 64 KiB it begins with |
//! | `vm_map_ram` `fragments=` | made by `vm_map_ram`; of a block, the mappings that are cut from it |
//! | `unpurged vm_area` | freed, and its addresses wait for their flush: nothing else is known of it |

use core::fmt;

use kerncore::addr::PAGE_SIZE;
use kerncore::area::AreaKind;
use kerncore::kernel_space::{Listed, ListedKind, LiveArea};

use crate::kernel;
use crate::report::Called;

/// One area: live, or waiting for its flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line(pub Listed);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(listed) = self;
        let (start, bytes) = (listed.pages.start(), listed.bytes_with_guard());
        let end = u64::from(start.raw()) + u64::from(bytes);
        write!(f, "{start}-{end:#010x} {bytes:>9}")?;
        match &listed.what {
            ListedKind::Live(area) => live(area, f),
            ListedKind::Unpurged => f.write_str(" unpurged vm_area"),
        }
    }
}

/// What a live area's line says behind the bytes.
fn live(area: &LiveArea, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let LiveArea { summary, parts, on_nodes, fragments, .. } = area;
    if summary.caller.raw() != 0 {
        write!(f, " {}", Called(summary.caller))?;
    }
    write!(f, " pages={}", summary.pages.count())?;
    if summary.physical.raw() != 0 {
        write!(f, " phys={}", summary.physical)?;
    }
    for word in summary.flags.words() {
        write!(f, " {word}")?;
    }
    for (word, count) in [
        (" supersections", parts.supersections()),
        (" sections", parts.sections()),
        (" large_pages", parts.large_pages()),
    ] {
        if count != 0 {
            write!(f, "{word}={count}")?;
        }
    }
    match summary.kind {
        AreaKind::MapRam => f.write_str(" vm_map_ram")?,
        AreaKind::MapRamBlock => write!(f, " vm_map_ram fragments={fragments}")?,
        _ => {}
    }
    for (node, &pages) in on_nodes.iter().enumerate() {
        if pages != 0 {
            write!(f, " N{node}={pages}")?;
        }
    }
    Ok(())
}

/// All areas together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Live areas.
    pub areas: u32,
    /// Pages that they may use.
    pub pages: u32,
    /// Areas that wait for their flush.
    pub unpurged: u32,
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
            "{} areas, {} KiB, {} unpurged; {} of {} KiB of addresses taken, largest hole {} KiB",
            self.areas,
            kibibytes(self.pages),
            self.unpurged,
            kibibytes(self.taken),
            kibibytes(self.window),
            kibibytes(self.largest_hole),
        )
    }
}

/// Shows every area that lives or waits for its flush to `visit`, in order of addresses, and adds them up. No lock is held while
/// `visit` runs. What is made or removed meanwhile may be shown or not; each line was true at one moment, and no two of them
/// overlap. Any context.
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
    while let Some(listed) = next.and_then(|from| kernel.next_listed(from)) {
        match listed.what {
            ListedKind::Live(_) => {
                totals.areas += 1;
                totals.pages += listed.pages.count();
            }
            ListedKind::Unpurged => totals.unpurged += 1,
        }
        visit(&Line(listed));
        next = listed.next();
    }
    totals
}
