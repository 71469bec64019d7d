//! What is odd of a device behind an IOMMU: frees that name the inside of a page, and few address lines (S67, S81, S100, S109).

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::ffi::c_void;

use dma::attributes;
use dma::coherent::{Buffer, FreeError, free};
use dma::device::Device;
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE};
use kerncore::coherent::Sleep;
use kerncore::dma_attributes::DmaAttributes;
use kerncore::dma_mask::{DmaMask, MaskError};
use kerncore::kernel_space::RemoveError;
use kerncore::streaming::Flow;
use ktest::ktest;
use linux::streaming::{dma_map_single, dma_mapping_error, dma_unmap_single};
use mm::page_alloc::Pages;

use super::iommu::{Attached, BASE, Engine};
use super::witness::{Books, NOBODY, plus};

static DEVICE: Device = Device::new("an odd device");
static OTHER: Device = Device::new("another odd device");
static SNOOPING: Device = Device::coherent("an odd snooping device");

/// S67: whatever lies there goes on being the device's, and goes by the right free.
#[ktest]
fn a_free_of_the_inside_of_a_page_hides_nothing_s67_s81() {
    const CONTIGUOUS: DmaAttributes = DmaAttributes::FORCE_CONTIGUOUS;
    let books = Books::now();
    for device in [&DEVICE, &SNOOPING] {
        let mapping = Attached::new(device, 1 << 20);
        for (sleep, attributes) in [
            (Sleep::May, DmaAttributes::NONE),
            (Sleep::May, CONTIGUOUS),
            (Sleep::MayNot, DmaAttributes::NONE),
        ] {
            let buffer = attributes::allocate(device, PAGE_SIZE, sleep, attributes, NOBODY);
            let buffer = buffer.expect("memory");
            let taken = mapping.taken();
            for offset in [1, 4, 4095] {
                let address = plus(buffer.address, offset);
                let inside = DmaAddr::new(buffer.dma.raw() + offset);
                for (address, dma) in
                    [(address, inside), (address, buffer.dma), (buffer.address, inside)]
                {
                    for bytes in [4, PAGE_SIZE] {
                        let wrong = Buffer { address, dma };
                        let (freed, log) = capture_log(|| free_of(device, bytes, wrong));
                        let misaligned = RemoveError::Misaligned { address };
                        assert_eq!(freed, Err(FreeError::Invalid(misaligned)));
                        assert!(log.text().contains("trying to free invalid coherent area"));
                        assert_eq!(mapping.taken(), taken, "seen as before");
                    }
                }
            }
            assert_eq!(free_of(device, PAGE_SIZE, buffer), Ok(()));
            assert_eq!(mapping.taken(), 0);
        }
    }
    books.assert_unchanged();
}

fn free_of(device: &Device, bytes: u32, buffer: Buffer) -> Result<(), FreeError> {
    // SAFETY: no test here has a reference to memory that it gives back; what is no buffer is to be refused.
    unsafe { free(device, bytes, buffer.address, buffer.dma) }
}

/// S100: few address lines are what an IOMMU is for; those that reach none of its addresses are too few.
#[ktest]
fn a_mask_is_judged_by_the_addresses_behind_the_iommu_s100_s109() {
    static NARROW: Device = Device::new("a device of few lines");
    let books = Books::now();
    let mask = DmaMask::new(u64::from(BASE.raw()) + 0xf_ffff);
    assert!(NARROW.set_mask_and_coherent(mask).is_err(), "on the bus it reaches no RAM");
    {
        let _mapping = Attached::new(&NARROW, 1 << 20);
        let least = DmaAddr::new(BASE.raw() + PAGE_SIZE - 1);
        for last in [0, u64::from(least.raw()) - 1] {
            let mask = DmaMask::new(last);
            assert_eq!(NARROW.set_mask(mask), Err(MaskError { mask, least }));
            assert_eq!(NARROW.set_coherent_mask(mask), Err(MaskError { mask, least }));
        }
        for last in [least.raw(), BASE.raw() + 0xf_ffff] {
            assert_eq!(NARROW.set_mask_and_coherent(DmaMask::new(last.into())), Ok(()));
        }
        let buffer =
            attributes::allocate(&NARROW, PAGE_SIZE, Sleep::May, DmaAttributes::NONE, NOBODY);
        let buffer = buffer.expect("within reach");
        assert_eq!(buffer.dma, BASE);
        assert_eq!(free_of(&NARROW, PAGE_SIZE, buffer), Ok(()));
    }
    assert_eq!(NARROW.set_mask_and_coherent(DmaMask::ALL), Ok(()));
    books.assert_unchanged();
}

/// S106, S109: what is copied for a device behind an IOMMU has its pages alone, and in them is nothing of others.
#[ktest]
fn a_device_sees_no_other_s_copies_s106_s109() {
    let books = Books::now();
    let (first, second) = (Attached::new(&DEVICE, 1 << 20), Attached::new(&OTHER, 1 << 20));
    let mut buffers = [Pages::new(0).expect("memory"), Pages::new(0).expect("memory")];
    buffers[0].fill(0x11);
    buffers[1].fill(0x5e);
    // Former users leave their bytes in all slots.
    let left: Vec<_> = (0..16).map(|_| map(&OTHER, &mut buffers[1], PAGE_SIZE - 2)).collect();
    for dma in left {
        unmap(&OTHER, dma, PAGE_SIZE - 2);
    }
    for bytes in [1, 31, 32, 100, 2046, 2047, 2048, 2049, 4000] {
        let mapped = [(&DEVICE, 0), (&OTHER, 1)]
            .map(|(device, index)| map(device, &mut buffers[index], bytes));
        assert_eq!((first.taken(), second.taken()), (1, 1), "a page each");
        for (device, dma, own) in [(&DEVICE, mapped[0], 0x11), (&OTHER, mapped[1], 0x5e)] {
            assert!(dma.is_page_aligned(), "S109");
            let mut seen = vec![0; PAGE_SIZE as usize];
            Engine(device).read(dma.raw(), &mut seen).expect("its page");
            let (theirs, rest) = seen.split_at(bytes as usize);
            assert!(theirs.iter().all(|&byte| byte == own), "{bytes} bytes");
            assert!(rest.iter().all(|&byte| byte == 0), "{bytes} bytes, and nothing behind");
        }
        unmap(&DEVICE, mapped[0], bytes);
        unmap(&OTHER, mapped[1], bytes);
    }
    drop(buffers);
    drop((first, second));
    books.assert_unchanged();
}

/// The page from its second byte on, which shares lines with others and so is copied, both ways.
fn map(device: &Device, page: &mut Pages, bytes: u32) -> DmaAddr {
    let start = page.as_mut_ptr().wrapping_byte_add(1).cast::<c_void>();
    let bytes = bytes.min(PAGE_SIZE - 2);
    // SAFETY: the page is the test's own, and outlives the mapping.
    let dma = unsafe { dma_map_single(device, start, bytes, Flow::Bidirectional as u32) };
    // SAFETY: a device.
    assert_eq!(unsafe { dma_mapping_error(device, dma) }, 0);
    dma
}

fn unmap(device: &Device, dma: DmaAddr, bytes: u32) {
    let bytes = bytes.min(PAGE_SIZE - 2);
    // SAFETY: mapped by `map`; the device is done.
    unsafe { dma_unmap_single(device, dma, bytes, Flow::Bidirectional as u32) };
}
