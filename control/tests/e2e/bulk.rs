//! A hundred megabytes each way, every byte compared.

use std::io::{Read, Write};
use std::time::Instant;

use crate::rig::{LADDR, Rig, Service, eventually};
use crate::traffic::{PATIENCE, Server, connect, expect_pattern, send_pattern};

const BYTES: usize = 100 << 20;
const UP: u64 = 0x5eed_0001;
const DOWN: u64 = 0x5eed_0002;

#[test]
fn a_hundred_megabytes_pass_nat_unchanged() {
    let mut rig = Rig::two_arms(1);
    let service = rig.service("tcp", 9000, "rr");
    rig.real_server(&service, "192.168.1.1:9000", "nat");
    transfer(&rig, service.address());
    all_counted(&mut rig, &service);
    rig.close();
}

#[test]
fn a_hundred_megabytes_pass_fullnat_unchanged() {
    let mut rig = Rig::two_arms(1);
    let service = rig.service("tcp", 9000, "rr");
    rig.laddr(&service, LADDR);
    rig.real_server(&service, "192.168.1.1:9000", "fullnat");
    transfer(&rig, service.address());
    all_counted(&mut rig, &service);
    rig.close();
}

/// All of it went through sluice, in both directions.
fn all_counted(rig: &mut Rig, service: &Service) {
    eventually("counters are published", || {
        let stats = rig.listed(service)["stats"].take();
        let enough = |key: &str| stats[key].as_u64() >= Some(BYTES as u64);
        enough("in_bytes") && enough("out_bytes")
    });
}

/// The client uploads, the server checks and says so; then the other way round, on the same connection.
fn transfer(rig: &Rig, to: std::net::SocketAddr) {
    let _server = Server::tcp(&rig.servers[0], "192.168.1.1:9000", |mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        let verdict = match expect_pattern(&mut stream, UP, BYTES) {
            Ok(()) => "same\n".to_owned(),
            Err(err) => format!("{err}\n"),
        };
        stream.write_all(verdict.as_bytes())?;
        send_pattern(&mut stream, DOWN, BYTES)
    });
    rig.client.run(|| {
        let start = Instant::now();
        let mut stream = connect(to).expect("connection");
        send_pattern(&mut stream, UP, BYTES).expect("upload");
        let mut verdict = [0; 5];
        stream.read_exact(&mut verdict).expect("verdict");
        assert_eq!(&verdict, b"same\n");
        let up = start.elapsed();
        expect_pattern(&mut stream, DOWN, BYTES).expect("download");
        println!("up in {up:?}, down in {:?}", start.elapsed() - up);
        assert_eq!(stream.read(&mut verdict).expect("end"), 0, "and no more");
    });
}
