//! Memory that a picture can lie in.

use dma::write_combined::{Word, WriteCombined};
use kerncore::addr::DmaAddr;
use mm::io_memory::IoMemory;

/// Memory that the processor writes and the controller reads at any time.
pub trait Frame {
    /// Where the controller sees it.
    fn dma_address(&self) -> DmaAddr;

    /// Its size in bytes.
    fn bytes(&self) -> u32;

    /// Stores as many of `words` as fit at `offset`, in bytes, and behind.
    fn store<W: Word>(&mut self, offset: u32, words: impl Iterator<Item = W>);
}

/// RAM.
impl Frame for WriteCombined {
    fn dma_address(&self) -> DmaAddr {
        self.dma_address()
    }

    fn bytes(&self) -> u32 {
        self.bytes()
    }

    fn store<W: Word>(&mut self, offset: u32, words: impl Iterator<Item = W>) {
        // A screen stores what the picture has room for, and `Screen::start` has asked for the memory of that.
        let _all = self.store(offset, words);
    }
}

/// Video memory, mapped non-cacheable. The controller is on the bus that the processor is on.
impl Frame for IoMemory {
    fn dma_address(&self) -> DmaAddr {
        DmaAddr::new(self.physical().raw())
    }

    fn bytes(&self) -> u32 {
        self.bytes()
    }

    fn store<W: Word>(&mut self, offset: u32, words: impl Iterator<Item = W>) {
        let mut offset = offset;
        for word in words {
            let bytes = word.bytes();
            let _all = self.write(offset, bytes.as_ref());
            offset += W::SIZE;
        }
    }
}

/// Memory that somebody has when nothing is shown any more.
impl<F: Frame> Frame for &mut F {
    fn dma_address(&self) -> DmaAddr {
        (**self).dma_address()
    }

    fn bytes(&self) -> u32 {
        (**self).bytes()
    }

    fn store<W: Word>(&mut self, offset: u32, words: impl Iterator<Item = W>) {
        (**self).store(offset, words);
    }
}
