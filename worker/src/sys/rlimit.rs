//! `setrlimit` for the limits that a process may carry.

/// What can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// `RLIMIT_CORE`, in bytes.
    Core,
    /// `RLIMIT_NOFILE`.
    OpenFiles,
    /// `RLIMIT_FSIZE`, in bytes.
    FileSize,
    /// `RLIMIT_AS`, in bytes.
    AddressSpace,
    /// `RLIMIT_CPU`, in seconds.
    CpuTime,
    /// `RLIMIT_NPROC`.
    Processes,
}

/// One limit in the kernel's terms; applied in the child between clone and exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawLimit {
    resource: libc::__rlimit_resource_t,
    value: u64,
}

impl RawLimit {
    /// The limit of a resource.
    pub fn new(resource: Resource, value: u64) -> Self {
        let resource = match resource {
            Resource::Core => libc::RLIMIT_CORE,
            Resource::OpenFiles => libc::RLIMIT_NOFILE,
            Resource::FileSize => libc::RLIMIT_FSIZE,
            Resource::AddressSpace => libc::RLIMIT_AS,
            Resource::CpuTime => libc::RLIMIT_CPU,
            Resource::Processes => libc::RLIMIT_NPROC,
        };
        Self { resource, value }
    }

    /// Sets the limit for the calling process, soft and hard; a hard limit below it is kept. Async-signal-safe.
    /// Returns whether the kernel took it.
    pub fn apply(self) -> bool {
        let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `now` is a valid place for the kernel to write to.
        if unsafe { libc::getrlimit(self.resource, &raw mut now) } != 0 {
            return false;
        }
        let hard = now.rlim_max.min(self.value);
        let wanted = libc::rlimit { rlim_cur: hard, rlim_max: hard };
        // SAFETY: `wanted` is a valid limit to read from.
        unsafe { libc::setrlimit(self.resource, &raw const wanted) == 0 }
    }
}
