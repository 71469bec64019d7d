//! What an LCD controller, Arm's PL111 (ARM DDI 0293), is told of a picture: its size, its timings, its pixels.
//!
//! ```text
//!            ◀─back porch─▶◀──────────── width ────────────▶◀─front porch─▶◀─sync─▶
//!   a line   ░░░░░░░░░░░░░░█████████████████████████████████░░░░░░░░░░░░░░░▁▁▁▁▁▁▁▁
//!   a frame  the same downwards, in lines
//!
//!   memory   line 0, line 1, …        no gaps: the controller knows no other distance between lines than their length
//! ```

use core::fmt;

/// The level of a synchronisation pulse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulse {
    /// High.
    High,
    /// Low.
    Low,
}

/// What surrounds the picture in one direction, in pixels or lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blanking {
    /// Between the picture and the pulse.
    pub front_porch: u32,
    /// The pulse.
    pub sync: u32,
    /// Between the pulse and the next picture.
    pub back_porch: u32,
    /// The pulse's level.
    pub pulse: Pulse,
}

/// How the word of a pixel holds its colours, named from the highest bit down; an X are bits that mean nothing.
///
/// Those of five bits a channel, fewer bits or a palette are left out: of the former the emulator shows every second pixel wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelFormat {
    /// 32 bits, red above green above blue.
    Xrgb8888,
    /// 32 bits, blue above green above red.
    Xbgr8888,
    /// 16 bits, red above green above blue.
    Rgb565,
    /// 16 bits, blue above green above red.
    Bgr565,
}

/// A picture that the controller cannot show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeError {
    /// Which number of the mode.
    pub what: &'static str,
    /// What it is.
    pub value: u32,
    /// The least that it may be.
    pub least: u32,
    /// The most.
    pub most: u32,
    /// What it must be a multiple of.
    pub unit: u32,
}

impl fmt::Display for ModeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, value, least, most, unit } = self;
        write!(f, "{what} of {value}: from {least} to {most} can be shown")?;
        if *unit == 1 { Ok(()) } else { write!(f, ", in multiples of {unit}") }
    }
}

impl core::error::Error for ModeError {}

/// A picture that the controller can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    width: u32,
    height: u32,
    horizontal: Blanking,
    vertical: Blanking,
}

const fn blanking(front_porch: u32, sync: u32, back_porch: u32, pulse: Pulse) -> Blanking {
    Blanking { front_porch, sync, back_porch, pulse }
}

impl Mode {
    /// 640 × 480, at 60 Hz with a pixel clock of 25.175 MHz.
    pub const VGA: Self = Self {
        width: 640,
        height: 480,
        horizontal: blanking(16, 96, 48, Pulse::Low),
        vertical: blanking(10, 2, 33, Pulse::Low),
    };

    /// 800 × 600, at 60 Hz with a pixel clock of 40 MHz.
    pub const SVGA: Self = Self {
        width: 800,
        height: 600,
        horizontal: blanking(40, 128, 88, Pulse::High),
        vertical: blanking(1, 4, 23, Pulse::High),
    };

    /// A picture of `width` by `height` pixels, and what surrounds it.
    ///
    /// # Errors
    /// [`ModeError`] for the first number that the registers cannot hold.
    pub fn new(
        (width, height): (u32, u32),
        horizontal: Blanking,
        vertical: Blanking,
    ) -> Result<Self, ModeError> {
        for (what, value, least, most, unit) in [
            ("width", width, 16, 1024, 16),
            ("height", height, 1, 1024, 1),
            ("horizontal front porch", horizontal.front_porch, 1, 256, 1),
            ("horizontal sync", horizontal.sync, 1, 256, 1),
            ("horizontal back porch", horizontal.back_porch, 1, 256, 1),
            ("vertical front porch", vertical.front_porch, 0, 255, 1),
            ("vertical sync", vertical.sync, 1, 64, 1),
            ("vertical back porch", vertical.back_porch, 0, 255, 1),
        ] {
            if value < least || value > most || !value.is_multiple_of(unit) {
                return Err(ModeError { what, value, least, most, unit });
            }
        }
        Ok(Self { width, height, horizontal, vertical })
    }

    /// Pixels of a line.
    pub const fn width(&self) -> u32 {
        self.width
    }

    /// Lines.
    pub const fn height(&self) -> u32 {
        self.height
    }

    /// Bytes of the memory that is scanned.
    pub const fn frame_bytes(&self, format: PixelFormat) -> u32 {
        // At most 4 MiB.
        self.width * self.height * format.bytes()
    }

    /// Where the pixel in column `x` of line `y` lies, in pixels from the start; `None` outside of the picture.
    pub const fn place(&self, x: u32, y: u32) -> Option<u32> {
        if x < self.width && y < self.height { Some(y * self.width + x) } else { None }
    }

    /// The registers `LCDTiming0` to `LCDTiming2` (3.2.1 to 3.2.3), for a thin-film panel and a pixel clock that is not divided.
    pub const fn timings(&self) -> [u32; 3] {
        const UNDIVIDED: u32 = 1 << 26;
        const LINES_LOW: u32 = 1 << 12;
        const FRAMES_LOW: u32 = 1 << 11;
        let (h, v) = (self.horizontal, self.vertical);
        let across = (h.back_porch - 1) << 24
            | (h.front_porch - 1) << 16
            | (h.sync - 1) << 8
            | (self.width / 16 - 1) << 2;
        let down =
            v.back_porch << 24 | v.front_porch << 16 | (v.sync - 1) << 10 | (self.height - 1);
        let lines = if matches!(h.pulse, Pulse::Low) { LINES_LOW } else { 0 };
        let frames = if matches!(v.pulse, Pulse::Low) { FRAMES_LOW } else { 0 };
        [across, down, UNDIVIDED | (self.width - 1) << 16 | lines | frames]
    }
}

