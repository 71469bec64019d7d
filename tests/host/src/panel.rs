//! What the shipped image shows on its screen, read from a screen dump character by character.
//!
//! The glyphs come from the font, each drawn into an array here; a cell of the screen is the character whose glyph it is.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use embedded_graphics::Drawable as _;
use embedded_graphics::geometry::{Point, Size};
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::ascii::FONT_6X10;
use embedded_graphics::pixelcolor::{Rgb888, RgbColor as _};
use embedded_graphics::text::{Baseline, Text};

use crate::context::Context;
use crate::disk::Disk;
use crate::pool::Job;
use crate::qemu::MAPWRIGHT;
use crate::witness::Qmp;
use crate::witness::screen::{Array, Seen, read_ppm};

/// A character's cell.
const CELL: Size = Size::new(6, 10);
/// What is shown, and where text begins: below the title's stripe, above the bar.
const SIZE: (u32, u32) = (800, 600);
const TITLE: (u32, u32) = (2, 2);
const TEXT: (u32, u32) = (2, 18);
const BAR: u32 = 584;

/// One test: a boot.
pub(crate) fn jobs() -> Vec<Job> {
    vec![Job::test("run::the_screen_shows_map_and_frames", |context| {
        let disk = Disk::random(&context.scratch.join("screen.img"), 512, 111)?;
        let (said, dump) = boot(context, &disk.path)?;
        shows(&said, &dump)
    })]
}

