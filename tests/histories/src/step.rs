//! What can happen in a history.

/// Something that happens to the kernel. A `pick` names a live area: the one of that number, counted round and round.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Memory by vmalloc.
    Vmalloc {
        /// How much.
        bytes: u32,
        /// Whether it is to be filled with zeros.
        zeroed: bool,
    },
    /// Memory by `vmalloc_huge`; nothing happens where the window is crowded.
    Huge {
        /// Whole large pages of it.
        large: u32,
        /// Small pages behind them.
        small: u32,
    },
    /// Frames of the history's own that follow each other, by vmap; nothing happens where the window is crowded.
    VmapRun {
        /// The first of them, by number.
        first: u32,
        /// How many; less if there are not so many.
        count: u32,
    },
    /// Frames of the history's own, mapped side by side.
    Vmap {
        /// The first of them, by number.
        first: u32,
        /// How many.
        count: u32,
        /// How far the next one is from the one before: none for the same again.
        stride: u32,
    },
    /// As [`Step::Vmap`], for a short while.
    MapRam {
        /// The first of them, by number.
        first: u32,
        /// How many.
        count: u32,
        /// How far the next one is from the one before.
        stride: u32,
    },
    /// The blocks of short-lived mappings that are idle go.
    CloseIdle,
    /// Registers, which nobody looks into.
    IoRemap {
        /// How far from the first register, in bytes.
        offset: u32,
        /// How much.
        bytes: u32,
    },
    /// Memory for code, which stays writable.
    Code {
        /// How much.
        bytes: u32,
    },
    /// A coherent buffer.
    Coherent {
        /// How much.
        bytes: u32,
    },
    /// The right way to remove an area.
    Remove {
        /// Which.
        pick: u32,
    },
    /// Another word in every page.
    Write {
        /// In which area.
        pick: u32,
        /// By the CPU of that number.
        cpu: usize,
    },
    /// A device writes to a coherent buffer, past the cache.
    DeviceWrite {
        /// In which area; nothing happens if that is no buffer.
        pick: u32,
    },
    /// A wrong way to remove an area, which must be refused.
    WrongFree {
        /// Which.
        pick: u32,
        /// What is wrong.
        how: Mistake,
    },
    /// For a moment hardly a frame is left, and who wants more is refused.
    Famine {
        /// How many.
        left: u32,
    },
    /// Addresses that were reserved, with frames of the history's own mapped there afterwards.
    Bare {
        /// The first of them, by number.
        first: u32,
        /// How many.
        count: u32,
    },
    /// Other frames in the place of those in a bare area.
    Remap {
        /// Which; nothing happens if that is no bare area.
        pick: u32,
        /// The first of them, by number.
        first: u32,
    },
    /// Memory of vmalloc becomes so many pages.
    Resize {
        /// Which; nothing happens if that is no such memory.
        pick: u32,
        /// How many.
        pages: u32,
        /// Whether what is new is to be zeros.
        zeroed: bool,
    },
    /// All areas are read through, or written.
    Copy {
        /// From so many bytes before or behind the window's start.
        from: u32,
        /// How much.
        bytes: u32,
        /// Whether they are written.
        writing: bool,
    },
    /// Nothing, or more than there is, is asked of everybody, and refused.
    Absurd {
        /// How much: nothing, if it is less than 16 MiB.
        bytes: u32,
    },
}

/// What can be wrong with a removal.
#[derive(Clone, Copy, Debug)]
pub enum Mistake {
    /// An address inside the first page.
    Misaligned,
    /// The address of the second page.
    Interior,
    /// The address of the guard.
    Guard,
    /// An address that was given up before.
    Twice,
    /// The call that belongs to another kind of area.
    AnotherKind,
}
