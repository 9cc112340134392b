//! Looks at saved traces. `dagger-trace --help` says how.

use dagger_trace::{Lane, Patterns, Trace, TraceError};
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

const HELP: &str = "\
Looks at traces that `Trace::save` has written.

usage: dagger-trace COMMAND
  describe FILE       bounds, where the time of the workers went, run time by name, critical path
    --category LABEL=REGEX   before or after FILE, any number of times: tables by category instead of by name; a task belongs
                             to the first whose pattern matches a part of its name
  chrome FILE OUT     JSON for ui.perfetto.dev and chrome://tracing; OUT ends in .json
  graph FILE OUT      the tasks and what comes after what; OUT ends in .svg or .dot, with the feature raster also
                      in .png or .pdf
  gantt FILE OUT      what ran when on which worker; OUT ends as for graph, but for .dot
  diff BEFORE AFTER   which names of tasks became slower: counts, mean run times, their ratio
  --help, --version

exit status: 0 if it was done, 1 if a file could not be read or written, 2 if the command is not understood
";

/// What the user asks for.
enum Command {
    Print(String),
    Describe { file: OsString, categories: Option<Patterns> },
    Chrome { file: OsString, out: OsString },
    Graph { file: OsString, out: OsString },
    Gantt { file: OsString, out: OsString },
    Diff { before: OsString, after: OsString },
}

/// # Errors
/// What is wrong with the arguments.
fn parse(args: Vec<OsString>) -> Result<Command, String> {
    let mut args = args.into_iter();
    let Some(name) = args.next() else { return Err("a command is missing".into()) };
    let name = name.to_string_lossy().into_owned();
    let files: Vec<OsString> = args.collect();
    let wants = |names: &str| Err(format!("{name} takes {names}"));
    match name.as_str() {
        "--help" | "-h" | "help" => Ok(Command::Print(HELP.into())),
        "--version" | "-V" => Ok(Command::Print(format!("dagger-trace {}\n", env!("CARGO_PKG_VERSION")))),
        "describe" => describe(files),
        "chrome" => match <[OsString; 2]>::try_from(files) {
            Ok([file, out]) => Ok(Command::Chrome { file, out }),
            Err(_) => wants("two files: FILE OUT"),
        },
        "graph" => match <[OsString; 2]>::try_from(files) {
            Ok([file, out]) => Ok(Command::Graph { file, out }),
            Err(_) => wants("two files: FILE OUT"),
        },
        "gantt" => match <[OsString; 2]>::try_from(files) {
            Ok([file, out]) => Ok(Command::Gantt { file, out }),
            Err(_) => wants("two files: FILE OUT"),
        },
        "diff" => match <[OsString; 2]>::try_from(files) {
            Ok([before, after]) => Ok(Command::Diff { before, after }),
            Err(_) => wants("two files: BEFORE AFTER"),
        },
        other => Err(format!("there is no command {other}")),
    }
}

/// The arguments of `describe`.
fn describe(args: Vec<OsString>) -> Result<Command, String> {
    let (mut files, mut categories) = (Vec::new(), Vec::new());
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if arg != "--category" {
            files.push(arg);
            continue;
        }
        let given = args.next().ok_or("--category takes LABEL=REGEX")?;
        let given = given.to_string_lossy().into_owned();
        let Some((label, pattern)) = given.split_once('=').filter(|(label, _)| !label.is_empty()) else {
            return Err(format!("--category takes LABEL=REGEX, found {given:?}"));
        };
        categories.push((label.to_owned(), pattern.to_owned()));
    }
    let Ok([file]) = <[OsString; 1]>::try_from(files) else { return Err("describe takes one file".into()) };
    let categories = match categories.is_empty() {
        true => None,
        false => Some(Patterns::new(categories).map_err(|error| error.to_string())?),
    };
    Ok(Command::Describe { file, categories })
}

/// What is to be printed.
fn run(command: Command) -> Result<String, String> {
    let load = |file: &OsString| {
        Trace::load(file).map_err(|error| match error {
            error @ TraceError::BadFile { .. } => format!("{}: {error}", file.to_string_lossy()),
            error => error.to_string(),
        })
    };
    match command {
        Command::Print(text) => Ok(text),
        Command::Describe { file, categories } => {
            let trace = load(&file)?;
            Ok(categories.map_or_else(|| trace.describe(), |categories| trace.describe_by(&categories)))
        }
        Command::Chrome { file, out } => {
            load(&file)?.save_chrome(&out).map_err(|error| error.to_string())?;
            Ok(String::new())
        }
        Command::Graph { file, out } => {
            load(&file)?.graph().save(&out).map_err(|error| error.to_string())?;
            Ok(String::new())
        }
        Command::Gantt { file, out } => {
            load(&file)?.gantt(Lane::Processor).save(&out).map_err(|error| error.to_string())?;
            Ok(String::new())
        }
        Command::Diff { before, after } => Ok(load(&before)?.describe_diff(&load(&after)?)),
    }
}

fn main() -> ExitCode {
    let command = match parse(std::env::args_os().skip(1).collect()) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("dagger-trace: {error}; see dagger-trace --help");
            return ExitCode::from(2);
        }
    };
    match run(command) {
        Ok(text) => {
            // A reader that has seen enough, such as `head`, is no failure.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("dagger-trace: {error}");
            ExitCode::FAILURE
        }
    }
}
