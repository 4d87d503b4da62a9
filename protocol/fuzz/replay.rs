//! Runs fuzz targets as ordinary tests: every committed seed, then a fixed number of inputs made from the seeds with fixed dice.
//!
//! The same inputs on every machine, in the build that all tests use. Looking for new paths is the work of `cargo xtask fuzz`.
//! A test of either crate includes this file, and with it the targets themselves: `libfuzzer_sys` is then the test.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

/// As long as an input of `cargo xtask fuzz` may be.
const MAX_BYTES: usize = 8_192;
/// Changes of one input, at most.
const MAX_CHANGES: usize = 6;
/// What parsers stumble over and a seed may lack.
const WORDS: [&[u8]; 24] = [
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"0",
    b"-1",
    b".",
    b"1e309",
    b"18446744073709551616",
    b"null",
    b"{}",
    b"\\u0000",
    b"\\ud800",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\r\n",
    b"\0",
    b"@",
    b"#",
    b"//",
];

/// What stands for the macro of `libfuzzer-sys`: the body becomes `run`.
macro_rules! fuzz_target {
    (|$input:ident: $kind:ty| $body:block) => {
        pub(crate) fn run(bytes: &[u8]) {
            let input = arbitrary::Unstructured::new(bytes);
            let Ok($input) = <$kind as arbitrary::Arbitrary>::arbitrary_take_rest(input) else { return };
            $body
        }
    };
}
pub(crate) use fuzz_target;

/// A test for each target, and one that no target was forgotten.
macro_rules! replay_targets {
    ($package:literal: $($name:ident * $runs:literal at $file:literal),+ $(,)?) => {
        $(
            #[path = $file]
            #[expect(unused_attributes, reason = "`no_main` is for the program that libfuzzer starts")]
            mod $name;

            #[test]
            fn $name() {
                crate::replay::replay(concat!(env!("CARGO_MANIFEST_DIR"), "/", $package), stringify!($name), $runs, $name::run);
            }
        )+

        #[test]
        fn every_target_is_replayed() {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join($package).join("fuzz_targets");
            let mut there: Vec<String> = std::fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
                .collect();
            there.sort();
            let mut replayed = vec![$(stringify!($name)),+];
            replayed.sort_unstable();
            assert_eq!(there, replayed);
        }
    };
}
pub(crate) use replay_targets;

/// Runs every seed of `<package>/seeds/<name>`, then `runs` changed ones.
///
/// # Panics
/// The target did; the input is in cargo's folder for tests then, and the message says where.
pub(crate) fn replay(package: &str, name: &str, runs: u32, target: fn(&[u8])) {
    let folder = Path::new(package).join("seeds").join(name);
    let seeds = seeds(&folder);
    assert!(!seeds.is_empty(), "{} has no seed", folder.display());
    for (file, seed) in &seeds {
        attempt(name, target, seed, || file.display().to_string());
    }
    let seeds: Vec<&[u8]> = seeds.iter().map(|(_, seed)| seed.as_slice()).collect();
    // Targets differ in their dice, so that two with the same seeds do not see the same inputs.
    let mut dice = StdRng::seed_from_u64(name.bytes().fold(1, |sum, byte| sum * 31 % 1_000_003 + u64::from(byte)));
    for number in 0..runs {
        let input = changed(&mut dice, &seeds);
        attempt(name, target, &input, || keep(name, number, &input));
    }
}

/// Files of the folder, in order of their names.
fn seeds(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| failed(folder, &error));
    let path = |entry: std::io::Result<fs::DirEntry>| entry.unwrap_or_else(|error| failed(folder, &error)).path();
    let mut files: Vec<PathBuf> = entries.map(path).collect();
    files.sort();
    let read = |file: PathBuf| (fs::read(&file).unwrap_or_else(|error| failed(&file, &error)), file);
    files.into_iter().map(read).map(|(bytes, file)| (file, bytes)).collect()
}

/// A seed that cannot be read is no seed that was run.
fn failed(path: &Path, error: &std::io::Error) -> ! {
    panic!("{}: {error}", path.display())
}

fn attempt(name: &str, target: fn(&[u8]), input: &[u8], place: impl FnOnce() -> String) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        panic!("the fuzz target {name} broke its promise with {}", place());
    }
}

/// Writes an input that broke a promise; answers where it is and what to do with it.
fn keep(name: &str, number: u32, input: &[u8]) -> String {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{number}"));
    fs::write(&file, input).unwrap_or_else(|error| failed(&file, &error));
    format!("{} ({}); it belongs to the seeds", file.display(), input.escape_ascii())
}

/// A seed with some changes.
fn changed(dice: &mut StdRng, seeds: &[&[u8]]) -> Vec<u8> {
    let mut input = seeds.choose(dice).expect("there are seeds").to_vec();
    for _ in 0..dice.gen_range(1..=MAX_CHANGES) {
        change(dice, &mut input, seeds);
    }
    input.truncate(MAX_BYTES);
    input
}

fn change(dice: &mut StdRng, input: &mut Vec<u8>, seeds: &[&[u8]]) {
    let (start, end) = part(dice, input.len());
    match dice.gen_range(0..8) {
        0 => drop(input.drain(start..end)),
        1 => input.truncate(start),
        2 => {
            let again = input[start..end].to_vec();
            input.splice(end..end, again);
        }
        3 => {
            let other = seeds.choose(dice).expect("there are seeds");
            let (from, to) = part(dice, other.len());
            input.splice(start..end, other[from..to].iter().copied());
        }
        4 => {
            let word = WORDS.choose(dice).expect("there are words");
            input.splice(start..start, word.iter().copied());
        }
        5 => {
            let word = WORDS.choose(dice).expect("there are words");
            input.splice(start..end, word.iter().copied());
        }
        6 => {
            // Long runs of one byte: deep nesting, many digits, many spaces.
            let byte = input.get(start).copied().unwrap_or(b'0');
            let times = 1 << dice.gen_range(0..10);
            input.splice(start..start, std::iter::repeat_n(byte, times));
        }
        _ => {
            if let Some(byte) = input.get_mut(start) {
                *byte = if dice.gen_bool(0.5) { *byte ^ (1 << dice.gen_range(0..8)) } else { dice.r#gen() };
            }
        }
    }
}

/// Bounds of a short or (one time in four) any part of so many bytes.
fn part(dice: &mut StdRng, bytes: usize) -> (usize, usize) {
    let start = dice.gen_range(0..=bytes);
    let longest = if dice.gen_bool(0.25) { bytes - start } else { (bytes - start).min(8) };
    (start, start + dice.gen_range(0..=longest))
}
