//! Connections of networks that have their share of handshakes already, until one of these ends. Pure.
//!
//! Invariants: of a network, the oldest goes first; networks take turns, so that none waits for another's crowd; who has waited for
//! too long is given up, not served: it has given up itself, or asks again. To find the next one takes no longer with many of them.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    ops::Bound::{Excluded, Unbounded},
    time::Duration,
};
use tokio::time::Instant;

/// Who waits, by network.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    networks: BTreeMap<IpAddr, VecDeque<(Instant, T)>>,
    count: usize,
    /// Whose turn it was last.
    last: Option<IpAddr>,
    count_max: usize,
    wait_max: Duration,
}

impl<T> Waiting<T> {
    /// Nobody. At most `count_max` may wait, each for `wait_max`.
    pub(crate) fn new(count_max: usize, wait_max: Duration) -> Waiting<T> {
        Waiting { networks: BTreeMap::new(), count: 0, last: None, count_max, wait_max }
    }

    /// Adds one, or gives it back: too many wait.
    pub(crate) fn push(&mut self, network: IpAddr, now: Instant, one: T) -> Result<(), T> {
        if self.count >= self.count_max {
            return Err(one);
        }
        self.count += 1;
        self.networks.entry(network).or_default().push_back((now, one));
        Ok(())
    }

    /// The oldest of the network whose turn it is among those that have room. Those before it that waited for too long
    /// are given to `give_up`.
    pub(crate) fn next(
        &mut self,
        now: Instant,
        has_room: impl Fn(IpAddr) -> bool,
        mut give_up: impl FnMut(T),
    ) -> Option<T> {
        loop {
            let network = self.turn(&has_room)?;
            self.last = Some(network);
            let queue = self.networks.get_mut(&network)?;
            let first = queue.pop_front();
            if queue.is_empty() {
                self.networks.remove(&network);
            }
            let (since, one) = first?;
            self.count -= 1;
            if now.duration_since(since) <= self.wait_max {
                return Some(one);
            }
            give_up(one);
        }
    }

    /// The first network after the last one's that has room. Few have none, for each has a large share.
    fn turn(&self, has_room: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let after = self.last.map_or(Unbounded, Excluded);
        let networks = self.networks.range((after, Unbounded)).chain(&self.networks).map(|(network, _)| *network);
        networks.into_iter().find(|network| has_room(*network))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const WAIT_MAX: Duration = Duration::from_secs(7);

    fn network(number: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, number).into()
    }

    /// One that waits for each of these networks and seconds, in order.
    fn waiting(who: &[(u8, u64)]) -> (Waiting<usize>, Instant) {
        let (mut waiting, began) = (Waiting::new(100, WAIT_MAX), Instant::now());
        for (number, (of, second)) in who.iter().enumerate() {
            assert_eq!(waiting.push(network(*of), began + Duration::from_secs(*second), number), Ok(()));
        }
        (waiting, began)
    }

    fn all(waiting: &mut Waiting<usize>, now: Instant, has_room: impl Fn(IpAddr) -> bool) -> (Vec<usize>, Vec<usize>) {
        let mut given_up = Vec::new();
        let served = std::iter::from_fn(|| waiting.next(now, &has_room, |one| given_up.push(one))).collect();
        (served, given_up)
    }

    #[test]
    fn networks_take_turns_and_of_each_the_oldest_goes_first() {
        let (mut waiting, now) = waiting(&[(1, 0), (1, 0), (1, 0), (2, 0), (3, 0), (3, 0)]);
        assert_eq!(all(&mut waiting, now, |_| true), (vec![0, 3, 4, 1, 5, 2], vec![]));
        assert_eq!((waiting.count, waiting.networks.len()), (0, 0));
    }

    #[test]
    fn a_network_without_room_holds_up_no_other() {
        let (mut waiting, now) = waiting(&[(1, 0), (1, 0), (2, 0), (2, 0)]);
        assert_eq!(all(&mut waiting, now, |of| of == network(2)), (vec![2, 3], vec![]));
        assert_eq!(all(&mut waiting, now, |_| true), (vec![0, 1], vec![]));
    }

    #[test]
    fn who_waited_for_too_long_is_given_up() {
        let (mut waiting, began) = waiting(&[(1, 0), (1, 1), (1, 2), (2, 0)]);
        let now = began + Duration::from_secs(8);
        assert_eq!(all(&mut waiting, now, |_| true), (vec![1, 2], vec![0, 3]));
        assert_eq!((waiting.count, waiting.networks.len()), (0, 0));
    }

    #[test]
    fn no_more_wait_than_may() {
        let (mut waiting, now) = (Waiting::new(2, WAIT_MAX), Instant::now());
        let came: Vec<_> = (0..3).map(|number| waiting.push(network(1), now, number)).collect();
        assert_eq!(came, [Ok(()), Ok(()), Err(2)]);
        assert_eq!(waiting.next(now, |_| true, |_| {}), Some(0));
        assert_eq!(waiting.push(network(2), now, 3), Ok(()));
    }
}
