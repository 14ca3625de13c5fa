//! `make bench`: the appliance on net_pcap beside testpmd, new connections, memory; tables and a verdict.

#![expect(clippy::print_stdout, reason = "a command line tool")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use sluice_control::api::Method;
use sluice_perf::appliance::Appliance;
use sluice_perf::capture::{self, Capture};
use sluice_perf::churn::{Churn, LIVE};
use sluice_perf::hugepages::Reserved;
use sluice_perf::instructions::Ceilings;
use sluice_perf::interrupt;
use sluice_perf::machine::Machine;
use sluice_perf::report::experiment::Experiment;
use sluice_perf::report::{NewConnections, Report, Row, Run, Settings};
use sluice_perf::scenario::{Place, Scenario, count, name};
use sluice_perf::several;
use sluice_perf::single::{Single, Turns};
use sluice_perf::suite::rig::Rig;
use sluice_perf::suite::{self, Question};
use sluice_perf::targets::{TWO_WAY_FLOWS, Target};
use sluice_perf::testpmd::{self, Mode, Testpmd};
use sluice_perf::timing::{Window, load, median};
use sluice_perf::traffic::Traffic;
use sluice_perf::walk::Walk;

/// Before a window: caches and branch predictors fill.
const WARM_UP: Duration = Duration::from_millis(150);

/// Hugepages beyond what one program needs: others may run.
const SLACK_MB: u64 = 256;

/// The most flows that are looked at, in one method.
const MOST_FLOWS: u32 = 4_000_000;

