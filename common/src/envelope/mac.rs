//! HMAC-SHA256 (RFC 2104, FIPS 180-4) with a prepared key, over bytes that lie in one piece.
//!
//! As frames are whole when they are signed and checked, this goes straight to SHA-256's compression
//! function: no state to clone, no block to buffer, nothing done twice. It stands beside the `hmac` crate in a test
//! that compares every length up to 300 and many beyond.

use super::keys::Secret;
use sha2::block_api::compress256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes of an HMAC-SHA256 tag.
pub const TAG_BYTES: usize = 32;
/// Bytes that SHA-256 takes at a time.
const BLOCK_BYTES: usize = 64;
/// SHA-256's state before anything was hashed (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// A prepared HMAC-SHA256 key: the two compressions over the padded key are done once.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MacKey {
    inner: [u32; 8],
    outer: [u32; 8],
}

impl MacKey {
    // §key-2
    /// Prepares the key: 32 bytes, zero-padded to HMAC's block of 64.
    pub fn new(secret: &Secret) -> MacKey {
        let prepared = |pad: u8| {
            let mut block = Zeroizing::new([pad; BLOCK_BYTES]);
            for (to, from) in block.iter_mut().zip(secret.bytes()) {
                *to ^= from;
            }
            let mut state = INITIAL;
            compress256(&mut state, std::slice::from_ref(&*block));
            state
        };
        MacKey { inner: prepared(0x36), outer: prepared(0x5c) }
    }

    /// The tag over `bytes`.
    pub fn tag(&self, bytes: &[u8]) -> [u8; TAG_BYTES] {
        let (whole, rest) = bytes.as_chunks::<BLOCK_BYTES>();
        let mut state = self.inner;
        compress256(&mut state, whole);
        // The end of the message: what is left of it, a one bit, zeros, and the count of bits; the key's block
        // was hashed before it. That takes a second block where the first has no room for the count.
        let mut last = [[0; BLOCK_BYTES]; 2];
        if let Some((place, after)) = last.as_flattened_mut().split_at_mut_checked(rest.len()) {
            place.copy_from_slice(rest);
            if let Some(end) = after.first_mut() {
                *end = 0x80;
            }
        }
        let blocks = if rest.len() < BLOCK_BYTES - 8 { 1 } else { 2 };
        let bits = (BLOCK_BYTES + bytes.len()) as u64 * 8;
        if let Some(count) = last.get_mut(blocks - 1).and_then(|block| block.last_chunk_mut()) {
            *count = bits.to_be_bytes();
        }
        compress256(&mut state, last.get(..blocks).unwrap_or_default());

        let mut block = [0; BLOCK_BYTES];
        write_words(&mut block, &state);
        if let Some(end) = block.get_mut(TAG_BYTES) {
            *end = 0x80;
        }
        if let Some(count) = block.last_chunk_mut() {
            *count = ((BLOCK_BYTES + TAG_BYTES) as u64 * 8).to_be_bytes();
        }
        let mut state = self.outer;
        compress256(&mut state, &[block]);
        let mut tag = [0; TAG_BYTES];
        write_words(&mut tag, &state);
        tag
    }

    /// Whether `tag` is that of `bytes`, in constant time.
    pub fn verify(&self, bytes: &[u8], tag: &[u8]) -> bool {
        let Ok(tag) = <&[u8; TAG_BYTES]>::try_from(tag) else { return false };
        let (expected, found) = (self.tag(bytes), tag.as_chunks::<8>().0);
        let words = expected.as_chunks::<8>().0.iter().zip(found);
        let differences =
            words.fold(0, |all, (one, other)| all | (u64::from_ne_bytes(*one) ^ u64::from_ne_bytes(*other)));
        differences.ct_eq(&0).into()
    }
}

fn write_words(bytes: &mut [u8], words: &[u32; 8]) {
    let (places, _) = bytes.as_chunks_mut::<4>();
    for (place, word) in places.iter_mut().zip(words) {
        *place = word.to_be_bytes();
    }
}

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MacKey(…)")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use hmac::{Hmac, KeyInit, Mac};
    use sha2::Sha256;

    #[test]
    fn tags_are_those_of_the_hmac_crate_at_every_length() {
        let noise: Vec<u8> = (0..70_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let mut random = 1u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            random >> 33
        };
        let lengths: Vec<usize> = (0..300).chain((0..200).map(|_| next() as usize % noise.len())).collect();
        for length in lengths {
            let mut secret = [0; 32];
            secret.fill_with(|| next() as u8);
            let bytes = noise.get(next() as usize % 8..).unwrap().get(..length.min(69_000)).unwrap();
            let mut reference = Hmac::<Sha256>::new_from_slice(&secret).unwrap();
            reference.update(bytes);
            let expected: [u8; TAG_BYTES] = reference.finalize().into_bytes().into();
            let key = MacKey::new(&Secret::new(secret));
            assert_eq!(key.tag(bytes), expected, "{length}");
            assert!(key.verify(bytes, &expected));
            for bit in 0..256 {
                let mut other = expected;
                *other.get_mut(bit / 8).unwrap() ^= 1 << (bit % 8);
                assert!(!key.verify(bytes, &other), "{length}, bit {bit}");
                if length > 16 {
                    break;
                }
            }
            assert!(!key.verify(bytes, expected.get(..31).unwrap()) && !key.verify(bytes, &[]));
        }
    }
}
