//! The console's commands, run into a buffer.

use alloc::string::String;

use ktest::{assert_err, ktest};
use monitor::{COMMANDS, CommandError};

use super::witness::ask_host_of;

fn shown(line: &str) -> String {
    let mut text = String::new();
    monitor::execute(line, &mut text).expect("a command that shows something");
    text
}

#[ktest]
fn every_command_shows_something_and_help_names_them_all() {
    let help = shown("help");
    for command in COMMANDS {
        assert!(!shown(command.name).is_empty(), "{} shows nothing", command.name);
        let listed = help.lines().any(|line| line.starts_with(command.name));
        assert!(listed, "{} is not listed", command.name);
    }
}

#[ktest]
fn what_is_no_command_is_named_and_an_empty_line_does_nothing() {
    let mut text = String::new();
    let unknown = monitor::execute("frobnicate 7", &mut text);
    assert_err!(unknown, CommandError::Unknown { name } if name == "frobnicate");
    let argument = monitor::execute(" map  0x1000 ", &mut text);
    assert_err!(argument, CommandError::Argument { command: "map", argument: "0x1000" });
    assert_eq!(monitor::execute("  ", &mut text), Ok(()));
    assert_eq!(text, "");
}

#[ktest]
fn areas_are_listed_in_order_with_bytes_guard_included_s91() {
    let low = mm::vm_area::VmArea::new(4096).expect("a page");
    let high = mm::vm_area::VmArea::new(3 * 4096).expect("three pages");
    let text = shown("areas");
    let lines: alloc::vec::Vec<&str> = text.lines().collect();
    let place = |area: &mm::vm_area::VmArea| {
        let start = alloc::format!("{:#010x}-", area.address().raw());
        lines.iter().position(|line| line.starts_with(&start)).expect("the area is listed")
    };
    assert!((place(&low) < place(&high)) == (low.address() < high.address()));
    assert!(lines[place(&low)].contains("8192"), "a page and its guard: {}", lines[place(&low)]);
    assert!(lines[place(&high)].contains("vmalloc"), "{}", lines[place(&high)]);
}

#[ktest]
fn the_map_shows_an_area_while_it_lives_and_not_after() {
    let area = mm::vm_area::VmArea::new(4096).expect("a page");
    let start = alloc::format!("{:#010x}-", area.address().raw());
    ask_host_of(area.pages());
    assert!(shown("map").contains(&start));
    drop(area);
    assert!(!shown("map").contains(&start));
}
