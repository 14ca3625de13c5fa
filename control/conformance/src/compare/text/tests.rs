use super::*;

const CONNECTIONS: &str = "\
IPVS connection entries
pro expire state       source             virtual            destination
TCP 00:59  SYN_RECV    172.20.63.81:46108 10.0.0.1:80        192.168.1.1:80
TCP 14:57  ESTABLISHED 172.24.35.69:24488 10.0.0.1:80        192.168.1.4:80
UDP 04:59  UDP         198.51.100.7:4001  10.0.0.1:53        192.168.1.1:53
";

const RATES: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS
  -> RemoteAddress:Port
UDP  10.0.0.1:53                         0      578        0 34697490        0
  -> 192.168.1.1:53                      0      578        0 34697490        0
";

const TABLE: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  10.0.0.1:80 rr
  -> 192.168.1.1:80               Masq    1      20         0         
  -> 192.168.1.2:80               Masq    1      10         2         
";

fn recorded(out: &str) -> Command {
    Command {
        args: "-L".to_owned(),
        stdin: String::new(),
        rc: 0,
        out: out.to_owned(),
        err: String::new(),
        t: None,
    }
}

fn printed(out: impl Into<String>) -> Output {
    Output {
        rc: 0,
        out: out.into(),
        err: String::new(),
    }
}

fn verdict(theirs: &str, ours: impl Into<String>) -> Result<(), String> {
    compare(
        &recorded(theirs),
        &printed(ours),
        &RandomServices::default(),
    )
}

#[test]
fn one_digit_of_a_listing_is_found_and_shown() {
    let said = verdict(TABLE, TABLE.replace("10         2 ", "10         3 ")).unwrap_err();
    assert!(said.contains("output differs"), "{said}");
    assert!(
        said.contains("-   -> 192.168.1.2:80               Masq    1      10         2"),
        "{said}"
    );
    assert!(
        said.contains("+   -> 192.168.1.2:80               Masq    1      10         3"),
        "{said}"
    );
}

#[test]
fn trailing_blanks_count_and_are_made_visible() {
    let said = verdict(TABLE, TABLE.replace("2         \n", "2\n")).unwrap_err();
    assert!(said.contains("2·········\n"), "{said}");
}

#[test]
fn a_missing_last_end_of_line_is_found() {
    assert!(verdict(TABLE, TABLE.trim_end_matches('\n')).is_err());
    assert!(verdict(CONNECTIONS, CONNECTIONS.trim_end_matches('\n')).is_err());
    assert!(verdict("", "\n").is_err());
}

#[test]
fn exit_code_and_standard_error_count() {
    let mut ours = printed("");
    ours.rc = 255;
    ours.err = "No such service\n".to_owned();
    let said = compare(&recorded(""), &ours, &RandomServices::default()).unwrap_err();
    assert!(said.contains("exit code 0 recorded, 255 here"), "{said}");
    assert!(said.contains("standard error differs"), "{said}");
    assert!(said.contains("+ No such service"), "{said}");
}

#[test]
fn connections_may_come_in_any_order_and_a_second_apart() {
    let mut lines: Vec<_> = CONNECTIONS.lines().collect();
    lines.swap(2, 4);
    let shuffled = lines.join("\n") + "\n";
    let shuffled = shuffled.replace("00:59", "01:00").replace("14:57", "14:56");
    verdict(CONNECTIONS, shuffled).unwrap();
}

#[test]
fn a_connection_two_seconds_off_is_found_and_only_it_shown() {
    let ours = CONNECTIONS
        .replace("14:57", "14:59")
        .replace("00:59", "00:58");
    let said = verdict(CONNECTIONS, ours).unwrap_err();
    assert!(said.contains("- TCP 14:57  ESTABLISHED"), "{said}");
    assert!(!said.contains("- TCP 00:59"), "{said}");
}

#[test]
fn a_connection_too_few_or_in_another_state_is_found() {
    let fewer: String = CONNECTIONS
        .lines()
        .take(4)
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(
        verdict(CONNECTIONS, fewer)
            .unwrap_err()
            .contains("- UDP 04:59")
    );
    let state = verdict(
        CONNECTIONS,
        CONNECTIONS.replace("SYN_RECV   ", "ESTABLISHED"),
    );
    assert!(state.unwrap_err().contains("- TCP 00:59  SYN_RECV"));
    assert!(
        verdict(
            CONNECTIONS,
            CONNECTIONS.replace("172.24.35.69", "172.24.35.70")
        )
        .is_err()
    );
}

#[test]
fn rates_are_masked_and_their_columns_are_not() {
    verdict(
        RATES,
        RATES.replace("578        0 34697490", "  9        0    12345"),
    )
    .unwrap();
    verdict(RATES, RATES.replace("34697490", "100606928")).unwrap();
    assert!(
        verdict(
            RATES,
            RATES.replace("578        0 34697490", "  9         0    12345")
        )
        .is_err()
    );
    assert!(verdict(RATES, RATES.replace("578", "  -")).is_err());
    assert!(verdict(RATES, RATES.replace("192.168.1.1:53 ", "192.168.1.2:53 ")).is_err());
}

#[test]
fn numbers_of_other_tables_are_compared() {
    let stats = RATES.replace(
        "CPS    InPPS   OutPPS    InBPS   OutBPS",
        "Conns   InPkts  OutPkts  InBytes OutBytes",
    );
    assert!(verdict(&stats, stats.replace("578", "579")).is_err());
}

#[test]
fn of_a_random_service_the_sums_of_connections_are_compared() {
    let random = RandomServices {
        named: ["10.0.0.1:80".to_owned()].into(),
    };
    let compare = |ours: String| compare(&recorded(TABLE), &printed(ours), &random);
    let shift = |a: &str, b: &str| {
        let first = TABLE.replace("20         0 ", a);
        first.replace("10         2 ", b)
    };
    compare(shift("15         1 ", "15         1 ")).unwrap();
    assert!(compare(shift("15         1 ", "16         1 ")).is_err());
    let elsewhere = CONNECTIONS.replace("192.168.1.4:80", "192.168.1.1:80");
    assert!(super::compare(&recorded(CONNECTIONS), &printed(elsewhere.clone()), &random).is_ok());
    assert!(verdict(CONNECTIONS, elsewhere).is_err());
}

#[test]
fn a_lag_is_one_only_if_time_alone_differs() {
    let random = RandomServices::default();
    let lag = |ours: String| expiry_lag(&recorded(CONNECTIONS), &printed(ours), &random);
    assert_eq!(lag(CONNECTIONS.replace("14:57", "14:59")), Some(2));
    assert_eq!(lag(CONNECTIONS.replace("14:57", "14:58")), None);
    let scattered = CONNECTIONS
        .replace("14:57", "15:00")
        .replace("04:59", "04:58");
    assert_eq!(lag(scattered), Some(3));
    assert_eq!(lag(CONNECTIONS.replace("14:57", "14:50")), None);
    assert_eq!(
        lag(CONNECTIONS
            .replace("14:57", "14:59")
            .replace("SYN_RECV", "SYN_SENT")),
        None
    );
    assert_eq!(lag(String::new()), None);
}
