//! A screen as `embedded-graphics` draws on it: colours are the pixels' formats, what is outside is cut off.

use core::convert::Infallible;
use core::iter::{once, repeat_n};

use dma::write_combined::Word;
use embedded_graphics::Pixel;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{Dimensions, OriginDimensions, Point, Size};
use embedded_graphics::pixelcolor::{Bgr565, Bgr888, IntoStorage, Rgb565, Rgb888, RgbColor};
use embedded_graphics::primitives::{PointsIter, Rectangle};
use kerncore::lcd::PixelFormat;

use super::{Frame, Screen};

/// A colour that the controller knows.
pub trait Colour: RgbColor {
    /// How a pixel holds it.
    const FORMAT: PixelFormat;

    /// A pixel.
    type Word: Word;

    /// The pixel of this colour.
    fn word(self) -> Self::Word;
}

macro_rules! colours {
    ($($colour:ident $format:ident $word:ident;)*) => {
        $(impl Colour for $colour {
            const FORMAT: PixelFormat = PixelFormat::$format;
            type Word = $word;

            fn word(self) -> $word {
                self.into_storage()
            }
        })*
    };
}

colours! {
    Rgb888 Xrgb8888 u32;
    Bgr888 Xbgr8888 u32;
    Rgb565 Rgb565 u16;
    Bgr565 Bgr565 u16;
}

impl<C: Colour, F: Frame> OriginDimensions for Screen<C, F> {
    fn size(&self) -> Size {
        Size::new(self.mode().width(), self.mode().height())
    }
}

impl<C: Colour, F: Frame> Screen<C, F> {
    /// Stores `pixels` from `start` on, to the end of the line at most; nothing outside.
    fn line(&mut self, start: Point, pixels: impl Iterator<Item = C>) {
        if let (Ok(x), Ok(y)) = (u32::try_from(start.x), u32::try_from(start.y)) {
            self.store(x, y, pixels);
        }
    }
}

impl<C: Colour, F: Frame> DrawTarget for Screen<C, F> {
    type Color = C;
    type Error = Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Infallible>
    where
        I: IntoIterator<Item = Pixel<C>>,
    {
        for Pixel(point, colour) in pixels {
            self.line(point, once(colour));
        }
        Ok(())
    }

    fn fill_contiguous<I>(&mut self, area: &Rectangle, colours: I) -> Result<(), Infallible>
    where
        I: IntoIterator<Item = C>,
    {
        if area.intersection(&self.bounding_box()) != *area {
            let points = area.points().zip(colours);
            return self.draw_iter(points.map(|(point, colour)| Pixel(point, colour)));
        }
        let mut colours = colours.into_iter();
        for y in area.rows() {
            let line = colours.by_ref().take(area.size.width as usize);
            self.line(Point::new(area.top_left.x, y), line);
        }
        Ok(())
    }

    fn fill_solid(&mut self, area: &Rectangle, colour: C) -> Result<(), Infallible> {
        let inside = area.intersection(&self.bounding_box());
        for y in inside.rows() {
            let line = repeat_n(colour, inside.size.width as usize);
            self.line(Point::new(inside.top_left.x, y), line);
        }
        Ok(())
    }
}
