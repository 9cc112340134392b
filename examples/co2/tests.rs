//! The program as a whole, on real threads: against a textbook solution that shares nothing with it but the record.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::PathBuf;

use dagger_async::prelude::*;

use crate::Failure;

const RECORD: &str = include_str!("../data/mauna_loa_co2.csv");

fn run(arguments: &[&str]) -> Result<String, Failure> {
    crate::run(arguments.iter().map(OsString::from))
}

/// A folder of one test, deleted at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("co2-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What is compared.
#[derive(Debug)]
struct Figures {
    n: usize,
    mean: f64,
    likelihood: f64,
    /// Mean and standard deviation, year by year.
    forecast: Vec<(f64, f64)>,
}

impl Figures {
    /// Those of the program's JSON.
    fn of(json: &str) -> Self {
        let all = |name: &str| -> Vec<f64> {
            let key = format!("\"{name}\":");
            let values = json.split(&key).skip(1).map(|rest| &rest[..rest.find([',', '}']).unwrap()]);
            values.map(|value| value.parse().unwrap()).collect()
        };
        let means = all("mean");
        Figures {
            n: all("n")[0] as usize,
            mean: means[0],
            likelihood: all("log_marginal_likelihood")[0],
            forecast: means[1..].iter().copied().zip(all("std")).collect(),
        }
    }

    fn assert_close(&self, expected: &Figures, what: &str) {
        let close = |a: f64, b: f64| (a - b).abs() < 1e-8 * b.abs().max(1.0);
        assert_eq!((self.n, self.forecast.len()), (expected.n, expected.forecast.len()), "{what}");
        assert!(close(self.mean, expected.mean), "{what}: {self:?}, expected {expected:?}");
        let likelihood = (self.likelihood - expected.likelihood).abs() < 1e-8 * expected.likelihood.abs();
        assert!(likelihood, "{what}: {self:?}, expected {expected:?}");
        for (a, b) in self.forecast.iter().zip(&expected.forecast) {
            let near = close(a.0, b.0) && (a.1 - b.1).abs() < 1e-8;
            assert!(near, "{what}: {self:?}, expected {expected:?}");
        }
    }
}

/// The same figures by other means: days counted one by one, the covariance written out, and a dense factor A = L·D·Lᵀ, so
/// that even the square roots are others.
mod textbook {
    use super::Figures;

