//! Whole command lines, one word a line, as a shell would hand them over: what is ours, what is Claude Code's.
#![no_main]

use std::ffi::OsString;

use clap::Parser;
use claudemesh::cli::Cli;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let argv: Vec<OsString> = std::iter::once("claudemesh").chain(text.lines()).map(OsString::from).collect();
    let separated = claudemesh::launch::argv::separate(argv.clone());
    assert_eq!(words(&argv), words(&separated), "words are moved, none is lost or made up");
    let _ = Cli::try_parse_from(separated);
});

fn words(argv: &[OsString]) -> Vec<&OsString> {
    let mut words: Vec<&OsString> = argv.iter().filter(|word| *word != "--").collect();
    words.sort();
    words
}
