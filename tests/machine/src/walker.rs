//! The table walker, written from the manual's figures alone (ARM DDI 0406C, B3.5.1, B3.8.2).

use crate::{context::Asid, tlb::Translation};

const fn bits(word: u32, high: u32, low: u32) -> u32 {
    (word >> low) & (u32::MAX >> (31 - (high - low)))
}

/// TEX, C and B that name a Normal type with a write-back or write-through cache (Table B3-10, TRE = 0). From TEX = 4 on,
/// TEX\[1:0\] is the outer cache's policy and CB the inner one's.
const fn is_cacheable(tex: u32, c: u32, b: u32) -> bool {
    matches!((tex, c, b), (0b000 | 0b100, 1, _) | (0b100, _, 1) | (0b001, 1, 1) | (0b101.., _, _))
}

/// Walks for page number `page` on behalf of the address space `asid`, reading words of memory with `read`. `None` is a
/// translation fault.
pub(crate) fn walk(
    root: u32,
    page: u32,
    asid: Asid,
    read: impl Fn(u32) -> u32,
) -> Option<Translation> {
    let first = read(root + (page >> 8) * 4);
    match bits(first, 1, 0) {
        0b01 => second_level(page, asid, read((first & !0x3ff) + bits(page, 7, 0) * 4)),
        0b10 => Some(section(page, asid, first)),
        _ => None,
    }
}

/// The owner of an entry with this nG bit.
fn owner(not_global: u32, asid: Asid) -> Option<Asid> {
    (not_global == 1).then_some(asid)
}

fn section(page: u32, asid: Asid, word: u32) -> Translation {
    let count = if bits(word, 18, 18) == 1 { 4096 } else { 256 };
    Translation {
        first: page & !(count - 1),
        count,
        physical: word & !((count << 12) - 1),
        permissions: bits(word, 15, 15) << 2 | bits(word, 11, 10),
        execute_never: bits(word, 4, 4) == 1,
        cacheable: is_cacheable(bits(word, 14, 12), bits(word, 3, 3), bits(word, 2, 2)),
        asid: owner(bits(word, 17, 17), asid),
    }
}

fn second_level(page: u32, asid: Asid, word: u32) -> Option<Translation> {
    let asid = owner(bits(word, 11, 11), asid);
    let permissions = bits(word, 9, 9) << 2 | bits(word, 5, 4);
    let cacheable = |tex| is_cacheable(tex, bits(word, 3, 3), bits(word, 2, 2));
    match bits(word, 1, 0) {
        0b00 => None,
        0b01 => Some(Translation {
            first: page & !15,
            count: 16,
            physical: word & 0xffff_0000,
            permissions,
            execute_never: bits(word, 15, 15) == 1,
            cacheable: cacheable(bits(word, 14, 12)),
            asid,
        }),
        _ => Some(Translation {
            first: page,
            count: 1,
            physical: word & 0xffff_f000,
            permissions,
            execute_never: bits(word, 0, 0) == 1,
            cacheable: cacheable(bits(word, 8, 6)),
            asid,
        }),
    }
}
