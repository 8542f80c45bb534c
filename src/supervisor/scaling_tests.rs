//! Scaling by load: its rules one by one, and a simulation of steps, ramps and square waves that bounds how often it
//! scales and how long it takes to the right size.
//!
//! The simulated load does not depend on the number of workers: so many tasks are there, running or waiting. The clock
//! is a number that the test moves.

use super::*;

/// The defaults, for 2 to 64 workers.
const RULES: Rules = Rules {
    enabled: true,
    min: 2,
    max: 64,
    up_parts: 7_000,
    down_parts: 3_000,
    up_cooldown_ms: 30_000,
    down_cooldown_ms: 60_000,
    idle_timeout_ms: 300_000,
};
/// Milliseconds between two looks, as the supervisor's tick has it.
const TICK_MS: u64 = 500;

/// One change of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    at_ms: u64,
    from: u16,
    to: u16,
}

impl Change {
    fn is_growth(self) -> bool {
        self.to > self.from
    }
}

/// A pool's target under a load.
struct Sim {
    scaler: Scaler,
    target: u16,
    now_ms: u64,
    changes: Vec<Change>,
}

impl Sim {
    fn new(rules: Rules, target: u16) -> Self {
        Self { scaler: Scaler::new(rules, 0), target, now_ms: 0, changes: Vec::new() }
    }

    /// One look.
    fn look(&mut self, demand: usize) -> u16 {
        if let Some(to) = self.scaler.look(self.now_ms, demand, self.target) {
            self.changes.push(Change { at_ms: self.now_ms, from: self.target, to });
            self.target = to;
        }
        self.target
    }

    /// Looks at each tick of so many milliseconds at the load that `demand` gives for the time since the start.
    fn run(&mut self, ms: u64, demand: impl Fn(u64) -> usize) -> &mut Self {
        let end_ms = self.now_ms + ms;
        while self.now_ms < end_ms {
            self.look(demand(self.now_ms));
            self.now_ms += TICK_MS;
        }
        self
    }

    fn growths(&self) -> usize {
        self.changes.iter().filter(|change| change.is_growth()).count()
    }

    /// What holds of any load, by the rules alone.
    #[track_caller]
    fn assert_calm(&self) {
        let rules = self.scaler.rules();
        let in_bounds = |change: &Change| (rules.min..=rules.max).contains(&change.to) && change.from != change.to;
        assert!(self.changes.iter().all(in_bounds), "{:?}", self.changes);
        for pair in self.changes.windows(2) {
            let apart_ms = pair[1].at_ms - pair[0].at_ms;
            match (pair[0].is_growth(), pair[1].is_growth()) {
                (true, true) => assert!(apart_ms >= rules.up_cooldown_ms, "{pair:?}"),
                (_, false) => assert!(apart_ms >= rules.down_cooldown_ms, "{pair:?}"),
                // Nothing holds up a growth after a shrinking: demand is there, and the last growth is long past.
                (false, true) => {}
            }
            // The demand that a growth answered stays in mind for the idle timeout, and forbids to shrink below it.
            if pair[0].is_growth() && !pair[1].is_growth() {
                assert!(apart_ms >= rules.idle_timeout_ms, "{pair:?}");
            }
        }
    }
}

#[test]
fn demand_above_the_upper_threshold_is_answered_at_once_and_in_one_step() {
    let mut sim = Sim::new(RULES, 2);
    assert_eq!(sim.look(1), 2, "half of two is under the threshold");
    // 7 of 10 are exactly at the threshold, which is not above it.
    assert_eq!(sim.look(7), 10);
    assert_eq!(sim.changes, [Change { at_ms: 0, from: 2, to: 10 }]);
}

#[test]
fn growths_keep_their_distance_and_stop_at_the_maximum() {
    let mut sim = Sim::new(RULES, 2);
    sim.look(7);
    for ms in [500, 29_999] {
        sim.now_ms = ms;
        assert_eq!(sim.look(1_000_000), 10, "the cooldown lasts");
    }
    sim.now_ms = 30_000;
    assert_eq!(sim.look(1_000_000), 64);
    sim.now_ms = 90_000;
    assert_eq!(sim.look(1_000_000), 64);
    assert_eq!(sim.changes.len(), 2);
}

