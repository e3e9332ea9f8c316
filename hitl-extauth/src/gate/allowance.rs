//! How often something may be done, for each of those who do it.
//!
//! Owns the counting, and nothing of what is counted. Must never grow beyond a limit, and never give a
//! crowd of made-up names more than it gives one.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// So many at once for each, and one more in a while.
#[derive(Debug)]
pub(crate) struct Allowance {
    at_once: u32,
    one_more: Duration,
    /// Those who are told apart; of a crowd beyond that nothing is known.
    most: usize,
    /// Whose names are hashed, with a key of this process: however long they are, they take no room.
    hashes: RandomState,
    left: Mutex<HashMap<u64, (Instant, u32)>>,
}

impl Allowance {
    /// This many at once, and one more each time this has passed; for so many who are told apart.
    pub(crate) fn new(at_once: u32, one_more: Duration, most: usize) -> Self {
        Self { at_once, one_more, most, hashes: RandomState::new(), left: Mutex::default() }
    }

    /// Takes one, if there is one left.
    pub(crate) fn take(&self, whose: &(impl Hash + ?Sized), now: Instant) -> bool {
        let key = self.hashes.hash_one(whose);
        let mut all = self.all();
        if all.len() >= self.most && !all.contains_key(&key) {
            // Whoever has been quiet has all of it again.
            let quiet = self.one_more * self.at_once;
            all.retain(|_, (since, _)| now.saturating_duration_since(*since) < quiet);
            if all.len() >= self.most {
                return false;
            }
        }
        let (since, left) = self.standing(all.get(&key).copied(), now);
        all.insert(key, (since, left.saturating_sub(1)));
        left > 0
    }

    /// How many are left; none is taken. Whoever is not known has all.
    pub(crate) fn left(&self, whose: &(impl Hash + ?Sized), now: Instant) -> u32 {
        let known = self.all().get(&self.hashes.hash_one(whose)).copied();
        self.standing(known, now).1
    }

    /// Since when one more is counted, and how many are left by now.
    fn standing(&self, known: Option<(Instant, u32)>, now: Instant) -> (Instant, u32) {
        let Some((since, left)) = known else { return (now, self.at_once) };
        let passed = now.saturating_duration_since(since).as_millis();
        let more = passed / self.one_more.as_millis().max(1);
        let more = u32::try_from(more).unwrap_or(self.at_once).min(self.at_once);
        let left = left.saturating_add(more).min(self.at_once);
        let since = if left == self.at_once { now } else { since + self.one_more * more };
        (since, left)
    }

    fn all(&self) -> MutexGuard<'_, HashMap<u64, (Instant, u32)>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_so_many_at_once_and_one_more_in_a_while() {
        let allowance = Allowance::new(50, Duration::from_secs(1), 100);
        let begun = Instant::now();
        let taken = |who, at: Instant| (0..1000).filter(|_| allowance.take(who, at)).count();
        assert_eq!(taken("alice", begun), 50);
        let left = |who, after| allowance.left(who, begun + Duration::from_secs(after));
        assert_eq!((left("alice", 0), left("alice", 1), left("bob", 0)), (0, 1, 50));
        assert_eq!(taken("alice", begun + Duration::from_secs(3)), 3);
        assert_eq!(taken("alice", begun + Duration::from_secs(3)), 0);
        // Nobody takes what is another's.
        assert_eq!(taken("bob", begun + Duration::from_secs(3)), 50);
        assert_eq!(taken("alice", begun + Duration::from_hours(1)), 50);
    }

    #[test]
    fn a_crowd_of_made_up_names_gets_no_more_than_there_is_room_for() {
        let allowance = Allowance::new(50, Duration::from_secs(1), 10_000);
        let begun = Instant::now();
        let crowd = (0..30_000).filter(|number| allowance.take(number, begun)).count();
        assert_eq!(crowd, 10_000);
        // Who is quiet makes room.
        assert!(allowance.take("late", begun + Duration::from_mins(1)));
    }
}
