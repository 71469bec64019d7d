//! A picture of a seed: the kernel draws it on its screen, and the host beside it, into an array.
//!
//! What is shared is what is to be seen, and no more: where a pixel lies in memory, how its word holds the colours and what the
//! emulator makes of it each side knows by itself.
//!
//! ```text
//!   ┌─────────────────────────────┐ corners, a pixel each, and edges of a pixel's width: a line too long or short shows here
//!   │ ramps of red, green, blue   │ every value of every channel
//!   │ boxes, circles, triangles,  │ by the seed; many reach out of the picture
//!   │ lines, text                 │
//!   └─────────────────────────────┘
//! ```
#![no_std]
#![forbid(unsafe_code)]

use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::ascii::FONT_6X10;
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::{
    Circle, Line, Polyline, PrimitiveStyle, Rectangle, RoundedRectangle, Triangle,
};
use embedded_graphics::text::Text;

/// How many shapes there are.
const SHAPES: u32 = 40;
/// How far a shape may begin outside.
const MARGIN: i32 = 20;

/// Numbers that look random and are the same each time.
struct Numbers(u32);

impl Numbers {
    const fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    /// From `least` up to, but not including, `end`.
    fn between(&mut self, least: i32, end: i32) -> i32 {
        let count = end.abs_diff(least).max(1);
        least.saturating_add_unsigned(self.next() % count)
    }

    fn colour<C: From<Rgb888>>(&mut self) -> C {
        let [red, green, blue, _] = self.next().to_le_bytes();
        C::from(Rgb888::new(red, green, blue))
    }

    fn point(&mut self, size: Size) -> Point {
        let (width, height) = (size.width.cast_signed(), size.height.cast_signed());
        Point::new(self.between(-MARGIN, width + MARGIN), self.between(-MARGIN, height + MARGIN))
    }
}

/// Draws the picture of `seed` on all of `target`.
///
/// # Errors
/// The target's.
pub fn draw<T>(target: &mut T, seed: u32) -> Result<(), T::Error>
where
    T: DrawTarget + OriginDimensions,
    T::Color: RgbColor + From<Rgb888>,
{
    let size = target.size();
    let mut numbers = Numbers(seed.wrapping_mul(2) | 1);
    target.clear(numbers.colour())?;
    for shape in 0..SHAPES {
        one_shape(target, shape, &mut numbers)?;
    }
    let style = MonoTextStyle::new(&FONT_6X10, T::Color::WHITE);
    for line in 0..3 {
        let at = numbers.point(size);
        Text::new("Mapwright \u{b5} 0123456789 {|}~", at + Point::new(-30, line), style)
            .draw(target)?;
    }
    ramps(target)?;
    edges(target, &mut numbers)
}

/// Every value of each channel, the others dark, and then bright.
fn ramps<T>(target: &mut T) -> Result<(), T::Error>
where
    T: DrawTarget + OriginDimensions,
    T::Color: RgbColor + From<Rgb888>,
{
    // Within the edges. The values of a narrow picture take several lines.
    let width = (target.size().width.cast_signed() - 2).max(1);
    let lines = 256_i32.div_euclid(width) + 1;
    for value in 0..=255_u8 {
        let (column, line) = (1 + i32::from(value) % width, 1 + i32::from(value) / width);
        let colours = [
            Rgb888::new(value, 0, 0),
            Rgb888::new(0, value, 0),
            Rgb888::new(0, 0, value),
            Rgb888::new(value, 255, 255),
            Rgb888::new(255, value, 255),
            Rgb888::new(255, 255, value),
        ];
        for (band, colour) in (0..).zip(colours) {
            let at = Point::new(column, lines * band + line);
            Pixel(at, T::Color::from(colour)).draw(target)?;
        }
    }
    Ok(())
}

fn one_shape<T>(target: &mut T, shape: u32, numbers: &mut Numbers) -> Result<(), T::Error>
where
    T: DrawTarget + OriginDimensions,
    T::Color: RgbColor + From<Rgb888>,
{
    let size = target.size();
    let (from, to, third) = (numbers.point(size), numbers.point(size), numbers.point(size));
    let extent = Size::new(1 + numbers.next() % 40, 1 + numbers.next() % 40);
    let fill = PrimitiveStyle::with_fill(numbers.colour());
    let stroke = PrimitiveStyle::with_stroke(numbers.colour(), 1 + numbers.next() % 3);
    match shape % 7 {
        0 => Rectangle::new(from, extent).into_styled(fill).draw(target),
        1 => Circle::new(from, extent.width).into_styled(fill).draw(target),
        2 => Triangle::new(from, to, third).into_styled(stroke).draw(target),
        3 => Line::new(from, to).into_styled(stroke).draw(target),
        4 => {
            let corner = Size::new(extent.width / 3, extent.height / 3);
            let area = Rectangle::new(from, extent);
            RoundedRectangle::with_equal_corners(area, corner).into_styled(fill).draw(target)
        }
        5 => Polyline::new(&[from, to, third]).into_styled(stroke).draw(target),
        // A run of as many colours as the box has pixels.
        _ => {
            let colours = core::iter::from_fn(|| Some(numbers.colour()));
            let count = (extent.width * extent.height) as usize;
            target.fill_contiguous(&Rectangle::new(from, extent), colours.take(count))
        }
    }
}

fn edges<T>(target: &mut T, numbers: &mut Numbers) -> Result<(), T::Error>
where
    T: DrawTarget + OriginDimensions,
    T::Color: RgbColor + From<Rgb888>,
{
    let Size { width, height } = target.size();
    let (right, bottom) = (width.cast_signed() - 1, height.cast_signed() - 1);
    for (from, to) in [
        (Point::zero(), Point::new(0, bottom)),
        (Point::new(right, 0), Point::new(right, bottom)),
        (Point::zero(), Point::new(right, 0)),
        (Point::new(0, bottom), Point::new(right, bottom)),
    ] {
        let style = PrimitiveStyle::with_stroke(numbers.colour(), 1);
        Line::new(from, to).into_styled(style).draw(target)?;
    }
    for corner in [(0, 0), (right, 0), (0, bottom), (right, bottom)] {
        Pixel(Point::from(corner), numbers.colour()).draw(target)?;
    }
    Ok(())
}
