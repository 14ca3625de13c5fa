//! Many workers without hardware: whether they act as one, whatever the NIC.
//!
//! A [`fleet`] is N workers behind one control plane, on NICs in process, in one thread and with a time of its own. [`cabling`]
//! says which port leads where. [`trial`] opens connections there, sends packets both ways and looks at each one that comes out;
//! [`verdict`] says what must hold, and [`table`] prints it.

pub mod cabling;
pub mod fleet;
pub mod flows;
pub mod steady;
mod steering;
pub mod table;
pub mod trial;
pub mod verdict;
