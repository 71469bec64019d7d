//! What is wrong, and must change nothing (S67, S108).

use dma::coherent;
use dma::scatter::ScatterEntry;
use dma::streaming;
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE, VirtAddr, pages_for};
use kerncore::coherent::Sleep;
use kerncore::streaming::Flow;
use linux::streaming_sg::dma_unmap_sg;
use mm::page_alloc::Pages;

use super::World;
use super::held::{What, call_for};
use super::model::DEVICES;
use crate::suites::iommu_lists::Scattered;
use crate::suites::witness::NOBODY;

impl World {
    /// Does something wrong, which is refused, and after which nothing has changed: whoever calls compares.
    pub(super) fn mistake(&mut self) {
        match self.numbers.below(7) {
            0 => self.end_wrongly(),
            1 => self.end_by_another(),
            2 => self.end_what_is_free(),
            3 => self.give_a_list_with_a_hole(),
            4 => self.ask_for_too_much(),
            5 => self.free_by_the_address_of_another(),
            _ => self.end_a_part_of_a_list(),
        }
    }

    /// By another size or another address.
    fn end_wrongly(&mut self) {
        let more = if self.flip() { PAGE_SIZE } else { 0 };
        let Some(index) = self.any_held() else { return };
        let held = &self.held[index];
        let Some(slot) = held.slot.filter(|&slot| self.places[held.device] == Some(slot)) else {
            return;
        };
        let (dma, bytes) = held.segments[0];
        let next = dma + PAGE_SIZE - more;
        let (page, pages) = (next / PAGE_SIZE, pages_for(next % PAGE_SIZE + bytes + more));
        if pages_for(dma % PAGE_SIZE + bytes) > 1 && held.what.is_streamed() {
            // The first page alone, all of which is there.
            let ((), _log) = capture_log(|| {
                // SAFETY: to be refused.
                let ended = unsafe { streaming::unmap(held.call(), DmaAddr::new(dma), 4) };
                assert!(ended.is_err(), "{}", self.when);
            });
        }
        let is_one = |(first, run): (u32, &super::model::Run)| {
            (first, run.frames.len()) == (page, pages as usize)
        };
        if self.side(slot).run_of(page).is_some_and(is_one) {
            return;
        }
        let ((), _log) = capture_log(|| match held.what {
            What::Buffer(buffer, _) => {
                let (device, next) = (&DEVICES[held.device], DmaAddr::new(next));
                // SAFETY: to be refused.
                let freed = unsafe { coherent::free(device, bytes + more, buffer.address, next) };
                assert!(freed.is_err(), "{}", self.when);
            }
            What::Pages(..) | What::List(_) => {
                // SAFETY: to be refused.
                let ended =
                    unsafe { streaming::unmap(held.call(), DmaAddr::new(next), bytes + more) };
                assert!(ended.is_err(), "{}", self.when);
            }
        });
    }

    /// A buffer by the device address of another that has as many pages, of the same mapping.
    fn free_by_the_address_of_another(&self) {
        for held in &self.held {
            let is_there = held.slot.is_some() && held.slot == self.places[held.device];
            let What::Buffer(own, _) = &held.what else { continue };
            for other in self.held.iter().filter(|other| is_there && other.slot == held.slot) {
                let What::Buffer(foreign, _) = &other.what else { continue };
                if own.dma == foreign.dma {
                    continue;
                }
                let ((), _log) = capture_log(|| {
                    let (device, bytes) = (&DEVICES[held.device], other.count());
                    // SAFETY: to be refused.
                    let freed = unsafe { coherent::free(device, bytes, own.address, foreign.dma) };
                    assert!(freed.is_err(), "{}", self.when);
                });
            }
        }
    }

    /// For another device, which is elsewhere.
    fn end_by_another(&mut self) {
        let device = self.any_device();
        let Some(index) = self.any_held() else { return };
        let held = &self.held[index];
        let (dma, bytes) = held.segments[0];
        let (page, pages) = (dma / PAGE_SIZE, pages_for(dma % PAGE_SIZE + bytes));
        match (held.slot, self.places[device]) {
            (Some(own), Some(other)) if own != other => {
                let run = self.side(other).run_of(page);
                if run
                    .is_some_and(|(first, run)| (first, run.frames.len()) == (page, pages as usize))
                {
                    return;
                }
            }
            // On the bus there is no RAM at the addresses of two of the windows.
            (Some(_), None) if dma < 0x6000_0000 => {}
            _ => return,
        }
        let ((), _log) = capture_log(|| {
            let refused = match held.what {
                What::Buffer(buffer, _) => {
                    let (device, dma) = (&DEVICES[device], buffer.dma);
                    // SAFETY: to be refused.
                    unsafe { coherent::free(device, bytes, buffer.address, dma) }.is_err()
                }
                What::Pages(..) | What::List(_) => {
                    let call = call_for(device, held.flow);
                    // SAFETY: to be refused.
                    unsafe { streaming::unmap(call, DmaAddr::new(dma), bytes) }.is_err()
                }
            };
            assert!(refused, "{}", self.when);
        });
    }

