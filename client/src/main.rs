//! The `claudemesh` program: reads the command line, runs one verb, exits with its code.

use std::ffi::OsString;
use std::process::ExitCode;

use claudemesh::cli::{self, Cli};
use claudemesh::config::ConfigStore;
use claudemesh::context::Context;
use claudemesh::error::ExitCode as Exit;
use claudemesh::features::status_line;
use claudemesh::hook;
use claudemesh::paths::Env;
use claudemesh::verb::{Verb, done};

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    // These run in other programs' start-up and turns: nothing is built that they do not need.
    match argv.get(1).and_then(|word| word.to_str()) {
        Some("--version" | "-V") if argv.len() == 2 => {
            let text = concat!("claudemesh ", env!("CARGO_PKG_VERSION"), "\n");
            return cli::printed(std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())).into();
        }
        Some("hook") if argv.len() <= 3 && !argv.get(2).is_some_and(|word| word.to_string_lossy().starts_with('-')) => {
            let env = Env::of_process();
            return hook::run(&env, &ConfigStore::locate(&env, None), argv.get(2).and_then(|word| word.to_str()))
                .into();
        }
        Some(cli::complete::WORD) if argv.len() == 3 => {
            let store = ConfigStore::locate(&Env::of_process(), None);
            let text = cli::complete::lines(&store, &argv[2].to_string_lossy());
            return cli::printed(std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())).into();
        }
        Some("status-line") => {
            if let Some(wrapped) = status_line::quick_args(&argv[2..]) {
                let env = Env::of_process();
                status_line::run(&env, &ConfigStore::locate(&env, None), wrapped);
                return Exit::Success.into();
            }
        }
        _ => {}
    }
    claudemesh::clock::ask_local_offset();
    let Cli { global, verb } = match cli::parse(argv.clone()) {
        Ok(cli) => cli,
        Err(exit) => return exit.into(),
    };
    let mut cx = Context::new(Env::of_process(), &global);
    let known = verb.as_ref().map_or_else(cli::no_verb::fields, Verb::fields);
    let ran = cx.out.expect_fields(&known).and_then(|()| match verb {
        None => cli::no_verb::run(&cx).map(done),
        Some(verb) => verb.run(&cx),
    });
    // What could not be sent before may be sent now.
    claudemesh::features::messaging::outbox::after(&cx, ran.is_ok());
    claudemesh::local::tell_if_alone(
        &cx,
        "others cannot reach it until `claudemesh up -d` or a session runs; what was written is kept.",
    );
    // When this verb served the mesh of this machine: in good order, so that nothing is left behind.
    claudemesh::local::release();
    match ran {
        Ok(code) => code,
        Err(error) => {
            let error = error.of_command(&cli::words_of_verb(&argv));
            cx.out.fail(&error);
            error.exit.into()
        }
    }
}
