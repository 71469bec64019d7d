//! The account of blocks against what it promises, without tables (S87).

use super::*;

const FIRST: u32 = 0xc_0000;
const SECTIONS: u32 = 4;

fn window() -> PageRange {
    PageRange::from_numbers(FIRST, SECTIONS * PAGES_PER_SECTION).expect("a range")
}

fn map_ram() -> MapRam<'static> {
    let blocks = (0..MapRam::blocks_for(window())).map(|_| Block::new()).collect::<Vec<_>>();
    MapRam::new(window(), blocks.leak()).expect("a block a section")
}

fn section(number: u32) -> VirtAddr {
    VirtAddr::new((FIRST / PAGES_PER_SECTION + number) * SECTION_SIZE)
}

fn table(number: u32) -> PhysAddr {
    PhysAddr::new(0x6001_0000 + number * 0x400)
}

/// A window of which CPU 0 has a block in section `number`.
fn opened(number: u32) -> MapRam<'static> {
    let map_ram = map_ram();
    assert_eq!(map_ram.open(0, section(number), table(number)), Aftermath::Stays);
    map_ram
}

#[track_caller]
fn cut(map_ram: &MapRam<'_>, pages: u32) -> VirtAddr {
    map_ram.cut(0, pages).expect("room").show()
}

#[track_caller]
fn back(map_ram: &MapRam<'_>, address: VirtAddr, pages: u32) -> Aftermath {
    map_ram.claim(address, pages).expect("a fragment").put_back()
}

fn offset(address: VirtAddr) -> u32 {
    offset_of(address)
}

#[test]
fn without_a_block_nothing_is_cut_or_found_s87() {
    let map_ram = map_ram();
    assert!(map_ram.cut(0, 1).is_none());
    assert_eq!(map_ram.close_idle(), None);
    for address in [section(0), VirtAddr::new(0), VirtAddr::new(0xffff_f000)] {
        let refused = map_ram.claim(address, 1).expect_err("no block");
        assert_eq!(refused, NoFragment::NotInBlock);
        assert_eq!(map_ram.fragment_containing(address), None);
    }
}

#[test]
fn fragments_lie_side_by_side_with_a_guard_between_below_their_blocks_table_s2_s87() {
    let map_ram = opened(2);
    let fragments: Vec<Fragment<'_>> =
        [3, 1, 64].map(|pages| map_ram.cut(0, pages).expect("room")).into();
    let places: Vec<(u32, u32)> =
        fragments.iter().map(|f| (offset(f.range.start()), f.range.count())).collect();
    assert_eq!(places, [(0, 3), (4, 1), (6, 64)]);
    for fragment in fragments {
        assert_eq!((base_of(fragment.range.start()), fragment.table()), (section(2), table(2)));
        assert!(map_ram.claim(fragment.range.start(), fragment.range.count()).is_err(), "unused");
        let _shown = fragment.show();
    }
    assert_eq!(map_ram.fragments_of(section(2)), 3);
}

#[test]
fn only_the_start_and_the_size_of_a_fragment_in_use_claim_it_and_only_once_s87() {
    let map_ram = opened(0);
    let address = cut(&map_ram, 5);
    for (wrong, pages, why) in [
        (address, 4, NoFragment::OtherSize { found: 5 }),
        (address, 0, NoFragment::OtherSize { found: 5 }),
        (address, 5 + 256, NoFragment::OtherSize { found: 5 }),
        (VirtAddr::new(address.raw() + 0x1000), 4, NoFragment::Unknown),
        (VirtAddr::new(address.raw() + 0x5000), 5, NoFragment::Unknown),
        (section(1), 5, NoFragment::NotInBlock),
    ] {
        assert_eq!(map_ram.claim(wrong, pages).expect_err("wrong"), why, "{wrong}, {pages}");
    }
    let claimed = map_ram.claim(address, 5).expect("in use");
    assert_eq!(map_ram.claim(address, 5).expect_err("claimed"), NoFragment::Unknown);
    assert_eq!(claimed.put_back(), Aftermath::Stays);
}

#[test]
fn a_page_knows_its_fragment_s87() {
    let map_ram = opened(0);
    let (low, high) = (cut(&map_ram, 64), cut(&map_ram, 2));
    let find = |offset: u32| {
        let found = map_ram.fragment_containing(VirtAddr::new(section(0).raw() + offset * 0x1000));
        found.map(|pages| (pages.start(), pages.count()))
    };
    assert_eq!((find(0), find(63), find(64)), (Some((low, 64)), Some((low, 64)), None));
    assert_eq!((find(65), find(66), find(67)), (Some((high, 2)), Some((high, 2)), None));
    assert_eq!(find(255), None);
}

#[test]
fn the_highest_fragment_is_cut_again_at_once_and_all_when_none_is_left_s87() {
    let map_ram = opened(0);
    let (one, two, three) = (cut(&map_ram, 1), cut(&map_ram, 2), cut(&map_ram, 3));
    assert_eq!(back(&map_ram, three, 3), Aftermath::Stays);
    assert_eq!(cut(&map_ram, 4), three);
    // A hole below stays one while anything is above it.
    assert_eq!(back(&map_ram, one, 1), Aftermath::Stays);
    assert_eq!(back(&map_ram, three, 4), Aftermath::Stays);
    assert_eq!(cut(&map_ram, 1), three);
    assert_eq!(back(&map_ram, three, 1), Aftermath::Stays);
    assert_eq!(back(&map_ram, two, 2), Aftermath::Stays);
    assert_eq!(cut(&map_ram, 1), section(0));
}

