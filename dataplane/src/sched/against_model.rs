//! Every scheduler against its model, under random edits, loads and flows.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestError, TestRng, TestRunner};

use super::model::{LBLCR_EXPIRATION, Model, Server};
use super::tests::Bench;
use crate::service::{SchedulerFlags, SchedulerKind};

/// Servers are numbered from 1 to this.
const SERVERS: u32 = 7;

#[derive(Clone, Debug)]
enum Op {
    Add(u32, u32),
    Delete(u32),
    Weight(u32, u32),
    Load(u32, u32, u32),
    Overload(u32, bool),
    Flow { src: u8, dst: u8, port: u16 },
    Pass(u64),
    Choose,
}

fn op() -> impl Strategy<Value = Op> {
    let number = 1..=SERVERS;
    let weight =
        || prop_oneof![2 => Just(0), 8 => 1..6_u32, 2 => 1..400_u32, 1 => Just(i32::MAX as u32)];
    let flow = (any::<u8>(), 0..2_u8, 0..3_u16);
    prop_oneof![
        3 => (number.clone(), weight()).prop_map(|(n, w)| Op::Add(n, w)),
        1 => number.clone().prop_map(Op::Delete),
        2 => (number.clone(), weight()).prop_map(|(n, w)| Op::Weight(n, w)),
        4 => (number.clone(), 0..12_u32, 0..600_u32).prop_map(|(n, a, i)| Op::Load(n, a, i)),
        2 => (number, any::<bool>()).prop_map(|(n, o)| Op::Overload(n, o)),
        4 => flow.prop_map(|(src, dst, port)| Op::Flow { src, dst, port }),
        2 => prop_oneof![0..12_u64, Just(LBLCR_EXPIRATION)].prop_map(Op::Pass),
        10 => Just(Op::Choose),
    ]
}

fn check(kind: SchedulerKind, flags: u8, mistake: usize, ops: &[Op]) -> Result<(), TestCaseError> {
    let mut bench = Bench::new(kind, &[]);
    bench.set_flags(SchedulerFlags(flags));
    bench.settings.lblcr_expiration_s = LBLCR_EXPIRATION as u32;
    let mut model = Model::new(kind, SchedulerFlags(flags), &bench);
    model.mistake = mistake;
    // The kernel's walk, and so the model's, tries every level.
    let bound = if kind == SchedulerKind::Wrr {
        1000
    } else {
        u32::MAX
    };
    for op in ops {
        match *op {
            Op::Add(number, weight) if !model.list.contains(&number) => {
                bench.add(number, weight.min(bound));
                model.add(number, weight.min(bound));
            }
            Op::Delete(number) if model.list.contains(&number) => {
                bench.delete(number);
                model.delete(number);
            }
            Op::Weight(number, weight) if model.list.contains(&number) => {
                bench.set_weight(number, weight.min(bound));
                model.set_weight(number, weight.min(bound));
            }
            Op::Load(number, active, inactive) if model.servers.contains_key(&number) => {
                bench.load(number, active, inactive);
                let server = model.servers.get_mut(&number).unwrap();
                server.active = i128::from(active);
                server.total = i128::from(active + inactive);
            }
            Op::Overload(number, overloaded) if model.servers.contains_key(&number) => {
                bench.set_overloaded(number, overloaded);
                model.servers.get_mut(&number).unwrap().overloaded = overloaded;
            }
            Op::Flow { src, dst, port } => {
                model.src = Ipv4Addr::new(10, 0, 3, src);
                model.dst = Ipv4Addr::new(10, 0, 1, dst);
                model.port = port;
                bench.flow.src = model.src;
                bench.flow.dst = model.dst;
                bench.flow.src_port = port;
            }
            Op::Pass(seconds) => {
                bench.pass(seconds);
                model.now += seconds;
            }
            Op::Choose => {
                let expected = model.choose();
                prop_assert_eq!(bench.choose(), expected, "{} {:?}", kind.name(), model.list);
            }
            _ => {}
        }
    }
    Ok(())
}

fn run(kind: SchedulerKind, cases: u32) {
    let config = ProptestConfig {
        cases,
        ..ProptestConfig::default()
    };
    proptest!(config, |(flags in 0..4_u8, ops in prop::collection::vec(op(), 0..120))| {
        check(kind, flags, 0, &ops)?;
    });
}

