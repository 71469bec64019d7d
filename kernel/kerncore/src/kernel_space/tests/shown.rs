//! The count of the windows that show an area (S46).

use super::*;
use crate::frames::FrameRequest;
use crate::kernel_space::users::Shared;
use crate::kernel_space::{ChangeError, ShareError};

/// One window more would look like an area whose mapping is away.
#[test]
fn windows_are_refused_before_their_count_means_something_else_s46() {
    let space = space();
    let made = space.vmalloc_user_of(PAGE_SIZE, FrameRequest::ANY, VirtAddr::new(0));
    let base = made.expect("memory").pages.start();
    let set = |users| {
        space.areas.with(|areas| areas.find_mut(base).expect("live").users = users);
    };
    let most = AreaRecord::BUSY - 1;
    set(most - 1);
    assert_eq!(space.pin(base, Shared::Vmalloc, (0, 1)), Ok(()));
    let refused = Err(ShareError::TooMany { address: base });
    assert_eq!(space.pin(base, Shared::Vmalloc, (0, 1)), refused);
    let changed = space.take(base, |_| true).map(drop);
    assert_eq!(changed, Err(ChangeError::InUse { address: base, users: most }));
    assert_eq!(space.windows_shown(), u32::from(most));
    set(1);
    space.unpin(base);
    assert_eq!(space.vfree((), base), Ok(()));
}
