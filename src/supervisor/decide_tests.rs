//! The fleet's decisions, each told as a small story.

use super::*;

const RULES: Rules =
    Rules { heartbeat_timeout_ms: 1_000, boot_timeout_ms: 500, leave_timeout_ms: 300, rows: 16, max_boot_failures: 3 };

/// A fleet with a clock that the story moves.
struct Story {
    fleet: Fleet,
    now: u64,
}

impl Story {
    fn of(target: u16) -> Self {
        let mut story = Self { fleet: Fleet::new(RULES, target, Modes::default(), 0), now: 0 };
        for action in story.tick(&[]) {
            let Action::Bear { row, .. } = action else { panic!("{action:?} at the start") };
            story.tell(Event::Ready { row });
        }
        story
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.fleet.decide(self.now, event, &mut actions);
        actions
    }

    fn tick(&mut self, rows: &[(u16, WorkerState)]) -> Vec<Action> {
        let rows = rows.iter().map(|(row, state)| (*row, self.now, *state)).collect();
        self.tell(Event::Tick { rows })
    }

    fn after(&mut self, ms: u64) -> &mut Self {
        self.now += ms;
        self
    }
}

#[test]
fn a_pool_starts_as_many_workers_as_it_wants() {
    let mut fleet = Fleet::new(RULES, 3, Modes::default(), 0);
    let mut actions = Vec::new();
    fleet.decide(0, Event::Tick { rows: vec![] }, &mut actions);
    assert_eq!(actions, [0, 1, 2].map(|row| Action::Bear { row, mode: Isolation::Process }));
}

#[test]
fn scaling_up_adds_and_scaling_down_dismisses_idle_ones_first() {
    let mut story = Story::of(3);
    assert_eq!(story.tell(Event::Scale { target: 4 }), [Action::Bear { row: 3, mode: Isolation::Process }]);
    story.tell(Event::Ready { row: 3 });
    story.tick(&[(0, WorkerState::Idle), (1, WorkerState::Busy), (2, WorkerState::Idle), (3, WorkerState::Busy)]);
    let left = story.tell(Event::Scale { target: 1 });
    assert_eq!(left, [2, 0, 3].map(|row| Action::Dismiss { row }));
    assert_eq!(story.tell(Event::Gone { row: 2 }), [], "a dismissed worker is not replaced");
}

#[test]
fn a_lost_worker_is_replaced_in_its_row() {
    let mut story = Story::of(2);
    assert_eq!(story.after(5_000).tell(Event::Gone { row: 0 }), [Action::Bear { row: 0, mode: Isolation::Process }]);
}

#[test]
fn a_worker_that_dies_young_is_replaced_after_a_pause() {
    let mut story = Story::of(1);
    assert_eq!(story.after(10).tell(Event::Gone { row: 0 }), []);
    assert_eq!(story.after(RESPAWN_DELAY_MS).tick(&[]), [Action::Bear { row: 0, mode: Isolation::Process }]);
}

#[test]
fn a_pool_whose_workers_die_at_boot_gives_up() {
    let mut story = Story { fleet: Fleet::new(RULES, 1, Modes::default(), 0), now: 0 };
    let mut births = 0;
    for _ in 0..100 {
        for action in story.after(100).tick(&[]) {
            assert_eq!(action, Action::Bear { row: 0, mode: Isolation::Process });
            births += 1;

            if story.tell(Event::Gone { row: 0 }).contains(&Action::GiveUp) {
                assert_eq!(births, RULES.max_boot_failures);
                assert!(story.fleet.is_done());
                return;
            }
        }
    }
    panic!("never gave up");
}

#[test]
fn a_silent_worker_is_killed_once_and_its_death_is_its_own_fault() {
    let mut story = Story::of(1);
    story.tick(&[(0, WorkerState::Busy)]);
    let silent = Event::Tick { rows: vec![(0, 0, WorkerState::Busy)] };
    for _ in 0..2 {
        assert_eq!(story.after(400).tell(silent.clone()), []);
    }
    assert_eq!(story.after(400).tell(silent.clone()), [Action::Kill { row: 0, why: KillReason::Silent }]);
    assert_eq!(story.fleet.status(0), Some(Status::Unhealthy));
    assert_eq!(story.after(400).tell(silent), []);
    assert!(!story.fleet.was_ours(0));
}

