//! Two nodes of memory (`numa=fake=2`): who names one is served from it (S28, S30, S117). What there is to say of one node
//! alone is said everywhere; the rest says why it does not run.

use core::ffi::{c_int, c_void};

use kerncore::addr::{PAGE_SIZE, PageRange, VirtAddr};
use kerncore::coherent::AllocationFlags;
use kerncore::frames::{AllocateError, FrameList, FrameOwner, FrameRequest, NodeId, Place};
use kerncore::layout::linear_physical;
use ktest::{Completion, assert_err, ktest};
use linux::areas::{free_vm_area, get_vm_area_node};
use linux::lookup::find_vm_area;
use linux::page::{__free_pages, alloc_pages_node, frame_of};
use linux::protection::PageProtection;
use linux::vmalloc::{__vmalloc_node, vmalloc_node};
use mm::kernel;

use super::witness::{Books, each_page, feed, frame_at};

/// Any memory, and of the node named or not at all.
const ONLY: AllocationFlags =
    AllocationFlags(AllocationFlags::HIGH_USER.0 | AllocationFlags::THIS_NODE);

fn nodes() -> u32 {
    kernel().zones().nodes().count()
}

fn two() -> Result<(), Completion> {
    if nodes() < 2 {
        return Err(Completion::Skipped("there is one node (numa=fake=2 makes two)"));
    }
    Ok(())
}

const fn only(node: u32) -> FrameRequest {
    FrameRequest::ANY.at(Place::Only(NodeId::new(node)))
}

const fn prefer(node: u32) -> FrameRequest {
    FrameRequest::ANY.at(Place::Prefer(NodeId::new(node)))
}

fn number(node: u32) -> c_int {
    c_int::try_from(node).expect("few")
}

/// Whether all `count` pages of an area of C's, which ends here, are of `node`.
#[track_caller]
fn all_of(area: *mut c_void, count: u32, node: u32) -> bool {
    assert!(!area.is_null());
    let start = VirtAddr::new(u32::try_from(area.addr()).expect("32 bits"));
    let pages = PageRange::new(start, count).expect("whole pages");
    let zones = kernel().zones();
    let node_of = |page| zones.zone_of(frame_at(page)).expect("RAM").0.number();
    let all = each_page(pages).all(|page| node_of(page) == node);
    // SAFETY: made a moment before, and nobody has a reference.
    unsafe { linux::free::vfree(area) };
    all
}

/// All that is free of node 1.
#[track_caller]
fn empty_node_1() -> FrameList {
    let zones = kernel().zones();
    let free = zones.free_pages_of(only(1));
    let list = zones.allocate_list_from(only(1), free, FrameOwner::Test).expect("it is free");
    assert_eq!(zones.free_pages_of(only(1)), 0);
    list
}

/// With one node, of that: it is node 0 that is there.
#[ktest]
fn who_names_a_node_is_served_from_it_s28_s30() {
    for node in 0..nodes() {
        for _ in 0..2 {
            let area = vmalloc_node(17 * PAGE_SIZE, number(node));
            assert!(all_of(area, 17, node), "vmalloc_node");
            let area = __vmalloc_node(5 * PAGE_SIZE, ONLY, PageProtection::KERNEL, number(node));
            assert!(all_of(area, 5, node), "__vmalloc_node");
            let page = alloc_pages_node(number(node), ONLY, 2);
            let frame = frame_of(page).expect("a page");
            let zone = kernel().zones().zone_of(frame).expect("RAM");
            assert_eq!(zone.0.number(), node);
            // SAFETY: made a moment before, and nobody has a reference.
            unsafe { __free_pages(page, 2) };
        }
    }
}

/// A full node: another's memory for who only prefers it, and an error of its own for who insists.
#[ktest]
fn a_full_node_falls_back_or_fails_as_the_flags_say_s28() -> Completion {
    if let Err(skipped) = two() {
        return skipped;
    }
    let all = empty_node_1();
    let books = Books::now();
    let zones = kernel().zones();
    assert!(all_of(vmalloc_node(9 * PAGE_SIZE, 1), 9, 0));
    let block = zones.allocate_from(prefer(1), 2, FrameOwner::Test).expect("of node 0");
    assert_eq!(zones.zone_of(block.first()).map(|zone| zone.0), Some(NodeId::new(0)));
    assert_eq!(zones.free(block), Ok(()));

    let (free, largest) = (0, None);
    let exhausted = |pages| {
        let owner = FrameOwner::Test;
        AllocateError::Exhausted { pages, owner, free, largest, from: only(1) }
    };
    assert_err!(zones.allocate_from(only(1), 0, FrameOwner::Test), error if error == exhausted(1));
    let list = zones.allocate_list_from(only(1), 3, FrameOwner::Test);
    assert_err!(list, error if error == exhausted(3));
    let text = alloc::format!("{}", exhausted(3));
    assert!(text.contains("of any memory of node 1, 0 are free"), "{text}");
    assert!(alloc_pages_node(1, ONLY, 0).is_null());
    assert!(__vmalloc_node(PAGE_SIZE, ONLY, PageProtection::KERNEL, 1).is_null());
    books.assert_unchanged();
    feed(all);
    assert!(all_of(__vmalloc_node(PAGE_SIZE, ONLY, PageProtection::KERNEL, 1), 1, 1));
    Completion::Ran
}

