//! The `claudemesh` program: reads the command line, runs one verb, exits with its code.

use std::ffi::OsString;
use std::process::ExitCode;

use claudemesh::cli::{self, Cli, Verb};
use claudemesh::config::ConfigStore;
use claudemesh::context::Context;
use claudemesh::error::{CliError, ExitCode as Exit};
use claudemesh::paths::Env;
use claudemesh::{doctor, hook, install, launch, status_line};

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
    let Cli { global, verb } = match cli::parse(argv) {
        Ok(cli) => cli,
        Err(exit) => return exit.into(),
    };
    let mut cx = Context::new(Env::of_process(), &global);
    let known = verb.as_ref().map_or(&[][..], cli::fields::of);
    let done = cx.out.expect_fields(known).and_then(|()| dispatch(&cx, verb));
    // When this verb served the mesh of this machine: in good order, so that nothing is left behind.
    claudemesh::local::release();
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            cx.out.fail(&error);
            error.exit.into()
        }
    }
}

/// Runs a verb and answers the exit code.
fn dispatch(cx: &Context, verb: Option<Verb>) -> Result<u8, CliError> {
    let done = |()| Exit::Success as u8;
    match verb {
        None => cli::no_verb::run(cx).map(done),
        Some(Verb::Install(args)) => {
            let options = install::InstallOptions {
                meshes: args.meshes,
                no_hooks: args.no_hooks,
                permission_relay: args.permission_relay,
                status_line: args.status_line,
                print: args.print,
                plugin_dir: args.plugin_dir,
                force: args.force,
            };
            install::install(&cx.env, &cx.store, &cx.out, &options).map(done)
        }
        Some(Verb::Uninstall(_)) => install::uninstall(&cx.env, cx.store.dir(), &cx.out).map(done),
        Some(Verb::Hook(args)) => Ok(hook::run(&cx.env, &cx.store, args.event.as_deref())),
        Some(Verb::StatusLine(args)) => {
            status_line::run(&cx.env, &cx.store, args.wrap);
            Ok(done(()))
        }
        Some(Verb::Notify(args)) => claudemesh::notify::cli::run(cx, &args).map(done),
        Some(Verb::Launch(args)) => launch::run(cx, &args, &cli::wire::join_for_launch),
        Some(Verb::Doctor(args)) => doctor::run(cx, &args).map(|exit| exit as u8),
        Some(Verb::Completions(args)) => cli::shell_files::completions(cx, &args).map(done),
        Some(Verb::Skill(_)) => cli::skill::print(cx).map(done),
        Some(Verb::Man(args)) => cli::shell_files::man(cx, &args).map(done),
        Some(verb) => cli::wire::run(cx, verb).map(|exit| exit as u8),
    }
}