#[test]
fn a_supervisor_that_slept_does_not_blame_its_workers() {
    let mut story = Story::of(1);
    story.tick(&[(0, WorkerState::Idle)]);
    let stale = Event::Tick { rows: vec![(0, 0, WorkerState::Idle)] };
    assert_eq!(story.after(60_000).tell(stale), []);
}

#[test]
fn draining_waits_then_takes_back_then_kills() {
    let mut story = Story::of(2);
    story.tick(&[(0, WorkerState::Busy), (1, WorkerState::Idle)]);
    assert_eq!(story.tell(Event::Drain { patience_ms: 400 }), [0, 1].map(|row| Action::Dismiss { row }));
    assert!(!story.fleet.is_open());
    assert_eq!(story.tell(Event::Gone { row: 1 }), []);
    assert_eq!(story.after(400).tick(&[(0, WorkerState::Busy)]), [Action::TakeBack { row: 0, now: false }]);
    assert_eq!(story.after(300).tick(&[(0, WorkerState::Busy)]), [Action::Kill { row: 0, why: KillReason::Lingering }]);
    assert!(story.fleet.was_ours(0));
    story.tell(Event::Gone { row: 0 });
    assert!(story.fleet.is_done());
}

#[test]
fn force_kills_at_once_even_while_draining() {
    let mut story = Story::of(1);
    story.tell(Event::Drain { patience_ms: 60_000 });
    assert_eq!(story.tell(Event::Force), [Action::Kill { row: 0, why: KillReason::Forced }]);
    story.tell(Event::Gone { row: 0 });
    assert!(story.fleet.is_done());
}

#[test]
fn force_leaves_workers_of_containers_the_time_to_remove_those() {
    use Isolation::{Docker, Process};
    let (mut story, rows) = mixed("process:1,docker:1", 2);
    let row = |mode| rows.iter().position(|known| *known == mode).unwrap() as u16;
    let (process, docker) = (row(Process), row(Docker));
    let told = story.tell(Event::Force);
    let expected = [
        Action::Kill { row: process, why: KillReason::Forced },
        Action::Dismiss { row: docker },
        Action::TakeBack { row: docker, now: true },
    ];
    assert_eq!(told, expected);
    story.tell(Event::Gone { row: process });
    let busy = [(docker, WorkerState::Busy)];
    assert_eq!(story.after(CONTAINERS_MS - 1).tick(&busy), []);
    assert_eq!(story.after(1).tick(&busy), [Action::Kill { row: docker, why: KillReason::Lingering }]);
    assert!(story.fleet.was_ours(docker));
    // Whoever cannot wait says so again.
    let (mut story, rows) = mixed("docker", 1);
    assert_eq!((rows.len(), story.tell(Event::Force).len()), (1, 2));
    assert_eq!(story.tell(Event::Force), [Action::Kill { row: 0, why: KillReason::Forced }]);
}

#[test]
fn a_worn_worker_leaves_and_a_fresh_one_takes_its_place() {
    let mut story = Story::of(2);
    let wear = Wear::Tasks(5);
    assert_eq!(story.tell(Event::Worn { row: 0, wear }), [Action::Recycle { row: 0, wear }]);
    assert_eq!(story.fleet.status(0), Some(Status::Stopping));
    // It may have a task yet, so a third worker would be one too many.
    assert_eq!(story.after(100).tick(&[(0, WorkerState::Busy)]), []);
    assert_eq!(
        story.tell(Event::Gone { row: 0 }),
        [Action::Bear { row: 0, mode: Isolation::Process }],
        "without a pause, however young it was"
    );
    story.tell(Event::Ready { row: 0 });
    assert_eq!(story.tick(&[]), [], "the fresh one is not worn");
}

#[test]
fn worn_workers_are_replaced_a_quarter_at_a_time_idle_ones_first() {
    let mut story = Story::of(8);
    story.tick(&[(0, WorkerState::Busy), (1, WorkerState::Idle)]);
    let wear = Wear::Memory(1 << 30);
    let mut told = Vec::new();
    for row in 0..8 {
        told.extend(story.tell(Event::Worn { row, wear }));
    }
    assert_eq!(told, [0, 1].map(|row| Action::Recycle { row, wear }), "two of eight, as they were told of");
    assert_eq!(story.tell(Event::Gone { row: 1 }), [Action::Bear { row: 1, mode: Isolation::Process }]);
    assert_eq!(story.tick(&[(2, WorkerState::Busy)]), [], "its successor is not ready");
    assert_eq!(story.tell(Event::Ready { row: 1 }), [Action::Recycle { row: 3, wear }], "2 is busy, 3 is not");
}

