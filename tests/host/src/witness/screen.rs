//! What the emulator's screen shows, pixel by pixel, beside the same picture drawn here.
//!
//! ```text
//!   kernel                                                     host
//!   picture ─▶ Screen ─▶ frame memory ─▶ PL111 ─▶ screen dump ──┐
//!   picture ─▶ an array of colours, each pixel by itself ───────┴─▶ the same?
//! ```
//! The array has no words: how a format holds its channels is said here once more, by how many bits each has, and the rest is the
//! emulator's, which reads the memory.

use std::convert::Infallible;

use embedded_graphics::Pixel;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Size};
use embedded_graphics::pixelcolor::{Bgr565, Bgr888, Rgb565, Rgb888, RgbColor};

use crate::witness::testimony::hex;

/// What a picture that was compared counts as.
pub(crate) const KIND: &str = "picture";

/// A picture that should be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    width: u32,
    height: u32,
    format: String,
    seed: u32,
}

/// Red, green, blue.
pub(crate) type Seen = [u8; 3];

impl Wanted {
    /// Reads `p WIDTH HEIGHT FORMAT SEED`.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let &["p", width, height, format, seed] = words.as_slice() else { return None };
        let size = |word: &str| word.parse().ok().filter(|size| (1..=4096).contains(size));
        Some(Self {
            width: size(width)?,
            height: size(height)?,
            format: format.into(),
            seed: hex(seed)?,
        })
    }

    /// Whether `dump`, a PPM, is that picture.
    pub(crate) fn compare(&self, dump: &[u8]) -> Result<(), String> {
        let (size, shown) = read_ppm(dump).ok_or("the screen dump is no PPM")?;
        if size != (self.width, self.height) {
            let (width, height) = size;
            return Err(format!("{self:?} is shown as one of {width} by {height}"));
        }
        let wanted = self.drawn()?;
        let mut different = wanted.iter().zip(shown).enumerate();
        let mut wrong = different.by_ref().filter(|(_, (wanted, shown))| *wanted != shown);
        let Some((place, (wanted, shown))) = wrong.next() else { return Ok(()) };
        let (line, column) = (place / self.width as usize, place % self.width as usize);
        Err(format!(
            "{self:?}: column {column} of line {line} is {shown:?}, and {wanted:?} was drawn; {} more differ",
            wrong.count()
        ))
    }

    /// The picture as it should be seen.
    fn drawn(&self) -> Result<Vec<Seen>, String> {
        Ok(match self.format.as_str() {
            "Xrgb8888" => self.of::<Rgb888>([8, 8, 8]),
            "Xbgr8888" => self.of::<Bgr888>([8, 8, 8]),
            "Rgb565" => self.of::<Rgb565>([5, 6, 5]),
            "Bgr565" => self.of::<Bgr565>([5, 6, 5]),
            other => return Err(format!("{other} is no format")),
        })
    }

    /// The same in channels of so many bits, which the emulator shows as the highest of eight.
    fn of<C: RgbColor + From<Rgb888>>(&self, bits: [u32; 3]) -> Vec<Seen> {
        let size = Size::new(self.width, self.height);
        let count = (self.width * self.height) as usize;
        let mut array = Array { size, pixels: vec![C::BLACK; count] };
        let Ok(()) = picture::draw(&mut array, self.seed);
        let seen = |colour: &C| {
            let [red, green, blue] = bits;
            [colour.r() << (8 - red), colour.g() << (8 - green), colour.b() << (8 - blue)]
        };
        array.pixels.iter().map(seen).collect()
    }
}

/// Colours, one a pixel.
pub(crate) struct Array<C> {
    pub(crate) size: Size,
    pub(crate) pixels: Vec<C>,
}

impl<C> OriginDimensions for Array<C> {
    fn size(&self) -> Size {
        self.size
    }
}

/// By nothing but single pixels, so that every other way of the kernel's is compared with this.
impl<C: RgbColor> DrawTarget for Array<C> {
    type Color = C;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<C>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(point, colour) in pixels {
            let (Ok(x), Ok(y)) = (u32::try_from(point.x), u32::try_from(point.y)) else { continue };
            if x < self.size.width && y < self.size.height {
                self.pixels[(y * self.size.width + x) as usize] = colour;
            }
        }
        Ok(())
    }
}