/// Boots the shipped image up to its monitor, dumps the screen and ends it: what it said until then, and the dump.
fn boot(context: &Context, disk: &Path) -> Result<(String, Vec<u8>), String> {
    let (socket, dump) = (context.scratch.join("screen.qmp"), context.scratch.join("screen.ppm"));
    let mut running = Command::new("scripts/qemu")
        .arg("--qmp")
        .arg(&socket)
        .args(["--timeout", "120", "--disk"])
        .arg(disk)
        .args([MAPWRIGHT, "--", "screen", "monitor"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("scripts/qemu: {error}"))?;
    let stdin = running.stdin.take().ok_or("no standard input")?;
    let said = listen(&mut running, stdin, || {
        let mut qmp = Qmp::connect(&socket)?;
        qmp.dump_screen(&dump.to_string_lossy())
    });
    let mut complaints = String::new();
    let stderr = running.stderr.take().map(|mut stderr| stderr.read_to_string(&mut complaints));
    let status = running.wait().map_err(|error| error.to_string())?;
    let said = said?;
    if !status.success() || !complaints.is_empty() || stderr.is_none() {
        return Err(format!("{status}; it said:\n{said}\n{complaints}"));
    }
    let dumped = fs::read(&dump).map_err(|error| format!("{}: {error}", dump.display()))?;
    Ok((said, dumped))
}

/// Reads on until the monitor is there, lets `act`, and has it end. All that was said before.
fn listen(
    running: &mut Child,
    mut stdin: ChildStdin,
    act: impl FnOnce() -> Result<(), String>,
) -> Result<String, String> {
    let mut output = BufReader::new(running.stdout.take().ok_or("no standard output")?);
    let mut said = String::new();
    while !said.contains("`exit` ends it.\n") {
        let read = output.read_line(&mut said).map_err(|error| error.to_string())?;
        if read == 0 {
            return Err(format!("no monitor:\n{said}"));
        }
    }
    let acted = act();
    let typed = stdin.write_all(b"exit\n").map_err(|error| error.to_string());
    let ended = output.read_to_string(&mut String::new()).map_err(|error| error.to_string());
    acted.and(typed).and(ended)?;
    Ok(said)
}

/// Whether the dump shows the banner, the image's part of the map and the frames, and the bar.
fn shows(said: &str, dump: &[u8]) -> Result<(), String> {
    let (size, pixels) = read_ppm(dump).ok_or("the screen dump is no PPM")?;
    if size != SIZE {
        return Err(format!("a picture of {size:?}"));
    }
    let glyphs = glyphs();
    let title = text_from(&pixels, &glyphs, TITLE, TEXT.1);
    let banner = said.lines().next().unwrap_or_default();
    if title.lines().next() != Some(banner) || !banner.contains("Mapwright") {
        return Err(format!("the title is {title:?}, and {banner:?} was said"));
    }
    let text = text_from(&pixels, &glyphs, TEXT, BAR);
    // What was mapped when the same was said in words, and stays; and what the screen itself has mapped since.
    let image =
        said.lines().filter(|line| line.contains("  kernel ") || line.ends_with("  static"));
    let wanted: Vec<&str> = image.collect();
    if wanted.len() < 20 {
        return Err(format!("no map was said:\n{said}"));
    }
    if let Some(missing) = wanted.iter().find(|line| !text.lines().any(|shown| shown == **line)) {
        return Err(format!("{missing:?} is not shown:\n{text}"));
    }
    for word in
        [" 1876 KiB", "-> 0x10020000 rw-/--- device", " frames, ", "free blocks of 4 KiB and up:"]
    {
        if !text.contains(word) {
            return Err(format!("{word:?} is not shown:\n{text}"));
        }
    }
    bar(&pixels)
}

/// Programs' half has nothing, the linear map of 512 MiB one colour, the window another at its start, and none at its end.
fn bar(pixels: &[Seen]) -> Result<(), String> {
    let at = |column: u32| pixels[((BAR + 8) * SIZE.0 + column) as usize];
    let (nothing, linear, window, gap) = (at(100), at(450), at(600), at(700));
    if linear == nothing || window == nothing || window == linear || gap != nothing {
        return Err(format!("the bar is {nothing:?}, {linear:?}, {window:?}, {gap:?}"));
    }
    Ok(())
}

/// Whether each pixel of a cell is white.
type Glyph = Vec<bool>;

/// Every character that can be printed, by its glyph.
fn glyphs() -> HashMap<Glyph, char> {
    let style = MonoTextStyle::new(&FONT_6X10, Rgb888::WHITE);
    let draw = |character: char| {
        let count = (CELL.width * CELL.height) as usize;
        let mut array = Array { size: CELL, pixels: vec![Rgb888::BLACK; count] };
        let mut text = [0; 4];
        let text = character.encode_utf8(&mut text);
        let Ok(_) = Text::with_baseline(text, Point::zero(), style, Baseline::Top).draw(&mut array);
        let glyph = array.pixels.iter().map(|&colour| colour == Rgb888::WHITE).collect();
        (glyph, character)
    };
    (' '..='~').map(draw).collect()
}

/// The text in cells from `start`, above the line `end`, without blanks at the ends of lines; what is no character is a `?`.
fn text_from(
    pixels: &[Seen],
    glyphs: &HashMap<Glyph, char>,
    start: (u32, u32),
    end: u32,
) -> String {
    let is_white = |x: u32, y: u32| pixels[(y * SIZE.0 + x) as usize] == [255; 3];
    let cell = |left: u32, top: u32| {
        let rows =
            (top..top + CELL.height).flat_map(|y| (left..left + CELL.width).map(move |x| (x, y)));
        let glyph: Glyph = rows.map(|(x, y)| is_white(x, y)).collect();
        glyphs.get(&glyph).copied().unwrap_or('?')
    };
    let steps = |from: u32, to: u32, step: u32| (from..=to - step).step_by(step as usize);
    let lines = steps(start.1, end, CELL.height).map(|top| {
        let line: String = steps(start.0, SIZE.0, CELL.width).map(|left| cell(left, top)).collect();
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_as_it_was_drawn() {
        let count = (SIZE.0 * SIZE.1) as usize;
        let size = Size::new(SIZE.0, SIZE.1);
        let mut array = Array { size, pixels: vec![Rgb888::new(0, 0, 90); count] };
        let style = MonoTextStyle::new(&FONT_6X10, Rgb888::WHITE);
        let text = "0x80010000-0x8005f000  320 KiB\n ~{|} Il1O0";
        let at = Point::new(2, 18);
        let Ok(_) = Text::with_baseline(text, at, style, Baseline::Top).draw(&mut array);
        let pixels: Vec<Seen> =
            array.pixels.iter().map(|colour| [colour.r(), colour.g(), colour.b()]).collect();
        let read = text_from(&pixels, &glyphs(), TEXT, BAR);
        assert_eq!(read.trim_end(), text);
        assert_eq!(glyphs().len(), 95, "no two look alike");
    }
}
