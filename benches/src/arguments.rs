//! What the command lines have in common.

use std::process::ExitCode;

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command<O> {
    /// To measure, with these options.
    Measure(O),
    /// To say what can be asked for.
    Help,
}

/// Parses the arguments of the program, on a machine with the number of CPUs that is handed over, and does what they ask for.
/// Wrong ones are answered by what is wrong with them, the usage and status 2.
pub fn run<O>(
    usage: &str,
    parse: impl FnOnce(std::iter::Skip<std::env::Args>, usize) -> Result<Command<O>, String>,
    measure: impl FnOnce(&O),
) -> ExitCode {
    let parallelism = std::thread::available_parallelism().map_or(1, usize::from);
    match parse(std::env::args().skip(1), parallelism) {
        Ok(Command::Measure(options)) => {
            measure(&options);
            ExitCode::SUCCESS
        }
        Ok(Command::Help) => {
            println!("{usage}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("{message}\n{usage}");
            ExitCode::from(2)
        }
    }
}

/// A number above 0.
///
/// # Errors
/// Names what is none.
pub fn positive(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("`{text}` is not a positive number")),
    }
}

/// A list of numbers above 0, ascending, each once.
///
/// # Errors
/// As [`positive`].
pub fn positives(list: &str) -> Result<Vec<usize>, String> {
    let mut numbers = list.split(',').map(positive).collect::<Result<Vec<_>, _>>()?;
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

/// Those of `all` that the list names, in the order of `all`.
///
/// # Errors
/// Names what is none of them.
pub fn choose<T: Copy>(list: &str, all: &[T], name: impl Fn(T) -> &'static str) -> Result<Vec<T>, String> {
    let wanted: Vec<&str> = list.split(',').map(str::trim).collect();
    for wanted in &wanted {
        if !all.iter().any(|&known| name(known) == *wanted) {
            let known: Vec<&str> = all.iter().map(|&known| name(known)).collect();
            return Err(format!("`{wanted}` is none of {}", known.join(", ")));
        }
    }
    Ok(all.iter().copied().filter(|&known| wanted.contains(&name(known))).collect())
}
