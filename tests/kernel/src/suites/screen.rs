//! Pictures on the LCD controller's screen: what was drawn is what the emulator shows, pixel by pixel, says the host, which has drawn
//! the same (crate `picture`, and `tests/host/src/witness/screen.rs`).

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use board::vexpress_a9::{LCD, TIMER_01, UARTS, VRAM};
use dma::device::Device;
use dma::write_combined::{self, Word, WriteCombined};
use drivers::pl111::{self, Colour, Frame, Registers, Screen, StartError};
use embedded_graphics::pixelcolor::{Bgr565, Bgr888, Rgb565, Rgb888};
use image::start::started;
use kerncore::addr::{DmaAddr, PhysAddr, SECTION_SIZE};
use kerncore::attributes::{Attributes, MemoryType};
use kerncore::dma_mask::DmaMask;
use kerncore::lcd::{Blanking, Mode, PixelFormat, Pulse};
use ktest::ktest;
use mm::io_mem::IoMem;
use mm::io_memory::IoMemory;
use mm::kernel;
use safe_mmio::fields::ReadPureWrite;
use witness::{Picture, ask_screen};

use super::witness::{Books, assert_leads, frame_at, plus, word_at};

static DEVICE: Device = Device::new("a screen test's controller");
static NEAR: Device = Device::new("a screen test's controller that reaches little");

/// Memory that is no RAM, behind what other suites use.
const MEMORY: PhysAddr = PhysAddr::new(VRAM.base.raw() + SECTION_SIZE);
const NARROW: Blanking = Blanking { front_porch: 1, sync: 1, back_porch: 1, pulse: Pulse::High };

/// No power of two, and an odd number of lines.
fn mode(width: u32, height: u32) -> Mode {
    Mode::new((width, height), NARROW, NARROW).expect("the controller can show it")
}

fn registers() -> IoMem<Registers> {
    IoMem::map(LCD.base).expect("addresses")
}

fn memory(mode: Mode, format: PixelFormat) -> WriteCombined {
    WriteCombined::new(&DEVICE, mode.frame_bytes(format)).expect("memory")
}

/// A seed that differs from test to test and from run to run.
fn seed(test: u32) -> u32 {
    let drawn = started().expect("the kernel has started").config.seed.unwrap_or(1);
    u32::try_from(drawn & 0xffff).unwrap_or(1) << 8 | test
}

fn shown<C: Colour, F: Frame>(screen: &Screen<C, F>, seed: u32) -> Picture {
    let (width, height) = (screen.mode().width(), screen.mode().height());
    Picture { width, height, format: C::FORMAT, seed }
}

#[track_caller]
fn assert_shown(picture: Picture) {
    let answer = ask_screen(picture);
    assert!(answer.is_ok(), "{}", answer.expect_err("just seen"));
}

/// Draws the picture of `seed`, and the host sees it.
#[track_caller]
fn assert_shows<C, F: Frame>(screen: &mut Screen<C, F>, seed: u32)
where
    C: Colour + From<Rgb888>,
{
    let Ok(()) = picture::draw(screen, seed);
    screen.flush();
    assert_shown(shown(screen, seed));
}

/// Two pictures on a screen of pixels `C`, the second over the first while that is shown.
#[track_caller]
fn shows_pictures<C>(width: u32, height: u32, first: u32)
where
    C: Colour + From<Rgb888>,
{
    let mode = mode(width, height);
    let memory = memory(mode, C::FORMAT);
    let mut screen = Screen::<C, _>::start(registers(), memory, mode).expect("it is off");
    assert_shows(&mut screen, seed(first));
    assert_shows(&mut screen, seed(first + 1));
}

#[ktest]
fn pictures_of_32_bit_pixels_are_shown_as_drawn() {
    let books = Books::now();
    shows_pictures::<Rgb888>(208, 123, 0);
    shows_pictures::<Bgr888>(176, 99, 2);
    books.assert_unchanged();
}

#[ktest]
fn pictures_of_16_bit_pixels_are_shown_as_drawn() {
    let books = Books::now();
    shows_pictures::<Rgb565>(272, 61, 4);
    shows_pictures::<Bgr565>(16, 301, 6);
    shows_pictures::<Rgb565>(144, 1, 8);
    books.assert_unchanged();
}

