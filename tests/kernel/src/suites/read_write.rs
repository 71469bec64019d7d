//! Reading and writing through areas as C code does it (S14a, S39 to S42).

extern crate alloc;

use alloc::vec;
use core::ffi::{c_long, c_void};
use core::ptr;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use board::vexpress_a9::SYSTEM_REGISTERS;
use kerncore::addr::{PAGE_SIZE, VirtAddr};
use kerncore::area::AreaFlags;
use kerncore::va_space::{Request, Window};
use ktest::{Completion, ktest};
use linux::ioremap::{ioremap, iounmap};
use linux::read_write::{vread, vwrite};
use mm::kernel;
use mm::vm_area::VmArea;

use super::smp::another;
use super::witness::{Books, NOBODY, authority, plus, word_at};

fn pointer(address: VirtAddr) -> *mut c_void {
    ptr::with_exposed_provenance_mut(address.raw() as usize)
}

fn read(from: VirtAddr, to: &mut [u8]) -> c_long {
    let count = u32::try_from(to.len()).expect("small");
    // SAFETY: the slice has so many bytes and is the test's own.
    unsafe { vread(to.as_mut_ptr(), pointer(from), count) }
}

fn write(from: &[u8], to: VirtAddr) -> c_long {
    let count = u32::try_from(from.len()).expect("small");
    // SAFETY: the slice has so many bytes; the tests hold no reference into what they write so.
    unsafe { vwrite(from.as_ptr(), pointer(to), count) }
}

/// Reserves exactly these pages, so that nothing of others' lies between what a test makes.
#[track_caller]
fn reserve(start: VirtAddr, pages: u32) -> VirtAddr {
    let window = Window::new(start, plus(start, (pages + 1) * PAGE_SIZE));
    let request = Request { window: Some(window), ..Request::of_bytes(pages * PAGE_SIZE) };
    let made = kernel().reserve_area(request, AreaFlags::NONE, NOBODY).expect("free addresses");
    assert_eq!(made.area.pages.start(), start);
    start
}

/// The last MiB of the window, where no other area is.
fn far() -> VirtAddr {
    let window = kernel().window();
    VirtAddr::new((window.end() - 256) * PAGE_SIZE)
}

fn fill(area: VirtAddr) {
    let fill = kerncore::kernel_space::Fill::Zeroed;
    kernel().fill_area(area, fill).expect("memory");
}

/// S40, S41: bytes of areas are copied, those between are zeros or go nowhere; the rest of the buffer is not touched.
#[ktest]
fn bytes_are_copied_zeros_are_between_and_the_rest_stays_s40_s41() {
    let books = Books::now();
    let (one, two) = (reserve(far(), 2), reserve(plus(far(), 5 * PAGE_SIZE), 1));
    fill(one);
    fill(two);
    let from = plus(one, 2 * PAGE_SIZE - 3);
    let bytes = 3 * PAGE_SIZE as usize + 3 + 5;
    let mut written = vec![0xa5; bytes];
    written[bytes - 5..].copy_from_slice(b"hello");
    assert_eq!(write(&written, from), c_long::try_from(bytes).expect("small"));
    assert_eq!(word_at(plus(one, 2 * PAGE_SIZE - 4)), 0xa5a5_a500);
    assert_eq!(word_at(two).to_le_bytes(), *b"hell");
    let mut seen = vec![0xff; bytes];
    assert_eq!(read(from, &mut seen), c_long::try_from(bytes).expect("small"));
    assert_eq!((&seen[..3], &seen[bytes - 5..]), (&[0xa5; 3][..], &b"hello"[..]));
    assert!(seen[3..bytes - 5].iter().all(|&byte| byte == 0), "guard and gap");

    let mut tail = [0xee; 16];
    assert_eq!(read(plus(two, PAGE_SIZE - 4), &mut tail), 4);
    assert_eq!(
        tail,
        [0, 0, 0, 0, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee]
    );
    assert_eq!(write(&[1; 16], plus(two, PAGE_SIZE - 1)), 1);
    for beyond in [plus(two, PAGE_SIZE), VirtAddr::new(0xf000_0000), VirtAddr::new(u32::MAX)] {
        assert_eq!((read(beyond, &mut tail), write(&tail, beyond)), (0, 0), "{beyond}");
    }
    assert_eq!(read(VirtAddr::new(0x1000), &mut tail), 16, "below the first area are zeros");
    assert_eq!(tail, [0; 16]);
    for area in [one, two] {
        kernel().vfree(authority(), area).expect("its own");
    }
    books.assert_unchanged();
}

