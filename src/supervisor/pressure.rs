//! Whether the machine has enough left to start further tasks: pure, so that each decision is a test without a machine.
//!
//! [`Pressure::decide`] takes what was measured and says when starting is to pause and when to go on. There is a
//! hysteresis in both dimensions: what paused must be well again by a margin, and for some time. Deliberately absent:
//! measuring (`gauge`), and what a pause does (`pause`).

use std::fmt;

use crate::config::Backpressure;

/// By which share of the limit a figure must be better than that before it counts as well again.
const MARGIN: f64 = 0.1;

/// What was measured; `None` is what could not be, or was not asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sample {
    /// Load average of one minute, for each processor.
    pub load_per_cpu: Option<f64>,
    /// Memory that is left, in MiB.
    pub free_memory_mb: Option<f64>,
    /// Disk space that is left, in MiB.
    pub free_disk_mb: Option<f64>,
    /// Percent of time in which all processes waited for memory.
    pub memory_pressure: Option<f64>,
    /// The same for input and output.
    pub io_pressure: Option<f64>,
    /// Percent of time in which some process waited for a processor.
    pub cpu_pressure: Option<f64>,
}

/// What there is too little of, or too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The load average.
    Load,
    /// Memory.
    Memory,
    /// Disk space.
    Disk,
    /// Waiting for memory.
    MemoryPressure,
    /// Waiting for input and output.
    IoPressure,
    /// Waiting for a processor.
    CpuPressure,
}

impl Cause {
    /// Its name in events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::MemoryPressure => "memory-pressure",
            Self::IoPressure => "io-pressure",
            Self::CpuPressure => "cpu-pressure",
        }
    }

    /// Whether more of it is better.
    fn is_supply(self) -> bool {
        match self {
            Self::Memory | Self::Disk => true,
            Self::Load | Self::MemoryPressure | Self::IoPressure | Self::CpuPressure => false,
        }
    }
}

/// A limit with what was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finding {
    /// Of what.
    pub cause: Cause,
    /// What was measured, in the unit of the limit.
    pub figure: f64,
    /// The limit.
    pub limit: f64,
}

impl Finding {
    /// Whether the figure is on the wrong side of the limit, moved by `margin` as a share of it.
    fn is_bad(&self, margin: f64) -> bool {
        if self.cause.is_supply() {
            self.figure < self.limit * (1.0 + margin)
        } else {
            self.figure > self.limit * (1.0 - margin)
        }
    }
}

/// In words that hold for both sides of the limit: `free memory 48 MB is below 64 MB`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cause, figure, limit } = self;
        let side = if figure < limit { "below" } else { "above" };
        match cause {
            Cause::Load => write!(f, "load {figure:.2} per processor is {side} {limit}"),
            Cause::Memory => write!(f, "free memory {figure:.0} MB is {side} {limit:.0} MB"),
            Cause::Disk => write!(f, "free disk space {figure:.0} MB is {side} {limit:.0} MB"),
            Cause::MemoryPressure => write!(f, "memory pressure {figure:.1} % is {side} {limit} %"),
            Cause::IoPressure => write!(f, "I/O pressure {figure:.1} % is {side} {limit} %"),
            Cause::CpuPressure => write!(f, "CPU pressure {figure:.1} % is {side} {limit} %"),
        }
    }
}

/// What changes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// Starting pauses.
    Pause(Finding),
    /// It goes on. What paused it, as it is now; what it was then, if that is not measured any more.
    Resume(Finding),
}

/// Whether starting pauses, and since when it could go on.
#[derive(Debug, Clone)]
pub struct Pressure {
    limits: Backpressure,
    /// What pauses at present.
    active: Option<Finding>,
    /// Since when everything has been well, in milliseconds of the monotonic clock.
    well_since_ms: Option<u64>,
}

impl Pressure {
    /// Not paused yet.
    pub fn new(limits: Backpressure) -> Self {
        Self { limits, active: None, well_since_ms: None }
    }

    /// Follows a changed configuration; what that means shows with the next sample.
    pub fn set_limits(&mut self, limits: Backpressure) {
        self.limits = limits;
    }

    /// What pauses at present, with its latest figure.
    pub fn active(&self) -> Option<Finding> {
        self.active
    }

    /// Follows a sample that was taken at `now_ms`.
    pub fn decide(&mut self, now_ms: u64, sample: &Sample) -> Option<Change> {
        if !self.limits.enabled {
            self.well_since_ms = None;
            return self.active.take().map(Change::Resume);
        }
        let findings: Vec<Finding> = self.findings(sample).collect();
        let Some(before) = self.active else {
            self.active = findings.into_iter().find(|finding| finding.is_bad(0.0));
            self.well_since_ms = None;
            return self.active.map(Change::Pause);
        };
        // What is bad without the margin tells more than what has merely not recovered.
        let bad = |margin| findings.iter().find(|finding| finding.is_bad(margin)).copied();
        if let Some(finding) = bad(0.0).or_else(|| bad(MARGIN)) {
            self.active = Some(finding);
            self.well_since_ms = None;
            return None;
        }
        let since_ms = *self.well_since_ms.get_or_insert(now_ms);
        let patience_ms = u64::try_from(self.limits.resume_after.as_millis()).unwrap_or(u64::MAX);
        if now_ms.saturating_sub(since_ms) < patience_ms {
            return None;
        }
        (self.active, self.well_since_ms) = (None, None);
        let now = findings.into_iter().find(|finding| finding.cause == before.cause);
        Some(Change::Resume(now.unwrap_or(before)))
    }

