//! Measures what the machine has left: load, memory, disk space, and the kernel's pressure stall information.
//!
//! Only what a limit is set for is read. The averages of PSI over ten seconds are polled: a trigger would tell of
//! pressure some seconds earlier, at the price of a descriptor for each kind and of windows that unprivileged users
//! may not choose. Deliberately absent: what follows from it (`pressure`).

use std::path::Path;

use procfs::Current;

use super::pressure::Sample;
use crate::config::Backpressure;

const MIB: f64 = (1_u64 << 20) as f64;

/// Measures, and remembers what it has warned about.
#[derive(Debug, Default)]
pub struct Gauge {
    warned: bool,
}

impl Gauge {
    /// Measures what these limits are about; the disks are those that hold `folders`, and the fullest one counts.
    pub fn look(&mut self, limits: &Backpressure, folders: &[&Path]) -> Sample {
        if !limits.enabled {
            return Sample::default();
        }
        let wanted = |limit: Option<f64>, read: fn() -> Option<f64>| limit.and_then(|_| read());
        let sample = Sample {
            load_per_cpu: wanted(limits.max_load_per_cpu, load_per_cpu),
            free_memory_mb: limits.min_free_memory_mb.and_then(|_| free_memory_mb()),
            free_disk_mb: limits.min_free_disk_mb.and_then(|_| free_disk_mb(folders)),
            memory_pressure: wanted(limits.max_memory_pressure, memory_pressure),
            io_pressure: wanted(limits.max_io_pressure, io_pressure),
            cpu_pressure: wanted(limits.max_cpu_pressure, cpu_pressure),
        };
        self.warn(limits, &sample);
        sample
    }

    /// Says once what is limited and cannot be measured here.
    fn warn(&mut self, limits: &Backpressure, sample: &Sample) {
        let usual = Backpressure::default().max_memory_pressure;
        let asked = [
            ("maxLoadPerCpu", limits.max_load_per_cpu.is_some(), sample.load_per_cpu.is_some()),
            ("minFreeMemoryMb", limits.min_free_memory_mb.is_some(), sample.free_memory_mb.is_some()),
            ("minFreeDiskMb", limits.min_free_disk_mb.is_some(), sample.free_disk_mb.is_some()),
            // Set by default, so nobody need have asked for it.
            (
                "maxMemoryPressure",
                ![None, usual].contains(&limits.max_memory_pressure),
                sample.memory_pressure.is_some(),
            ),
            ("maxIoPressure", limits.max_io_pressure.is_some(), sample.io_pressure.is_some()),
            ("maxCpuPressure", limits.max_cpu_pressure.is_some(), sample.cpu_pressure.is_some()),
        ];
        let blind: Vec<&str> = asked.into_iter().filter(|(_, asked, seen)| *asked && !seen).map(|it| it.0).collect();
        if !self.warned && !blind.is_empty() {
            self.warned = true;
            let keys = blind.join(", ");
            tracing::warn!(
                keys,
                "this kernel does not tell what these keys of backpressure limit: they have no effect"
            );
        }
    }
}

fn load_per_cpu() -> Option<f64> {
    use nix::unistd::{SysconfVar, sysconf};
    let cpus = sysconf(SysconfVar::_NPROCESSORS_ONLN).ok()??.max(1);
    Some(f64::from(procfs::LoadAverage::current().ok()?.one) / cpus as f64)
}

fn free_memory_mb() -> Option<f64> {
    Some(procfs::Meminfo::current().ok()?.mem_available? as f64 / MIB)
}

/// What a process without privileges may still write: the reserve for root is not ours to fill.
fn free_disk_mb(folders: &[&Path]) -> Option<f64> {
    let free = |folder: &&Path| {
        let stat = nix::sys::statvfs::statvfs(*folder).ok()?;
        Some(stat.blocks_available() as f64 * stat.fragment_size() as f64 / MIB)
    };
    folders.iter().filter_map(free).reduce(f64::min)
}

fn memory_pressure() -> Option<f64> {
    Some(f64::from(procfs::MemoryPressure::current().ok()?.full.avg10))
}

fn io_pressure() -> Option<f64> {
    Some(f64::from(procfs::IoPressure::current().ok()?.full.avg10))
}

fn cpu_pressure() -> Option<f64> {
    Some(f64::from(procfs::CpuPressure::current().ok()?.some.avg10))
}
