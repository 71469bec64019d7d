//! What the shipped image shows on the screen: how memory lies, in words and as a bar.
//!
//! ```text
//!   ┌──────────────────────────────────────────┐
//!   │ Mapwright … on vexpress-a9, … of RAM     │
//!   │ the map, the frames                      │ as the monitor prints them
//!   │                                          │
//!   │ ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒█▒▒▒▒▒▒▒│      │    │ all addresses, from 0 on the left
//!   └──────────────────────────────────────────┘
//! ```

use core::fmt::{self, Write};

use board::vexpress_a9::LCD;
use dma::coherent::AllocateError;
use dma::device::Device;
use dma::write_combined::WriteCombined;
use drivers::pl111::{self, Screen, StartError};
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::ascii::FONT_6X10;
use embedded_graphics::pixelcolor::{Rgb888, RgbColor, WebColors};
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::{PrimitiveStyle, Rectangle};
use embedded_graphics::text::{Baseline, Text};
use kerncore::lcd::{Mode, PixelFormat};
use mm::io_mem::{IoMem, IoMemError};
use mm::memory_map::{self, Region};

use crate::start::Started;

static DEVICE: Device = Device::new("pl111");

const MODE: Mode = Mode::SVGA;
/// A character's cell.
const CELL: Size = Size::new(6, 10);
/// The title's height, and the bar's.
const STRIPE: u32 = 16;
/// Where lines of text begin.
const MARGIN: Point = Point::new(2, 2);

/// Why nothing is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanelError {
    /// No memory for the picture.
    Memory(AllocateError),
    /// The controller's registers could not be mapped.
    Registers(IoMemError),
    /// The controller refuses.
    Controller(StartError),
}

impl fmt::Display for PanelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(error) => error.fmt(f),
            Self::Registers(error) => error.fmt(f),
            Self::Controller(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for PanelError {}

/// A picture that is shown for as long as this lives.
#[derive(Debug)]
#[must_use = "dropped, nothing is shown any more"]
pub struct Panel {
    screen: Screen<Rgb888, WriteCombined>,
    /// Where the next character goes.
    next: Point,
}

/// Shows how memory lies at this moment. Where one may sleep.
///
/// # Errors
/// [`PanelError`]; the screen stays dark.
pub fn show(started: &Started) -> Result<Panel, PanelError> {
    let bytes = MODE.frame_bytes(PixelFormat::Xrgb8888);
    let memory = WriteCombined::new(&DEVICE, bytes).map_err(PanelError::Memory)?;
    let mut registers = IoMem::map(LCD.base).map_err(PanelError::Registers)?;
    // Firmware may have left a picture of its own.
    pl111::stop(&mut registers);
    let screen = Screen::start(registers, memory, MODE).map_err(PanelError::Controller)?;
    let mut panel = Panel { screen, next: MARGIN };
    panel.draw(started);
    panel.screen.flush();
    Ok(panel)
}

impl Panel {
    fn draw(&mut self, started: &Started) {
        let width = MODE.width();
        self.fill(
            Rectangle::new(Point::zero(), Size::new(width, STRIPE)),
            Rgb888::CSS_MIDNIGHT_BLUE,
        );
        // What does not fit is not shown; nothing else goes wrong here.
        let _ = writeln!(self, "{}", started.banner());
        self.next.y = STRIPE.cast_signed() + MARGIN.y;
        let _ = monitor::execute("map", self);
        let _ = writeln!(self);
        let _ = monitor::execute("frames", self);
        self.draw_bar();
    }

    /// All addresses, with what is mapped there.
    fn draw_bar(&mut self) {
        let top = MODE.height() - STRIPE;
        let whole =
            Rectangle::new(Point::new(0, top.cast_signed()), Size::new(MODE.width(), STRIPE));
        self.fill(whole, Rgb888::CSS_DARK_SLATE_GRAY);
        memory_map::for_each_line(|line| {
            let pages = line.run.pages();
            let (first, end) = (column(pages.first()), column(pages.end()));
            let at = Point::new(first.cast_signed(), top.cast_signed());
            self.fill(
                Rectangle::new(at, Size::new((end - first).max(1), STRIPE)),
                colour(line.region),
            );
        });
    }

    fn fill(&mut self, area: Rectangle, colour: Rgb888) {
        let Ok(()) = area.into_styled(PrimitiveStyle::with_fill(colour)).draw(&mut self.screen);
    }
}

/// Where a page lies on the bar.
fn column(page: u32) -> u32 {
    // There are 2^20 pages, and no more than 2^10 columns.
    (page * MODE.width()) >> 20
}

const fn colour(region: Region) -> Rgb888 {
    match region {
        Region::Image(_) => Rgb888::CSS_ORANGE,
        Region::Linear => Rgb888::CSS_SEA_GREEN,
        Region::Area(_) => Rgb888::CSS_DEEP_SKY_BLUE,
        Region::Heap => Rgb888::CSS_MEDIUM_ORCHID,
        Region::Static | Region::Temporary => Rgb888::CSS_GOLD,
        Region::NoArea => Rgb888::RED,
    }
}

/// Text, in lines of cells; what does not fit on a line, or above the bar, is left out.
impl Write for Panel {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let style = MonoTextStyle::new(&FONT_6X10, Rgb888::WHITE);
        for part in text.split_inclusive('\n') {
            let line = part.strip_suffix('\n');
            let shown = line.unwrap_or(part);
            let bottom = self.next.y + CELL.height.cast_signed();
            if bottom <= (MODE.height() - STRIPE).cast_signed() {
                let text = Text::with_baseline(shown, self.next, style, Baseline::Top);
                let Ok(end) = text.draw(&mut self.screen);
                self.next.x = end.x;
            }
            if line.is_some() {
                self.next = Point::new(MARGIN.x, bottom);
            }
        }
        Ok(())
    }
}
