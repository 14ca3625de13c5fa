//! Measuring sluice: the appliance itself on net_pcap beside testpmd, and a rig in memory for the walk alone.
//!
//! [`scenario`] says what is forwarded how; [`traffic`] makes its frames; [`walk`] is a worker in memory, set up from the same
//! boot file as the appliance. [`appliance`] and [`testpmd`] are the two that are compared, timed by [`timing`]; [`churn`]
//! opens connections for ever; [`choice`] has a service to schedule by; [`single`] sends packets one by one; [`several`] puts two workers beside one; [`targets`] judges and [`report`] writes it all down.
//! [`pktgen`] is `sluice-pktgen`, the generator that also answers and checks; [`memif`] puts it beside an appliance,
//! and [`loads`] are what is measured there. [`scale`] is many workers without hardware.

pub mod appliance;
pub mod bench_port;
pub mod capture;
pub mod choice;
pub mod churn;
pub mod daemon;
pub mod frame;
pub mod hugepages;
pub mod instructions;
pub mod interrupt;
pub mod loads;
pub mod machine;
pub mod memif;
pub mod pktgen;
pub mod report;
pub mod scale;
pub mod scenario;
pub mod several;
pub mod single;
pub mod suite;
pub mod targets;
pub mod testpmd;
pub mod timing;
pub mod traffic;
pub mod walk;