/// S99, S100: memory of `dma_alloc_wc`, where the controller's mask reaches, and the controller is told the address on the bus.
#[ktest]
fn the_frame_lies_below_the_mask_and_is_mapped_for_combined_writes_s99_s100() {
    let books = Books::now();
    let mode = mode(224, 131);
    assert_eq!(NEAR.set_mask_and_coherent(DmaMask::ALL), Ok(()));
    let bytes = mode.frame_bytes(PixelFormat::Rgb565);
    let highest = WriteCombined::new(&NEAR, bytes).expect("memory").dma_address();
    let mask = DmaMask::new(u64::from(highest.raw()) - 1);
    assert_eq!(NEAR.set_mask_and_coherent(mask), Ok(()));
    let memory = WriteCombined::new(&NEAR, bytes).expect("there is lower memory");
    assert!(mask.reaches(memory.dma_address(), bytes), "{}", memory.dma_address());
    let address = memory.address();
    let entry = kernel().table().translate(address).expect("mapped");
    assert_eq!(entry.attributes().expect("ours").memory(), MemoryType::NormalNonCacheable);
    let first = frame_at(address).base();
    assert_eq!(memory.dma_address(), DmaAddr::new(first.raw()));
    assert_leads(plus(address, 4), PhysAddr::new(first.raw() + 4));
    let mut screen = Screen::<Rgb565, _>::start(registers(), memory, mode).expect("it is off");
    assert_shows(&mut screen, seed(12));
    drop(screen);
    books.assert_unchanged();
}

/// What is written where a picture was is nobody's picture: the controller was stopped, and shows what it saw last.
#[ktest]
fn a_dropped_screen_reads_no_memory() {
    let mode = mode(240, 55);
    let mut memory = memory(mode, PixelFormat::Xrgb8888);
    let screen = Screen::<Rgb888, _>::start(registers(), &mut memory, mode);
    let mut screen = screen.expect("it is off");
    assert_shows(&mut screen, seed(13));
    let last = shown(&screen, seed(13));
    drop(screen);
    let words = memory.bytes() / 4;
    assert_eq!(memory.store(0, (0..words).map(|word| word ^ 0x0055_aa33)), words as usize);
    write_combined::drain();
    assert_shown(last);
    let again = Screen::<Rgb888, _>::start(registers(), memory, mode);
    assert_shows(&mut again.expect("it is off"), seed(14));
}

/// What the controller is told as the frame's memory goes.
static TOLD: AtomicU32 = AtomicU32::new(u32::MAX);

/// Memory that looks, as it goes, whether anybody scans it.
struct Watched(WriteCombined);

impl Frame for Watched {
    fn dma_address(&self) -> DmaAddr {
        self.0.dma_address()
    }

    fn bytes(&self) -> u32 {
        self.0.bytes()
    }

    fn store<W: Word>(&mut self, offset: u32, words: impl Iterator<Item = W>) {
        Frame::store(&mut self.0, offset, words);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        TOLD.store(control(), Relaxed);
    }
}

/// The controller's control.
fn control() -> u32 {
    let mut registers = IoMem::<[ReadPureWrite<u32>; 7]>::map(LCD.base).expect("addresses");
    registers.registers().get(6).expect("the seventh").read()
}

#[ktest]
fn the_controller_stops_before_its_memory_goes() {
    let books = Books::now();
    let mode = mode(32, 3);
    let watched = Watched(memory(mode, PixelFormat::Rgb565));
    let screen = Screen::<Rgb565, _>::start(registers(), watched, mode).expect("it is off");
    // It is on, the panel has power, pixels have 16 bits with red above.
    assert_eq!(control(), 0x092d);
    assert_eq!(TOLD.load(Relaxed), u32::MAX);
    drop(screen);
    assert_eq!(TOLD.load(Relaxed) & 0x0801, 0, "neither on nor with power");
    books.assert_unchanged();
}

