//! Zones against a cell a frame: which zone serves, what a limit and a node allow, what is said when nothing will do.

use super::model::{Model, RAM, Scene, Wish};
use kerncore::{
    addr::Pfn,
    frames::{
        AllocateError, Frame, FrameBlock, FrameList, FrameOwner, FrameTable, NodeId, Place, Spares,
        ZoneKind, order_for,
    },
    zones::{Division, Nodes, OtherZones, Zones},
};
use machine::HostLocks;
use proptest::{collection::vec, prelude::*, test_runner::TestCaseError};

const OWNER: FrameOwner = FrameOwner::Test;

#[derive(Clone, Copy, Debug)]
enum Step {
    Block(Wish, u32),
    Pages(Wish, u32),
    List(Wish, u32),
    FreeBlock(usize),
    FreeList(usize),
    Drain,
}

fn scenes() -> impl Strategy<Value = Scene> {
    let nodes = prop_oneof![Just(Nodes::One), Just(Nodes::Two)];
    (0..3_u32, 0..5_u32, 2..5_u32, 0..700_u32, nodes).prop_map(|(dma, low, blocks, odd, nodes)| {
        // The end of memory is the one border that need not be a block's.
        Scene { dma, low: low.min(blocks), blocks, odd, nodes }
    })
}

fn wishes() -> impl Strategy<Value = Wish> {
    let node = || prop_oneof![8 => 0..2_u32, 1 => 2..4_u32].prop_map(NodeId::new);
    let places = prop_oneof![
        3 => Just(Place::Anywhere),
        2 => node().prop_map(Place::Prefer),
        2 => node().prop_map(Place::Only),
    ];
    let kinds = prop_oneof![Just(ZoneKind::Dma), Just(ZoneKind::Normal), Just(ZoneKind::High)];
    let lasts = prop_oneof![3 => Just(None), 2 => (0..5000_u32).prop_map(Some)];
    (kinds, places, lasts).prop_map(|(kind, place, last)| Wish { kind, place, last })
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (wishes(), 0..11_u32).prop_map(|(wish, order)| Step::Block(wish, order)),
        4 => (wishes(), 0..1100_u32).prop_map(|(wish, pages)| Step::Pages(wish, pages)),
        6 => (wishes(), prop_oneof![0..40_u32, 0..4000_u32])
            .prop_map(|(wish, pages)| Step::List(wish, pages)),
        4 => any::<usize>().prop_map(Step::FreeBlock),
        4 => any::<usize>().prop_map(Step::FreeList),
        1 => Just(Step::Drain),
    ]
}

/// Zones of everything, and what was taken of them.
struct Walk<'r> {
    zones: Zones<'r, HostLocks>,
    model: Model,
    blocks: Vec<FrameBlock>,
    lists: Vec<FrameList>,
}

const fn index_of(frame: Pfn) -> u32 {
    frame.number() - RAM
}