/// Size and pixels of a PPM as the emulator writes it: `P6`, width, height and 255 between white space, then three bytes a pixel.
pub(crate) fn read_ppm(file: &[u8]) -> Option<((u32, u32), Vec<Seen>)> {
    let mut rest = file;
    let mut word = || {
        let end = rest.iter().position(u8::is_ascii_whitespace)?;
        let word = std::str::from_utf8(&rest[..end]).ok()?;
        rest = &rest[end + 1..];
        Some(word)
    };
    let (magic, width, height, most) = (word()?, word()?, word()?, word()?);
    let (width, height): (u32, u32) = (width.parse().ok()?, height.parse().ok()?);
    let whole = magic == "P6" && most == "255" && rest.len() == (width * height * 3) as usize;
    let (pixels, _) = rest.as_chunks::<3>();
    whole.then(|| ((width, height), pixels.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(format: &str) -> Wanted {
        Wanted { width: 48, height: 37, format: format.into(), seed: 7 }
    }

    fn ppm(wanted: &Wanted, pixels: &[Seen]) -> Vec<u8> {
        let head = format!("P6\n{} {}\n255\n", wanted.width, wanted.height);
        [head.as_bytes(), pixels.as_flattened()].concat()
    }

    #[test]
    fn a_picture_is_itself_in_every_format_and_one_wrong_bit_is_named() {
        for format in ["Xrgb8888", "Xbgr8888", "Rgb565", "Bgr565"] {
            let wanted = wanted(format);
            let mut pixels = wanted.drawn().expect("a format");
            assert_eq!(wanted.compare(&ppm(&wanted, &pixels)), Ok(()));
            pixels[37 * 48 - 1][2] ^= 8;
            let error = wanted.compare(&ppm(&wanted, &pixels)).expect_err("one pixel is wrong");
            assert!(error.contains("column 47 of line 36"), "{error}");
            assert!(error.ends_with("0 more differ"), "{error}");
        }
        assert!(wanted("Rgb888").drawn().is_err());
    }

    #[test]
    fn a_picture_has_every_value_of_each_channel_and_its_seed() {
        let pixels = wanted("Xrgb8888").drawn().expect("a format");
        let other = Wanted { seed: 8, ..wanted("Xrgb8888") }.drawn().expect("a format");
        assert_ne!(pixels, other);
        for channel in 0..3 {
            let different: std::collections::BTreeSet<u8> =
                pixels.iter().map(|pixel| pixel[channel]).collect();
            assert_eq!(different.len(), 256);
        }
        let swapped = |pixel: &Seen| [pixel[2], pixel[1], pixel[0]];
        assert_ne!(pixels, pixels.iter().map(swapped).collect::<Vec<_>>());
    }

    #[test]
    fn a_dump_of_another_size_or_kind_is_refused() {
        let wanted = wanted("Rgb565");
        let pixels = wanted.drawn().expect("a format");
        let right = ppm(&wanted, &pixels);
        let longer = [right.as_slice(), &[0; 3]].concat();
        for wrong in [&right[..right.len() - 1], &longer, b"P6\n48 37\n", b"", b"P5\n1 1\n255\n000"]
        {
            assert!(wanted.compare(wrong).is_err());
        }
        let flat = Wanted { width: 37, height: 48, ..wanted.clone() };
        let error = wanted.compare(&ppm(&flat, &pixels)).expect_err("another size");
        assert!(error.contains("37 by 48"), "{error}");
    }

    #[test]
    fn a_request_for_a_picture_is_five_words() {
        let read = Wanted::read("p 48 37 Rgb565 0x7");
        assert_eq!(read, Some(wanted("Rgb565")));
        for wrong in [
            "p 48 37 Rgb565",
            "p 48 37 Rgb565 7",
            "p 0 37 Rgb565 0x7",
            "p 9999 37 Rgb565 0x7",
            "q 48 37 Rgb565 0x7",
        ] {
            assert_eq!(Wanted::read(wrong), None, "{wrong}");
        }
    }
}