    fn leap(year: u32) -> bool {
        (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
    }

    fn time(date: u32) -> f64 {
        let (year, month, day) = (date / 10_000, date / 100 % 100, date % 100);
        let mut lengths = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        lengths[1] += u32::from(leap(year));
        let mut day_of_year = day;
        for length in &lengths[..month as usize - 1] {
            day_of_year += length;
        }
        f64::from(year) + f64::from(day_of_year - 1) / if leap(year) { 366.0 } else { 365.0 }
    }

    fn covariance(s: f64, t: f64) -> f64 {
        let r2 = (s - t) * (s - t);
        let sine = (std::f64::consts::PI * (s - t)).sin();
        4356.0 * (-r2 / 8978.0).exp()
            + 5.76 * (-r2 / 16_200.0).exp() * (-2.0 * sine * sine / 1.69).exp()
            + 0.4356 / (0.78 * (r2 / 2.2464).ln_1p()).exp()
            + 0.0324 * (-r2 * 28.125).exp()
    }

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    pub(super) fn solve(csv: &str, years: &[f64]) -> Figures {
        let mut weeks: Vec<(u32, f64)> = Vec::new();
        for row in csv.lines().skip(1) {
            let (date, value) = row.split_once(',').unwrap();
            if !value.is_empty() {
                weeks.push((date.parse().unwrap(), value.parse().unwrap()));
            }
        }
        let n = weeks.len();
        let t: Vec<f64> = weeks.iter().map(|week| time(week.0)).collect();
        let mean = weeks.iter().map(|week| week.1).sum::<f64>() / n as f64;
        let y: Vec<f64> = weeks.iter().map(|week| week.1 - mean).collect();

        // Row by row: L with a diagonal of ones, and D. `scaled` is the row times D.
        let (mut l, mut d) = (vec![Vec::new(); n], vec![0.0; n]);
        for i in 0..n {
            let mut scaled = vec![0.0; i];
            let mut row = vec![0.0; i];
            for j in 0..i {
                scaled[j] = covariance(t[i], t[j]) - dot(&scaled[..j], &l[j]);
                row[j] = scaled[j] / d[j];
            }
            d[i] = covariance(t[i], t[i]) + 0.0361 - dot(&scaled, &row);
            l[i] = row;
        }
        let inverse = |b: &[f64]| {
            let mut x = b.to_vec();
            for i in 0..n {
                x[i] -= dot(&l[i], &x[..i]);
            }
            for i in 0..n {
                x[i] /= d[i];
            }
            for i in (0..n).rev() {
                let (before, at) = x.split_at_mut(i);
                before.iter_mut().zip(&l[i]).for_each(|(x, l)| *x -= l * at[0]);
            }
            x
        };
        let alpha = inverse(&y);
        let log_determinant: f64 = d.iter().map(|d| d.ln()).sum();
        let constant = n as f64 * (2.0 * std::f64::consts::PI).ln();
        let at = |&year: &f64| {
            let k: Vec<f64> = t.iter().map(|&time| covariance(time, year)).collect();
            (mean + dot(&k, &alpha), (covariance(year, year) - dot(&k, &inverse(&k))).sqrt())
        };
        let forecast = years.iter().map(at).collect();
        Figures { n, mean, likelihood: -(dot(&y, &alpha) + log_determinant + constant) / 2.0, forecast }
    }
}

/// Every `nth` row of the record, as a file.
fn thinned(nth: usize) -> String {
    let rows = RECORD.lines().skip(1).step_by(nth);
    rows.fold("date,co2\n".to_owned(), |text, row| text + row + "\n")
}

/// Days at odd distances, each with a value or none, over a slope and a season.
fn synthetic() -> String {
    let mut text = "date,co2\n".to_owned();
    let mut seed = 7u64;
    for month in 0..240 {
        for half in 0..2 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let (random, day) = ((seed >> 40) as f64 / (1 << 24) as f64, 1 + 14 * half + (seed >> 33) % 14);
            let season = (f64::from(month) * std::f64::consts::FRAC_PI_6).sin();
            let value = 300.0 + 0.2 * f64::from(month) + 4.0 * season + random;
            let value = if random < 0.3 { String::new() } else { format!("{value:.1}") };
            writeln!(text, "{}{:02}{day:02},{value}", 1890 + month / 12, 1 + month % 12).unwrap();
        }
    }
    text
}

#[test]
fn every_cut_into_tiles_and_threads_gives_the_textbook_figures() {
    let folder = Folder::new("tiles");
    let inputs = [
        ("thinned", thinned(7), "1958.3,1980.25,2002,2020"),
        ("irregular", synthetic(), "1889.5,1900,1911.75,1950.125"),
        ("tiny", "date,co2\n19580329,316.1\n19580405,\n19600405,317.3\n".to_owned(), "1959,1960.5"),
    ];
    for (name, text, at) in &inputs {
        let csv = folder.write(name, text);
        let years: Vec<f64> = at.split(',').map(|year| year.parse().unwrap()).collect();
        let expected = textbook::solve(text, &years);
        for tile in ["32", "100", "256", "384", "4096"] {
            for threads in ["1", "2", "8"] {
                let options = ["--tile", tile, "--threads", threads, "--out", folder.path()];
                let json = run(&[&["--json", "--csv", &csv, "--at", at], &options[..]].concat()).unwrap();
                let what = format!("{name}, tiles of {tile}, {threads} threads");
                Figures::of(&json).assert_close(&expected, &what);
            }
        }
    }
}

