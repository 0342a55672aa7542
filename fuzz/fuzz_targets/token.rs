//! A join token as somebody typed it.
#![no_main]

use fleetwire_common::token::JoinToken;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(token) = JoinToken::from_text(text) {
        assert!(JoinToken::from_text(&token.to_text()).is_ok());
    }
});
