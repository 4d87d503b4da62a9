//! What makes a verb of the command line: its arguments (help and examples are their doc comment and `after_help`), who it is
//! for, what it does to the world, which fields its JSON has, and how it runs. Knows no verb; `cli/verbs.rs` lists them.

use std::process;

use crate::context::Context;
use crate::error::CliError;

pub mod json_fields;
pub mod shape;

pub use shape::Shape;

/// What a verb ends with: the exit code of the process.
pub type Ran = Result<process::ExitCode, CliError>;

/// The exit code of what worked.
pub fn done((): ()) -> process::ExitCode {
    process::ExitCode::SUCCESS
}

/// Who calls a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// People, scripts and agents. The skill lists it.
    Everyone,
    /// People and programs that set a session up. The skill leaves it out.
    PeopleOnly,
}

/// What a call does to the mesh and to this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing that lasts, and nothing that another peer notices.
    Reads,
    /// It sends, writes, marks as seen, starts or closes something.
    Changes,
}

/// A verb, or what stands for one: its parsed arguments.
pub trait Verb: Sized {
    /// Who calls it.
    const AUDIENCE: Audience = Audience::Everyone;

    /// What this call does.
    fn effect(&self) -> Effect;

    /// The fields that `--json=FIELDS` can name for this call, from [`json_fields::of`]; a mistyped one is refused before the
    /// verb runs. Empty when only the answer tells.
    fn fields(&self) -> Vec<&'static str>;

    /// What its calls print with `--json`. Empty for what prints no JSON; a test lists those.
    fn shapes() -> Vec<Shape> {
        vec![]
    }

    /// Runs it.
    ///
    /// # Errors
    /// What the verb says.
    fn run(self, cx: &Context) -> Ran;
}

/// Makes a list of verbs: an enum for clap whose variants hold the arguments, and which is a verb itself. With a `struct` in
/// front it is a verb with verbs of its own, as `group`.
macro_rules! verbs {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($verb:ident => $args:ty),+ $(,)? }) => {
        #[derive(clap::Subcommand, Clone, Debug)]
        $(#[$meta])*
        $vis enum $name { $($verb($args)),+ }

        impl $name {
            /// Who each verb is for, in the order of the list.
            $vis const AUDIENCES: &'static [$crate::verb::Audience] = &[$(<$args as $crate::verb::Verb>::AUDIENCE),+];
        }

        impl $crate::verb::Verb for $name {
            fn effect(&self) -> $crate::verb::Effect {
                match self { $(Self::$verb(args) => args.effect()),+ }
            }

            fn fields(&self) -> Vec<&'static str> {
                match self { $(Self::$verb(args) => args.fields()),+ }
            }

            fn shapes() -> Vec<$crate::verb::Shape> {
                let tree = <Self as clap::Subcommand>::augment_subcommands(clap::Command::new("verbs"));
                let names = tree.get_subcommands().map(clap::Command::get_name);
                // clap keeps the order of the list.
                let lists = [$(<$args as $crate::verb::Verb>::shapes()),+];
                let named = names.zip(lists).map(|(name, list)| list.into_iter().map(|shape| shape.of(name)).collect());
                named.collect::<Vec<Vec<_>>>().concat()
            }

            fn run(self, cx: &$crate::context::Context) -> $crate::verb::Ran {
                match self { $(Self::$verb(args) => args.run(cx)),+ }
            }
        }
    };
    ($(#[$meta:meta])* $vis:vis struct $group:ident: enum $name:ident { $($list:tt)+ }) => {
        #[derive(clap::Args, Clone, Debug)]
        $(#[$meta])*
        $vis struct $group {
            /// What to do.
            #[command(subcommand)]
            $vis action: $name,
        }

        impl $crate::verb::Verb for $group {
            fn effect(&self) -> $crate::verb::Effect {
                self.action.effect()
            }

            fn fields(&self) -> Vec<&'static str> {
                self.action.fields()
            }

            fn shapes() -> Vec<$crate::verb::Shape> {
                <$name as $crate::verb::Verb>::shapes()
            }

            fn run(self, cx: &$crate::context::Context) -> $crate::verb::Ran {
                self.action.run(cx)
            }
        }

        $crate::verb::verbs! { $vis enum $name { $($list)+ } }
    };
}
pub(crate) use verbs;