#[test]
fn a_block_is_full_when_no_fragment_and_guard_fit_below_its_own_guard_s2() {
    let map_ram = opened(3);
    for _ in 0..3 {
        let _full = cut(&map_ram, 64);
    }
    assert!(map_ram.cut(0, 61).is_none());
    assert_eq!(offset(cut(&map_ram, 60)), 195, "the last guard is the block's own");
    assert!(map_ram.cut(0, 1).is_none());
}

#[test]
fn whoever_puts_the_last_fragment_of_a_closed_block_back_is_told_so_s87() {
    let map_ram = opened(0);
    let (one, two) = (cut(&map_ram, 60), cut(&map_ram, 60));
    assert_eq!(map_ram.open(0, section(1), table(1)), Aftermath::Stays);
    assert_eq!(base_of(cut(&map_ram, 1)), section(1));
    assert_eq!(back(&map_ram, two, 60), Aftermath::Stays);
    assert_eq!(back(&map_ram, one, 60), Aftermath::Ended(section(0)));
    assert_eq!(map_ram.claim(one, 60).expect_err("gone"), NoFragment::NotInBlock);
    // An idle one ends at once.
    let _used = cut(&map_ram, 1);
    assert_eq!(map_ram.open(1, section(2), table(2)), Aftermath::Stays);
    assert_eq!(map_ram.open(1, section(3), table(3)), Aftermath::Ended(section(2)));
}

#[test]
fn idle_blocks_are_closed_and_others_left_alone_s87() {
    let map_ram = opened(0);
    assert_eq!(map_ram.open(1, section(1), table(1)), Aftermath::Stays);
    let used = cut(&map_ram, 1);
    assert_eq!(map_ram.close_idle(), Some(section(1)));
    assert_eq!(map_ram.close_idle(), None);
    assert!(map_ram.cut(1, 1).is_none());
    // The number comes back as another CPU's, and as its former CPU's own.
    assert_eq!(map_ram.open(2, section(1), table(1)), Aftermath::Stays);
    assert_eq!(base_of(map_ram.cut(2, 1).expect("room").show()), section(1));
    assert_eq!(back(&map_ram, used, 1), Aftermath::Stays);
    assert_eq!(map_ram.close_idle(), Some(section(0)));
    assert_eq!(map_ram.open(0, section(0), table(0)), Aftermath::Stays);
    assert_eq!(cut(&map_ram, 1), section(0), "what was closed before is open again");
}

#[test]
fn a_window_must_be_made_of_sections_and_have_a_block_for_each() {
    let blocks: Vec<Block> = (0..3).map(|_| Block::new()).collect();
    let blocks: &'static [Block] = blocks.leak();
    assert!(MapRam::new(window(), blocks).is_none());
    let three = window().sub_range(0, 3 * PAGES_PER_SECTION).expect("part of it");
    assert!(MapRam::new(three, blocks).is_some());
    let skewed = window().sub_range(1, PAGES_PER_SECTION).expect("part of it");
    assert!(MapRam::new(skewed, blocks).is_none());
}

/// Four CPUs, of which two cut from the same block: nobody is given what another has, and in the end nothing is out.
#[test]
fn no_two_cpus_ever_have_the_same_page_s87() {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    const ROUNDS: u32 = 2_000;
    let map_ram = opened(0);
    for (cpu, number) in [(1, 1), (2, 2)] {
        assert_eq!(map_ram.open(cpu, section(number), table(number)), Aftermath::Stays);
    }
    let taken: Vec<AtomicBool> = (0..SECTIONS * 256).map(|_| AtomicBool::new(false)).collect();
    let mark = |range: PageRange, to: bool| {
        // The guard is the fragment's, too.
        for page in range.first()..=range.end() {
            assert_eq!(taken[(page - FIRST) as usize].swap(to, SeqCst), !to, "page {page:#x}");
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let (map_ram, mark) = (&map_ram, &mark);
            scope.spawn(move || {
                let mut held = Vec::new();
                for round in 0..ROUNDS {
                    let pages = 1 + (round * 7 + thread * 3) % 20;
                    // Threads 0 and 3 share a block.
                    if let Some(fragment) = map_ram.cut(thread as usize % 3, pages) {
                        mark(fragment.range.pages(), true);
                        held.push((fragment.show(), pages));
                    }
                    if held.len() > 3 || round % 3 == 2 {
                        let which = (round as usize * 5) % held.len().max(1);
                        if which < held.len() {
                            let (address, pages) = held.swap_remove(which);
                            let claimed = map_ram.claim(address, pages).expect("ours");
                            mark(claimed.range.pages(), false);
                            assert_eq!(claimed.put_back(), Aftermath::Stays);
                        }
                    }
                }
                for (address, pages) in held {
                    let claimed = map_ram.claim(address, pages).expect("ours");
                    mark(claimed.range.pages(), false);
                    assert_eq!(claimed.put_back(), Aftermath::Stays);
                }
            });
        }
    });
    for number in 0..3 {
        assert_eq!(map_ram.fragments_of(section(number)), 0);
        assert!(map_ram.close_idle().is_some());
    }
    assert_eq!(map_ram.close_idle(), None);
}

/// A section that was one CPU's block comes back as another's: the first has none, and does not cut from it.
#[test]
fn a_block_is_one_cpus_even_if_its_section_was_anothers_s87() {
    let map_ram = opened(1);
    assert_eq!(map_ram.close_idle(), Some(section(1)));
    assert_eq!(map_ram.open(2, section(1), table(1)), Aftermath::Stays);
    assert!(map_ram.cut(0, 1).is_none(), "it is CPU 2's");
    assert!(map_ram.cut(2, 1).is_some());
}
