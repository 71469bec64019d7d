//! Disks of any content, and what they hash to.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// A disk image that was made for a test.
#[derive(Debug)]
pub(crate) struct Disk {
    /// The file.
    pub(crate) path: PathBuf,
    /// Its SHA-256, in hexadecimal digits.
    pub(crate) sha256: String,
}

impl Disk {
    /// Writes `size` random bytes, always the same for the same `seed`, to `path`.
    pub(crate) fn random(path: &Path, size: usize, seed: u64) -> Result<Self, String> {
        let content = random_bytes(size, seed);
        fs::write(path, &content).map_err(|error| format!("{}: {error}", path.display()))?;
        let sha256 = hexadecimal(&Sha256::digest(&content));
        Ok(Self { path: path.into(), sha256 })
    }
}

/// Two digits a byte.
fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The output of `SplitMix64` (Steele, Lea and Flood, 2014).
pub(crate) fn random_bytes(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_published_one() {
        // The first outputs for seed 1234567, as the authors' C program prints them.
        let expected: Vec<u8> = [6_457_827_717_110_365_317_u64, 3_203_168_211_198_807_973]
            .into_iter()
            .flat_map(u64::to_le_bytes)
            .collect();
        assert_eq!(random_bytes(16, 1_234_567), expected);
    }

    #[test]
    fn digests_are_written_as_sha256sum_writes_them() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hexadecimal(&Sha256::digest([])), empty);
    }

    #[test]
    fn a_size_that_is_no_multiple_of_a_word_is_exact() {
        assert_eq!(random_bytes(13, 1), random_bytes(16, 1)[..13]);
    }
}
