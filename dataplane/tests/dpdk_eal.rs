//! DPDK's environment: where its threads run, and what is said when it cannot start.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use sluice_dataplane::dpdk::{
    Backing, Eal, EalConfig, EalError, Hugepages, Mempool, MempoolError, PoolConfig, clock,
};
use support::{in_own_process, small, start};

fn allowed_cores() -> Vec<usize> {
    let cores = core_affinity::get_core_ids().unwrap();
    cores.into_iter().map(|core| core.id).collect()
}

/// Where the instance keeps its files.
fn runtime_dir(prefix: &str) -> PathBuf {
    PathBuf::from("/var/run/dpdk").join(prefix)
}

#[test]
fn a_worker_runs_on_its_own_core_and_the_caller_stays_free() {
    in_own_process(
        "a_worker_runs_on_its_own_core_and_the_caller_stays_free",
        || {
            let before = allowed_cores();
            let (first, last) = (before[0], *before.last().unwrap());
            let eal = Eal::start(&EalConfig {
                main_core: first,
                worker_cores: vec![last, first],
                ..small(&[])
            })
            .unwrap();
            assert_eq!(allowed_cores(), before, "the caller was pinned");

            for (worker, core) in [(0, last), (1, first)] {
                let (tell, told) = mpsc::channel();
                let running = eal
                    .launch(worker, move || {
                        // SAFETY: reads this thread's lcore number.
                        let lcore = unsafe { dpdk_sys::sluice_lcore_id() };
                        tell.send((allowed_cores(), lcore)).unwrap();
                    })
                    .unwrap();
                assert_eq!(told.recv().unwrap(), (vec![core], worker as u32 + 1));
                running.wait();
            }
        },
    );
}

#[test]
fn a_worker_can_be_launched_again_but_not_twice_at_once() {
    in_own_process(
        "a_worker_can_be_launched_again_but_not_twice_at_once",
        || {
            let eal = start(&[]);
            let stop = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&stop);
            let running = eal
                .launch(0, move || {
                    while !seen.load(Ordering::Relaxed) {
                        thread::yield_now();
                    }
                })
                .unwrap();
            let second = eal.launch(0, || unreachable!("the lcore is busy"));
            assert!(matches!(second, Err(EalError::Launch { worker: 0, .. })));
            assert!(!running.is_finished());
            stop.store(true, Ordering::Relaxed);
            running.wait();

            let done = Arc::new(AtomicBool::new(false));
            let mark = Arc::clone(&done);
            let running = eal
                .launch(0, move || mark.store(true, Ordering::Relaxed))
                .unwrap();
            running.wait();
            assert!(done.load(Ordering::Relaxed));

            let error = eal.launch(1, || ()).unwrap_err();
            assert_eq!(
                error.to_string(),
                "worker 1 was not configured; there are 1"
            );
        },
    );
}

