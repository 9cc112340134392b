use super::traces;
use crate::{Patterns, TraceError};
use proptest::prelude::*;

proptest! {
    #[test]
    fn categories_are_the_sums_of_their_names(trace in traces(40)) {
        let categories = Patterns::new([("solves", "^t"), ("factors", "potrf$"), ("solves", "größer"), ("late", "t")]).unwrap();
        let (by_pattern, by_name) = (trace.by_pattern(&categories), trace.by_name());
        let sum = |names: &[&str]| {
            let rows = by_name.iter().filter(|row| names.contains(&row.name.as_str()));
            rows.fold((0, 0, 0), |sum, row| (sum.0 + row.count, sum.1 + row.total, sum.2.max(row.max)))
        };
        let quoted = "a \"quoted\" \\ name\n\u{1}";
        for (label, names) in [("solves", &["trsm", "größer"][..]), ("factors", &["potrf"]), ("late", &[quoted])] {
            let row = by_pattern.iter().find(|row| row.name == label);
            prop_assert_eq!(row.map_or((0, 0, 0), |row| (row.count, row.total, row.max)), sum(names), "{}", label);
        }
        prop_assert!(by_pattern.windows(2).all(|pair| pair[0].total >= pair[1].total));
        prop_assert!(trace.describe_by(&categories).lines().count() < 50);
    }
}

#[test]
fn the_page_has_a_row_for_what_is_in_no_category() {
    let trace = super::trace(vec![(0, vec![(1, 5)], 0, true), (1, vec![(20, 3)], 1, true)], &[], 1, 0);
    let page = trace.describe_by(&Patterns::new([("factors", "potrf")]).unwrap());
    let row = |label: &str| page.lines().find(|line| line.starts_with(label)).unwrap_or_default().to_owned();
    assert!(row("factors").contains("62.5 %") && row("(no category)").contains("37.5 %"), "{page}");
    assert!(
        page.contains("\nrun time by category ") && page.contains("\ncritical path by category "),
        "{page}"
    );
    assert!(!page.contains("potrf") && !page.contains("trsm"), "{page}");
}

#[test]
fn a_pattern_that_is_none_is_named() {
    let error = Patterns::new([("fine", "a"), ("bad", "a(b")]).unwrap_err();
    assert!(
        matches!(&error, TraceError::BadPattern { label, pattern, .. } if label == "bad" && pattern == "a(b")
    );
    assert!(error.to_string().starts_with("the pattern \"a(b\" of bad: "), "{error}");
}