#[test]
fn the_pool_shrinks_only_after_the_idle_timeout_and_to_what_its_highest_demand_needed() {
    let mut sim = Sim::new(RULES, 40);
    sim.run(300_000, |ms| if ms % 100_000 == 0 { 9 } else { 1 });
    assert_eq!(sim.changes, [], "the idle timeout is not over");
    sim.run(300_000, |ms| if ms % 100_000 == 0 { 9 } else { 1 });
    // Nine at 0.7 take thirteen: nobody waits when they come again.
    assert_eq!(sim.changes, [Change { at_ms: 300_000, from: 40, to: 13 }]);
    sim.run(301_000, |_| 0);
    assert_eq!(sim.target, 2);
    sim.assert_calm();
}

#[test]
fn a_share_between_the_thresholds_changes_nothing() {
    // Three of ten are not below three tenths, seven of ten not above seven.
    let mut sim = Sim::new(RULES, 10);
    sim.run(3_600_000, |ms| if ms / 10_000 % 2 == 0 { 3 } else { 7 });
    assert_eq!(sim.changes, []);
}

#[test]
fn a_growth_need_not_wait_for_the_cooldown_of_a_shrinking() {
    let mut sim = Sim::new(Rules { down_cooldown_ms: 3_600_000, ..RULES }, 40);
    sim.run(300_500, |_| 0);
    assert_eq!(sim.target, 2, "{:?}", sim.changes);
    assert_eq!(sim.look(64), 64, "half a second later there is work again");
}

#[test]
fn a_growth_after_a_quiet_time_need_not_wait_for_the_cooldown_of_the_last_growth() {
    let mut sim = Sim::new(Rules { up_cooldown_ms: 3_600_000, ..RULES }, 2);
    sim.run(301_000, |ms| if ms == 0 { 44 } else { 0 });
    assert_eq!((sim.target, sim.changes.len()), (2, 2), "{:?}", sim.changes);
    assert_eq!(sim.look(44), 63);
    sim.now_ms += 3_599_000;
    assert_eq!(sim.look(64), 63, "and then the cooldown counts again");
}

#[test]
fn shrinkings_keep_their_distance_from_any_change() {
    let mut sim = Sim::new(Rules { down_cooldown_ms: 500_000, ..RULES }, 2);
    // A growth, and then nothing to do for longer than the idle timeout.
    sim.run(499_500, |ms| if ms == 0 { 44 } else { 5 });
    assert_eq!(sim.changes.len(), 1, "{:?}", sim.changes);
    sim.run(1_000, |_| 5);
    assert_eq!((sim.changes.len(), sim.target), (2, 8), "{:?}", sim.changes);
    sim.run(499_000, |_| 0);
    assert_eq!(sim.target, 8);
    sim.run(1_000, |_| 0);
    assert_eq!(sim.target, 2);
}

#[test]
fn a_target_that_is_held_stays_until_it_is_let_go() {
    let mut sim = Sim::new(RULES, 5);
    sim.scaler.hold();
    sim.run(600_000, |ms| if ms < 300_000 { 60 } else { 0 });
    assert_eq!((sim.target, sim.scaler.mode()), (5, ScalingMode::Manual));
    sim.scaler.let_go();
    assert_eq!(sim.scaler.mode(), ScalingMode::Auto);
    // It has been looking on all the time, so it knows at once.
    sim.run(1_000, |_| 0);
    assert_eq!(sim.target, 2);
}

