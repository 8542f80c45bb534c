//! Changing of which modes a pool's workers are while it runs: who is of the wrong one leaves after its task, and only then
//! comes another in its place, so there are never more workers than wanted.
//!
//! Deliberately absent: the shares themselves (`modes`).

use acode_worker::task::Isolation;

use super::super::modes::{self, ByMode};
use super::{Action, Fleet, Life, Member, RECYCLED, Wear, stays};
use crate::config::Modes;

impl Fleet {
    /// Works with these modes from now on.
    pub(super) fn follow_modes(&mut self, modes: Modes) {
        let before = std::mem::replace(&mut self.modes, modes);
        // Who is the default, and who is not, is fixed with a worker's birth.
        if before.default_mode() != self.modes.default_mode() {
            let staying = self.members.values_mut().filter(|member| stays(member.life));
            staying.for_each(|member| member.worn = Some(Wear::Mode(member.place)));
        }
    }

    /// Has workers leave whose places are another mode's by now, or who were born for other modes; `have` are those who
    /// stay or are followed, `places` all that count.
    pub(super) fn exchange(
        &mut self,
        wanted: &ByMode,
        mut have: ByMode,
        mut places: ByMode,
        actions: &mut Vec<Action>,
    ) {
        // While workers cannot be made, one of the wrong mode is better than none.
        if self.boot_failures > 0 {
            return;
        }
        while let Some(mode) = modes::most_ahead(wanted, &have)
            && let Some(other) = modes::most_behind(wanted, &places)
        {
            let leaving = |member: &Member| member.life == RECYCLED;
            let row = self.least_useful(mode, leaving);
            let row = row.or_else(|| self.least_useful(mode, |member| member.life == Life::Live));
            let Some(row) = row else { break };
            self.replace(row, other, actions);
            for counts in [&mut have, &mut places] {
                counts.take(mode);
                counts.add(other);
            }
        }
        let stale = |m: &Member| m.life == Life::Live && matches!(m.worn, Some(Wear::Mode(_)));
        let stale: Vec<_> = self.members.iter().filter(|(_, m)| stale(m)).map(|(row, m)| (*row, m.place)).collect();
        for (row, mode) in stale {
            self.replace(row, mode, actions);
        }
    }

    /// Has a worker followed by one of this mode.
    fn replace(&mut self, row: u16, mode: Isolation, actions: &mut Vec<Action>) {
        let now_ms = self.now_ms;
        let Some(member) = self.members.get_mut(&row) else { return };
        member.place = mode;
        if member.life == Life::Live {
            (member.life, member.told_ms) = (RECYCLED, now_ms);
            actions.push(Action::Recycle { row, wear: Wear::Mode(mode) });
        }
    }
}
