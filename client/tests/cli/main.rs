//! Runs the real program in a throw-away home.

mod doctor;
mod help;
mod home;
mod hook;
mod install;
mod launch;
mod meshes;
mod server;
mod wizard;
