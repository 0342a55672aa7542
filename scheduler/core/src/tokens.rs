//! Join tokens, as facts say.

use crate::limits::TOKEN_KEPT;
use fleetwire_common::{fb, ids::Principal, time::Time};
use std::collections::BTreeMap;

/// A join token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// What it lets a holder become.
    pub role: fb::Role,
    /// How many keys may redeem it.
    pub uses: u32,
    /// When it was made.
    pub issued_at: Time,
    /// When it ends.
    pub expires_at: Time,
    /// The keys that redeemed it, and as whom.
    pub redeemed: BTreeMap<[u8; 32], Principal>,
}

impl TokenRecord {
    /// Whether it ended so long ago that it goes when the next one is made.
    pub fn is_over(&self, at: Time) -> bool {
        self.expires_at + TOKEN_KEPT <= at
    }
}
