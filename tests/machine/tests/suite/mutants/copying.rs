//! vread and vwrite that go wrong: what lies between areas, at the borders of pages, behind the last one, and what may not be
//! written (S40 to S42).

use super::{Goes, Verdict, board, same};
use histories::bed::{Bed, CALLER, WINDOW, page};
use kerncore::{
    addr::{PAGE_SIZE, PhysAddr, VirtAddr},
    area::AreaFlags,
    attributes::Attributes,
    kernel_space::{Access, Span},
    va_space::Request,
};
use std::iter;

/// What a buffer holds before it is read into.
const OLD: u8 = 0xee;

/// A way to copy. The real one is the kernel's walk, and a loop over bytes as `mm` has it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Copy {
    Right,
    /// What a gap reads as is whatever the buffer held.
    GapsUnread,
    /// What a guard reads as is whatever the buffer held.
    GuardsUnread,
    /// A gap takes no room in the buffer.
    GapsSkipped,
    /// A guard takes no room in the buffer.
    GuardsSkipped,
    /// It ends with the first gap.
    EndsAtGap,
    /// Of each page's bytes the last is missing.
    OneByteLess,
    /// Each page's bytes begin one too far.
    OneByteFurther,
    /// As many bytes as were asked for are said to be done.
    SaysAll,
    /// What is behind the last area reads as zeros.
    ZerosBeyond,
    /// What may be read may be written.
    WritesConstants,
    /// What is written behind a gap is what was meant for the gap.
    GapsNotTaken,
    /// What lies behind an area's last page is copied like the pages before.
    AcrossGuards,
    /// The last byte of all is missing.
    EndsEarly,
}

fn put(buffer: &mut [u8], index: usize, byte: u8) {
    if let Some(place) = buffer.get_mut(index) {
        *place = byte;
    }
}

impl Copy {
    /// What CPU 1 finds in a word, byte by byte.
    pub(super) fn load(bed: &Bed, address: VirtAddr) -> Result<u8, String> {
        let word = bed.machine.cpu(1).load(VirtAddr::new(address.raw() & !3));
        let word = word.map_err(|fault| format!("{address}: {fault:?}"))?;
        Ok(word.to_le_bytes()[(address.raw() & 3) as usize])
    }

    fn store(bed: &Bed, address: VirtAddr, byte: u8) -> Verdict {
        let aligned = VirtAddr::new(address.raw() & !3);
        let cpu = bed.machine.cpu(1);
        let word = cpu.load(aligned).map_err(|fault| format!("{address}: {fault:?}"))?;
        let mut bytes = word.to_le_bytes();
        bytes[(address.raw() & 3) as usize] = byte;
        let stored = cpu.store(aligned, u32::from_le_bytes(bytes));
        stored.map_err(|fault| format!("{address}: {fault:?}"))
    }

    /// Whether a gap of so many bytes is one that this copy does not treat as it should.
    fn is_lost(self, bytes: u32) -> bool {
        match self {
            Self::GapsUnread | Self::GapsSkipped => bytes != PAGE_SIZE,
            Self::GuardsUnread | Self::GuardsSkipped => bytes == PAGE_SIZE,
            _ => false,
        }
    }

    /// vread: the buffer, and how many bytes are said to be read.
    fn read(self, bed: &Bed, from: VirtAddr, bytes: u32) -> Result<(Vec<u8>, u32), String> {
        let mut buffer = vec![OLD; bytes as usize];
        let (mut at, mut failed, mut ended) = (0, Ok(()), false);
        let done = bed.space.for_each_span(from, bytes, Access::Read, |span| match span {
            _ if ended || failed.is_err() => {}
            Span::Gap { .. } if self == Self::EndsAtGap => ended = true,
            Span::Gap { bytes: PAGE_SIZE } if self == Self::AcrossGuards => {
                let beyond = u32::try_from(at).unwrap_or(0);
                match Self::load(bed, VirtAddr::new(from.raw() + beyond)) {
                    Ok(byte) => put(&mut buffer, at, byte),
                    Err(why) => failed = Err(why),
                }
                at += PAGE_SIZE as usize;
            }
            Span::Gap { bytes } if self.is_lost(bytes) => {
                let is_skipped = matches!(self, Self::GapsSkipped | Self::GuardsSkipped);
                at += if is_skipped { 0 } else { bytes as usize };
            }
            Span::Gap { bytes } => {
                (0..bytes as usize).for_each(|index| put(&mut buffer, at + index, 0));
                at += bytes as usize;
            }
            Span::Memory { address, bytes } => {
                let count = bytes - u32::from(self == Self::OneByteLess);
                for index in 0..count {
                    let further = u32::from(self == Self::OneByteFurther && index + 1 < bytes);
                    match Self::load(bed, VirtAddr::new(address.raw() + index + further)) {
                        Ok(byte) => put(&mut buffer, at + index as usize, byte),
                        Err(why) => failed = Err(why),
                    }
                }
                at += bytes as usize;
            }
        });
        failed?;
        match self {
            Self::SaysAll => return Ok((buffer, bytes)),
            Self::ZerosBeyond => {
                (done as usize..bytes as usize).for_each(|index| put(&mut buffer, index, 0));
            }
            Self::EndsAtGap => return Ok((buffer, u32::try_from(at).unwrap_or(0))),
            Self::EndsEarly => {
                let done = done.saturating_sub(1);
                put(&mut buffer, done as usize, OLD);
                return Ok((buffer, done));
            }
            _ => {}
        }
        Ok((buffer, done))
    }

