//! The serial ports through the mapping layer (S93, S98).

use board::vexpress_a9::{TIMER_01, UART_CLOCK_HZ, UARTS};
use drivers::pl011::{self, PortError, Registers, SerialPort};
use kerncore::area::AreaKind;
use kerncore::attributes::Attributes;
use ktest::{assert_err, ktest};
use mm::io_mem::IoMem;
use mm::kernel;

use super::witness::{Books, assert_absent, assert_leads, each_page, word_at};

#[ktest]
fn every_port_identifies_itself_through_its_mapping_s98() {
    for uart in UARTS {
        let mut registers = IoMem::<Registers>::map(uart.base).expect("addresses");
        assert_leads(registers.address(), uart.base);
        let entry = kernel().table().translate(registers.address()).expect("an entry");
        assert_eq!(entry.attributes(), Ok(Attributes::DEVICE));
        assert_eq!(pl011::identify(&mut registers), Ok(()), "{}", uart.name);
    }
}

/// A timer (SP804) identifies itself as such at the same place.
#[ktest]
fn what_is_no_serial_port_is_told_by_its_identification() {
    let mut registers = IoMem::<Registers>::map(TIMER_01.base).expect("addresses");
    assert_err!(pl011::identify(&mut registers), PortError::NotAPl011 { part: 0x804, .. });
}

#[ktest]
fn dropping_the_registers_gives_the_mapping_back() {
    let books = Books::now();
    let registers = IoMem::<Registers>::map(UARTS[3].base).expect("addresses");
    let area = kernel().find(registers.address()).expect("an area");
    assert_eq!(area.kind, AreaKind::IoRemap);
    let _touched = word_at(registers.address());
    drop(registers);
    each_page(area.pages).for_each(assert_absent);
    books.assert_unchanged();
}

/// Two owners of one port each have a mapping of their own; the end of one is not the end of the other.
#[ktest]
fn two_mappings_of_a_port_live_and_die_apart() {
    let mut first = IoMem::<Registers>::map(UARTS[1].base).expect("addresses");
    let second = IoMem::<Registers>::map(UARTS[1].base).expect("addresses");
    assert_ne!(first.address(), second.address());
    drop(second);
    assert_eq!(pl011::identify(&mut first), Ok(()));
}

#[ktest]
fn a_port_that_cannot_be_set_up_gives_its_mapping_back() {
    let books = Books::now();
    let registers = IoMem::<Registers>::map(UARTS[3].base).expect("addresses");
    // Too slow for 115,200 baud: the divisor would be below one.
    assert_err!(SerialPort::new(registers, UART_CLOCK_HZ / 1000), PortError::Line(_));
    let registers = IoMem::<Registers>::map(TIMER_01.base).expect("addresses");
    assert_err!(SerialPort::new(registers, UART_CLOCK_HZ), PortError::NotAPl011 { .. });
    books.assert_unchanged();
}
