//! Lines as a table: ours beside the best peer, figures of one state of the machine together.

use crate::line::Line;
use crate::spread::Spread;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Which figures are good ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Times.
    Less,
    /// Speeds.
    More,
}

/// Who is ours.
pub const OURS: &str = "dagger";

/// What tells apart figures of one peer on the same work: where the tasks come from, which tile, and so on.
const VARIANTS: [&str; 5] = ["from", "mode", "tile", "blas", "steps"];

/// The work that a line is about, as `bench` calls it: figures of the same work are compared.
fn work(line: &Line, bench: &str) -> String {
    let mut same = line.clone();
    same.params.retain(|key, _| !VARIANTS.contains(&key.as_str()));
    format!("{bench} {}", same.what())
}

/// Peer and variant: `dagger inside`, `tbb rerun`, `starpu 512`.
fn who(line: &Line) -> String {
    let variants = ["from", "mode", "tile", "blas"].iter().filter_map(|key| {
        let value = line.params.get(*key)?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    });
    std::iter::once(line.peer.clone()).chain(variants).collect::<Vec<_>>().join(" ")
}

/// A peer that starts from nothing in each run, as our first run does: the ratio is to the best of these.
fn competes(line: &Line) -> bool {
    line.peer != OURS && line.text("mode").is_none()
}

/// Above this share of the CPUs, in percent, what other processes use spoils a figure.
const OTHERS_MAX: f64 = 10.0;

/// Of the figures that were not spoilt; of all, and `false`, if all were.
fn spread(lines: &[&Line]) -> Option<(Spread, bool)> {
    let others =
        |line: &Line| line.params.get("others_pct").and_then(serde_json::Value::as_f64).unwrap_or(0.0);
    let of = |most: f64| {
        Spread::of(lines.iter().filter(|line| others(line) <= most).filter_map(|line| line.value).collect())
    };
    match of(OTHERS_MAX) {
        Some(spread) => Some((spread, true)),
        None => Some((of(f64::INFINITY)?, false)),
    }
}

/// A row for each variant of ours, work and state: median, smallest and largest, the best peer, how often ours is better
/// (above 1: ours is), and the medians of all others. `bench` names the work of a line. Figures taken while other processes used
/// more than a tenth of the CPUs are left out; a `*` stands where there are no others.
pub fn table(lines: &[Line], better: Better, bench: impl Fn(&Line) -> String) -> String {
    /// By peer and variant: whether it competes, and its lines.
    type Group<'a> = BTreeMap<String, (bool, Vec<&'a Line>)>;
    let mut groups: BTreeMap<(String, String), Group> = BTreeMap::new();
    for line in lines {
        let group = groups.entry((work(line, &bench(line)), line.state().to_owned())).or_default();
        group.entry(who(line)).or_insert((competes(line), Vec::new())).1.push(line);
    }
    let mut text = String::from(
        "| work | state | ours | median [min–max] | best peer | ours is better by | all others |\n| --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for ((work, state), group) in groups {
        let spreads: Vec<(String, bool, Spread)> = group
            .into_iter()
            .filter_map(|(who, (competes, lines))| {
                let (spread, quiet) = spread(&lines)?;
                Some((if quiet { who } else { who + "*" }, competes, spread))
            })
            .collect();
        let is_ours = |who: &str| who.split([' ', '*']).next() == Some(OURS);
        let order = |a: &f64, b: &f64| if better == Better::Less { a.total_cmp(b) } else { b.total_cmp(a) };
        let rivals = spreads.iter().filter(|(_, competes, _)| *competes);
        let best = rivals.min_by(|(_, _, a), (_, _, b)| order(&a.median, &b.median));
        let others: Vec<String> = spreads
            .iter()
            .filter(|(who, ..)| !is_ours(who))
            .map(|(who, _, spread)| format!("{who} {}", short(spread.median)))
            .collect();
        let others = if others.is_empty() { "–".to_owned() } else { others.join(", ") };
        for (who, _, spread) in spreads.iter().filter(|(who, ..)| is_ours(who)) {
            let (name, ratio) = match best {
                Some((name, _, best)) => {
                    let ratio = match better {
                        Better::Less => best.median / spread.median,
                        Better::More => spread.median / best.median,
                    };
                    (format!("{name} {}", short(best.median)), format!("{ratio:.2}"))
                }
                None => ("–".to_owned(), "–".to_owned()),
            };
            let Spread { median, min, max } = *spread;
            let cell = format!("{} [{}–{}]", short(median), short(min), short(max));
            // Writing to a string does not fail.
            let _ = writeln!(text, "| {work} | {state} | {who} | {cell} | {name} | {ratio} | {others} |");
        }
    }
    text
}

/// About three digits.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(peer: &str, value: f64, ns: f64) -> Line {
        let line = Line::new(peer, "chain", Some(value), "ns/task").with("threads", 2).with("n", 9);
        line.with_pingpong(Some((ns, ns)))
    }

    #[test]
    fn the_best_peer_of_the_same_state_is_the_one_to_beat() {
        let lines = [
            line("dagger", 100.0, 50.0).with("from", "inside"),
            line("dagger", 110.0, 50.0).with("from", "inside"),
            line("dagger", 120.0, 50.0).with("from", "inside"),
            line("tbb", 275.0, 50.0),
            line("tbb", 5.0, 50.0).with("mode", "rerun"),
            line("omp-gcc", 300.0, 50.0),
            line("omp-gcc", 1.0, 200.0),
        ];
        let table = table(&lines, Better::Less, |line| line.bench.clone());
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| chain n=9 threads=2 | near | dagger inside | 110 [100–120] | tbb 275 | 2.50 | omp-gcc 300, tbb 275, tbb rerun 5.00 |"
            ]
        );
    }

    #[test]
    fn spoilt_figures_count_only_where_there_are_no_others() {
        let spoilt = |line: Line| line.with("others_pct", 11);
        let lines =
            [line("dagger", 1.0, 50.0), spoilt(line("dagger", 9.0, 50.0)), spoilt(line("tbb", 3.0, 50.0))];
        let table = table(&lines, Better::Less, |line| line.bench.clone());
        assert!(table.contains("| dagger | 1.00 [1.00–1.00] | tbb* 3.00 | 3.00 | tbb* 3.00 |"), "{table}");
    }

    #[test]
    fn of_speeds_the_largest_is_the_best() {
        let lines = [line("dagger", 150.0, 50.0), line("blas", 100.0, 50.0), line("faer", 75.0, 50.0)];
        let table = table(&lines, Better::More, |line| line.bench.clone());
        assert!(table.contains("| blas 100 | 1.50 |"), "{table}");
    }
}
