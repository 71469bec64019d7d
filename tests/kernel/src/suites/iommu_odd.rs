//! What is odd of a device behind an IOMMU: frees that name the inside of a page, and few address lines (S67, S81, S100, S109).

use dma::attributes;
use dma::coherent::{Buffer, FreeError, free};
use dma::device::Device;
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE};
use kerncore::coherent::Sleep;
use kerncore::dma_attributes::DmaAttributes;
use kerncore::dma_mask::{DmaMask, MaskError};
use kerncore::kernel_space::RemoveError;
use ktest::ktest;

use super::iommu::{Attached, BASE};
use super::witness::{Books, NOBODY, plus};

static DEVICE: Device = Device::new("an odd device");
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
