//! What the CPUs hold: memory of every kind, with a pattern that nobody else has.

extern crate alloc;

use alloc::vec::Vec;

use arch::{cpu, probe, smp};
use dma::coherent::CoherentBox;
use kerncore::addr::{PAGE_SIZE, VirtAddr};
use kerncore::kernel_space::Fill;
use mm::exec_area::{ExecArea, ExecText};
use mm::io_mem::IoMem;
use mm::mapped_pages::VmMap;
use mm::page_alloc::Pages;
use mm::vm_area::VmArea;
use safe_mmio::fields::ReadPure;

use super::named::{self, Named, Reserve};
use super::on_bus::OnBus;
use super::transfers::Block;
use crate::suites::witness::guard_of;

/// What is longer is marked in one word of each page, or a section would take as long as all else.
const WHOLE: usize = 64 * PAGE_SIZE as usize;
/// From one word of what is long to the next: a page later, at another place of it.
const STRIDE: usize = PAGE_SIZE as usize - 4;

/// A block's first register, which says what it is.
pub(super) type Id = [ReadPure<u32>; 1];

/// Something that was had, filled with its pattern.
pub(super) struct Held {
    pattern: u32,
    what: What,
}

/// One of each kind.
pub(super) enum What {
    Memory(VmArea),
    Huge(VmArea),
    Mapped(VmMap),
    Block(Pages),
    Coherent(CoherentBox),
    Heap(Vec<u8>),
    Code(ExecArea),
    Text(ExecText),
    Named(Named),
    Registers(IoMem<Id>),
    OnBus(OnBus),
    Small(Block),
}

/// What `vread` shows of it.
enum Shown {
    /// What it holds; `vwrite` changes that, unless the memory may not be written.
    Contents,
    /// Zeros, whatever it holds.
    Zeros,
}

impl What {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Memory(memory) | Self::Huge(memory) => memory,
            Self::Mapped(memory) => memory,
            Self::Block(memory) => memory,
            Self::Coherent(memory) => memory,
            Self::Heap(memory) => memory,
            Self::Code(memory) => memory,
            Self::Text(memory) => memory,
            Self::Named(memory) => memory,
            Self::OnBus(memory) => memory.bytes(),
            Self::Small(memory) => memory,
            Self::Registers(_) => &[],
        }
    }

    /// As [`Self::bytes`], if they may be written.
    fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        match self {
            Self::Memory(memory) | Self::Huge(memory) => Some(memory),
            Self::Mapped(memory) => Some(memory),
            Self::Block(memory) => Some(memory),
            Self::Coherent(memory) => Some(memory),
            Self::Heap(memory) => Some(memory),
            Self::Code(memory) => Some(memory),
            Self::Named(memory) => Some(memory),
            Self::OnBus(memory) => Some(memory.bytes_mut()),
            Self::Small(memory) => Some(memory),
            Self::Text(_) | Self::Registers(_) => None,
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Memory(_) => "vmalloc",
            Self::Huge(_) => "vmalloc_huge",
            Self::Mapped(_) => "vmap",
            Self::Block(_) => "pages",
            Self::Coherent(_) => "coherent",
            Self::Heap(_) => "heap",
            Self::Code(_) => "vmalloc_exec",
            Self::Text(_) => "sealed vmalloc_exec",
            Self::Named(memory) => memory.name(),
            Self::Registers(_) => "ioremap",
            Self::OnBus(memory) => memory.name(),
            Self::Small(_) => "dma_pool_alloc",
        }
    }

    /// `None` for what lies elsewhere.
    fn shown(&self) -> Option<Shown> {
        match self {
            Self::Memory(_) | Self::Huge(_) | Self::Mapped(_) | Self::Code(_) | Self::Text(_) => {
                Some(Shown::Contents)
            }
            Self::Named(Named::Bare { reserved: Reserve::Plainly, .. }) => Some(Shown::Contents),
            Self::Named(Named::Bare { .. } | Named::ShortLived { .. }) => Some(Shown::Zeros),
            Self::OnBus(memory) => (!memory.bytes().is_empty()).then_some(Shown::Zeros),
            Self::Named(Named::Object { .. })
            | Self::Block(_)
            | Self::Coherent(_)
            | Self::Small(_)
            | Self::Heap(_)
            | Self::Registers(_) => None,
        }
    }
}

/// The word at `offset` of a pattern.
const fn word(pattern: u32, offset: usize) -> [u8; 4] {
    #[expect(clippy::cast_possible_truncation, reason = "offsets in memory of 32 bits")]
    let index = offset as u32 / 4;
    (pattern ^ index.wrapping_mul(0x9e37_79b9)).to_le_bytes()
}

/// Where the words of `length` bytes lie that have the pattern.
fn marked(length: usize) -> impl Iterator<Item = usize> {
    (0..length).step_by(if length <= WHOLE { 4 } else { STRIDE })
}