    /// vwrite: how many bytes are said to be taken.
    fn write(self, bed: &Bed, from: &[u8], to: VirtAddr) -> Result<u32, String> {
        let bytes = u32::try_from(from.len()).map_err(|error| error.to_string())?;
        let access = if self == Self::WritesConstants { Access::Read } else { Access::Write };
        let (mut at, mut failed) = (0, Ok(()));
        let done = bed.space.for_each_span(to, bytes, access, |span| match span {
            _ if failed.is_err() => {}
            Span::Gap { bytes } => {
                at += if self == Self::GapsNotTaken { 0 } else { bytes as usize };
            }
            Span::Memory { address, bytes } => {
                let count = bytes - u32::from(self == Self::OneByteLess);
                for index in 0..count {
                    let further = u32::from(self == Self::OneByteFurther && index + 1 < bytes);
                    let place = VirtAddr::new(address.raw() + index + further);
                    let stored = Self::store(bed, place, from[at + index as usize]);
                    failed = failed.clone().and(stored);
                }
                at += bytes as usize;
            }
        });
        let early = u32::from(self == Self::EndsEarly);
        failed.map(|()| done.saturating_sub(early))
    }
}

/// Two pages and a guard, two free pages, a page that nobody may write, registers, and a page; the last has the last word.
fn landscape(bed: &Bed) -> Result<(), String> {
    let [base, hole] = [2, 1].map(|count| bed.vmalloc(count));
    let (_list, frames) = bed.frames(1);
    let constant = bed.space.vmap(&frames, Attributes::KERNEL_RODATA, CALLER);
    let constant = constant.map_err(|error| error.to_string())?.pages.start();
    let device = bed.space.ioremap(PhysAddr::new(0x1001_3000), 4, Attributes::DEVICE, CALLER);
    device.map_err(|error| error.to_string())?;
    let last = bed.vmalloc(1);
    let bare = bed.space.reserve_area(Request::of_bytes(1), AreaFlags::NONE, CALLER);
    bare.map_err(|error| error.to_string())?;
    bed.space.vfree((), hole).map_err(|error| error.to_string())?;
    for area in [base, VirtAddr::new(base.raw() + PAGE_SIZE), last] {
        for offset in (0..PAGE_SIZE).step_by(4) {
            let word = (area.raw() + offset).wrapping_mul(0x9e37_79b1) | 0x0101_0101;
            let stored = bed.machine.cpu(0).store(VirtAddr::new(area.raw() + offset), word);
            stored.map_err(|fault| format!("{fault:?}"))?;
        }
    }
    // The page that nobody may write, by the linear map.
    bed.machine.device_write(frames[0].base(), 0x7766_5544);
    same("the page of constants", &constant, &page(WINDOW + 5))
}

/// The address at `offset` from the window's first byte.
fn at(offset: u32) -> VirtAddr {
    VirtAddr::new(WINDOW * PAGE_SIZE + offset)
}

/// What is there, page by page: memory that may be written, that may not, or what reads as zeros; then nothing that counts.
const PAGES: [Page; 12] = {
    use Page::{Constant, Memory, Nothing};
    [
        Memory, Memory, Nothing, Nothing, Nothing, Constant, Nothing, Nothing, Nothing, Memory,
        Nothing, Nothing,
    ]
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Page {
    Memory,
    Constant,
    Nothing,
}

/// All of it, as the memory behind the tables has it.
fn truth(bed: &Bed) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, page) in (0..).zip(PAGES) {
        for offset in (0..PAGE_SIZE).step_by(4) {
            let word = if page == Page::Nothing {
                0
            } else {
                let frame = bed.frame_at(at(number * PAGE_SIZE)).base();
                bed.machine.device_read(PhysAddr::new(frame.raw() + offset))
            };
            bytes.extend(word.to_le_bytes());
        }
    }
    bytes
}

