//! What can be measured: a graph and its sizes, by the name that the command line gives it.

use crate::graph::pattern::Pattern;

/// A graph and its sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bench {
    Spawn {
        tasks: usize,
    },
    Chain {
        tasks: usize,
    },
    Fanout {
        width: usize,
        rounds: usize,
    },
    Random {
        tasks: usize,
        data: usize,
    },
    CholeskyDag {
        tiles: usize,
    },
    Stencil {
        width: usize,
        steps: usize,
    },
    Pattern {
        pattern: Pattern,
        width: usize,
        steps: usize,
    },
    /// The granularity at 50 and at 80 % of the peak, or at one of them.
    Metg {
        width: usize,
        steps: usize,
        percent: Option<u32>,
    },
}

impl Bench {
    /// What is measured unless the user names something.
    pub(crate) const DEFAULT: [&str; 9] = [
        "spawn",
        "chain",
        "fanout",
        "random",
        "cholesky_dag",
        "stencil:4",
        "stencil:64",
        "metg:4",
        "metg:64",
    ];

    /// Its tasks access chunks: a plan has something to say.
    pub(crate) fn has_data(self) -> bool {
        !matches!(self, Bench::Spawn { .. })
    }

    /// The benches that a name stands for: `chain`, `chain:500`, `stencil` (both usual widths), `patterns` (all of them).
    pub(crate) fn parse(name: &str) -> Result<Vec<Bench>, String> {
        let (bench, sizes) = name.split_once(':').unwrap_or((name, ""));
        let sizes: Option<Vec<usize>> =
            sizes.split(':').filter(|size| !size.is_empty()).map(|x| x.parse().ok()).collect();
        let wrong = || format!("`{name}`: no such bench, or not its sizes");
        let sizes = sizes.ok_or_else(wrong)?;
        let patterns: Vec<Pattern> = Pattern::ALL
            .into_iter()
            .filter(|pattern| bench == "patterns" || bench == pattern.name())
            .collect();
        let size = |at: usize, usual: usize| sizes.get(at).copied().unwrap_or(usual);
        let widths = |usual: &[usize]| sizes.first().map_or(usual.to_vec(), |&width| vec![width]);
        let (most, benches) = match bench {
            "spawn" => (1, vec![Bench::Spawn { tasks: size(0, 1_000_000) }]),
            "chain" => (1, vec![Bench::Chain { tasks: size(0, 100_000) }]),
            "fanout" => (2, vec![Bench::Fanout { width: size(0, 1000), rounds: size(1, 10) }]),
            "random" => (2, vec![Bench::Random { tasks: size(0, 100_000), data: size(1, 100) }]),
            "cholesky_dag" => (1, vec![Bench::CholeskyDag { tiles: size(0, 40) }]),
            "stencil" => {
                let stencil = |width| Bench::Stencil { width, steps: size(1, 1000) };
                (2, widths(&[4, 64]).into_iter().map(stencil).collect())
            }
            "metg" | "metg50" | "metg80" => {
                let percent = bench["metg".len()..].parse().ok();
                let metg = |width| Bench::Metg { width, steps: size(1, 1000), percent };
                (2, widths(&[4, 64]).into_iter().map(metg).collect())
            }
            _ => {
                let usual = |pattern: Pattern| if pattern == Pattern::AllToAll { 8 } else { 64 };
                let of = |&pattern: &Pattern| Bench::Pattern {
                    pattern,
                    width: size(0, usual(pattern)),
                    steps: size(1, 1000),
                };
                (2, patterns.iter().map(of).collect())
            }
        };
        let fits =
            sizes.len() <= most && !benches.is_empty() && benches.iter().all(|bench| bench.is_possible());
        if fits { Ok(benches) } else { Err(wrong()) }
    }

    fn is_possible(self) -> bool {
        self.params().iter().all(|&(_, size)| size > 0 && u32::try_from(size).is_ok())
            && match self {
                Bench::Random { data, .. } => data >= 3,
                Bench::Stencil { width, .. } | Bench::Metg { width, .. } => width >= 2,
                Bench::Pattern { pattern, width, .. } => width <= pattern.width_max(),
                _ => true,
            }
    }

    /// As its lines call it; those of `metg` are `metg50` and `metg80`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Bench::Spawn { .. } => "spawn",
            Bench::Chain { .. } => "chain",
            Bench::Fanout { .. } => "fanout",
            Bench::Random { .. } => "random",
            Bench::CholeskyDag { .. } => "cholesky_dag",
            Bench::Stencil { .. } => "stencil",
            Bench::Pattern { pattern, .. } => pattern.name(),
            Bench::Metg { .. } => "metg",
        }
    }

    /// The sizes, as the lines call them.
    pub(crate) fn params(self) -> Vec<(&'static str, usize)> {
        match self {
            Bench::Spawn { tasks } | Bench::Chain { tasks } => vec![("n", tasks)],
            Bench::Fanout { width, rounds } => vec![("width", width), ("rounds", rounds)],
            Bench::Random { tasks, data } => vec![("n", tasks), ("handles", data)],
            Bench::CholeskyDag { tiles } => {
                vec![("nt", tiles), ("tasks", tiles * (tiles + 1) * (tiles + 2) / 6)]
            }
            Bench::Stencil { width, steps }
            | Bench::Pattern { width, steps, .. }
            | Bench::Metg { width, steps, .. } => {
                vec![("width", width), ("steps", steps)]
            }
        }
    }

    /// What the peers' programs call it, if they have it, on so many threads. libgomp gets fewer steps of `metg`, whose tasks
    /// take it tens of microseconds, and on one thread only what does not take it hours.
    pub(crate) fn of_peer(self, program: &str, threads: usize) -> Option<String> {
        let slow = program == "peer_omp_gcc";
        let sizes = |sizes: &[usize]| {
            let sizes = sizes.iter().map(|size| format!(":{size}"));
            format!("{}{}", self.name(), sizes.collect::<String>())
        };
        match self {
            Bench::Spawn { tasks: size }
            | Bench::Chain { tasks: size }
            | Bench::CholeskyDag { tiles: size } => Some(sizes(&[size])),
            _ if slow && threads == 1 => None,
            Bench::Fanout { width: a, rounds: b }
            | Bench::Random { tasks: a, data: b }
            | Bench::Stencil { width: a, steps: b } => Some(sizes(&[a, b])),
            Bench::Metg { width, steps, .. } => {
                let steps = if slow { steps.min(if width < 16 { 250 } else { 100 }) } else { steps };
                Some(sizes(&[width, steps]))
            }
            Bench::Pattern { .. } => None,
        }
    }
}

/// The peers' programs that order tasks while they are spawned, or on a graph that was built before.
pub(crate) const PROGRAMS: [&str; 4] = ["peer_omp_gcc", "peer_omp_clang", "peer_tbb", "peer_starpu"];
