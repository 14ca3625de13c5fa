//! DPDK's environment (EAL): started once a process, on a thread of its own, with workers as its lcores.
//!
//! `rte_eal_init` pins its caller, so a thread of ours calls it, becomes the main lcore and then only serves jobs
//! that DPDK wants done there. Workers are lcores 1 to N (contract 7 of the design): they have mempool caches, and
//! secondary processes keep working. `rte_eal_cleanup` is never called: it would unmap memory under frames that
//! someone may still own. The process' end gives it back; [`Eal`]'s drop removes the files.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::{self, JoinHandle};

use core_affinity::CoreId;
use dpdk_sys as sys;

use super::config::Machine;
use super::{Backing, EalConfig, Socket, log, memory};

/// Starting DPDK, or work on its lcores, failed. Control thread only.
#[derive(Debug, thiserror::Error)]
pub enum EalError {
    /// EAL can be started once a process.
    #[error(
        "DPDK was started in this process before; it can be started only once, so start a new process"
    )]
    AlreadyStarted,
    /// Not usable in a file's name.
    #[error(
        "file prefix {0:?} is not made of letters, digits, `-`, `_` and `.`; choose a name like `sluice`"
    )]
    BadPrefix(String),
    /// Another process has this prefix.
    #[error(
        "process {pid} runs as {prefix:?} already; stop it, or give this instance another file prefix"
    )]
    PrefixInUse {
        /// The prefix.
        prefix: String,
        /// Who has it.
        pid: i32,
    },
    /// No worker cores.
    #[error("no worker core is configured; name at least one")]
    NoWorkers,
    /// More workers than EAL has lcores.
    #[error("{want} workers are configured and this DPDK was built for {max}; configure fewer")]
    TooManyWorkers {
        /// Configured.
        want: usize,
        /// Possible.
        max: usize,
    },
    /// Two threads would poll on one core.
    #[error(
        "worker {worker} is on core {core}, which another worker or the control thread has; \
         give it a core of its own, or set `allow_shared_cores`"
    )]
    SharedCore {
        /// The later of the two.
        worker: usize,
        /// The core.
        core: usize,
    },
    /// There is no such core, or this process may not use it.
    #[error(
        "core {core} does not exist or this process may not run on it; \
         online are {online}, and a container or `taskset` may allow fewer"
    )]
    NoSuchCore {
        /// The core.
        core: usize,
        /// What is online, as the kernel lists it.
        online: String,
    },
    /// Too few free hugepages.
    #[error(
        "{want_mb} MB of hugepages and {have_mb} MB are free, {short_mb} MB too few; reserve more with \
         `echo {pages} > /sys/kernel/mm/hugepages/hugepages-{page_kb}kB/nr_hugepages`, or lower the memory"
    )]
    NotEnoughHugepages {
        /// Wanted.
        want_mb: u64,
        /// Free.
        have_mb: u64,
        /// The difference.
        short_mb: u64,
        /// Size of a page in kB.
        page_kb: u64,
        /// How many pages must be reserved in all.
        pages: u64,
    },
    /// Hugepages, but no hugetlbfs to take them from.
    #[error(
        "hugepages are free, but no hugetlbfs is mounted; mount one with \
         `mkdir -p /dev/hugepages && mount -t hugetlbfs none /dev/hugepages`, or set `in_memory`"
    )]
    NoHugetlbfs,
    /// Too little ordinary memory.
    #[error(
        "{want_mb} MB of memory are wanted, {frames_mb} MB for frames and {tables_mb} MB for tables of connections, and \
         {have_mb} MB are available, {short_mb} MB too few; lower max_connections or memory_mb"
    )]
    NotEnoughMemory {
        /// Wanted.
        want_mb: u64,
        /// For frames and drivers; 0 where they are in hugepages.
        frames_mb: u64,
        /// For tables.
        tables_mb: u64,
        /// Available.
        have_mb: u64,
        /// The difference.
        short_mb: u64,
    },
    /// An argument holds a zero byte.
    #[error("EAL argument {0:?} holds a zero byte")]
    BadArgument(String),
    /// `rte_eal_init` failed.
    #[error("DPDK did not start: {errno}; it said: {said}{}",
        if .extra.is_empty() { String::new() } else { format!("; do its extra arguments make sense: {extra}?") }
    )]
    Init {
        /// The error number's text.
        errno: String,
        /// DPDK's own latest complaints.
        said: String,
        /// What it was given that is not ours.
        extra: String,
    },
    /// The system refused a thread.
    #[error("no thread for DPDK's main lcore: {0}")]
    Thread(#[from] std::io::Error),
    /// There is no such worker.
    #[error("worker {worker} was not configured; there are {workers}")]
    NoSuchWorker {
        /// Asked for.
        worker: usize,
        /// Configured.
        workers: usize,
    },
    /// The worker's lcore runs something already.
    #[error("worker {worker}'s lcore cannot be launched: {errno}")]
    Launch {
        /// Which.
        worker: usize,
        /// The error number's text.
        errno: String,
    },
}

