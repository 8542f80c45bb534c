//! The world: one run of one seed, from the first input to the last task's end.
//!
//! Inputs come from the script as long as there are any; then bad luck ends, and everything that was accepted has to
//! come to its end in bounded time. Deliberately absent: threads, and any time but the scene's.

use std::rc::Rc;

use acode_worker::task::TaskState;

use super::Mutation;
use super::disk::{Disk, Health};
use super::model::Kind;
use super::pool::Pool;
use super::scene::{Happening, MS, Scene, US};
use super::script::{CrashPoint, Input, Script};
use super::witness::Tally;
use crate::store::{Queue, Store};
use crate::supervisor::decide::Event;

/// Nothing may stand still for so long when nothing is wrong any more: longer than any delay or retry.
const STANDSTILL_NS: u64 = 120_000 * MS;
/// And everything has to be over after so much simulated time.
const PATIENCE_NS: u64 = 7_200_000 * MS;
/// How often everything is counted, in events.
const COUNT_EVERY: u64 = 20_000;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// After how many inputs.
    pub steps: u64,
    /// Which, in words.
    pub why: String,
}

/// One run.
pub struct World {
    script: Script,
    seed: u64,
    steps: u64,
    done: u64,
    disk: Rc<Disk>,
    pool: Option<Pool>,
    scene: Scene,
    mutation: Mutation,
    turn_at_ns: Option<u64>,
    down_us: u64,
    events: u64,
    /// Since when inputs have ended.
    quiet_ns: Option<u64>,
    /// When something was last executed or ended.
    moved_ns: u64,
    moved: (u64, u64),
}