#[test]
fn the_whole_record_agrees_with_the_textbook_and_with_more_digits() {
    let folder = Folder::new("whole");
    // Computed by another program in numbers of 64 bits of mantissa.
    let precise = Figures {
        n: 2225,
        mean: 340.142_247_191_011_2,
        likelihood: -1_807.470_611_730_215,
        forecast: vec![
            (371.689_307_201_179_2, 0.104_861_565_780_079),
            (384.272_750_836_378_2, 1.532_244_958_215_85),
            (398.517_001_010_830_4, 3.464_104_813_196_931),
        ],
    };
    textbook::solve(RECORD, &[2002.0, 2010.0, 2020.0]).assert_close(&precise, "textbook");
    for tile in ["256", "4096"] {
        let json = run(&["--json", "--tile", tile, "--out", folder.path()]).unwrap();
        Figures::of(&json).assert_close(&precise, tile);
    }
}

#[test]
fn little_memory_gives_the_same_figures_and_says_what_moved() {
    let folder = Folder::new("memory");
    let csv = folder.write("thinned.csv", &thinned(2));
    // 1.1 thousand values and 769 points of the curve: 12 MiB of tiles, four times the limit.
    let line = ["--csv", &csv, "--tile", "64", "--threads", "2", "--out", folder.path()];
    let with = |more: &[&str]| run(&[&line[..], more].concat()).unwrap();
    let digits = |json: &str| json.split(",\"seconds\"").next().unwrap().to_owned();
    let limited = ["--memory-limit", "3MiB"];
    assert_eq!(digits(&with(&["--json", limited[0], limited[1]])), digits(&with(&["--json"])));
    let text = with(&limited);
    let memory = text.lines().last().unwrap();
    assert!(memory.starts_with("memory: ") && memory.contains(" of 3.0 MiB in memory"), "{text}");
    assert!(!memory.contains(" 0 evictions") && !memory.contains(" 0.0 MiB written"), "{text}");
    assert!(!with(&[]).contains("memory: "));
}

#[test]
fn json_has_its_fields_in_order_and_one_line() {
    let folder = Folder::new("json");
    let csv = folder.write("short.csv", "date,co2\n19590103,315.0\n19600102,316.0\n");
    let json = run(&["--json", "--csv", &csv, "--at", "1960,1961.5", "--out", folder.path()]).unwrap();
    let shape: String = json.chars().filter(|c| !matches!(c, '0'..='9' | '.' | '-')).collect();
    let point = "{\"year\":,\"mean\":,\"std\":}";
    assert_eq!(
        shape,
        format!(
            "{{\"n\":,\"mean\":,\"log_marginal_likelihood\":,\"forecast\":[{point},{point}],\"tasks\":,\"seconds\":,\"gflops\":}}\n"
        )
    );
}

#[test]
fn the_tasks_that_are_counted_are_those_that_run() {
    let folder = Folder::new("tasks");
    let csv = folder.write("thinned.csv", &thinned(7));
    let (n, curve) = (thinned(7).lines().filter(|row| !row.ends_with(',')).count() - 1, 64 * 12 + 1 + 3);
    let (rows, cols) = (n.div_ceil(100), usize::div_ceil(curve, 100));
    let filled = rows * (rows + 1) / 2 + rows + rows * cols;
    // Ids are taken in runs by each thread: a new one has a run to itself, and here it does all spawns.
    let counted = std::thread::spawn(move || {
        let id = || spawn(async {}).id().get();
        let before = id();
        let json = run(&["--json", "--csv", &csv, "--tile", "100", "--out", folder.path()]).unwrap();
        (id() - before - 1, json)
    });
    let (ids, json) = counted.join().unwrap();
    // The library adds one for each tile that a task fills, and one for each of the five blocks that it waits for.
    let tasks: u64 = json.split("\"tasks\":").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    let others = ids - tasks - filled as u64;
    assert!(others <= 5, "{ids} ids for {tasks} tasks and {filled} tiles");
}

