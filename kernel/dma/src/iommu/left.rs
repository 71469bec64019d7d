//! What a device leaves behind that is detached from its IOMMU: counted and told of, by kind as far as that is known (S108).
//!
//! ```text
//!   what is mapped ─┬─ scattered buffers     areas, which say whose they are and where they are seen
//!                   ├─ adjacent buffers      likewise listed by their holders, from whatever back end
//!                   ├─ out of use            freed, and still shown by entries of somebody else's: the mapping's, whosever they were
//!                   └─ transfers             the misuse checker's list; without it what no buffer is, if no other device is there
//! ```

use core::fmt;
use core::sync::atomic::Ordering::Relaxed;

use super::{Shared, buffers, scattered};
use crate::debug;
use crate::device::Device;
use crate::listing::{self, Line, Source};

/// What stands, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Left {
    /// Buffers of scattered frames.
    scattered: usize,
    /// Buffers of adjacent frames that are not the pool's.
    adjacent: usize,
    /// Buffers of the atomic pool's.
    pool: usize,
    /// Buffers that were freed and do not come back.
    out_of_use: usize,
    /// Mappings for transfers.
    transfers: usize,
}

impl Left {
    /// What `device`, which is attached to `iommu`, has there.
    fn of(device: &Device, iommu: &Shared) -> Self {
        let out_of_use = buffers::out_of_use(iommu.domain().root());
        let mut left = Self { out_of_use, ..Self::default() };
        // A device without a tag never had a buffer.
        let tag = device.known_tag();
        let mut buffers = 0;
        listing::for_each_line(|line| {
            if !is_seen(line, iommu) {
                return;
            }
            buffers += 1;
            if tag.is_some_and(|tag| line.holder.tag.is_of(tag)) {
                let kind = match line.source {
                    Source::Scattered => &mut left.scattered,
                    Source::Atomic | Source::Grown => &mut left.pool,
                    _ => &mut left.adjacent,
                };
                *kind += 1;
            }
        });
        left.transfers = debug::mappings_of(device).unwrap_or_else(|| {
            let is_alone = iommu.devices.load(Relaxed) == 1;
            if is_alone { mappings(iommu).saturating_sub(buffers + out_of_use) } else { 0 }
        });
        left
    }
}

/// Whether the devices of `iommu` see the buffer of `line` by a view of its own.
fn is_seen(line: &Line, iommu: &Shared) -> bool {
    let root = match line.source {
        Source::Scattered => scattered::root_of(line.address),
        _ => buffers::root_of(line.address),
    };
    root == Some(iommu.domain().root())
}

/// How many mappings there are, of whatever kind and device.
fn mappings(iommu: &Shared) -> usize {
    let next = |page| iommu.domain().mapping_from(page);
    core::iter::successors(next(0), |last| next(last.end())).count()
}

/// What is named comes first, and what only the same mapping takes back.
impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scattered, adjacent, pool, out_of_use, transfers } = *self;
        if let buffers @ 1.. = scattered + adjacent + pool {
            write!(f, "{buffers} buffers that only an attachment to the same mapping takes back")?;
            write!(
                f,
                " ({scattered} of scattered frames, {adjacent} of adjacent ones, {pool} of the atomic pool's)"
            )?;
            if out_of_use + transfers != 0 {
                f.write_str(", and ")?;
            }
        }
        if out_of_use != 0 {
            write!(f, "{out_of_use} freed buffers that stay out of use")?;
            if transfers != 0 {
                f.write_str(", and ")?;
            }
        }
        if transfers != 0 {
            write!(f, "{transfers} mappings for transfers that stand")?;
        }
        Ok(())
    }
}

/// Whatever stands then is nobody's any more, and where this lies the next may.
impl Drop for Shared {
    fn drop(&mut self) {
        debug::space_ends(self);
    }
}

/// Tells of what `device` leaves, if it leaves anything.
pub(super) fn tell(device: &Device, iommu: &Shared) {
    if iommu.domain().is_unused() {
        return;
    }
    let left = Left::of(device, iommu);
    if left != Left::default() {
        log::error!("DMA: {} leaves its IOMMU, and {left}", device.name());
    }
}