type Job = Box<dyn FnOnce() + Send>;

/// DPDK's environment, running. A reference to it shows that EAL is initialised, which it stays until the process
/// ends. Dropping it frees the main lcore's thread and removes the instance's files; devices and workers are
/// stopped by those who hold them, before.
#[derive(Debug)]
pub struct Eal {
    file_prefix: String,
    backing: Backing,
    worker_cores: Vec<usize>,
    jobs: Option<Sender<Job>>,
    main: Option<JoinHandle<()>>,
}

/// EAL's start cannot be repeated, whether it failed or not.
static STARTED: AtomicBool = AtomicBool::new(false);

impl Eal {
    /// Starts EAL as `config` says. Takes 0.1 to 1 s. The caller is not pinned.
    ///
    /// Everything that can be found wrong before is an error of its own; past that it is [`EalError::Init`], after which
    /// the process can only end.
    pub fn start(config: &EalConfig) -> Result<Self, EalError> {
        config.validate()?;
        // First: looking for another holder of the prefix would drop this process' own lock on it.
        if STARTED.load(Ordering::Acquire) {
            return Err(EalError::AlreadyStarted);
        }
        if let Some(pid) = memory::holder(&config.file_prefix) {
            return Err(EalError::PrefixInUse {
                prefix: config.file_prefix.clone(),
                pid,
            });
        }
        let mounts = memory::mounts();
        let removed = memory::remove_stale_pages(&config.file_prefix, &mounts);
        if removed > 0 {
            tracing::info!(removed, "removed hugepage files of a killed predecessor");
        }
        let backing = config.backing(&Machine {
            sizes: memory::page_sizes(),
            mounts,
            default_kb: memory::default_page_kb(),
            available_mb: memory::available_mb(),
        })?;
        let arguments = c_strings(config.arguments(backing))?;
        let extra = config.extra_args.join(" ");
        let cores: Vec<_> = [config.main_core]
            .into_iter()
            .chain(config.worker_cores.iter().copied())
            .collect();

        let (jobs, job_queue) = mpsc::channel::<Job>();
        let (report, outcome) = mpsc::channel();
        let main = thread::Builder::new()
            .name("sluice-eal".into())
            .spawn(move || {
                let started = cores
                    .into_iter()
                    .try_for_each(probe_core)
                    .and_then(|()| initialise(arguments, extra));
                let failed = started.is_err();
                if report.send(started).is_err() || failed {
                    return;
                }
                for job in job_queue {
                    job();
                }
            })?;
        let started = outcome
            .recv()
            .unwrap_or_else(|_| unreachable!("the main lcore's thread reports before it ends"));
        if let Err(error) = started {
            if matches!(error, EalError::Init { .. })
                && memory::holder(&config.file_prefix).is_none()
            {
                memory::remove_own_files(&config.file_prefix);
            }
            return Err(error);
        }
        let eal = Self {
            file_prefix: config.file_prefix.clone(),
            backing,
            worker_cores: config.worker_cores.clone(),
            jobs: Some(jobs),
            main: Some(main),
        };
        if backing == Backing::Hugetlbfs {
            eal.allow_captures();
        }
        Ok(eal)
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.worker_cores.len()
    }

    /// Where memory comes from.
    pub fn backing(&self) -> Backing {
        self.backing
    }

    /// The NUMA node of a worker's core: its frames should be there.
    pub fn worker_socket(&self, worker: usize) -> Result<Socket, EalError> {
        let lcore = self.lcore(worker)?;
        // SAFETY: EAL is initialised and the lcore is one of its own.
        Ok(Socket(
            unsafe { sys::rte_lcore_to_socket_id(lcore) } as c_int
        ))
    }

