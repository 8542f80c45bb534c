//! Which values there are, and how often: exactly while they are few, estimated when they are many.
//!
//! How many are distinct is estimated by HyperLogLog (standard error 0.8 %), which are the most frequent by Space-Saving: what
//! it counts is too much by at most what it says. Values are known by 64 bits of a sum of theirs; shown is as
//! much of them as a report should hold.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hasher};

/// As many values as are told apart exactly.
const EXACT: usize = 10_000;
/// As many as are watched when there are more.
const WATCHED: usize = 1000;
/// How much of a value is shown, in bytes.
const SHOWN: usize = 200;
/// 2 to the power of this many registers.
const BITS: u32 = 14;

/// The values of one column.
#[derive(Debug, Clone)]
pub(super) struct Values {
    /// By their sums: what is shown, how often it was there, and by how much that may be too much.
    counts: HashMap<u64, Count>,
    beyond: Option<Box<Beyond>>,
}

#[derive(Debug, Clone)]
struct Count {
    shown: String,
    count: u64,
    over: u64,
}

#[derive(Debug, Clone)]
struct Beyond {
    registers: Vec<u8>,
    /// The watched ones by how often they were there.
    order: BTreeSet<(u64, u64)>,
}

/// A frequent value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frequent {
    pub(super) value: String,
    pub(super) count: u64,
    /// By how much the count may be too much.
    pub(super) over: u64,
}

impl Values {
    pub(super) fn new() -> Self {
        Self { counts: HashMap::new(), beyond: None }
    }

    pub(super) fn is_exact(&self) -> bool {
        self.beyond.is_none()
    }

    pub(super) fn add(&mut self, text: &str) {
        let sum = sum_of(text);
        if let Some(beyond) = &mut self.beyond {
            beyond.register(sum);
            beyond.watch(&mut self.counts, sum, text);
            return;
        }
        match self.counts.get_mut(&sum) {
            Some(count) => count.count += 1,
            None => {
                self.counts.insert(sum, Count { shown: shown(text), count: 1, over: 0 });
                if self.counts.len() > EXACT {
                    self.estimate();
                }
            }
        }
    }

    /// Goes over to estimates, which know of everything so far.
    fn estimate(&mut self) {
        let mut beyond = Beyond { registers: vec![0; 1 << BITS], order: BTreeSet::new() };
        self.counts.keys().for_each(|sum| beyond.register(*sum));
        let mut frequent: Vec<(u64, u64)> = self.counts.iter().map(|(sum, count)| (count.count, *sum)).collect();
        frequent.sort_unstable();
        let kept = frequent.split_off(frequent.len().saturating_sub(WATCHED));
        frequent.iter().for_each(|(_, sum)| drop(self.counts.remove(sum)));
        self.counts.shrink_to_fit();
        beyond.order.extend(kept);
        self.beyond = Some(Box::new(beyond));
    }

    /// How many there are.
    pub(super) fn distinct(&self) -> u64 {
        self.beyond.as_ref().map_or(self.counts.len() as u64, |beyond| beyond.distinct())
    }

    /// The most frequent ones, at most so many; of estimated ones those that are more than chance.
    pub(super) fn top(&self, most: usize) -> Vec<Frequent> {
        let sure = |count: &&Count| count.over * 2 <= count.count;
        let mut all: Vec<&Count> = self.counts.values().filter(sure).collect();
        all.sort_unstable_by(|one, two| two.count.cmp(&one.count).then_with(|| one.shown.cmp(&two.shown)));
        all.truncate(most);
        all.into_iter()
            .map(|count| Frequent { value: count.shown.clone(), count: count.count, over: count.over })
            .collect()
    }
}

impl Beyond {
    fn register(&mut self, sum: u64) {
        let register = (sum >> (64 - BITS)) as usize;
        let rank = ((sum << BITS) | (1 << (BITS - 1))).leading_zeros() as u8 + 1;
        self.registers[register] = self.registers[register].max(rank);
    }

    fn watch(&mut self, counts: &mut HashMap<u64, Count>, sum: u64, text: &str) {
        if let Some(count) = counts.get_mut(&sum) {
            self.order.remove(&(count.count, sum));
            count.count += 1;
            self.order.insert((count.count, sum));
            return;
        }
        // The rarest one gives up its place, and what it was counted.
        let Some((least, rarest)) = self.order.pop_first() else { return };
        counts.remove(&rarest);
        counts.insert(sum, Count { shown: shown(text), count: least + 1, over: least });
        self.order.insert((least + 1, sum));
    }

    /// As Flajolet and others have it, with linear counting where it is better.
    fn distinct(&self) -> u64 {
        let count = self.registers.len() as f64;
        let sum: f64 = self.registers.iter().map(|rank| 2f64.powi(-i32::from(*rank))).sum();
        let estimate = 0.7213 / (1.0 + 1.079 / count) * count * count / sum;
        let empty = self.registers.iter().filter(|rank| **rank == 0).count();
        let linear = estimate <= 2.5 * count && empty > 0;
        (if linear { count * (count / empty as f64).ln() } else { estimate }).round() as u64
    }
}

/// SipHash with keys that are always the same.
fn sum_of(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

fn shown(text: &str) -> String {
    if text.len() <= SHOWN {
        return text.to_owned();
    }
    let end = (0..=SHOWN).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}...", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_values_are_counted() {
        let mut values = Values::new();
        (0..EXACT).for_each(|number| values.add(&number.to_string()));
        (0..3).for_each(|_| values.add("17"));
        assert!(values.is_exact());
        assert_eq!(values.distinct(), EXACT as u64);
        let top = values.top(2);
        assert_eq!(top[0], Frequent { value: "17".to_owned(), count: 4, over: 0 });
        assert_eq!(top[1].value, "0");
    }

    #[test]
    fn many_values_are_estimated() {
        for count in [20_000u64, 300_000] {
            let mut values = Values::new();
            for number in 0..count {
                values.add(&format!("value {number}"));
                if number % 10 == 0 {
                    values.add("often");
                }
                if number % 25 == 0 {
                    values.add("less often");
                }
            }
            assert!(!values.is_exact());
            let off = values.distinct() as f64 / (count + 2) as f64 - 1.0;
            assert!(off.abs() < 0.03, "{count}: {off}");
            let top = values.top(10);
            assert_eq!(top.iter().map(|top| top.value.as_str()).take(2).collect::<Vec<_>>(), ["often", "less often"]);
            assert!(top[0].count >= count / 10 && top[0].count - top[0].over <= count / 10, "{top:?}");
        }
    }
}