impl<'r> Walk<'r> {
    fn new(others: &'r OtherZones<'r, HostLocks>, scene: Scene) -> Self {
        let zones = Zones::divided(others, Box::leak(Box::new(Spares::new())));
        let first = Pfn::new(RAM).expect("below 4 GiB");
        zones.add_range(first, scene.len()).expect("nothing was added yet");
        Self { zones, model: Model::new(scene), blocks: Vec::new(), lists: Vec::new() }
    }

    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Block(wish, order) => {
                let taken = self.zones.allocate_from(wish.request(), order, OWNER);
                self.took(wish, 1 << order, order, taken)
            }
            Step::Pages(wish, pages) => {
                let taken = self.zones.allocate_pages_from(wish.request(), pages, OWNER);
                self.took(wish, pages, order_for(pages), taken)
            }
            Step::List(wish, pages) => self.list(wish, pages),
            Step::FreeBlock(which) => {
                if !self.blocks.is_empty() {
                    let block = self.blocks.swap_remove(which % self.blocks.len());
                    let first = index_of(block.first());
                    (first..first + block.pages()).for_each(|index| self.model.set(index, true));
                    prop_assert_eq!(self.zones.free(block), Ok(()));
                }
                Ok(())
            }
            Step::FreeList(which) => {
                if !self.lists.is_empty() {
                    let list = self.lists.swap_remove(which % self.lists.len());
                    let frames = list.frames(self.zones.table());
                    frames.for_each(|frame| self.model.set(index_of(frame), true));
                    prop_assert_eq!(self.zones.free_list(list), Ok(()));
                }
                Ok(())
            }
            Step::Drain => {
                self.zones.drain();
                Ok(())
            }
        }
    }

    fn took(
        &mut self,
        wish: Wish,
        pages: u32,
        order: u32,
        taken: Result<FrameBlock, AllocateError>,
    ) -> Result<(), TestCaseError> {
        let scene = self.model.scene;
        match taken {
            Ok(block) => {
                let first = index_of(block.first());
                prop_assert_eq!(block.pages(), pages);
                prop_assert!(first.is_multiple_of(1 << order), "{:?} of order {}", block, order);
                // The first zone that has such a run, and no other.
                let zones = wish.zones(&scene);
                let served = zones.into_iter().find(|&zone| self.model.has(wish, zone, order));
                prop_assert_eq!(Some(scene.zone_of(first)), served);
                for index in first..first + pages {
                    prop_assert!(
                        wish.last.is_none_or(|last| index <= last),
                        "{} is too high",
                        index
                    );
                    prop_assert_eq!(Some(scene.zone_of(index)), served);
                    self.model.set(index, false);
                }
                self.blocks.push(block);
            }
            Err(error) => {
                let none =
                    wish.zones(&scene).into_iter().all(|zone| !self.model.has(wish, zone, order));
                let refused = pages == 0 || pages > 1024 || wish.stranger(&scene).is_some();
                prop_assert!(none || refused, "{} for {:?}, though there is", error, wish);
                self.refused(wish, pages, error)?;
            }
        }
        Ok(())
    }

    fn list(&mut self, wish: Wish, pages: u32) -> Result<(), TestCaseError> {
        let scene = self.model.scene;
        let zones = wish.zones(&scene);
        let supply: Vec<u32> = zones.iter().map(|&zone| self.model.supply(wish, zone)).collect();
        match self.zones.allocate_list_from(wish.request(), pages, OWNER) {
            Ok(list) => {
                prop_assert_eq!(list.pages(), pages);
                let mut served = vec![0; zones.len()];
                for frame in list.frames(self.zones.table()) {
                    let index = index_of(frame);
                    let zone = zones.iter().position(|&zone| zone == scene.zone_of(index));
                    let reached = wish.last.is_none_or(|last| index <= last);
                    prop_assert!(zone.is_some() && reached, "{} will not do", index);
                    served[zone.unwrap_or(0)] += 1;
                    self.model.set(index, false);
                }
                // Each zone is emptied before the next is asked.
                let mut left = pages;
                for (served, supply) in served.into_iter().zip(supply) {
                    prop_assert_eq!(served, left.min(supply));
                    left -= served;
                }
                self.lists.push(list);
            }
            Err(error) => {
                let enough = pages != 0 && supply.iter().sum::<u32>() >= pages;
                let refused = wish.stranger(&scene).is_some();
                prop_assert!(!enough || refused, "{} for {:?}, though there is", error, wish);
                self.refused(wish, pages, error)?;
            }
        }
        Ok(())
    }

    /// The error says what was wanted and what there was.
    fn refused(&self, wish: Wish, pages: u32, error: AllocateError) -> Result<(), TestCaseError> {
        let scene = &self.model.scene;
        let wanted = match (wish.stranger(scene), error) {
            (Some(node), _) => {
                AllocateError::UnknownNode { node, nodes: scene.nodes.count(), owner: OWNER }
            }
            (None, AllocateError::Exhausted { .. }) => AllocateError::Exhausted {
                pages,
                owner: OWNER,
                free: wish.zones(scene).iter().map(|&zone| self.model.supply(wish, zone)).sum(),
                largest: self.model.largest(wish),
                from: wish.request(),
            },
            (None, _) if pages == 0 => AllocateError::Zero { owner: OWNER },
            (None, _) => AllocateError::TooLarge { pages, owner: OWNER },
        };
        prop_assert_eq!(error, wanted);
        Ok(())
    }

    fn finish(mut self) -> Result<(), TestCaseError> {
        for block in self.blocks.drain(..) {
            prop_assert_eq!(self.zones.free(block), Ok(()));
        }
        for list in self.lists.drain(..) {
            prop_assert_eq!(self.zones.free_list(list), Ok(()));
        }
        self.zones.drain();
        prop_assert_eq!(self.zones.check(), Ok(()));
        prop_assert_eq!(self.zones.free_pages(), self.model.scene.len());
        Ok(())
    }
}

/// S28, S30, S100.
#[test]
fn zones_serve_in_order_within_limit_and_node_as_a_cell_a_frame_says() {
    let histories = (scenes(), vec(steps(), 1..25));
    properties::run::prove(
        "-p machine --test suite",
        "zones::walk::zones_serve_in_order_within_limit_and_node_as_a_cell_a_frame_says",
        60,
        &histories,
        |(scene, steps)| {
            let records: Vec<Frame> = (0..scene.len()).map(|_| Frame::new()).collect();
            let first = Pfn::new(RAM).expect("below 4 GiB");
            let table = FrameTable::new(&records, first).expect("aligned to a block");
            let division = Division {
                dma: scene.dma * 1024,
                low: if scene.low == scene.blocks { u32::MAX } else { scene.low * 1024 },
                nodes: scene.nodes,
            };
            let others = OtherZones::new(table, division);
            let scene =
                if scene.low == scene.blocks { Scene { low: u32::MAX, ..scene } } else { scene };
            let mut walk = Walk::new(&others, scene);
            for step in steps {
                walk.take(step)?;
                prop_assert_eq!(walk.zones.check(), Ok(()));
            }
            walk.finish()
        },
    );
}