    /// The limits that are set and were measured.
    fn findings(&self, sample: &Sample) -> impl Iterator<Item = Finding> {
        let limits = &self.limits;
        // MiB far below 2^53 lose nothing as a real number.
        let whole = |limit: Option<u64>| limit.map(|mb| mb as f64);
        let all = [
            (Cause::Memory, sample.free_memory_mb, whole(limits.min_free_memory_mb)),
            (Cause::Disk, sample.free_disk_mb, whole(limits.min_free_disk_mb)),
            (Cause::MemoryPressure, sample.memory_pressure, limits.max_memory_pressure),
            (Cause::IoPressure, sample.io_pressure, limits.max_io_pressure),
            (Cause::CpuPressure, sample.cpu_pressure, limits.max_cpu_pressure),
            (Cause::Load, sample.load_per_cpu, limits.max_load_per_cpu),
        ];
        all.into_iter().filter_map(|(cause, figure, limit)| Some(Finding { cause, figure: figure?, limit: limit? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn limits() -> Backpressure {
        Backpressure { max_load_per_cpu: Some(2.0), resume_after: Duration::from_secs(5), ..Backpressure::default() }
    }

    fn memory(mb: f64) -> Sample {
        Sample { free_memory_mb: Some(mb), ..Sample::default() }
    }

    fn words(change: Option<Change>) -> String {
        match change {
            None => "-".to_owned(),
            Some(Change::Pause(finding)) => format!("pause: {finding}"),
            Some(Change::Resume(finding)) => format!("resume: {finding}"),
        }
    }

    #[test]
    fn it_pauses_at_once_and_resumes_when_all_was_well_by_a_margin_for_long_enough() {
        let mut pressure = Pressure::new(limits());
        let steps = [
            (0, 64.0, "-"),
            (1_000, 48.0, "pause: free memory 48 MB is below 64 MB"),
            (2_000, 40.0, "-"),
            // Above the limit, but not by a tenth of it.
            (3_000, 70.0, "-"),
            (9_000, 70.3, "-"),
            (10_000, 71.0, "-"),
            (14_999, 71.0, "-"),
            // It must have been well without a break.
            (15_000, 60.0, "-"),
            (16_000, 90.0, "-"),
            (20_999, 90.0, "-"),
            (21_000, 90.0, "resume: free memory 90 MB is above 64 MB"),
            (22_000, 66.0, "-"),
        ];
        for (at, mb, expected) in steps {
            assert_eq!(words(pressure.decide(at, &memory(mb))), expected, "at {at}");
        }
    }

    #[test]
    fn a_figure_that_swings_around_its_limit_pauses_once() {
        let mut pressure = Pressure::new(limits());
        let changes = (0..600).filter_map(|second| {
            let mb = if second % 4 < 2 { 60.0 } else { 100.0 };
            pressure.decide(second * 1_000, &memory(mb))
        });
        assert_eq!(changes.count(), 1);
    }

    #[test]
    fn every_cause_is_told_with_its_figure_and_limit() {
        let limits = Backpressure {
            max_io_pressure: Some(20.0),
            max_cpu_pressure: Some(90.5),
            min_free_disk_mb: Some(100),
            ..limits()
        };
        let none = Sample::default();
        let cases = [
            (Sample { load_per_cpu: Some(2.5), ..none }, "load 2.50 per processor is above 2"),
            (Sample { free_disk_mb: Some(3.2), ..none }, "free disk space 3 MB is below 100 MB"),
            (Sample { memory_pressure: Some(55.25), ..none }, "memory pressure 55.2 % is above 40 %"),
            (Sample { io_pressure: Some(21.0), ..none }, "I/O pressure 21.0 % is above 20 %"),
            (Sample { cpu_pressure: Some(99.0), ..none }, "CPU pressure 99.0 % is above 90.5 %"),
        ];
        for (sample, expected) in cases {
            assert_eq!(words(Pressure::new(limits).decide(0, &sample)), format!("pause: {expected}"));
        }
    }

    #[test]
    fn it_goes_on_only_when_the_last_cause_is_gone() {
        let mut pressure = Pressure::new(Backpressure { resume_after: Duration::ZERO, ..limits() });
        let both = Sample { load_per_cpu: Some(3.0), ..memory(10.0) };
        assert_eq!(pressure.decide(0, &both).map(|_| ()), Some(()));
        let load = Sample { load_per_cpu: Some(3.0), ..memory(500.0) };
        assert_eq!(pressure.decide(1, &load), None);
        assert_eq!(pressure.active().map(|finding| finding.cause), Some(Cause::Load));
        let well = Sample { load_per_cpu: Some(0.5), ..memory(500.0) };
        assert_eq!(words(pressure.decide(2, &well)), "resume: load 0.50 per processor is below 2");
    }

    #[test]
    fn what_is_not_measured_or_not_limited_does_not_pause() {
        let none = Backpressure { min_free_memory_mb: None, min_free_disk_mb: None, ..limits() };
        assert_eq!(Pressure::new(none).decide(0, &memory(0.0)), None);
        assert_eq!(Pressure::new(limits()).decide(0, &Sample::default()), None);
    }

    #[test]
    fn switching_it_off_resumes_at_once() {
        let mut pressure = Pressure::new(limits());
        pressure.decide(0, &memory(1.0));
        pressure.set_limits(Backpressure { enabled: false, ..limits() });
        assert!(matches!(pressure.decide(1, &memory(1.0)), Some(Change::Resume(_))));
        assert_eq!(pressure.decide(2, &memory(1.0)), None);
    }
}
