//! What the command lines have in common.

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
