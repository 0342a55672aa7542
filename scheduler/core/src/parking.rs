//! Which classes wait for semaphores: they are parked, and nothing looks at them until they may have what they need.
//!
//! Invariants: a class is parked if its next task cannot have all that it needs at once. Of those that may be served at
//! all, the first keeps from the others what it needs, so that neither more units nor more names make it wait for ever; what fits
//! no agent keeps nothing. Work grows with the classes that need what has changed.

use crate::queue::{ClassId, Queue};
use fleetwire_common::ids::{JobId, Name};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

impl Queue {
    /// Looks again at whoever needs something of what has changed.
    pub fn heed_semaphores(&mut self) {
        while let Some(name) = self.semaphores.take_changed() {
            let mut kept: BTreeMap<Name, u64> = BTreeMap::new();
            for (.., class) in self.linked(name) {
                let Some(found) = self.find(class) else { continue };
                let needs = found.needs();
                let parked = !self.semaphores.have_room(&needs, &kept);
                self.park(class, parked);
                if self.keeps_its_turn(class) {
                    for (name, units) in needs {
                        *kept.entry(name).or_default() += u64::from(units);
                    }
                }
            }
        }
    }

    /// The classes with waiting tasks that need some of a name, or of another that one of these needs; in the order of
    /// their priorities and their first tasks' jobs.
    fn linked(&mut self, name: Name) -> BTreeSet<(Reverse<i16>, JobId, ClassId)> {
        let (mut names, mut seen, mut linked) = (vec![name], BTreeSet::new(), BTreeSet::new());
        while let Some(name) = names.pop() {
            if seen.contains(&name) {
                continue;
            }
            for id in self.semaphores.classes_of(&name) {
                let Some(class) = self.find(id) else { continue };
                let Some(rank) = self.rank(id) else { continue };
                if linked.insert(rank) {
                    names.extend(class.request.semaphores.iter().map(|(name, _)| name.clone()));
                }
            }
            seen.insert(name);
        }
        for name in &seen {
            self.semaphores.note_seen(name);
        }
        linked
    }
}