impl PixelFormat {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Xrgb8888, Self::Xbgr8888, Self::Rgb565, Self::Bgr565];

    /// Bytes of a pixel.
    pub const fn bytes(self) -> u32 {
        match self {
            Self::Xrgb8888 | Self::Xbgr8888 => 4,
            Self::Rgb565 | Self::Bgr565 => 2,
        }
    }

    /// Its bits of the register `LCDControl` (3.2.7).
    pub const fn control(self) -> u32 {
        // The controller's own order has red at the bottom; what it calls BGR has it at the top.
        const RED_ABOVE: u32 = 1 << 8;
        let (depth, order) = match self {
            Self::Xrgb8888 => (5, RED_ABOVE),
            Self::Xbgr8888 => (5, 0),
            Self::Rgb565 => (6, RED_ABOVE),
            Self::Bgr565 => (6, 0),
        };
        depth << 1 | order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIGH: Blanking = blanking(1, 1, 1, Pulse::High);

    #[test]
    fn vga_has_the_words_of_the_manual_s_formulas() {
        let [across, down, third] = Mode::VGA.timings();
        // 48 - 1, 16 - 1, 96 - 1, 640 / 16 - 1 in bits 2 to 7.
        assert_eq!(across, 0x2f_0f_5f_9c);
        // 33, 10, 2 - 1 in bits 10 to 15, 480 - 1.
        assert_eq!(down, 0x21_0a_05_df);
        // The clock is not divided, 640 clocks a line, both pulses low.
        assert_eq!(third, 0x067f_1800);
    }

    #[test]
    fn svga_is_a_mode_that_could_be_made() {
        let svga = Mode::SVGA;
        assert_eq!(Mode::new((800, 600), svga.horizontal, svga.vertical), Ok(svga));
        assert_eq!(svga.timings(), [0x57_27_7f_c4, 0x17_01_0e_57, 0x071f_0000]);
    }

    #[test]
    fn the_least_and_the_most_fill_their_fields_and_no_others() {
        let small = Mode::new((16, 1), HIGH, blanking(0, 1, 0, Pulse::High)).expect("the least");
        assert_eq!(small.timings(), [0, 0, 0x040f_0000]);
        let (h, v) = (blanking(256, 256, 256, Pulse::Low), blanking(255, 64, 255, Pulse::High));
        let large = Mode::new((1024, 1024), h, v).expect("the most");
        assert_eq!(large.timings(), [0xffff_fffc, 0xffff_ffff, 0x07ff_1000]);
        assert_eq!(large.frame_bytes(PixelFormat::Xrgb8888), 4 << 20);
        assert_eq!(large.frame_bytes(PixelFormat::Rgb565), 2 << 20);
        let frames_low = Mode::new((16, 1), HIGH, blanking(0, 1, 0, Pulse::Low));
        assert_eq!(frames_low.expect("small").timings()[2], 0x040f_0800);
        assert_eq!((large.width(), small.height()), (1024, 1));
    }

    #[test]
    fn what_the_registers_cannot_hold_is_refused_by_name() {
        let with = |change: fn(&mut (u32, u32), &mut Blanking, &mut Blanking)| {
            let (mut size, mut h, mut v) = ((640, 480), Mode::VGA.horizontal, Mode::VGA.vertical);
            change(&mut size, &mut h, &mut v);
            Mode::new(size, h, v).map_err(|error| error.what)
        };
        assert_eq!(with(|_, _, _| ()), Ok(Mode::VGA));
        for wrong in
            [with(|s, _, _| s.0 = 648), with(|s, _, _| s.0 = 0), with(|s, _, _| s.0 = 1040)]
        {
            assert_eq!(wrong, Err("width"));
        }
        assert_eq!(with(|s, _, _| s.1 = 0), Err("height"));
        assert_eq!(with(|s, _, _| s.1 = 1025), Err("height"));
        assert_eq!(with(|_, h, _| h.front_porch = 0), Err("horizontal front porch"));
        assert_eq!(with(|_, h, _| h.sync = 257), Err("horizontal sync"));
        assert_eq!(with(|_, h, _| h.back_porch = 257), Err("horizontal back porch"));
        assert_eq!(with(|_, _, v| v.front_porch = 256), Err("vertical front porch"));
        assert_eq!(with(|_, _, v| v.sync = 65), Err("vertical sync"));
        assert_eq!(with(|_, _, v| v.back_porch = 256), Err("vertical back porch"));
        let error = Mode::new((650, 480), HIGH, HIGH).expect_err("no multiple").to_string();
        assert_eq!(error, "width of 650: from 16 to 1024 can be shown, in multiples of 16");
        let error = Mode::new((640, 0), HIGH, HIGH).expect_err("no line").to_string();
        assert_eq!(error, "height of 0: from 1 to 1024 can be shown");
    }

    #[test]
    fn a_pixel_lies_behind_those_before_it_and_nowhere_outside() {
        assert_eq!(Mode::VGA.place(0, 0), Some(0));
        assert_eq!(Mode::VGA.place(639, 0), Some(639));
        assert_eq!(Mode::VGA.place(0, 1), Some(640));
        assert_eq!(Mode::VGA.place(639, 479), Some(640 * 480 - 1));
        assert_eq!(Mode::VGA.place(640, 0), None);
        assert_eq!(Mode::VGA.place(0, 480), None);
    }

    #[test]
    fn formats_differ_in_their_bits() {
        let controls = PixelFormat::ALL.map(PixelFormat::control);
        assert_eq!(controls, [0x10a, 0x00a, 0x10c, 0x00c]);
        assert_eq!(PixelFormat::ALL.map(PixelFormat::bytes), [4, 4, 2, 2]);
    }
}