/// Measures the appliance beside testpmd on one core and judges it by its targets.
#[derive(Parser)]
struct Options {
    /// Numbers of flows: a connection is one, or with NAT and FULLNAT two, one in each direction.
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 100_000, TWO_WAY_FLOWS, 1_000_000, MOST_FLOWS])]
    flows: Vec<u32>,

    /// Methods: dr, tun, nat, fullnat.
    #[arg(long, value_delimiter = ',', default_values = ["dr", "tun", "nat", "fullnat"])]
    methods: Vec<String>,

    /// Interleaved rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,

    /// CPU time of a measurement, in milliseconds.
    #[arg(long, default_value_t = 500)]
    window_ms: u64,

    /// The worker's core; the other programs use core 0.
    #[arg(long, default_value_t = 1)]
    core: usize,

    /// Leave new connections out.
    #[arg(long)]
    established_only: bool,

    /// Run without hugepages.
    #[arg(long)]
    no_hugepages: bool,

    /// Where to put the results; nowhere if not given.
    #[arg(long)]
    results: Option<PathBuf>,

    /// Instructions a packet, to be shown beside.
    #[arg(long, default_value = "perf/ceilings.toml")]
    ceilings: PathBuf,

    /// Only bring the appliance up with the first method and number of connections, say its process, and wait for Enter: to
    /// look at it with perf.
    #[arg(long)]
    hold: bool,

    /// Look at all that the suite looks at, too.
    #[arg(long)]
    whole: bool,

    /// Look at these questions of the suite, and at nothing else.
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Question>,

    /// Measure nothing, only write the text and the page of this result (JSON) anew.
    #[arg(long)]
    render: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    if let Some(result) = &options.render {
        Report::render(result)?;
        return Ok(ExitCode::SUCCESS);
    }
    interrupt::watch()?;
    let bench = Bench::new(options)?;
    if bench.options.hold {
        bench.hold()?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = bench.run()?;
    if let Some(folder) = &bench.options.results {
        let paths = report.store(folder)?;
        for path in paths {
            eprintln!("written: {}", path.display());
        }
    }
    print!("{}", report.text());
    let (_, missed) = report.verdict();
    Ok(if missed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

struct Bench {
    options: Options,
    sluiced: PathBuf,
    methods: Vec<Method>,
    ceilings: Ceilings,
    /// Goes before the folder: its mount is in there.
    _hugepages: Option<Reserved>,
    folder: tempfile::TempDir,
}

/// A scenario's files, and the walk that knows what must come out.
struct Prepared {
    scenario: Scenario,
    place: Place,
    traffic: Traffic,
    walk: Walk,
}

impl Bench {
    fn new(options: Options) -> anyhow::Result<Self> {
        let this = std::env::current_exe()?;
        let sluiced = this.with_file_name("sluiced");
        ensure!(
            sluiced.exists(),
            "{} is missing: cargo build --release --package sluice-control",
            sluiced.display()
        );
        let parse = |text: &String| {
            serde_json::from_value(text.as_str().into()).with_context(|| format!("method {text}"))
        };
        let methods = options
            .methods
            .iter()
            .map(parse)
            .collect::<Result<Vec<Method>, _>>()?;
        let folder = tempfile::Builder::new().prefix("sluice-bench").tempdir()?;
        let needed = options.flows.iter().flat_map(|flows| {
            let each = in_table(*flows, &methods).into_iter();
            each.map(|method| {
                Scenario {
                    method,
                    flows: *flows,
                }
                .memory_mb()
            })
        });
        let needed = u64::from(needed.max().context("nothing to measure")?);
        let whole = options.whole || !options.only.is_empty();
        let needed = needed.max(if whole { suite::MEMORY_MB } else { 0 });
        let hugepages = (!options.no_hugepages)
            .then(|| Reserved::at_least(needed + SLACK_MB, &folder.path().join("huge")))
            .transpose()?;
        Ok(Self {
            ceilings: Ceilings::load(&options.ceilings).unwrap_or_default(),
            options,
            sluiced,
            methods,
            folder,
            _hugepages: hugepages,
        })
    }

    fn run(&self) -> anyhow::Result<Report> {
        let hugepages = !self.options.no_hugepages;
        let mut settings = Settings::new(hugepages, self.options.rounds, self.options.window_ms);
        // Before this thread is pinned: the number of cores is that of those it may use.
        let (machine, before) = (Machine::this(), load());
        let (mut rows, mut singles, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        let mut connection_bytes = None;
        let only = !self.options.only.is_empty();
        let whole = self.options.whole || only;
        let mut experiments = if whole { self.suite()? } else { Vec::new() };
        let flows = self.options.flows.iter();
        for flows in flows.filter(|_| !only) {
            for method in in_table(*flows, &self.methods) {
                eprintln!(
                    "{} {}: {} rounds",
                    name(method),
                    count(*flows),
                    self.options.rounds
                );
                let mut prepared = self.prepare(Scenario {
                    method,
                    flows: *flows,
                })?;
                let connections = prepared.scenario.connections();
                if u64::from(connections) == LIVE {
                    connection_bytes =
                        Some(prepared.walk.connection_bytes() as f64 / f64::from(connections));
                }
                settings.command_lines.push(format!(
                    "{}: sluiced with {} MB of DPDK's memory, {} frames, room for {} connections",
                    prepared.scenario,
                    prepared.scenario.memory_mb(),
                    prepared.scenario.frames(),
                    prepared.scenario.max_connections()
                ));
                settings.command_lines.push(format!(
                    "{}: {} {}",
                    prepared.scenario,
                    testpmd::PROGRAM,
                    testpmd::arguments(&prepared.scenario, &prepared.place).join(" ")
                ));
                singles.push(self.singles(&mut prepared));
                let row = self.measure(prepared)?;
                eprintln!(
                    "  {:.1} ns, macswap {:.1}, ratio {:.3}",
                    median(row.sluice.iter().map(Window::ns_per_packet)),
                    median(row.macswap.iter().map(Window::ns_per_packet)),
                    row.ratio(&row.macswap)
                );
                targets.extend(Target::ratio(&row.scenario, row.ratio(&row.macswap)));
                rows.push(row);
            }
        }
        for method in &self.methods {
            targets.extend(slowest(*method, &singles));
        }
        let mut new_connections = Vec::new();
        if !self.options.established_only && !only {
            new_connections = self.new_connections()?;
            let slowest = new_connections.iter().map(NewConnections::millions_per_s);
            targets.push(Target::new_connections(slowest.fold(f64::MAX, f64::min)));
        }
        targets.extend(connection_bytes.map(Target::memory));
        if !whole && machine.cores > 1 {
            experiments.push(several::run(
                self.options.core,
                self.options.rounds,
                self.window(),
            )?);
        }
        let two = experiments.iter().find(|one| one.title == several::TITLE);
        targets.extend(two.map(|two| Target::two_workers(several::gain(two))));
        Ok(Report {
            run: if whole { Run::Perf } else { Run::Bench },
            machine,
            settings,
            load: (before, load()),
            rows,
            new_connections,
            singles,
            experiments,
            connection_bytes,
            targets,
        })
    }

    fn suite(&self) -> anyhow::Result<Vec<Experiment>> {
        let rig = Rig {
            sluiced: &self.sluiced,
            folder: self.folder.path(),
            core: self.options.core,
            hugepages: !self.options.no_hugepages,
        };
        let all = Question::ALL.to_vec();
        let questions = if self.options.only.is_empty() {
            all
        } else {
            self.options.only.clone()
        };
        let mut experiments = Vec::new();
        for question in questions {
            experiments.extend(question.answer(&rig, self.options.rounds, self.window())?);
        }
        Ok(experiments)
    }

    fn prepare(&self, scenario: Scenario) -> anyhow::Result<Prepared> {
        let folder = self.folder.path();
        let place = Place {
            steady: folder.join("steady.pcap"),
            opening: folder.join("opening.pcap"),
            socket: folder.join("rpc.sock"),
            file_prefix: format!("sluice-bench-{}", std::process::id()),
            worker_core: self.options.core,
            control_core: 0,
            hugepages: !self.options.no_hugepages,
        };
        let mut walk = Walk::new(&scenario)?;
        let traffic = Traffic::new(&scenario, &mut walk)?;
        capture::write(&place.steady, traffic.steady.iter().copied())?;
        capture::write(&place.opening, traffic.opening_file())?;
        Ok(Prepared {
            scenario,
            place,
            traffic,
            walk,
        })
    }

    fn measure(&self, mut prepared: Prepared) -> anyhow::Result<Row> {
        let mut row = Row {
            scenario: prepared.scenario,
            sluice: Vec::new(),
            macswap: Vec::new(),
            five_tuple_swap: Vec::new(),
            instructions: self.ceilings.of(&prepared.scenario),
            compared: 0,
        };
        for _ in 0..self.options.rounds {
            let [macswap, five_tuple_swap] = self.testpmd(&prepared)?;
            row.macswap.push(macswap);
            row.five_tuple_swap.push(five_tuple_swap);
            let (window, compared) = self.appliance(&mut prepared)?;
            row.sluice.push(window);
            row.compared += compared;
        }
        Ok(row)
    }

    /// Packets one by one, through the walk that knows the connections.
    fn singles(&self, prepared: &mut Prepared) -> Single {
        let Prepared { walk, traffic, .. } = prepared;
        let rounds = 0..self.options.rounds;
        Single {
            scenario: prepared.scenario,
            windows: rounds
                .map(|_| Turns::measure(walk, &traffic.steady))
                .collect(),
        }
    }

    fn testpmd(&self, prepared: &Prepared) -> anyhow::Result<[Window; 2]> {
        let log = self.folder.path().join("testpmd.log");
        let mut testpmd = Testpmd::start(&prepared.scenario, &prepared.place, &log)?;
        let macswap = testpmd.measure(Mode::MacSwap, WARM_UP, self.window())?;
        let five_tuple_swap = testpmd.measure(Mode::FiveTupleSwap, WARM_UP, self.window())?;
        testpmd.stop()?;
        remove_runtime_folder(&testpmd::file_prefix(&prepared.place));
        Ok([macswap, five_tuple_swap])
    }

    /// A window, and how many frames were compared after it.
    fn appliance(&self, prepared: &mut Prepared) -> anyhow::Result<(Window, usize)> {
        let Prepared {
            scenario,
            place,
            traffic,
            walk,
        } = prepared;
        let mut appliance = self.start(scenario, place)?;
        let window = appliance.measure(WARM_UP, self.window())?;
        let mut compared = 0;
        let mut capture = None;
        if place.hugepages {
            let file = self.folder.path().join("sample.pcap");
            let taken = Capture::take(&place.file_prefix, &file)?;
            compared = taken
                .compare(&traffic.steady, walk)
                .with_context(|| scenario.to_string())?;
            capture = Some(taken);
        }
        appliance.stop()?;
        drop(capture);
        remove_runtime_folder(&place.file_prefix);
        Ok((window, compared))
    }

    fn start(&self, scenario: &Scenario, place: &Place) -> anyhow::Result<Appliance> {
        Appliance::start(&self.sluiced, scenario, place, self.folder.path())
    }

    fn new_connections(&self) -> anyhow::Result<Vec<NewConnections>> {
        // The worker's core, so that figures compare.
        let core = core_affinity::CoreId {
            id: self.options.core,
        };
        ensure!(
            core_affinity::set_for_current(core),
            "there is no core {}",
            core.id
        );
        let mut all = Vec::new();
        for method in &self.methods {
            eprintln!("new connections, {}", name(*method));
            let mut churn = Churn::new(*method)?;
            let rounds = 0..self.options.rounds;
            let windows = rounds.map(|_| churn.measure()).collect::<Result<_, _>>()?;
            all.push(NewConnections {
                method: name(*method).to_owned(),
                windows,
            });
        }
        Ok(all)
    }

    fn hold(&self) -> anyhow::Result<()> {
        let method = *self.methods.first().context("no method")?;
        let flows = *self.options.flows.first().context("no number of flows")?;
        let prepared = self.prepare(Scenario { method, flows })?;
        let appliance = self.start(&prepared.scenario, &prepared.place)?;
        println!("sluiced runs as process {}; Enter ends it", appliance.pid());
        std::io::stdin().read_line(&mut String::new())?;
        appliance.stop()
    }

    fn window(&self) -> Duration {
        Duration::from_millis(self.options.window_ms)
    }
}

/// The target of a method's bursts of one packet, at the number of connections at which they take longest.
fn slowest(method: Method, singles: &[Single]) -> Option<Target> {
    let of_method = singles
        .iter()
        .filter(|single| single.scenario.method == method);
    let medians =
        of_method.map(|single| median(single.windows.iter().map(|turns| turns.median_ns)));
    let slowest = medians.max_by(f64::total_cmp)?;
    Some(Target::single(method, slowest))
}

/// Sockets that testpmd and captures leave.
fn remove_runtime_folder(file_prefix: &str) {
    let _ = std::fs::remove_dir_all(Path::new("/var/run/dpdk").join(file_prefix));
}

/// The methods looked at with so many flows: only the first, where there are very many.
fn in_table(flows: u32, methods: &[Method]) -> Vec<Method> {
    let two_way = |method: &&Method| {
        let scenario = Scenario {
            method: **method,
            flows,
        };
        flows != TWO_WAY_FLOWS || scenario.both_directions()
    };
    let most = if flows >= MOST_FLOWS {
        1
    } else {
        methods.len()
    };
    methods.iter().filter(two_way).copied().take(most).collect()
}