#[test]
fn one_at_a_time_is_replaced_in_a_small_pool() {
    let mut story = Story::of(3);
    let wear = Wear::Tasks(1);
    assert_eq!(story.tell(Event::Worn { row: 2, wear }), [Action::Recycle { row: 2, wear }]);
    assert_eq!(story.tell(Event::Worn { row: 0, wear }), []);
    story.tell(Event::Gone { row: 2 });
    assert_eq!(story.tell(Event::Ready { row: 2 }), [Action::Recycle { row: 0, wear }]);
}

#[test]
fn a_worn_worker_counts_when_the_pool_shrinks_and_is_not_followed_then() {
    let mut story = Story::of(2);
    story.tell(Event::Worn { row: 0, wear: Wear::Tasks(1) });
    assert_eq!(story.tell(Event::Scale { target: 1 }), [], "one leaves already");
    assert_eq!(story.tell(Event::Gone { row: 0 }), []);
}

#[test]
fn no_worker_is_replaced_while_none_can_be_made() {
    let mut story = Story::of(2);
    story.tell(Event::Scale { target: 3 });
    story.tell(Event::BirthFailed { row: 2 });
    assert_eq!(story.tell(Event::Worn { row: 0, wear: Wear::Tasks(1) }), []);
}

#[test]
fn a_worker_that_does_not_answer_is_killed_and_replaced() {
    let mut story = Story::of(1);
    let kill = [Action::Kill { row: 0, why: KillReason::Silent }];
    assert_eq!(story.after(5_000).tell(Event::Unanswered { row: 0 }), kill);
    assert_eq!(story.fleet.status(0), Some(Status::Unhealthy));
    assert_eq!(story.tell(Event::Unanswered { row: 0 }), [], "once");
    assert!(!story.fleet.was_ours(0));
    assert_eq!(story.tell(Event::Gone { row: 0 }), [Action::Bear { row: 0, mode: Isolation::Process }]);
    assert_eq!(story.tell(Event::Unanswered { row: 0 }), [], "a newborn has until its boot timeout");
}

#[test]
fn those_that_stay_and_work_are_counted() {
    let mut story = Story::of(3);
    story.tick(&[(0, WorkerState::Busy), (1, WorkerState::Idle), (2, WorkerState::Busy)]);
    assert_eq!(story.fleet.busy(), 2);
    story.tell(Event::Worn { row: 2, wear: Wear::Tasks(1) });
    assert_eq!(story.fleet.busy(), 2, "its place is taken as long as it works");
    story.tell(Event::Scale { target: 2 });
    assert_eq!(story.fleet.busy(), 1, "one that leaves for good is no use for what is to come");
}

fn modes(text: &str) -> Modes {
    text.parse().unwrap()
}

fn count(actions: &[Action], mode: Isolation) -> usize {
    actions.iter().filter(|action| matches!(action, Action::Bear { mode: of, .. } if *of == mode)).count()
}

/// A fleet of these modes, all of whose workers are ready, with the modes of its rows.
fn mixed(text: &str, target: u16) -> (Story, Vec<Isolation>) {
    let mut story = Story { fleet: Fleet::new(RULES, target, modes(text), 0), now: 0 };
    let born = story.tick(&[]);
    let rows = born.iter().map(|action| match action {
        Action::Bear { mode, .. } => *mode,
        other => panic!("{other:?} at the start"),
    });
    let rows: Vec<_> = rows.collect();
    for row in 0..rows.len() as u16 {
        story.tell(Event::Ready { row });
    }
    (story, rows)
}

