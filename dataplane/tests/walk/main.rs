//! Frames in, frames out, through a whole worker on in-memory ports.

mod methods;
mod refusals;
mod rig;
mod robust;
mod slow_path;