impl World {
    /// The run of `seed` with `steps` inputs, with the real store beside the oracle if there is one.
    pub fn new(seed: u64, steps: u64, mutation: Mutation, store: Option<Store>) -> Self {
        let script = Script::new(seed);
        let mut scene = Scene::new(seed, script.temper);
        scene.plan(0, Happening::Start);
        scene.plan(MS, Happening::Input);
        Self {
            script,
            seed,
            steps,
            done: 0,
            disk: Disk::new(store),
            pool: None,
            scene,
            mutation,
            turn_at_ns: None,
            down_us: 0,
            events: 0,
            quiet_ns: None,
            moved_ns: 0,
            moved: (0, 0),
        }
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// The first promise that was broken.
    pub fn run(mut self) -> Result<Tally, Failure> {
        while let Some(what) = self.scene.next() {
            self.happens(what);
            self.look();
            if let Some(why) = self.scene.broken_promise.take() {
                return Err(Failure { steps: self.done, why });
            }
            if self.is_over() {
                let steps = self.done;
                return self.conclude().map_err(|why| Failure { steps, why });
            }
        }
        Err(Failure { steps: self.done, why: "nothing is planned any more".to_owned() })
    }

    fn happens(&mut self, what: Happening) {
        self.events += 1;
        match what {
            Happening::Input => self.input(),
            Happening::Turn => {
                if self.turn_at_ns == Some(self.scene.now_ns) {
                    self.turn();
                }
            }
            Happening::Step { row, birth, plan } => {
                let said = self.scene.step(row, birth, plan);
                if said && self.pool.as_ref().is_some_and(|pool| !pool.lingers) {
                    self.poke();
                }
            }
            Happening::Death { row, birth } => {
                if let Some(pool) = self.pool.as_mut().filter(|_| self.scene.is_dead(row, birth)) {
                    pool.notices_death(row);
                    self.poke();
                }
            }
            Happening::Start => self.start(),
            Happening::Heal => self.disk.health.set(Health::Well),
        }
    }

    /// Has the supervisor's poll return soon.
    fn poke(&mut self) {
        let in_ns = self.scene.while_ns();
        self.turn_in(in_ns);
    }

    fn turn_in(&mut self, in_ns: u64) {
        let at_ns = self.scene.now_ns + in_ns;
        if self.turn_at_ns.is_none_or(|planned| at_ns < planned || planned < self.scene.now_ns) {
            self.turn_at_ns = Some(at_ns);
            self.scene.plan(in_ns, Happening::Turn);
        }
    }

    fn turn(&mut self) {
        self.turn_at_ns = None;
        let Some(pool) = &mut self.pool else { return };
        if self.quiet_ns.is_some() {
            // What a person has held, a person lets go in the end.
            let held = self.disk.model.borrow().held();
            held.into_iter().for_each(|id| pool.release_held(&mut self.scene, id));
        }
        pool.turn(&mut self.scene);
        if pool.crashed {
            return self.crash();
        }
        self.witness_writes();
        let Some(pool) = &mut self.pool else { return };
        pool.check(&mut self.scene);
        if pool.is_finished() {
            self.pool = None;
            self.scene.sweep();
            return self.scene.plan(self.down_us * US, Happening::Start);
        }
        let timeout_ns = pool.timeout_ns(&self.scene);
        let heard = !pool.lingers && self.scene.anything_said();
        self.turn_in(if heard { US } else { timeout_ns });
    }

    fn start(&mut self) {
        self.scene.witness.new_life();
        match Pool::start(self.seed, self.disk.open(), self.mutation, self.script.modes(), &self.scene) {
            Ok(pool) => {
                self.pool = Some(pool);
                self.turn_in(MS);
            }
            // The service manager tries again.
            Err(_) => self.scene.plan(1_000 * MS, Happening::Start),
        }
        self.witness_writes();
    }

    /// The supervisor is killed. Its workers see their pipes close, and end with their tasks before the next one begins.
    fn crash(&mut self) {
        self.witness_writes();
        self.pool = None;
        self.turn_at_ns = None;
        self.scene.sweep();
        self.scene.plan(self.down_us * US, Happening::Start);
    }

    fn input(&mut self) {
        if self.done == self.steps {
            return self.calm_down();
        }
        let (_, input) = self.script.input(self.done);
        self.done += 1;
        let (gap_us, _) = self.script.input(self.done);
        self.scene.plan(gap_us * US, Happening::Input);
        self.act(input);
        if self.pool.as_ref().is_some_and(|pool| pool.crashed) {
            return self.crash();
        }
        self.witness_writes();
        if self.pool.is_some() {
            self.poke();
        }
    }

    fn act(&mut self, input: Input) {
        let scene = &mut self.scene;
        let victim = |scene: &Scene, number: u64| {
            let rows: Vec<u16> = scene.workers.keys().copied().collect();
            (!rows.is_empty()).then(|| rows[(number % rows.len() as u64) as usize])
        };
        match input {
            Input::Kill(number) => victim(scene, number).into_iter().for_each(|row| scene.die(row)),
            Input::Hang(number) => {
                if let Some(worker) = victim(scene, number).and_then(|row| scene.workers.get_mut(&row)) {
                    worker.hung = true;
                }
            }
            Input::Stillborn(count) => scene.stillborn = count,
            Input::Disk(health, for_us) => {
                self.disk.health.set(health);
                scene.plan(for_us * US, Happening::Heal);
            }
            Input::Submit(_)
            | Input::Cancel(_)
            | Input::Hold(_)
            | Input::Release(_)
            | Input::Retry(_)
            | Input::Scale(_)
            | Input::Modes(_)
            | Input::Crash(..)
            | Input::Stop { .. } => self.ask(input),
        }
    }

    /// What is asked of a supervisor, if there is one.
    fn ask(&mut self, input: Input) {
        let scene = &mut self.scene;
        let Some(pool) = &mut self.pool else { return };
        match input {
            Input::Submit(entries) => pool.submit(scene, entries),
            Input::Cancel(number) => {
                if let Some(id) = scene.witness.pick(number) {
                    pool.cancel(scene, id);
                }
            }
            Input::Hold(number) => {
                if let Some(id) = scene.witness.pick(number) {
                    pool.hold(scene, id);
                }
            }
            Input::Release(number) => {
                if let Some(id) = scene.witness.pick(number) {
                    pool.release_held(scene, id);
                }
            }
            Input::Retry(number) => {
                if let Some(id) = scene.witness.pick(number) {
                    pool.retry(scene, id);
                }
            }
            Input::Scale(count) => pool.scale(scene, count),
            Input::Modes(modes) => pool.follow_modes(scene, modes),
            Input::Crash(point, down_us) => {
                self.down_us = down_us;
                pool.crash = Some(point);
                pool.crashed |= point == CrashPoint::Now;
            }
            Input::Stop { force, patience_ms, down_us } => {
                self.down_us = down_us;
                let event = if force { Event::Force } else { Event::Drain { patience_ms } };
                pool.decide(scene, event);
            }
            Input::Kill(_) | Input::Hang(_) | Input::Stillborn(_) | Input::Disk(..) => {}
        }
    }

    /// After the last input nothing bad happens any more, but for what the tasks themselves do.
    fn calm_down(&mut self) {
        self.quiet_ns = Some(self.scene.now_ns);
        self.moved_ns = self.scene.now_ns;
        self.scene.unlucky = false;
        self.scene.stillborn = 0;
        self.disk.health.set(Health::Well);
        if let Some(pool) = &mut self.pool {
            pool.crash = None;
            // One worker alone would be of one mode, and what asks for the other would wait for ever.
            pool.scale(&mut self.scene, pool.fleet.target().max(2));
        }
    }

    /// Tells the witness what has come on to the disk.
    fn witness_writes(&mut self) {
        for (ops, applied) in self.disk.take_log() {
            let written = self.scene.witness.written(&ops, &applied);
            self.scene.check(written);
        }
        let difference = self.disk.difference.borrow_mut().take();
        self.scene.check(difference.map_or(Ok(()), Err));
    }

    /// What must hold after every event.
    fn look(&mut self) {
        if self.events.is_multiple_of(COUNT_EVERY) {
            let counted = self.disk.model.borrow().recount();
            self.scene.check(counted);
        }
        let Some(quiet_ns) = self.quiet_ns else { return };
        let now_ns = self.scene.now_ns;
        let moved = (self.scene.witness.tally.attempts, self.scene.witness.tally.lives);
        if moved != self.moved {
            (self.moved, self.moved_ns) = (moved, now_ns);
        }
        if now_ns - self.moved_ns > STANDSTILL_NS || now_ns - quiet_ns > PATIENCE_NS {
            let waits = self.disk.model.borrow().waiting();
            let pool = self.pool.as_ref().map(Pool::describe).unwrap_or_default();
            self.scene.check(Err(format!("nothing moves any more ({pool}), and tasks wait: {waits}")));
        }
    }

    fn is_over(&self) -> bool {
        let calm = self.quiet_ns.is_some() && self.disk.model.borrow().counts().pending == 0;
        calm && self.pool.as_ref().is_some_and(|pool| {
            let settled = pool.ledger.is_empty() && pool.desk.len() == 0 && pool.broken.is_none();
            settled && !pool.is_stopping() && pool.is_in_proportion()
        })
    }

    /// What must hold at the end.
    fn conclude(self) -> Result<Tally, String> {
        let model = self.disk.model.borrow();
        model.recount()?;
        for id in self.scene.witness.all_accepted() {
            match model.record(id.seq()).map(|record| (record.state, record.kind)) {
                None => return Err(format!("task {} was accepted and is lost", id.seq())),
                Some((state, Kind::Task | Kind::Array { .. } | Kind::Member { .. })) if !state.is_final() => {
                    return Err(format!("task {} never ends: it is {state}", id.seq()));
                }
                Some((TaskState::Pending | TaskState::Assigned | TaskState::Running, _)) => {}
                Some((TaskState::Completed | TaskState::Failed | TaskState::Cancelled | TaskState::Timeout, _)) => {}
            }
        }
        if self.scene.witness.held() > 0 {
            return Err("a task is in a worker's hands although all have ended".to_owned());
        }
        self.scene.witness.check_told()?;
        Ok(self.scene.witness.tally)
    }
}