#[test]
fn the_table_and_the_picture_show_the_forecast() {
    let folder = Folder::new("table");
    let csv = folder.write("thinned.csv", &thinned(20));
    let out = folder.0.join("a new folder");
    let text = run(&["--csv", &csv, "--at", "2002.5,2100", "--out", out.to_str().unwrap()]).unwrap();
    assert!(text.contains("\n2002.5 ") && text.contains("\n2100 "), "{text}");
    let path = out.join("forecast.svg");
    assert!(text.ends_with(&format!("picture: {}\n", path.display())), "{text}");
    let svg = std::fs::read_to_string(path).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    for text in [">year<", ">CO₂ (ppm)<", ">weekly values<", ">predicted mean<", ">± 2 standard deviations<"]
    {
        assert!(svg.contains(text), "{text}");
    }
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
}

#[test]
fn what_cannot_be_done_is_one_sentence_and_a_status() {
    let folder = Folder::new("refused");
    let bad = folder.write("bad.csv", "date,co2\n19590103,315\n19590110,abc\n");
    let few = folder.write("few.csv", "date,co2\n19590103,315\n");
    let whole = folder.write("whole.csv", RECORD);
    let missing = folder.0.join("missing.csv").to_str().unwrap().to_owned();
    let file = format!("{bad}/beside a file");
    let cases: [(&[&str], u8, String); 10] = [
        (&["--tile", "0"], 2, "--tile needs a number from 1 on".to_owned()),
        (&["--at", ""], 2, "--at needs years".to_owned()),
        (&["--yaml"], 2, "unknown option".to_owned()),
        (&["--csv", &whole, "--tile", "4"], 2, "tiles of 4 for 2225 values would make".to_owned()),
        (&["--memory-limit", "no"], 2, "--memory-limit needs a size".to_owned()),
        (
            &["--csv", &whole, "--memory-limit", "1MB"],
            2,
            "--memory-limit of 1000000 B is too small: one task needs ".to_owned(),
        ),
        (&["--csv", &bad], 1, format!("{bad}: line 3: the value \"abc\" is not a number")),
        (&["--csv", &few], 1, format!("{few}: too few rows: 1 with a value")),
        (&["--csv", &missing], 1, format!("{missing}: cannot be read: ")),
        (&["--csv", &whole, "--tile", "512", "--out", &file], 1, format!("{file}/forecast.svg: cannot be")),
    ];
    for (arguments, status, expected) in cases {
        let failure = run(arguments).unwrap_err();
        let message = failure.to_string();
        assert!(message.starts_with(&expected) && !message.contains('\n'), "{message}");
        assert_eq!(failure.status(), status, "{message}");
    }
    assert!(run(&["--help"]).unwrap().contains("--tile N"));
}

#[test]
fn a_matrix_that_rounding_makes_indefinite_is_reported_with_its_row() {
    let folder = Folder::new("indefinite");
    // Without noise, neighbouring days are as good as equal: the pivots drown in rounding before the last row.
    let rows: String =
        (0..12 * 28).map(|day| format!("1990{:02}{:02},350\n", 1 + day / 28, 1 + day % 28)).collect();
    let csv = folder.write("days.csv", &format!("date,co2\n{rows}"));
    let failure = |tile| {
        let failure =
            run(&["--csv", &csv, "--noise", "0", "--tile", tile, "--out", folder.path()]).unwrap_err();
        assert_eq!(failure.status(), 1);
        failure.to_string()
    };
    for tile in ["16", "64", "400"] {
        let message = failure(tile);
        let row = message.strip_prefix("the covariance matrix is not positive definite: see row ");
        let row: usize = row.and_then(|rest| rest.split(';').next()).unwrap().parse().unwrap();
        assert!((1..12 * 28).contains(&row), "{message}");
    }
}
