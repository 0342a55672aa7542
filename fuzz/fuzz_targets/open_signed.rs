//! A hostile key holder: arbitrary bytes with a correct length prefix, key id and tag. Whatever opens
//! is read to its last field without a panic.
#![no_main]

use fleetwire_common::{
    envelope::{
        Opener,
        keys::{Direction, MacKey, Secret, plain_key},
    },
    message::MessageRef,
};
use libfuzzer_sys::fuzz_target;

fn sign(key: &MacKey, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(body.len() + 44);
    frame.extend_from_slice(&((body.len() + 36) as u32).to_le_bytes());
    frame.extend_from_slice(body);
    frame.extend_from_slice(&0u32.to_le_bytes());
    let tag = key.tag(&frame);
    frame.extend_from_slice(&tag);
    frame
}

fuzz_target!(|input: (u8, &[u8])| {
    let key = plain_key(&Secret::new([7; 32]), Direction::ToScheduler);
    let frame = sign(&key, input.1);
    let mut opener = Opener::new(key, 0);
    let stream = u32::from(input.0 % 3);
    let Ok(opened) = opener.open(&frame, stream, 0, u64::MAX) else { return };
    for (_, message) in opened.messages() {
        // Debug reads every field.
        let _ = format!("{message:?}");
        if let MessageRef::StatusUpdate(status) = message {
            assert!(status.metrics().all(|(name, value)| !name.is_empty() && value.is_finite()));
        }
    }
});