/// S42: reserved and not mapped; registers, whose contents would show; memory that may not be written.
#[ktest]
fn what_is_no_memory_reads_as_zero_and_is_not_written_s42() {
    let books = Books::now();
    let registers = ioremap(SYSTEM_REGISTERS.base.raw(), PAGE_SIZE);
    let at = VirtAddr::new(u32::try_from(registers.expose_provenance()).expect("32 bits"));
    assert_ne!(word_at(at), 0, "SYS_ID");
    let led = plus(at, 8);
    let before = word_at(led);
    let mut seen = [0xff; 12];
    assert_eq!((read(at, &mut seen), seen), (12, [0; 12]));
    assert_eq!(write(&[0x3c; 4], led), 4);
    assert_eq!(word_at(led), before, "a register was written");
    // SAFETY: nobody uses it.
    unsafe { iounmap(registers) };

    let bare = reserve(far(), 1);
    assert_eq!((read(bare, &mut seen), write(&seen, bare)), (12, 12));
    assert_eq!(seen, [0; 12]);
    kernel().vunmap(authority(), bare).expect("its own");

    let text = VirtAddr::new(0x8001_0000);
    let frame = kernel().table().translate(text).expect("text").physical.pfn();
    let constant = kerncore::attributes::Attributes::KERNEL_RODATA;
    let view = kernel().vmap(&[frame], constant, NOBODY).expect("addresses").pages.start();
    let mut first = [0; 4];
    assert_eq!(read(view, &mut first), 4);
    assert_eq!(u32::from_le_bytes(first), word_at(text));
    assert_eq!(write(&[0; 4], view), 4);
    assert_eq!(u32::from_le_bytes(first), word_at(text));
    kernel().vunmap(authority(), view).expect("its own");
    books.assert_unchanged();
}

/// S3, S39: nothing to copy, nowhere to copy to, and lengths that would wrap.
#[ktest]
fn lengths_and_buffers_that_cannot_be_copy_nothing_s39() {
    let area = VmArea::zeroed(PAGE_SIZE).expect("memory");
    assert_eq!(read(area.address(), &mut []), 0);
    // SAFETY: there is no buffer, and none is looked at.
    assert_eq!(unsafe { vread(ptr::null_mut(), pointer(area.address()), 4) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { vwrite(ptr::null(), pointer(area.address()), 4) }, 0);
    let mut buffer = [7; 8];
    assert_eq!(read(VirtAddr::new(0xffff_fffc), &mut buffer), 0);
    assert_eq!(buffer, [7; 8]);
}

#[ktest(fatal = "vread in interrupt context, where no area is made or removed")]
fn reading_through_areas_in_a_handler_is_fatal_s10() {
    super::interrupts::in_handler(|| {
        read(far(), &mut [0; 4]);
    });
}

/// S14a: areas come and go on some CPUs while others read through all of the window: each page is zeros or one pattern.
#[ktest]
fn areas_are_read_while_other_cpus_free_them_smp_s14a() -> Completion {
    if let Err(skipped) = another() {
        return skipped;
    }
    let books = Books::now();
    let whole = AtomicU32::new(0);
    arch::smp::run_on_each(|cpu| {
        if cpu % 2 == 0 {
            for round in 0..100 {
                let mut area = VmArea::zeroed(2 * PAGE_SIZE).expect("memory");
                area.fill(1 + (round % 7) * 2);
            }
            return;
        }
        let mut seen = vec![0; 32 * PAGE_SIZE as usize];
        for _ in 0..40 {
            let count = usize::try_from(read(kernel().window().start(), &mut seen));
            let seen = &seen[..count.expect("a count")];
            let is_whole = |page: &&[u8]| page.iter().all(|&byte| byte == page[0]);
            let pages = seen.chunks(PAGE_SIZE as usize).filter(is_whole).count();
            whole.fetch_add(u32::try_from(pages).expect("few"), Relaxed);
            arch::smp::beat();
        }
    });
    assert_ne!(whole.into_inner(), 0, "nothing was ever read");
    books.assert_unchanged();
    Completion::Ran
}