#[test]
fn a_panic_of_a_worker_ends_the_process() {
    let name = "a_panic_of_a_worker_ends_the_process";
    if env::var_os("SLUICE_TEST_PANIC").is_some() {
        let eal = start(&[]);
        eal.launch(0, || panic!("as it must")).unwrap().wait();
        return;
    }
    let child = Command::new(env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env("SLUICE_TEST_PANIC", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let left = runtime_dir(&format!("sluice-test-{}", child.id()));
    let output = child.wait_with_output().unwrap();
    fs::remove_dir_all(left).unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("as it must"), "{said}");
}

#[test]
fn a_core_that_does_not_exist_is_named_and_the_start_can_be_repeated() {
    in_own_process(
        "a_core_that_does_not_exist_is_named_and_the_start_can_be_repeated",
        || {
            for core in [1000, 1 << 20] {
                let error = Eal::start(&EalConfig {
                    worker_cores: vec![core],
                    ..small(&[])
                })
                .unwrap_err()
                .to_string();
                assert!(
                    error.starts_with(&format!("core {core} does not exist")),
                    "{error}"
                );
                assert!(error.contains("online are 0"), "{error}");
            }
            start(&[]);
        },
    );
}

#[test]
fn too_little_memory_is_said_with_the_shortfall() {
    in_own_process("too_little_memory_is_said_with_the_shortfall", || {
        let huge = |hugepages| EalConfig {
            memory_mb: 1 << 30,
            hugepages,
            ..small(&[])
        };
        let error = Eal::start(&huge(Hugepages::Required)).unwrap_err();
        assert!(
            matches!(error, EalError::NotEnoughHugepages { want_mb, have_mb, short_mb, .. }
                if want_mb == 1 << 30 && have_mb + short_mb == want_mb),
            "{error}"
        );
        assert!(error.to_string().contains("nr_hugepages"), "{error}");
        let error = Eal::start(&huge(Hugepages::Auto)).unwrap_err();
        assert!(matches!(error, EalError::NotEnoughMemory { .. }), "{error}");
    });
}

#[test]
fn what_dpdk_complains_about_is_quoted() {
    in_own_process("what_dpdk_complains_about_is_quoted", || {
        let config = small(&["net_nonsense0"]);
        let error = Eal::start(&config).unwrap_err().to_string();
        assert!(!runtime_dir(&config.file_prefix).exists());
        assert!(error.contains("net_nonsense0"), "{error}");
        let again = Eal::start(&small(&[])).unwrap_err();
        assert!(matches!(again, EalError::AlreadyStarted));
    });
}

#[test]
fn a_living_instance_keeps_its_prefix_and_leaves_no_files() {
    let name = "a_living_instance_keeps_its_prefix_and_leaves_no_files";
    in_own_process(name, || {
        if let Ok(file_prefix) = env::var("SLUICE_TEST_PREFIX") {
            let error = Eal::start(&EalConfig {
                file_prefix: file_prefix.clone(),
                ..small(&[])
            })
            .unwrap_err();
            assert!(
                matches!(&error, EalError::PrefixInUse { prefix, pid } if *prefix == file_prefix && *pid > 0),
                "{error}"
            );
            return;
        }
        let config = small(&[]);
        let eal = Eal::start(&config).unwrap();
        assert_eq!(eal.backing(), Backing::Ordinary);
        assert!(eal.version().starts_with("DPDK "));
        let folder = runtime_dir(&config.file_prefix);
        assert!(folder.join("config").exists());
        // The second instance is this test once more, with the prefix told.
        let second = Command::new(env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env("SLUICE_TEST_PREFIX", &config.file_prefix)
            .output()
            .unwrap();
        assert!(
            second.status.success(),
            "{}",
            String::from_utf8_lossy(&second.stderr)
        );
        drop(eal);
        assert!(!folder.exists());
    });
}

#[test]
fn a_pool_that_does_not_fit_says_what_it_wanted() {
    in_own_process("a_pool_that_does_not_fit_says_what_it_wanted", || {
        let eal = start(&[]);
        let config = PoolConfig::new("big", 100_000);
        assert!((220..260).contains(&(config.bytes() >> 20)));
        let error = Mempool::new(&eal, &config).unwrap_err();
        assert!(
            matches!(
                error,
                MempoolError::Refused {
                    want_mb: 220..260,
                    free_mb: 30..=64,
                    ..
                }
            ),
            "{error}"
        );
        for name in ["", "a name of twenty-six bytes", "zero\0"] {
            let error = Mempool::new(&eal, &PoolConfig::new(name, 100)).unwrap_err();
            assert!(matches!(error, MempoolError::BadName(_)), "{error}");
        }
        let long = PoolConfig {
            frame_len: u16::MAX,
            ..PoolConfig::new("long", 100)
        };
        let error = Mempool::new(&eal, &long).unwrap_err();
        assert!(matches!(error, MempoolError::TooLong { .. }), "{error}");
    });
}

#[test]
fn what_a_pool_takes_is_known_before_it_is_made() {
    in_own_process("what_a_pool_takes_is_known_before_it_is_made", || {
        let config = PoolConfig::new("exact", 20_000);
        let wanted = config.bytes();
        let eal = Eal::start(&EalConfig {
            memory_mb: (wanted >> 20) as u32 + 4,
            ..small(&[])
        })
        .unwrap();
        let pool = Mempool::new(&eal, &config).unwrap();
        assert_eq!(pool.available(), 20_000);
    });
}

#[test]
fn the_clock_runs_at_its_rate() {
    in_own_process("the_clock_runs_at_its_rate", || {
        let eal = start(&[]);
        let rate = clock::rate(&eal);
        let start = clock::now();
        thread::sleep(std::time::Duration::from_millis(200));
        let slept = rate.whole_millis(clock::now() - start);
        assert!((195..2000).contains(&slept), "{slept} ms");
    });
}