    /// The release that runs, such as `DPDK 22.11.11`.
    pub fn version(&self) -> String {
        // SAFETY: returns a string that lives as long as the process.
        unsafe { CStr::from_ptr(sys::rte_version()) }
            .to_string_lossy()
            .into_owned()
    }

    /// Runs `work` on the lcore of worker `worker`, pinned to its core. `Err` when there is no such worker, or it is
    /// still at work. A panic in `work` ends the process.
    pub fn launch<F>(&self, worker: usize, work: F) -> Result<RunningWorker, EalError>
    where
        F: FnOnce() + Send + 'static,
    {
        let lcore = self.lcore(worker)?;
        let (finished, done) = mpsc::channel();
        let entry: Entry = Box::new(move || {
            work();
            // Nobody may be waiting; then nobody needs to know.
            let _ = finished.send(());
        });
        let argument = SendPointer(Box::into_raw(Box::new(entry)));
        let error = self.on_main(move || argument.launch(lcore));
        if error != 0 {
            return Err(EalError::Launch {
                worker,
                errno: errno_text(-error),
            });
        }
        Ok(RunningWorker { lcore, done })
    }

    /// Lets dpdk-dumpcap and dpdk-pdump attach.
    fn allow_captures(&self) {
        // SAFETY: EAL is initialised, and this is its main lcore.
        let error = self.on_main(|| unsafe { sys::rte_pdump_init() });
        if error != 0 {
            tracing::warn!("packet capture by dpdk-dumpcap is not possible: rte_pdump_init failed");
        }
    }

    /// Runs `job` on the main lcore and waits for what it returns.
    fn on_main<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
        let (answer, result) = mpsc::channel();
        let job: Job = Box::new(move || {
            let _ = answer.send(job());
        });
        self.jobs
            .as_ref()
            .and_then(|jobs| jobs.send(job).ok())
            .and_then(|()| result.recv().ok())
            .unwrap_or_else(|| {
                unreachable!("the main lcore's thread serves jobs until Eal is dropped")
            })
    }

    fn lcore(&self, worker: usize) -> Result<c_uint, EalError> {
        if worker < self.workers() {
            // validate() keeps workers below the number of lcores.
            Ok(worker as c_uint + 1)
        } else {
            Err(EalError::NoSuchWorker {
                worker,
                workers: self.workers(),
            })
        }
    }
}

impl Drop for Eal {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(main) = self.main.take() {
            let _ = main.join();
        }
        memory::remove_own_files(&self.file_prefix);
    }
}

/// A worker at work. Dropping it does not stop the worker.
#[derive(Debug)]
#[must_use = "wait for it before what it uses is taken down"]
pub struct RunningWorker {
    lcore: c_uint,
    done: Receiver<()>,
}

impl RunningWorker {
    /// Blocks until the work has returned; then the lcore can be launched again.
    pub fn wait(self) {
        // An error would mean that the work panicked, and then the process has ended.
        let _ = self.done.recv();
        // SAFETY: the lcore is EAL's. Only the few instructions from our signal to its idle loop are waited for.
        unsafe { sys::rte_eal_wait_lcore(self.lcore) };
    }

    /// Whether the work has returned.
    pub fn is_finished(&self) -> bool {
        !matches!(self.done.try_recv(), Err(TryRecvError::Empty))
    }
}

type Entry = Box<dyn FnOnce() + Send>;

/// An [`Entry`] on its way through C. Exactly one of [`run`] and a failed launch takes it back.
struct SendPointer(*mut Entry);

// SAFETY: what it points to is Send, and it has one owner at a time.
unsafe impl Send for SendPointer {}

impl SendPointer {
    /// On the main lcore.
    fn launch(self, lcore: c_uint) -> c_int {
        // SAFETY: `run` takes the pointer as what it is; EAL is initialised, and this is its main lcore.
        let error = unsafe { sys::rte_eal_remote_launch(Some(run), self.0.cast(), lcore) };
        if error != 0 {
            // SAFETY: the launch failed, so nobody else takes the pointer that came from a box.
            drop(unsafe { Box::from_raw(self.0) });
        }
        error
    }
}

/// What lcores call. A panic does not unwind past here: it ends the process, whatever the profile says.
unsafe extern "C" fn run(argument: *mut c_void) -> c_int {
    // SAFETY: `launch` made the pointer from such a box and gave it up.
    let entry = unsafe { Box::from_raw(argument.cast::<Entry>()) };
    entry();
    0
}