#[test]
fn scaling_that_is_switched_off_does_nothing_and_forgets_a_hold_when_it_is_switched_on() {
    let off = Rules { enabled: false, ..RULES };
    let mut sim = Sim::new(off, 5);
    sim.scaler.hold();
    sim.run(600_000, |_| 60);
    assert_eq!((sim.target, sim.scaler.mode()), (5, ScalingMode::Off));
    sim.scaler.set_rules(RULES);
    assert_eq!(sim.scaler.mode(), ScalingMode::Auto);
    sim.scaler.hold();
    sim.scaler.set_rules(Rules { max: 63, ..RULES });
    assert_eq!(sim.scaler.mode(), ScalingMode::Manual, "other numbers are no reason to forget one");
}

#[test]
fn time_in_which_nobody_looked_does_not_count_as_idle() {
    let mut sim = Sim::new(RULES, 10);
    sim.run(10_000, |_| 5);
    sim.now_ms += 3_600_000;
    sim.run(299_000, |_| 0);
    assert_eq!(sim.changes, [], "the supervisor was stopped: nobody knows what it missed");
    sim.run(2_000, |_| 0);
    assert_eq!(sim.target, 2);
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut scaler = Scaler::new(RULES, 0);
    // The worst there is: a demand that sinks by one with each look.
    for (ms, demand) in (0..100_000_usize).rev().enumerate() {
        scaler.look(ms as u64, demand, 64);
        assert!(scaler.peaks.len() <= usize::from(RULES.max) + 1);
    }
    // And one that stays.
    for ms in 100_000..102_000 {
        scaler.look(ms, 30, 64);
        assert!(scaler.peaks.len() <= usize::from(RULES.max) + 1);
    }
}

#[test]
fn a_step_is_answered_by_one_growth_and_its_end_by_one_shrinking() {
    for high in [3, 7, 20, 44, 64, 1_000] {
        let mut sim = Sim::new(RULES, 2);
        let (up_ms, down_ms) = (100_000, 900_000);
        sim.run(2_000_000, |ms| if (up_ms..down_ms).contains(&ms) { high } else { 1 });
        let [grown, shrunk] = sim.changes[..] else { panic!("{high}: {:?}", sim.changes) };
        // No growth was before, so nothing but the tick is between the demand and its answer; and the answer is the right
        // size, since a second growth does not follow.
        assert!(grown.at_ms - up_ms < TICK_MS, "{grown:?}");
        assert!(grown.to == RULES.max || high as u64 * PARTS <= u64::from(grown.to) * RULES.up_parts, "{grown:?}");
        // The last high look leaves the memory after the idle timeout, at the tick that follows. The cooldown is over by
        // then. One task that stays needs two workers.
        assert!((RULES.idle_timeout_ms..RULES.idle_timeout_ms + 2 * TICK_MS).contains(&(shrunk.at_ms - down_ms)));
        assert_eq!(shrunk.to, 2);
        sim.assert_calm();
    }
}

#[test]
fn a_ramp_takes_a_growth_for_each_cooldown_at_the_most_and_is_never_further_behind() {
    for ramp_ms in [10_000, 60_000, 600_000, 3_600_000] {
        let demand = |ms: u64| 1 + (ms.min(ramp_ms) * 44 / ramp_ms) as usize;
        let mut sim = Sim::new(RULES, 2);
        while sim.now_ms < ramp_ms + 100_000 {
            let target = sim.look(demand(sim.now_ms));
            // What was wanted a cooldown ago was granted by now: at once, or when the cooldown ended.
            let earlier = demand(sim.now_ms.saturating_sub(RULES.up_cooldown_ms + TICK_MS));
            assert!(target >= RULES.needed(earlier as u16), "{} at {}", target, sim.now_ms);
            sim.now_ms += TICK_MS;
        }
        // The first one at once and then one for each cooldown, those after the end of the ramp included.
        assert!(sim.growths() as u64 <= 2 + ramp_ms / RULES.up_cooldown_ms, "{ramp_ms}: {:?}", sim.changes);
        assert_eq!((sim.target, sim.changes.len()), (RULES.needed(45), sim.growths()));
        sim.assert_calm();
    }
}