/// Whether the same comparison, of the same number of cases, finds the model's seeded mistake of this number.
fn finds(kind: SchedulerKind, mistake: usize, cases: u32) -> bool {
    let config = ProptestConfig {
        cases,
        max_shrink_iters: 0,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let cases = (0..4_u8, prop::collection::vec(op(), 0..120));
    let compared = runner.run(&cases, |(flags, ops)| check(kind, flags, mistake, &ops));
    matches!(compared, Err(TestError::Fail(..)))
}

macro_rules! against_the_model {
    ($($name:ident: $kind:ident, $cases:literal cases, $mistakes:literal mistakes;)*) => {
        $(#[test]
        fn $name() {
            run(SchedulerKind::$kind, $cases);
            let unseen: Vec<usize> = (1..=$mistakes)
                .filter(|mistake| !finds(SchedulerKind::$kind, *mistake, $cases))
                .collect();
            assert!(unseen.is_empty(), "mistakes that go unseen: {unseen:?}");
        })*
    };
}

against_the_model! {
    rr_is_as_its_model: Rr, 300 cases, 1 mistakes;
    wrr_is_as_its_model: Wrr, 300 cases, 1 mistakes;
    lc_is_as_its_model: Lc, 300 cases, 1 mistakes;
    wlc_is_as_its_model: Wlc, 300 cases, 1 mistakes;
    sed_is_as_its_model: Sed, 300 cases, 1 mistakes;
    nq_is_as_its_model: Nq, 300 cases, 1 mistakes;
    fo_is_as_its_model: Fo, 300 cases, 1 mistakes;
    ovf_is_as_its_model: Ovf, 300 cases, 1 mistakes;
    dh_is_as_its_model: Dh, 100 cases, 1 mistakes;
    sh_is_as_its_model: Sh, 100 cases, 1 mistakes;
    mh_is_as_its_model: Mh, 24 cases, 1 mistakes;
    lblc_is_as_its_model: Lblc, 300 cases, 4 mistakes;
    lblcr_is_as_its_model: Lblcr, 1000 cases, 10 mistakes;
}

#[test]
fn twos_finds_somebody_usable_whenever_there_is_one() {
    proptest!(|(ops in prop::collection::vec(op(), 0..120))| {
        let mut bench = Bench::new(SchedulerKind::Twos, &[]);
        let mut servers: HashMap<u32, Server> = HashMap::new();
        for op in &ops {
            match *op {
                Op::Add(number, weight) if !servers.contains_key(&number) => {
                    bench.add(number, weight);
                    servers.insert(number, Server { weight: i128::from(weight), ..Server::default() });
                }
                Op::Overload(number, overloaded) => {
                    if let Some(server) = servers.get_mut(&number) {
                        bench.set_overloaded(number, overloaded);
                        server.overloaded = overloaded;
                    }
                }
                Op::Choose => {
                    let chosen = bench.choose();
                    let somebody = servers.values().any(Server::usable);
                    prop_assert_eq!(chosen.is_some(), somebody);
                    prop_assert!(chosen.is_none_or(|number| servers[&number].usable()));
                }
                _ => {}
            }
        }
    });
}

/// How often a server is chosen is all that can be said of twos. Of two servers of weight 1 the first comes up for two of
/// three numbers; loaded, it is chosen only when it comes up twice. A model that does not compare loads says otherwise.
#[test]
fn twos_takes_the_better_of_two_and_its_model_with_a_mistake_does_not() {
    let mut bench = Bench::new(SchedulerKind::Twos, &[(1, 1), (2, 1)]);
    bench.load(2, 100, 0);
    let runs = 4000;
    let loaded = (0..runs).filter(|_| bench.choose() == Some(2)).count();
    let share = loaded as f64 / f64::from(runs);
    let comes_up = 2.0 / 3.0;
    let off_by = |model: f64| (share - model).abs();
    assert!(off_by(comes_up * comes_up) < 0.05, "{share}");
    assert!(off_by(comes_up) > 0.05, "{share}");
}

#[test]
fn maglevs_fallback_comes_round_to_the_first_slot_as_its_model() {
    let weights: Vec<(u32, u32)> = (1..=7).map(|n| (n, if n < 6 { 32 } else { 1 })).collect();
    let mut bench = Bench::new(SchedulerKind::Mh, &weights);
    bench.set_flags(SchedulerFlags(1));
    let mut model = Model::new(SchedulerKind::Mh, SchedulerFlags(1), &bench);
    for (number, weight) in weights {
        model.add(number, weight);
        let overloaded = number < 6;
        bench.set_overloaded(number, overloaded);
        model.servers.get_mut(&number).unwrap().overloaded = overloaded;
    }
    // Two servers of one turn in 162 are left, so that searches go far.
    for client in 0..250 {
        bench.flow.src = Ipv4Addr::from_bits(0xac10_0000 + 7919 * client);
        model.src = bench.flow.src;
        assert_eq!(bench.choose(), model.choose(), "{}", bench.flow.src);
    }
}

#[test]
fn a_thousand_servers_are_ranked_as_by_a_scan() {
    for kind in [SchedulerKind::Lc, SchedulerKind::Wlc, SchedulerKind::Nq] {
        let weights: Vec<(u32, u32)> = (1..=1000).map(|n| (n, n % 7)).collect();
        let mut bench = Bench::with_room(kind, &weights, 1001);
        let mut model = Model::new(kind, SchedulerFlags::default(), &bench);
        for (number, weight) in weights {
            model.add(number, weight);
        }
        let mut random = 1_u32;
        for _ in 0..2000 {
            let expected = model.choose();
            assert_eq!(bench.choose(), expected, "{}", kind.name());
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let chosen = expected.filter(|_| random & (1 << 30) != 0);
            let number = chosen.unwrap_or((random >> 12) % 1000 + 1);
            let active = (random >> 8) & 7;
            bench.load(number, active, 1);
            let server = model.servers.get_mut(&number).unwrap();
            server.active = i128::from(active);
            server.total = i128::from(active + 1);
        }
    }
}