/// Finds out whether the core can be used, by moving this thread there.
fn probe_core(core: usize) -> Result<(), EalError> {
    let known = core < libc::CPU_SETSIZE as usize;
    if known && core_affinity::set_for_current(CoreId { id: core }) {
        return Ok(());
    }
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    Err(EalError::NoSuchCore {
        core,
        online: online.trim().to_owned(),
    })
}

fn c_strings(arguments: Vec<String>) -> Result<Vec<CString>, EalError> {
    arguments
        .into_iter()
        .map(|argument| CString::new(argument.clone()).map_err(|_| EalError::BadArgument(argument)))
        .collect()
}

/// On the thread that is to be the main lcore.
fn initialise(arguments: Vec<CString>, extra: String) -> Result<(), EalError> {
    if STARTED.swap(true, Ordering::AcqRel) {
        return Err(EalError::AlreadyStarted);
    }
    log::redirect();
    tracing::debug!(?arguments, "starting EAL");
    // EAL reorders the vector and may keep pointers into it: it stays for good.
    let arguments: &'static mut [*mut c_char] = arguments
        .into_iter()
        .map(CString::into_raw)
        .collect::<Vec<_>>()
        .leak();
    // What it does not understand it answers with a page of usage on standard output.
    let quiet = Quiet::new();
    // SAFETY: the vector and its strings live as long as the process, and EAL is initialised for the first time.
    let parsed = unsafe { sys::rte_eal_init(arguments.len() as c_int, arguments.as_mut_ptr()) };
    drop(quiet);
    if parsed >= 0 {
        return Ok(());
    }
    let mut said = log::take_complaints();
    if said.is_empty() {
        said = "nothing".into();
    }
    Err(EalError::Init {
        errno: errno_text(last_errno()),
        said,
        extra,
    })
}

/// While it lives, standard output leads nowhere, C code that writes to standard error by itself writes nowhere, too (what it
/// says there it also logs), and the C library names no unknown options.
struct Quiet {
    stdout: Option<OwnedFd>,
    stderr: *mut libc::FILE,
    opterr: c_int,
}

unsafe extern "C" {
    /// Of getopt(3): whether it complains.
    static mut opterr: c_int;
    /// Of stdio(3): a variable, in the GNU C library.
    static mut stderr: *mut libc::FILE;
}

impl Quiet {
    fn new() -> Self {
        let nowhere = File::options().write(true).open("/dev/null");
        let stdout = std::io::stdout().as_fd().try_clone_to_owned().ok();
        if let (Ok(nowhere), Some(_)) = (&nowhere, &stdout) {
            // SAFETY: both descriptors are open.
            unsafe { libc::dup2(nowhere.as_raw_fd(), libc::STDOUT_FILENO) };
        }
        // Stays open: DPDK may keep it.
        // SAFETY: both strings are terminated.
        let void = unsafe { libc::fopen(c"/dev/null".as_ptr(), c"we".as_ptr()) };
        // SAFETY: Rust does not use C's streams, and no C code runs yet that would.
        let stderr_before = unsafe { stderr };
        if !void.is_null() {
            // SAFETY: as above.
            unsafe { stderr = void };
        }
        // SAFETY: nothing else in this process uses getopt.
        let before = unsafe { ptr::replace(&raw mut opterr, 0) };
        Self {
            stdout,
            stderr: stderr_before,
            opterr: before,
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { opterr = self.opterr };
        // SAFETY: it is what was there before.
        unsafe { stderr = self.stderr };
        if let Some(stdout) = &self.stdout {
            // SAFETY: null means all of the C library's streams: what it holds back goes nowhere, too.
            unsafe { libc::fflush(ptr::null_mut()) };
            // SAFETY: both descriptors are open.
            unsafe { libc::dup2(stdout.as_raw_fd(), libc::STDOUT_FILENO) };
        }
    }
}

/// The error number of this thread's last failed call of DPDK.
pub(super) fn last_errno() -> c_int {
    // SAFETY: reads a thread-local of the calling thread.
    unsafe { sys::sluice_errno() }
}

/// What an error number (positive) means.
pub(super) fn errno_text(errno: c_int) -> String {
    // SAFETY: returns a string that this thread's next call may change; it is copied before.
    unsafe { CStr::from_ptr(sys::rte_strerror(errno)) }
        .to_string_lossy()
        .into_owned()
}
