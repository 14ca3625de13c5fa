use std::path::Path;

use serde_json::{Value, json};

use super::*;

/// A recorded trace as JSON.
fn recorded(name: &str) -> Value {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dataplane/ipvs/golden");
    let bytes = std::fs::read(golden.join(name).with_extension("json")).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn verdict(trace: &Value) -> Verdict {
    replay(&Trace::parse(trace.to_string().as_bytes()).unwrap())
}

/// What the replay of a trace says after an alteration.
fn complaint(name: &str, alter: impl FnOnce(&mut Value)) -> String {
    let mut trace = recorded(name);
    alter(&mut trace);
    match verdict(&trace) {
        Verdict::Failed(failure) => failure.to_string(),
        Verdict::Passed { note } => panic!("an altered trace passes: {note:?}"),
    }
}

/// The first step that `wanted` accepts.
fn step(trace: &mut Value, wanted: impl Fn(&Value) -> bool) -> (usize, &mut Value) {
    let steps = trace["steps"].as_array_mut().unwrap();
    steps
        .iter_mut()
        .enumerate()
        .find(|(_, step)| wanted(step))
        .unwrap()
}

fn is_packet(step: &Value) -> bool {
    step["op"] == "pkt" && step["out"] != json!([])
}

fn is_command(line: &'static str) -> impl Fn(&Value) -> bool {
    move |step| step["op"] == "ipvsadm" && step["args"] == line
}

#[test]
fn a_trace_as_recorded_passes_without_a_note() {
    assert_eq!(
        verdict(&recorded("nat-flow")),
        Verdict::Passed { note: None }
    );
}

#[test]
fn one_byte_of_an_expected_packet_is_missed() {
    let said = complaint("nat-flow", |trace| {
        let (_, step) = step(trace, is_packet);
        let l3 = step["out"][0]["l3"].as_str().unwrap();
        let ttl = l3[16..18].to_owned();
        assert_eq!(ttl, "38");
        step["out"][0]["l3"] = format!("{}37{}", &l3[..16], &l3[18..]).into();
    });
    assert!(
        said.starts_with(
            "step 2 (pkt \"syn\" from the client side): packet 1 of 1 differs in ip.ttl"
        ),
        "{said}"
    );
    assert!(said.contains("books     received +1, sent +1"), "{said}");
}

#[test]
fn one_byte_of_an_arriving_packet_is_noticed() {
    let said = complaint("nat-flow", |trace| {
        let (_, step) = step(trace, is_packet);
        let l3 = step["l3"].as_str().unwrap();
        let last = l3.len() - 1;
        step["l3"] = format!("{}6", &l3[..last]).into();
    });
    assert!(
        said.contains("differs in tcp.checksum, tcp.options"),
        "{said}"
    );
}

#[test]
fn one_digit_of_a_listing_is_missed() {
    let said = complaint("rr-basic", |trace| {
        let (_, step) = step(trace, is_command("-Ln"));
        let out = step["out"]
            .as_str()
            .unwrap()
            .replacen("Masq    1 ", "Masq    2 ", 1);
        step["out"] = out.into();
    });
    assert!(said.contains("(ipvsadm -Ln): output differs"), "{said}");
    assert!(
        said.contains("-   -> 192.168.1.1:80               Masq    2"),
        "{said}"
    );
}

#[test]
fn an_exit_code_is_missed() {
    let said = complaint("rr-basic", |trace| {
        step(trace, is_command("-Ln")).1["rc"] = 1.into();
    });
    assert!(said.contains("exit code 1 recorded, 0 here"), "{said}");
}

#[test]
fn another_next_hop_is_missed() {
    let said = complaint("dr-flow", |trace| {
        step(trace, is_packet).1["out"][0]["dmac"] = "02:01:c0:a8:01:09".into();
    });
    assert!(said.contains("differs in next hop"), "{said}");
    let said = complaint("dr-flow", |trace| {
        step(trace, is_packet).1["out"][0]["nexthop"] = "192.168.1.9".into();
    });
    assert!(said.contains("recorded 192.168.1.9"), "{said}");
}

#[test]
fn a_packet_too_many_and_one_too_few_are_missed() {
    let said = complaint("udp-nat", |trace| {
        let (_, step) = step(trace, is_packet);
        let out = step["out"].as_array_mut().unwrap();
        out.push(out[0].clone());
    });
    assert!(said.contains("packet 2 of 2 was not emitted"), "{said}");
    let said = complaint("udp-nat", |trace| {
        step(trace, is_packet).1["out"] = json!([])
    });
    assert!(
        said.contains("packet 1 was emitted, and none was recorded"),
        "{said}"
    );
}

#[test]
fn a_packet_of_the_local_stack_that_nobody_was_handed_is_missed() {
    // The recorded stack answers with a reset; without that packet in the recording, the reset is one too many.
    let said = complaint("sloppy-0", |trace| {
        let resets = |step: &Value| step["op"] == "pkt" && step["out"][0]["ip"]["flags"] == "R";
        step(trace, resets).1["out"] = json!([]);
    });
    assert!(said.contains("packet 1 was emitted"), "{said}");
    assert!(said.contains("to the kernel +1"), "{said}");
}

#[test]
fn steps_that_cannot_be_performed_fail_the_trace() {
    let with = |step: Value| {
        complaint("udp-nat", |trace| {
            trace["steps"].as_array_mut().unwrap().insert(0, step);
        })
    };
    let said = with(json!({"op": "read", "arg": "/proc/net/ip_masq", "result": ""}));
    assert!(
        said.starts_with("step 0 (read /proc/net/ip_masq): sluice has no"),
        "{said}"
    );
    let said = with(json!({"op": "read", "arg": "/proc/net/ip_vs", "result": ""}));
    assert!(said.contains("+ IP Virtual Server"), "{said}");
    let said = with(json!({"op": "cmd", "args": "/bin/true", "rc": 0, "out": "", "err": ""}));
    assert!(said.starts_with("step 0 (cmd /bin/true)"), "{said}");
    let said = complaint("udp-nat", |trace| trace["sysctl"]["sync_ports"] = 2.into());
    assert!(said.contains("sync_ports=2"), "{said}");
}

#[test]
fn a_recv_takes_what_was_emitted_by_itself_and_misses_what_was_not() {
    let insert = |trace: &mut Value, step: Value| trace["steps"].as_array_mut().unwrap().push(step);
    let mut trace = recorded("udp-nat");
    insert(&mut trace, json!({"op": "recv", "wait": 0.3, "out": []}));
    assert_eq!(verdict(&trace), Verdict::Passed { note: None });
    let emitted = step(&mut trace, is_packet).1["out"][0].clone();
    insert(
        &mut trace,
        json!({"op": "recv", "wait": 0.3, "out": [emitted]}),
    );
    let Verdict::Failed(failure) = verdict(&trace) else {
        panic!("nothing was emitted")
    };
    assert!(failure.to_string().contains("was not emitted"), "{failure}");
}

#[test]
fn of_a_repeated_packet_the_number_emitted_counts() {
    let said = complaint("text-hugenum", |trace| {
        step(trace, |step| step["op"] == "repeat").1["result"] = 2.into();
    });
    assert!(
        said.contains("2 packets emitted were recorded, 1 here"),
        "{said}"
    );
}

/// Takes `seconds` off the time that connections have left in every listing, from the `from`th row on.
fn hurry(trace: &mut Value, seconds: i64, from: usize, rows: usize) {
    let (_, step) = step(trace, is_command("-Lnc"));
    let lines = step["out"]
        .as_str()
        .unwrap()
        .lines()
        .enumerate()
        .map(|(at, line)| {
            if !(from + 2..from + 2 + rows).contains(&at) {
                return format!("{line}\n");
            }
            let left: i64 = line[7..9].parse().unwrap();
            format!("{}{:02}{}\n", &line[..7], left - seconds, &line[9..])
        });
    step["out"] = lines.collect::<String>().into();
}

#[test]
fn a_pause_that_explains_all_is_assumed_and_said() {
    let mut trace = recorded("wrr-single");
    hurry(&mut trace, 4, 0, 100);
    let Verdict::Passed { note: Some(note) } = verdict(&trace) else {
        panic!("{:?}", verdict(&trace));
    };
    assert!(
        note.contains("unrecorded pauses assumed: 4 s before step"),
        "{note}"
    );
}

#[test]
fn a_time_that_no_pause_explains_is_a_difference() {
    let said = complaint("wrr-single", |trace| hurry(trace, 4, 2, 1));
    assert!(said.contains("(ipvsadm -Lnc): output differs"), "{said}");
    // That they should live longer than here, no pause can explain.
    let said = complaint("wrr-single", |trace| hurry(trace, -2, 0, 100));
    assert!(said.contains("(ipvsadm -Lnc): output differs"), "{said}");
}

#[test]
fn a_recording_that_makes_no_sense_fails_and_nothing_more() {
    let shortened = |length: usize| {
        complaint("udp-nat", |trace| {
            let (_, step) = step(trace, is_packet);
            let l3 = step["l3"].as_str().unwrap();
            step["l3"] = l3[..l3.len().min(2 * length)].into();
        })
    };
    for length in 0..30 {
        shortened(length);
    }
    let set =
        |key: &'static str, value: Value| complaint("udp-nat", move |trace| trace[key] = value);
    set("mtu", 0.into());
    set("vips", json!([]));
    set("rs", json!([]));
    let said = set("fwmark", json!([{"dst": "0.0.0.0/0", "mark": 1}]));
    assert!(said.starts_with("step "), "{said}");
}
