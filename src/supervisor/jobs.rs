//! How many tokens of the jobserver there shall be: pure, so that the sums can be tested without a fifo.
//!
//! A pool has so many slots. Each task that a worker runs has one of them by itself, as make's jobserver has it; the
//! others are tokens, which lie in the fifo or are held by the jobs that took them. Deliberately absent: the fifo.

/// The account of the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokens {
    slots: u32,
    /// Those that were put in and not taken out again by us: in the fifo, held by a job, or lost with one.
    given: u32,
}

/// What is to be done with the fifo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Put so many in.
    Put(u32),
    /// Take so many out, or as many of them as there are; the rest is owed, and taken as jobs give it back.
    Take(u32),
    /// All is as it shall be.
    Rest,
}

impl Tokens {
    /// None are there yet.
    pub fn new(slots: u32) -> Self {
        Self { slots, given: 0 }
    }

    /// Follows a changed configuration.
    pub fn set_slots(&mut self, slots: u32) {
        self.slots = slots;
    }

    /// What to do while so many workers have a task, or are about to.
    pub fn step(&self, busy: u32) -> Step {
        let wanted = self.slots.saturating_sub(busy);
        match wanted.cmp(&self.given) {
            std::cmp::Ordering::Greater => Step::Put(wanted - self.given),
            std::cmp::Ordering::Less => Step::Take(self.given - wanted),
            std::cmp::Ordering::Equal => Step::Rest,
        }
    }

    /// So many were put in.
    pub fn put(&mut self, count: u32) {
        self.given += count;
    }

    /// So many were taken out.
    pub fn took(&mut self, count: u32) {
        self.given = self.given.saturating_sub(count);
    }

    /// Nobody holds any, and none are in the fifo: what was lost is forgotten.
    pub fn forget_all(&mut self) {
        self.given = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_token_for_each_slot_without_a_busy_worker() {
        let mut tokens = Tokens::new(4);
        assert_eq!(tokens.step(1), Step::Put(3));
        tokens.put(3);
        assert_eq!(tokens.step(1), Step::Rest);
        assert_eq!(tokens.step(3), Step::Take(2));
        tokens.took(2);
        assert_eq!(tokens.step(0), Step::Put(3));
    }

    #[test]
    fn what_jobs_hold_is_owed_until_they_give_it_back() {
        let mut tokens = Tokens::new(4);
        tokens.put(3);
        // All three are held, so nothing is found.
        assert_eq!(tokens.step(2), Step::Take(1));
        tokens.took(0);
        assert_eq!(tokens.step(2), Step::Take(1));
        tokens.took(1);
        assert_eq!(tokens.step(2), Step::Rest);
        // It is not owed any more if the worker is free again before.
        tokens.put(1);
        assert_eq!(tokens.step(1), Step::Rest);
    }

    #[test]
    fn more_workers_than_slots_leave_no_tokens_and_no_debt() {
        let mut tokens = Tokens::new(2);
        assert_eq!(tokens.step(7), Step::Rest);
        tokens.put(1);
        assert_eq!(tokens.step(7), Step::Take(1));
    }

    #[test]
    fn lost_tokens_are_made_good_when_nobody_can_hold_one() {
        let mut tokens = Tokens::new(4);
        tokens.put(3);
        tokens.forget_all();
        assert_eq!(tokens.step(1), Step::Put(3));
    }

    #[test]
    fn a_changed_number_of_slots_counts_from_the_next_step() {
        let mut tokens = Tokens::new(4);
        tokens.put(4);
        tokens.set_slots(2);
        assert_eq!(tokens.step(0), Step::Take(2));
        tokens.set_slots(8);
        assert_eq!(tokens.step(0), Step::Put(4));
    }
}
