//! What should be on the screen.

use core::fmt;

use kerncore::lcd::PixelFormat;

/// The picture of a seed (crate `picture`), of pixels of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels of a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// The format.
    pub format: PixelFormat,
    /// The seed.
    pub seed: u32,
}

/// The line of a request: `p WIDTH HEIGHT FORMAT SEED`.
impl fmt::Display for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { width, height, format, seed } = self;
        write!(f, "p {width} {height} {format:?} {seed:#x}")
    }
}
