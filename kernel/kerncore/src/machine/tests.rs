//! A borrowed machine does what the machine itself does.

use std::cell::RefCell;

use super::*;

/// Keeps what it was asked.
#[derive(Default)]
struct Listener(RefCell<Vec<String>>);

impl Listener {
    fn heard(&self, call: String) {
        self.0.borrow_mut().push(call);
    }
}

impl Machine for Listener {
    type Authority = ();

    fn read_descriptor(&self, slot: PhysAddr) -> u32 {
        self.heard(format!("read {slot}"));
        0x1234
    }

    fn write_descriptors(&self, first: PhysAddr, descriptors: impl Iterator<Item = u32>) {
        self.heard(format!("write {first} {:x?}", descriptors.collect::<Vec<_>>()));
    }

    fn clean_descriptors(&self, first: PhysAddr, count: u32) {
        self.heard(format!("clean {first} {count}"));
    }

    fn barrier(&self) {
        self.heard("barrier".to_owned());
    }

    fn invalidate_tlb(&self, pages: PageRange) {
        self.heard(format!("invalidate {pages}"));
    }

    fn clean_and_invalidate(&self, pages: PageRange, first: Pfn) {
        self.heard(format!("clean and invalidate {pages} {first}"));
    }

    fn zero_pages(&self, pages: PageRange) {
        self.heard(format!("zero {pages}"));
    }

    fn in_interrupt(&self) -> bool {
        self.heard("in interrupt?".into());
        false
    }

    fn cpu(&self) -> usize {
        self.heard("which CPU?".into());
        0
    }
}

/// Asks everything of `machine`.
fn ask(machine: impl Machine) -> u32 {
    let slot = PhysAddr::new(0x6000_4000);
    let pages = PageRange::from_numbers(0xc_0000, 2).expect("a range");
    machine.write_descriptors(slot, [1, 2].into_iter());
    machine.clean_descriptors(slot, 2);
    machine.barrier();
    machine.invalidate_tlb(pages);
    machine.clean_and_invalidate(pages, slot.pfn());
    machine.zero_pages(pages);
    assert!(!machine.in_interrupt());
    machine.read_descriptor(slot)
}

#[test]
fn a_borrowed_machine_passes_every_call_on() {
    let borrowed = Listener::default();
    assert_eq!(ask(&borrowed), 0x1234);
    let expected = [
        "write 0x60004000 [1, 2]",
        "clean 0x60004000 2",
        "barrier",
        "invalidate 0xc0000000-0xc0002000",
        "clean and invalidate 0xc0000000-0xc0002000 0x60004",
        "zero 0xc0000000-0xc0002000",
        "in interrupt?",
        "read 0x60004000",
    ];
    assert_eq!(*borrowed.0.borrow(), expected);
}