    /// At addresses that nobody has.
    fn end_what_is_free(&mut self) {
        let device = self.any_device();
        let Some(slot) = self.places[device] else { return };
        let (base, count) = self.side(slot).window;
        let page = base + self.numbers.below(count + 1);
        if self.side(slot).run_of(page).is_some() {
            return;
        }
        let (call, dma) = (call_for(device, Flow::Bidirectional), DmaAddr::new(page * PAGE_SIZE));
        let ((), _log) = capture_log(|| {
            // SAFETY: to be refused, all three.
            let ended = unsafe { streaming::unmap(call, dma, 64) };
            assert!(ended.is_err(), "{}", self.when);
            // SAFETY: as above.
            let synced = unsafe { streaming::sync_for_cpu(call, dma, 64) };
            assert!(synced.is_err(), "{}", self.when);
            // SAFETY: as above.
            let synced = unsafe { streaming::sync_for_device(call, dma, 64) };
            assert!(synced.is_err(), "{}", self.when);
            let nowhere = VirtAddr::new(0xc000_0000);
            // SAFETY: as above.
            let freed = unsafe { coherent::free(call.device, PAGE_SIZE, nowhere, dma) };
            assert!(freed.is_err(), "{}", self.when);
        });
    }

    /// A piece of which has no bytes, wherever it stands.
    fn give_a_list_with_a_hole(&mut self) {
        let Some(device) = self.taker() else { return };
        let count = 2 + self.numbers.below(12) as usize;
        let mut list = Scattered::new(count, 0, PAGE_SIZE);
        list.list[self.numbers.below(u32::try_from(count).expect("a few")) as usize].length = 0;
        let flow = self.flow();
        let (mapped, _log) = capture_log(|| list.map(&DEVICES[device], flow as u32));
        assert_eq!(mapped, 0, "{}", self.when);
    }

    /// More than the window has.
    fn ask_for_too_much(&mut self) {
        let device = self.any_device();
        let Some(slot) = self.places[device] else { return };
        let pages = self.side(slot).window.1 + 1;
        let sleep = if self.flip() { Sleep::May } else { Sleep::MayNot };
        let bytes = pages * PAGE_SIZE;
        let (made, _log) =
            capture_log(|| coherent::allocate(&DEVICES[device], bytes, sleep, NOBODY));
        assert!(made.is_err(), "{}", self.when);
        let Ok(own) = Pages::exactly(pages) else { return };
        let memory = What::Pages(own, 0);
        let call = call_for(device, Flow::Bidirectional);
        let place = memory.memory().expect("pages");
        // SAFETY: the history's pages; and it is refused.
        let mapped = unsafe { streaming::map(call, place, bytes) };
        assert!(mapped.is_err(), "{}", self.when);
    }

    /// As if it had one piece less than the device was told of.
    fn end_a_part_of_a_list(&mut self) {
        let Some(index) = self.any_held() else { return };
        let when = self.when.clone();
        let held = &mut self.held[index];
        let (device, is_one) = (held.device, held.segments.len() == 1);
        if held.slot.is_none() || held.slot != self.places[device] || !is_one {
            return;
        }
        let What::List(list) = &mut held.what else { return };
        // Of two pieces that happen to adjoin the first could stand for both.
        if list.count() < 3 {
            return;
        }
        let (first, count): (*mut ScatterEntry, _) = (list.list.as_mut_ptr(), list.count() - 1);
        let ((), log) = capture_log(|| {
            // SAFETY: to be refused.
            unsafe { dma_unmap_sg(&raw const DEVICES[device], first, count, held.flow as u32) };
        });
        assert!(
            log.text().contains("were mapped for the device in other pieces"),
            "{when}: {log:?}"
        );
    }
}