/// S93: the board's video memory, by a mapping as `ioremap_wc` makes it.
#[ktest]
fn video_memory_is_shown_as_well_s93() {
    let books = Books::now();
    let mode = mode(160, 87);
    let bytes = mode.frame_bytes(PixelFormat::Rgb565);
    let memory = IoMemory::map(MEMORY, bytes, MemoryType::NormalNonCacheable).expect("no RAM");
    let entry = kernel().table().translate(memory.address()).expect("mapped");
    assert_eq!(entry.attributes().expect("ours"), Attributes::WRITE_COMBINE);
    let mut screen = Screen::<Rgb565, _>::start(registers(), memory, mode).expect("it is off");
    assert_shows(&mut screen, seed(15));
    drop(screen);
    books.assert_unchanged();
}

#[ktest]
fn what_cannot_be_shown_is_refused_by_name_and_given_back() {
    let books = Books::now();
    let mode = mode(64, 33);
    let bytes = mode.frame_bytes(PixelFormat::Rgb565);
    let short = WriteCombined::new(&DEVICE, bytes - 1).expect("memory");
    let refused =
        Screen::<Rgb565, _>::start(registers(), short, mode).expect_err("a byte is missing");
    assert_eq!(refused, StartError::TooSmall { bytes: bytes - 1, wanted: bytes });
    let odd = PhysAddr::new(MEMORY.raw() + 4);
    let odd = IoMemory::map(odd, bytes, MemoryType::NormalNonCacheable).expect("no RAM");
    let dma = odd.dma_address();
    let refused = Screen::<Rgb565, _>::start(registers(), odd, mode).expect_err("no multiple of 8");
    assert_eq!(refused, StartError::Misaligned { dma });
    // A port is of the same maker, and its part's number differs in its second half; that of a timer in its first.
    for (other, register, found) in [(UARTS[2].base, 1, 0x10), (TIMER_01.base, 0, 0x04)] {
        let other = IoMem::<Registers>::map(other).expect("addresses");
        let memory = memory(mode, PixelFormat::Rgb565);
        let refused = Screen::<Rgb565, _>::start(other, memory, mode).expect_err("no PL111");
        assert_eq!(refused, StartError::NotAPl111 { register, found });
    }
    let first = memory(mode, PixelFormat::Rgb565);
    let mut screen = Screen::<Rgb565, _>::start(registers(), first, mode).expect("it is off");
    let second = memory(mode, PixelFormat::Rgb565);
    let refused = Screen::<Rgb565, _>::start(registers(), second, mode).expect_err("it is on");
    assert!(matches!(refused, StartError::Running { .. }), "{refused}");
    // The first picture is still there.
    assert_shows(&mut screen, seed(16));
    // Who says that nobody looks stops it, whoever has started it.
    pl111::stop(&mut registers());
    let second = memory(mode, PixelFormat::Rgb565);
    let again = Screen::<Rgb565, _>::start(registers(), second, mode).expect("it is off");
    drop(again);
    drop(screen);
    books.assert_unchanged();
}

/// Words are stored whole, where they are aligned, and nothing behind the end.
#[ktest]
fn words_are_stored_where_they_fit() {
    let mut memory = WriteCombined::new(&DEVICE, 12).expect("memory");
    let address = memory.address();
    let words = || [0, 4, 8, 12].map(|offset| word_at(plus(address, offset)));
    assert_eq!(words(), [0; 4]);
    assert_eq!(memory.store(4, [0x1111_1111_u32, 0x2222_2222, 0x3333_3333]), 2);
    assert_eq!(memory.store(2, [0xaaaa_u16]), 1);
    assert_eq!(memory.store(11, [0x77_u8, 0x66]), 1);
    write_combined::drain();
    let expected = [0xaaaa_0000, 0x1111_1111, 0x7722_2222, 0];
    assert_eq!(words(), expected);
    for offset in [1, 2, 3, 12, 16, u32::MAX - 3] {
        assert_eq!(memory.store(offset, [0x5555_5555_u32]), 0, "{offset}");
    }
    assert_eq!((memory.store(5, [0x55_u16]), memory.store(12, [0x55_u8])), (0, 0));
    assert_eq!(words(), expected);
}
