//! The simulation's only source of randomness: xoshiro256++ (Blackman and Vigna, 2018), seeded by
//! splitmix64. The same seed gives the same numbers on every machine, for ever: a failing seed is a
//! bug report.

/// A generator. Cheap to make; parts of a simulation that must not disturb each other get their own
/// through [`Random::fork`].
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// A generator of that seed.
    pub fn new(seed: u64) -> Random {
        let mut state = seed;
        Random { state: std::array::from_fn(|_| splitmix64(&mut state)) }
    }

    /// A generator of its own for one part, independent of how much this one is used afterwards.
    pub fn fork(&mut self, part: u64) -> Random {
        Random::new(self.next() ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// 64 random bits.
    #[allow(clippy::should_implement_trait, reason = "a generator is no iterator: it never ends")]
    pub fn next(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// A number from `from` up to and including `to`. The slight bias of multiply-shift does not matter here.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        let width = u128::from(to.saturating_sub(from)) + 1;
        from + ((u128::from(self.next()) * width) >> 64) as u64
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { self.between(0, bound as u64 - 1) as usize }
    }

    /// True `permille` times in a thousand.
    pub fn chance(&mut self, permille: u32) -> bool {
        self.between(0, 999) < u64::from(permille)
    }

    /// A number from `from` to `to` whose logarithm is even: as often small as large.
    pub fn skewed(&mut self, from: u64, to: u64) -> u64 {
        let (low, high) = (from.max(1), to.max(1));
        let bits = self.between(u64::from(low.ilog2()), u64::from(high.ilog2()));
        let top = (1u64 << bits).saturating_mul(2).saturating_sub(1);
        self.between((1u64 << bits).max(low), top.min(high).max(low)).clamp(from, to)
    }

    /// One of them; `None` of none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }

    /// Random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next() as u8)
    }
}

/// One step of splitmix64: also a good hash of a counter.
pub fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_seed_never_change() {
        let mut state = 1234567;
        // The published test vector of splitmix64.
        assert_eq!(splitmix64(&mut state), 6457827717110365317);
        let mut random = Random::new(1);
        let first: Vec<u64> = (0..3).map(|_| random.next()).collect();
        let mut again = Random::new(1);
        assert_eq!(first, (0..3).map(|_| again.next()).collect::<Vec<_>>());
    }

    #[test]
    fn numbers_stay_in_their_range() {
        let mut random = Random::new(7);
        for _ in 0..10_000 {
            assert!((3..=9).contains(&random.between(3, 9)));
            assert!((10..=5_000).contains(&random.skewed(10, 5_000)));
            assert!(random.below(4) < 4);
        }
        assert_eq!(random.between(0, u64::MAX).leading_zeros() / 64, 0);
    }
}