#[test]
fn a_ramp_down_is_followed_at_the_pace_of_the_cooldown() {
    let fall_ms = 3_600_000;
    let mut sim = Sim::new(RULES, 64);
    sim.run(fall_ms + 700_000, |ms| 44 - (ms.min(fall_ms) * 44 / fall_ms) as usize);
    // Each shrinking comes when the highest demand of the idle timeout has come below three tenths of the target (19 of 64,
    // 8 of 28, 3 of 12, 1 of 5), and leaves what this needs at seven tenths.
    assert_eq!(sim.changes.iter().map(|change| change.to).collect::<Vec<_>>(), [28, 12, 5, 2]);
    sim.assert_calm();
}

#[test]
fn a_square_wave_scales_once_up_and_once_down_in_a_period_at_the_most() {
    let periods = 20;
    // Halves that are shorter than, next to and longer than the cooldowns and the idle timeout.
    let halves_ms = [500, 1_000, 29_500, 30_000, 30_500, 59_500, 60_500, 150_000, 299_500, 300_000, 301_000, 601_000];
    for (half_ms, high) in halves_ms.into_iter().flat_map(|half| [5, 44].map(|high| (half, high))) {
        let mut sim = Sim::new(RULES, 2);
        sim.run(2 * periods * half_ms, |ms| if ms / half_ms % 2 == 0 { high } else { 0 });
        // The high half comes first and is answered at once.
        assert_eq!(sim.changes[0], Change { at_ms: 0, from: 2, to: RULES.needed(high as u16) });
        if half_ms <= RULES.idle_timeout_ms {
            // A low half that is no longer than the idle timeout never sees a whole idle timeout without demand.
            assert_eq!(sim.changes.len(), 1, "{half_ms}: {:?}", sim.changes);
        } else {
            // Longer ones end in a shrinking, and each high half that follows in a growth at its first tick.
            assert_eq!(sim.changes.len() as u64, 2 * periods, "{half_ms}");
            let late = |change: &&Change| change.is_growth() && change.at_ms % (2 * half_ms) >= TICK_MS;
            assert_eq!(sim.changes.iter().find(late), None);
        }
        sim.assert_calm();
    }
}

#[test]
fn a_square_wave_does_not_make_impatient_rules_flap_either() {
    // Timeouts far below the cooldowns, and thresholds next to each other.
    let rules = Rules {
        up_parts: 5_000,
        down_parts: 4_900,
        up_cooldown_ms: 20_000,
        down_cooldown_ms: 20_000,
        idle_timeout_ms: 1_000,
        ..RULES
    };
    for half_ms in [500, 1_000, 1_500, 5_000, 19_500, 20_500, 45_000] {
        let total_ms = 4_000_000;
        let mut sim = Sim::new(rules, 2);
        sim.run(total_ms, |ms| if ms / half_ms % 2 == 0 { 32 } else { 0 });
        // A shrinking keeps 20 s from any change, and between two shrinkings there is one growth of a step at the most:
        // so there are never more than two changes in 20 s.
        assert!(
            sim.changes.len() as u64 <= 2 * (1 + total_ms / rules.down_cooldown_ms),
            "{half_ms}: {:?}",
            sim.changes
        );
        sim.assert_calm();
    }
}

#[test]
fn loads_at_random_keep_the_rules() {
    // A generator of its own, so that every run sees the same loads.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for _ in 0..50 {
        let max = 2 + random(200) as u16;
        let up_parts = 1_000 + random(9_000);
        let rules = Rules {
            enabled: true,
            min: 1 + random(u64::from(max)) as u16,
            max,
            up_parts,
            down_parts: random(up_parts),
            up_cooldown_ms: random(60_000),
            down_cooldown_ms: random(120_000),
            idle_timeout_ms: 1_000 + random(300_000),
        };
        let mut sim = Sim::new(rules, rules.min);
        for _ in 0..200 {
            let (demand, ms) = (random(2 * u64::from(max)) as usize, TICK_MS * (1 + random(400)));
            sim.run(ms, |_| demand);
        }
        sim.assert_calm();
    }
}