#[test]
fn a_mixed_pool_keeps_its_proportion_when_workers_come_and_go() {
    use Isolation::{Docker, Process};
    let (mut story, rows) = mixed("process:4,docker:2", 6);
    assert_eq!(rows.iter().filter(|mode| **mode == Docker).count(), 2);
    // Whoever dies is followed by one of its own mode.
    let docker = rows.iter().position(|mode| *mode == Docker).unwrap() as u16;
    assert_eq!(story.after(5_000).tell(Event::Gone { row: docker }), [Action::Bear { row: docker, mode: Docker }]);
    story.tell(Event::Ready { row: docker });
    // Growing and shrinking, too.
    let grown = story.tell(Event::Scale { target: 9 });
    assert_eq!((count(&grown, Process), count(&grown, Docker)), (2, 1));
    for row in 6..9 {
        story.tell(Event::Ready { row });
    }
    let left = story.tell(Event::Scale { target: 2 });
    assert_eq!(left.len(), 7);
    let have = story.fleet.places(stays);
    assert_eq!((have.of(Process), have.of(Docker)), (1, 1), "one of each as long as there are two");
    story.tell(Event::Scale { target: 1 });
    let have = story.fleet.places(stays);
    assert_eq!((have.of(Process), have.of(Docker)), (1, 0), "the default mode is the last");
}

#[test]
fn a_recycled_worker_is_followed_by_one_of_its_mode() {
    let (mut story, rows) = mixed("docker:3,process:1", 4);
    let process = rows.iter().position(|mode| *mode == Isolation::Process).unwrap() as u16;
    let wear = Wear::Tasks(5);
    assert_eq!(story.tell(Event::Worn { row: process, wear }), [Action::Recycle { row: process, wear }]);
    let born = Action::Bear { row: process, mode: Isolation::Process };
    assert_eq!(story.tell(Event::Gone { row: process }), [born]);
}

#[test]
fn with_other_modes_the_surplus_leaves_and_others_come_one_for_one() {
    use Isolation::{Docker, Process};
    let (mut story, _) = mixed("process:4,docker:2", 6);
    let told = story.tell(Event::Modes(modes("process:2,docker:4")));
    let rows: Vec<u16> = told
        .iter()
        .map(|action| match action {
            Action::Recycle { row, wear: Wear::Mode(Docker) } => *row,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(story.tick(&[]), [], "nobody comes before somebody has left");
    for row in rows {
        assert_eq!(story.tell(Event::Gone { row }), [Action::Bear { row, mode: Docker }]);
    }
    let have = story.fleet.places(stays);
    assert_eq!((have.of(Process), have.of(Docker)), (2, 4));
}

#[test]
fn a_change_of_mind_finds_the_leaving_workers_places() {
    use Isolation::{Docker, Process};
    let (mut story, _) = mixed("process", 3);
    assert_eq!(story.tell(Event::Modes(modes("docker"))).len(), 3);
    assert_eq!(story.tell(Event::Modes(modes("process"))), [], "who leaves leaves, and is followed by its like");
    assert_eq!(story.tell(Event::Gone { row: 1 }), [Action::Bear { row: 1, mode: Process }]);
    story.tell(Event::Modes(modes("docker")));
    assert_eq!(story.tell(Event::Gone { row: 0 }), [Action::Bear { row: 0, mode: Docker }]);
    story.tell(Event::Scale { target: 1 });
    assert_eq!(story.tell(Event::Gone { row: 2 }), [], "and nobody if fewer are wanted");
}

#[test]
fn another_default_replaces_everybody_who_was_born_for_the_old_one() {
    let (mut story, _) = mixed("process:2,docker:2", 4);
    let told = story.tell(Event::Modes(modes("docker:2,process:2")));
    assert_eq!(told.iter().filter(|action| matches!(action, Action::Recycle { .. })).count(), 4);
    assert_eq!(story.tell(Event::Modes(modes("docker:2,process:2"))), [], "once");
    // The same again while a newborn is not ready: it was born for the new one.
    let born = story.tell(Event::Gone { row: 0 });
    assert_eq!(born.len(), 1);
    assert_eq!(story.tell(Event::Ready { row: 0 }), []);
}

#[test]
fn workers_that_cannot_be_made_exchange_nobody() {
    let (mut story, _) = mixed("process:2,docker:1", 3);
    story.after(5_000).tell(Event::Gone { row: 0 });
    story.tell(Event::BirthFailed { row: 0 });
    let told = story.tell(Event::Modes(modes("process:1,docker:2")));
    assert!(told.is_empty(), "{told:?}");
}