/// Low memory is wanted, and the node has none: what is high there will not do.
#[ktest]
fn memory_of_the_wrong_kind_on_the_right_node_will_not_do_s30() -> Completion {
    if let Err(skipped) = two() {
        return skipped;
    }
    let zones = kernel().zones();
    let low = FrameRequest::LOW.at(Place::Only(NodeId::new(1)));
    if zones.free_pages_of(low) > 0 {
        return Completion::Skipped("node 1 has low memory");
    }
    let gfp = AllocationFlags(AllocationFlags::KERNEL.0 | AllocationFlags::THIS_NODE);
    assert!(alloc_pages_node(1, gfp, 0).is_null());
    assert!(__vmalloc_node(PAGE_SIZE, gfp, PageProtection::KERNEL, 1).is_null());
    assert_err!(
        zones.allocate_from(low, 0, FrameOwner::Test),
        AllocateError::Exhausted { free: 0, from, .. } if from == low
    );
    // Who only prefers the node gets low memory of the other.
    let page = alloc_pages_node(1, AllocationFlags::KERNEL, 0);
    let frame = frame_of(page).expect("a page");
    assert!(kernel().linear().pages_of(frame, 1).is_some());
    // SAFETY: made a moment before, and nobody has a reference.
    unsafe { __free_pages(page, 0) };
    Completion::Ran
}

/// An unknown node is an error that names it, whatever else the flags say, and changes nothing.
#[ktest]
fn a_node_that_is_not_there_is_refused_by_its_number_s28() {
    let zones = kernel().zones();
    let books = Books::now();
    for node in [nodes(), nodes() + 1, 65_535] {
        for request in [only(node), prefer(node)] {
            let unknown = AllocateError::UnknownNode {
                node: NodeId::new(node),
                nodes: nodes(),
                owner: FrameOwner::Test,
            };
            let block = zones.allocate_from(request, 0, FrameOwner::Test);
            assert_err!(block, error if error == unknown);
            let list = zones.allocate_list_from(request, 5, FrameOwner::Test);
            assert_err!(list, error if error == unknown);
            let run = zones.allocate_pages_from(request, 3, FrameOwner::Test);
            assert_err!(run, error if error == unknown);
        }
        assert_eq!(zones.free_pages_of(only(node)), 0);
    }
    for node in [number(nodes()), c_int::MAX] {
        assert!(vmalloc_node(PAGE_SIZE, node).is_null());
        assert!(alloc_pages_node(node, AllocationFlags::KERNEL, 0).is_null());
        assert!(alloc_pages_node(node, ONLY, 0).is_null());
        let gfp = AllocationFlags::HIGH_USER;
        assert!(__vmalloc_node(PAGE_SIZE, gfp, PageProtection::KERNEL, node).is_null());
    }
    books.assert_unchanged();
    // Less than zero is anywhere.
    for node in [-1, c_int::MIN] {
        let area = vmalloc_node(PAGE_SIZE, node);
        assert!(!area.is_null());
        // SAFETY: made a moment before, and nobody has a reference.
        unsafe { linux::free::vfree(area) };
    }
}

fn address(pointer: usize) -> VirtAddr {
    VirtAddr::new(u32::try_from(pointer).expect("32 bits"))
}

/// The node whose memory the descriptor of the area at `base` lies in.
#[track_caller]
fn home_of(base: VirtAddr) -> u32 {
    let memory = core::ptr::with_exposed_provenance(base.raw() as usize);
    let descriptor = address(find_vm_area(memory).addr());
    let frame = linear_physical(descriptor).expect("in the linear map").pfn();
    kernel().zones().zone_of(frame).expect("RAM").0.number()
}

/// S9: whose memory is for a node has its descriptor there, too, and whoever does not care has it on the first; also after others
/// have come and gone.
#[ktest]
fn a_descriptor_lies_on_the_node_that_it_is_for_s9() -> Completion {
    if let Err(skipped) = two() {
        return skipped;
    }
    let zones = kernel().zones();
    let has_low = |node| zones.free_pages_of(FrameRequest::LOW.at(Place::Only(NodeId::new(node))));
    if has_low(1) < 64 {
        return Completion::Skipped("node 1 has no low memory (lowmem=)");
    }
    for _ in 0..3 {
        let areas = [1, 0, 1, -1].map(|node| {
            let area = get_vm_area_node(PAGE_SIZE, 0, node, AllocationFlags::KERNEL);
            // SAFETY: a descriptor that was made a moment before, or null.
            let base = unsafe { area.as_ref() }.expect("an area").addr();
            assert_eq!(home_of(base), u32::from(node == 1), "get_vm_area_node, {node}");
            area
        });
        for pages in [1, 20, 1025] {
            for node in [0, 1] {
                let memory = vmalloc_node(pages * PAGE_SIZE, number(node));
                let base = address(memory.addr());
                assert_eq!(home_of(base), node, "{pages} pages of vmalloc_node");
                // SAFETY: made a moment before, and nobody has a reference.
                unsafe { linux::free::vfree(memory) };
            }
        }
        // SAFETY: as above, and nobody uses the descriptors any more.
        areas.into_iter().for_each(|area| unsafe { free_vm_area(area) });
    }
    Completion::Ran
}