impl Held {
    pub(super) fn new(what: What, pattern: u32) -> Self {
        if let What::Registers(registers) = &what {
            // The same whoever asks.
            return Self { pattern: identification(registers), what };
        }
        let mut held = Self { pattern, what };
        held.fill();
        held
    }

    /// The same, filled before it is sealed.
    pub(super) fn sealed(code: ExecArea, pattern: u32) -> Self {
        let Self { what, .. } = Self::new(What::Code(code), pattern);
        let What::Code(code) = what else { unreachable!("as it was made") };
        Self { pattern, what: What::Text(code.seal().expect("its own, and nobody writes")) }
    }

    pub(super) const fn what(&self) -> &What {
        &self.what
    }

    pub(super) fn into_what(self) -> What {
        self.what
    }

    fn fill(&mut self) {
        let bytes = self.what.bytes_mut().unwrap_or_default();
        for offset in marked(bytes.len()) {
            for (place, byte) in bytes[offset..].iter_mut().zip(word(self.pattern, offset)) {
                *place = byte;
            }
        }
        if let What::OnBus(memory) = &mut self.what {
            memory.mark(self.pattern);
        }
    }

    /// Every word is still what was put there.
    pub(super) fn check(&self) {
        if let What::Registers(registers) = &self.what {
            assert_eq!(identification(registers), self.pattern, "a register of the board");
        }
        if let What::OnBus(memory) = &self.what {
            memory.check(self.pattern);
        }
        self.check_first(self.what.bytes().len());
    }

    /// The same of so many bytes.
    fn check_first(&self, length: usize) {
        let bytes = &self.what.bytes()[..length];
        for offset in marked(length) {
            let found = &bytes[offset..(offset + 4).min(length)];
            let wanted = &word(self.pattern, offset)[..found.len()];
            assert!(
                found == wanted,
                "byte {offset} of {}, seen by CPU {}: {found:x?}, not {wanted:x?}",
                self.what.name(),
                cpu::id()
            );
        }
    }

    /// Makes memory of vmalloc longer or shorter: what it had it has, and what comes on top is zero (S86).
    pub(super) fn resize(&mut self, bytes: u32) {
        self.check();
        let What::Memory(memory) = &mut self.what else { return };
        let before = memory.len();
        memory.resize(bytes, Fill::Zeroed).expect("memory");
        assert!(memory.len() >= bytes as usize, "{} bytes, not {bytes}", memory.len());
        let kept = before.min(memory.len());
        // Of several CPUs another may have what was given up by now.
        if kept < before && smp::up().count() == 1 {
            let tail = probe::read_u8(guard_of(memory.pages()));
            assert!(tail.is_err(), "what was given up can be read still");
        }
        assert!(memory[kept..].iter().all(|&byte| byte == 0), "not zero from {kept} on");
        self.check_first(kept);
        self.fill();
    }

    /// Maps it anew, if it is a bare area: the same pages, with what they hold (S25, S55).
    pub(super) fn map_anew(&mut self) {
        self.check();
        if let What::Named(memory) = &mut self.what {
            memory.map_anew();
        }
        self.check();
    }

    /// Reads up to `length` bytes from `offset` on by `vread`, and writes them again by `vwrite` (S40 to S42).
    pub(super) fn copy(&mut self, offset: u32, length: u32) {
        let Some(shown) = self.what.shown() else { return };
        let bytes = self.what.bytes();
        let from = offset as usize % bytes.len();
        let part = from..(from + length as usize).min(bytes.len());
        let at = address_of(&bytes[part.clone()]);
        let name = self.what.name();
        let mut seen = alloc::vec![0xee; part.len()];
        assert_eq!(named::read(at, &mut seen), part.len(), "{part:?} of {name}");
        match shown {
            Shown::Contents => assert!(seen == bytes[part.clone()], "vread of {part:?} of {name}"),
            Shown::Zeros => {
                assert!(seen.iter().all(|&byte| byte == 0), "vread of {part:?} of {name}");
            }
        }
        if let (Shown::Contents, Some(bytes)) = (&shown, self.what.bytes_mut()) {
            bytes[part.clone()].fill(0);
        } else {
            // It goes nowhere.
            seen.fill(0xee);
        }
        assert_eq!(named::write(&seen, at), part.len(), "{part:?} of {name}");
        self.check();
    }
}

fn address_of(bytes: &[u8]) -> VirtAddr {
    VirtAddr::new(u32::try_from(bytes.as_ptr().expose_provenance()).expect("32 bits"))
}

fn identification(registers: &IoMem<Id>) -> u32 {
    probe::read_u32(registers.address()).unwrap_or_else(|fault| panic!("{fault}"))
}
