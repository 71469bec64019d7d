//! Requests that are waited for by other means than looking all the time.

use virtio_drivers::Result;
use virtio_drivers::device::blk::{BlkReq, BlkResp, VirtIOBlk};
use virtio_drivers::transport::Transport;

use crate::CoherentHal;

/// Reads `buffer`, whole sectors, from sector `first` on. `wait` is called with the question whether the device is done, and
/// returns when that may be so; it is called again if it is not. The first time nobody has asked before: who waits for an
/// interrupt takes the one that belongs to this request.
///
/// # Errors
/// What the device says, or that the queue is full.
pub fn read_blocks<T: Transport>(
    disk: &mut VirtIOBlk<CoherentHal, T>,
    first: usize,
    buffer: &mut [u8],
    mut wait: impl FnMut(&mut dyn FnMut() -> bool),
) -> Result<()> {
    let (mut request, mut response) = (BlkReq::default(), BlkResp::default());
    // SAFETY: the request, the buffer and the response are borrowed or owned by this call, which does not return before the
    // device is done with them, and nobody else uses them meanwhile.
    let token = unsafe { disk.read_blocks_nb(first, &mut request, buffer, &mut response)? };
    loop {
        wait(&mut || disk.peek_used() == Some(token));
        if disk.peek_used() == Some(token) {
            break;
        }
    }
    // SAFETY: the same that were given to the request of this token.
    unsafe { disk.complete_read_blocks(token, &request, buffer, &mut response) }
}

/// Writes `buffer`, whole sectors, from sector `first` on. `wait` is as for [`read_blocks`].
///
/// # Errors
/// What the device says, or that the queue is full.
pub fn write_blocks<T: Transport>(
    disk: &mut VirtIOBlk<CoherentHal, T>,
    first: usize,
    buffer: &[u8],
    mut wait: impl FnMut(&mut dyn FnMut() -> bool),
) -> Result<()> {
    let (mut request, mut response) = (BlkReq::default(), BlkResp::default());
    // SAFETY: the request, the buffer and the response are borrowed or owned by this call, which does not return before the
    // device is done with them, and nobody writes to them meanwhile.
    let token = unsafe { disk.write_blocks_nb(first, &mut request, buffer, &mut response)? };
    while disk.peek_used() != Some(token) {
        wait(&mut || disk.peek_used() == Some(token));
    }
    // SAFETY: the same that were given to the request of this token.
    unsafe { disk.complete_write_blocks(token, &request, buffer, &mut response) }
}
