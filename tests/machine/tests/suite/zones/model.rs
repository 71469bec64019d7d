//! One cell a frame, and every question answered by looking at all of them.

use kerncore::{
    addr::PhysAddr,
    frames::{FrameRequest, MAX_BLOCK, NodeId, Place, ZoneKind},
    zones::Nodes,
};

/// The number of the first frame.
pub(super) const RAM: u32 = 0x6_0000;

/// How memory is divided, in blocks of the largest order, and a few frames more at its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene {
    pub(super) dma: u32,
    pub(super) low: u32,
    pub(super) blocks: u32,
    pub(super) odd: u32,
    pub(super) nodes: Nodes,
}

impl Scene {
    pub(super) const fn len(&self) -> u32 {
        self.blocks * MAX_BLOCK + self.odd
    }

    /// Whether anything was set apart for DMA.
    const fn has_dma(&self) -> bool {
        self.dma != 0 && self.dma < self.low
    }

    /// The node and kind of the frame at `index`.
    pub(super) const fn zone_of(&self, index: u32) -> (u32, ZoneKind) {
        let block = index / MAX_BLOCK;
        let kind = if block < self.dma && self.has_dma() {
            ZoneKind::Dma
        } else if block < self.low {
            ZoneKind::Normal
        } else {
            ZoneKind::High
        };
        let second = matches!(self.nodes, Nodes::Two) && block >= self.len() / 2 / MAX_BLOCK;
        (second as u32, kind)
    }
}

/// What is asked for, said in the test's own words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) kind: ZoneKind,
    pub(super) place: Place,
    /// The index of the last frame that will do.
    pub(super) last: Option<u32>,
}

impl Wish {
    pub(super) const fn request(self) -> FrameRequest {
        let request = FrameRequest::of(self.kind).at(self.place);
        match self.last {
            // The last byte that is reached, and a few that make no frame.
            Some(last) => {
                request.reached_by(PhysAddr::new(((RAM + last) << 12) + 0xfff + last % 3))
            }
            None => request,
        }
    }

    /// The zones that will do, in their order.
    pub(super) fn zones(self, scene: &Scene) -> Vec<(u32, ZoneKind)> {
        let kinds = [ZoneKind::High, ZoneKind::Normal, ZoneKind::Dma];
        let widest = if scene.has_dma() { self.kind } else { self.kind.max(ZoneKind::Normal) };
        let of_node = |node: u32| kinds.map(|kind| (node, kind)).to_vec();
        let order = match self.place {
            Place::Anywhere => kinds.iter().flat_map(|&kind| [(0, kind), (1, kind)]).collect(),
            Place::Only(node) => of_node(node.number()),
            Place::Prefer(node) => {
                [of_node(node.number()), of_node(1 - node.number().min(1))].concat()
            }
        };
        order.into_iter().filter(|&(_, kind)| kind <= widest).collect()
    }

    /// The node, if there is none of that number.
    pub(super) fn stranger(self, scene: &Scene) -> Option<NodeId> {
        match self.place {
            Place::Prefer(node) | Place::Only(node) => {
                (node.number() >= scene.nodes.count()).then_some(node)
            }
            Place::Anywhere => None,
        }
    }
}

/// Which frames are free.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) scene: Scene,
    free: Vec<bool>,
}

impl Model {
    pub(super) fn new(scene: Scene) -> Self {
        Self { scene, free: vec![true; scene.len() as usize] }
    }

    pub(super) fn set(&mut self, index: u32, free: bool) {
        assert_ne!(self.free[index as usize], free, "frame {index} was given or taken back twice");
        self.free[index as usize] = free;
    }

    /// Free frames of `zone` that the wish reaches.
    pub(super) fn supply(&self, wish: Wish, zone: (u32, ZoneKind)) -> u32 {
        let fits = |index: &u32| self.fits(wish, zone, *index);
        u32::try_from((0..self.scene.len()).filter(fits).count()).expect("few frames")
    }

    fn fits(&self, wish: Wish, zone: (u32, ZoneKind), index: u32) -> bool {
        self.free[index as usize]
            && self.scene.zone_of(index) == zone
            && wish.last.is_none_or(|last| index <= last)
    }

    /// Whether `zone` has an aligned run of 2^`order` free frames that the wish reaches.
    pub(super) fn has(&self, wish: Wish, zone: (u32, ZoneKind), order: u32) -> bool {
        let starts = (0..self.scene.len()).step_by(1 << order);
        starts.into_iter().any(|start| {
            let end = start + (1 << order);
            end <= self.scene.len() && (start..end).all(|index| self.fits(wish, zone, index))
        })
    }

    /// The order of the largest run that will do.
    pub(super) fn largest(&self, wish: Wish) -> Option<u32> {
        let zones = wish.zones(&self.scene);
        (0..=10).rev().find(|&order| zones.iter().any(|&zone| self.has(wish, zone, order)))
    }
}