/// Where reading and writing might go wrong: next to the border of each page, in pages and bytes.
fn borders() -> impl Iterator<Item = u32> {
    (0..=12).flat_map(|page| [(page * PAGE_SIZE).saturating_sub(3), page * PAGE_SIZE + 2])
}

/// S40 to S42: byte for byte, from anywhere to anywhere.
fn what_is_read_is_what_is_there(copies: &impl Goes<Copy>) -> Verdict {
    let copy = copies.how();
    let bed = Bed::warm();
    landscape(&bed)?;
    let truth = truth(&bed);
    for from in borders() {
        for bytes in [1, 5, PAGE_SIZE + 6] {
            let there = truth.iter().skip(from as usize).take(bytes as usize);
            let count = there.len();
            let wanted = there.copied().chain(iter::repeat(OLD)).take(bytes as usize);
            let (read, done) = copy.read(&bed, at(from), bytes)?;
            let what = format!("{bytes:#x} bytes from {from:#x}");
            same(&what, &(done as usize), &count)?;
            let wrong = read.into_iter().zip(wanted).position(|(read, wanted)| read != wanted);
            same(&what, &wrong, &None)?;
        }
    }
    let (all, _) = copy.read(&bed, at(0), 12 * PAGE_SIZE)?;
    same("all at once", &(all == truth), &true)
}

/// S40 to S42: what may be written has what was meant for it, and everything else is as it was.
fn what_is_written_is_where_it_belongs(copies: &impl Goes<Copy>) -> Verdict {
    let copy = copies.how();
    let bed = Bed::warm();
    landscape(&bed)?;
    for (round, from) in (1..).zip([0, 0x0ffd, 0x1002, 0x1ffd, 0x3001, 0x4ffe, 0x8fff, 0x9ffd]) {
        let (bytes, mut wanted) = (5 * PAGE_SIZE + 6, truth(&bed));
        let data: Vec<u8> = (0..bytes).map(|index| (index * 7 + round).to_le_bytes()[0]).collect();
        let there = wanted.iter_mut().enumerate().skip(from as usize).zip(&data);
        let mut count = 0;
        for ((offset, place), &byte) in there {
            count += 1;
            if PAGES[offset / PAGE_SIZE as usize] == Page::Memory {
                *place = byte;
            }
        }
        let done = copy.write(&bed, &data, at(from))?;
        let what = format!("{bytes:#x} bytes to {from:#x}");
        same(&what, &done, &count)?;
        let wrong = truth(&bed).into_iter().zip(wanted).position(|(found, wanted)| found != wanted);
        same(&what, &wrong, &None)?;
    }
    Ok(())
}

board! {
    what_is_read_is_what_is_there(Copy::Right) {
        vread_leaves_a_hole_as_it_was: "S40", "what lies in no area is not written to the buffer", Copy::GapsUnread;
        vread_leaves_a_guard_as_it_was: "S40", "a guard is not written to the buffer", Copy::GuardsUnread;
        vread_skips_holes: "S40", "what lies in no area takes no room in the buffer", Copy::GapsSkipped;
        vread_skips_guards: "S40", "a guard takes no room in the buffer", Copy::GuardsSkipped;
        vread_ends_at_a_gap: "S40", "reading ends where the first area does", Copy::EndsAtGap;
        vread_one_byte_less: "S41", "of each page the last byte is missing", Copy::OneByteLess;
        vread_one_byte_further: "S41", "each page is read from its second byte on", Copy::OneByteFurther;
        vread_says_what_was_asked: "S40", "vread says that it has read all that was asked for", Copy::SaysAll;
        vread_across_guards: "S40", "what lies behind an area's last page is copied like its pages", Copy::AcrossGuards;
        vread_stops_a_byte_early: "S40", "the last byte of all is not read", Copy::EndsEarly;
        vread_zeros_beyond_the_last_area: "S41", "what is behind the last area is zeroed in the buffer", Copy::ZerosBeyond;
    }
    what_is_written_is_where_it_belongs(Copy::Right) {
        vwrite_one_byte_less: "S41", "of each page the last byte is not written", Copy::OneByteLess;
        vwrite_one_byte_further: "S41", "each page is written from its second byte on", Copy::OneByteFurther;
        vwrite_stops_a_byte_early: "S41", "the last byte of all is not counted", Copy::EndsEarly;
        vwrite_of_constants: "S42", "what may be read is written to", Copy::WritesConstants;
        vwrite_behind_a_gap_shifted: "S41", "bytes that were meant for a gap are written behind it", Copy::GapsNotTaken;
    }
}
