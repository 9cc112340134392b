//! The kernel's way to write a set of CPUs or nodes: `0-3,8,10-11`.

use std::collections::BTreeSet;

/// No machine that Linux supports has more CPUs; a longer range is garbage, not a reason to fill the memory.
const CPUS_MAX: usize = 1 << 16;

/// The numbers of `text`, or `None` if it is not a list as the kernel writes it.
///
/// White space around it is ignored, and an empty text is the empty set (an offline list, a node without CPUs).
/// A step (`0-31:2/4`) is only ever read, never written, by the kernel, and counts as malformed.
pub(crate) fn parse(text: &str) -> Option<BTreeSet<usize>> {
    let text = text.trim();
    if text.is_empty() {
        return Some(BTreeSet::new());
    }
    let mut numbers = BTreeSet::new();
    for item in text.split(',') {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// Digits only: `str::parse` would also take `+1`.
fn number(text: &str) -> Option<usize> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&n| digits && n < CPUS_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;

    /// Writes runs as ranges, as the kernel does.
    fn write(numbers: &BTreeSet<usize>) -> String {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for &n in numbers {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == n => *last = n,
                _ => runs.push((n, n)),
            }
        }
        let item = |&(first, last): &(usize, usize)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        runs.iter().map(item).collect::<Vec<_>>().join(",")
    }

    proptest! {
        #[test]
        fn what_the_kernel_writes_is_read_back(numbers in btree_set(0usize..200, 0..100)) {
            prop_assert_eq!(parse(&format!("{}\n", write(&numbers))), Some(numbers));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9,\\- +a\n]{0,24}") {
            if let Some(numbers) = parse(&text) {
                prop_assert_eq!(parse(&write(&numbers)), Some(numbers));
            }
        }
    }

    #[test]
    fn empty_is_the_empty_set() {
        assert_eq!(parse("\n"), Some(BTreeSet::new()));
    }

    #[test]
    fn malformed_lists_are_refused() {
        let garbage =
            [",", "1,", ",1", "1,,2", "3-1", "-1", "1-", "1-2-3", "a", "+1", "1 2", "0-31:2/4", "0-65536"];
        for text in garbage.into_iter().chain(["99999999999999999999", "0x3", "1;2", "\u{661}"]) {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
