//! The joined meshes of this machine.

pub mod cli;
