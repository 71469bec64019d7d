//! How buffers are mapped for devices: `swiotlb=` and `dma_debug=`.

use super::{Config, DEFAULT_BOUNCE, Instead, Limits, Why, settle, size, text};

/// When a buffer that is mapped for a device is copied (S106).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// Where the device cannot have the buffer itself.
    WhereNeeded,
    /// Always.
    Always,
}

/// Whether misuse of streaming mappings is reported (S107).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaChecks {
    /// It is.
    On,
    /// It is not.
    Off,
}

impl<'c> Config<'c> {
    /// Takes in a word that is about streaming mappings, if it is.
    pub(super) fn set_streaming(
        &mut self,
        named: impl Fn(&str) -> bool,
        value: Option<&'c str>,
        limits: &Limits,
    ) -> Option<Result<(), (Why, Instead)>> {
        if named("swiotlb") {
            Some(self.set_bounce(value, limits))
        } else if named("dma_debug") {
            Some(self.set_checks(value))
        } else {
            None
        }
    }

    fn set_checks(&mut self, value: Option<&str>) -> Result<(), (Why, Instead)> {
        self.dma_checks = match text(value)? {
            "on" => DmaChecks::On,
            "off" => DmaChecks::Off,
            _ => return Err((Why::NotOneOf("on, off"), Instead::Ignored)),
        };
        Ok(())
    }

    /// Takes in a size, `force`, or both: instead of what was said before, and not besides. What is unusable in part changes nothing.
    fn set_bounce(&mut self, value: Option<&str>, limits: &Limits) -> Result<(), (Why, Instead)> {
        let (bytes, force) = match value.map(|value| value.split_once(',')) {
            Some(Some((bytes, force))) => (Some(bytes), Some(force)),
            _ if value == Some("force") => (None, value),
            _ => (value, None),
        };
        if force.is_some_and(|word| word != "force") {
            let known = "a size, force, both with a comma";
            return Err((Why::NotOneOf(known), Instead::Ignored));
        }
        let (bytes, copies) = match (bytes, force) {
            (None, Some(_)) => (Ok((DEFAULT_BOUNCE, None)), Copies::Always),
            (_, None) => (size(bytes, limits.bounce), Copies::WhereNeeded),
            (_, Some(_)) => (size(bytes, limits.bounce), Copies::Always),
        };
        settle(bytes, self.bounce, |bytes| (self.bounce, self.copies) = (bytes, copies))
    }
}
