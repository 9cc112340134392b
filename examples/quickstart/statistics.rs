//! What the years say: a summary of each, and least squares over their means.
//!
//! 1. A year with fewer than [`WEEKS_MIN`] values has no figures; nothing fills the gap.
//! 2. A fit takes the means of usable years only, and at least [`YEARS_MIN`] of them.
//! 3. Fits are centred on the mean of their years: powers of 1980 would cost half of the digits.
//!
//! All of it is plain functions: nothing here knows of tasks.

use crate::record::Record;

/// A year with fewer weekly values is marked instead of summarised.
pub(crate) const WEEKS_MIN: usize = 26;
/// A decade or a fit over fewer usable years is marked instead of computed.
pub(crate) const YEARS_MIN: usize = 5;

/// One year of the record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct YearSummary {
    pub(crate) year: i32,
    /// Weeks with a value.
    pub(crate) weeks: usize,
    /// Months with a value.
    pub(crate) months: usize,
    /// `None` for fewer than [`WEEKS_MIN`] weeks.
    pub(crate) figures: Option<YearFigures>,
}

/// The figures of a usable year, in ppm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct YearFigures {
    pub(crate) mean: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Seasonal swing: the largest monthly mean minus the smallest. `None` unless every month has a value,
    /// since the missing month might be the largest.
    pub(crate) swing: Option<f64>,
}

/// Summarises the weeks of `year`.
pub(crate) fn summarise(record: &Record, year: i32) -> YearSummary {
    let mut all = Tally::default();
    let mut months = [Tally::default(); 12];
    for (month, ppm) in record.values_of(year) {
        all.add(ppm);
        months[usize::from(month) - 1].add(ppm);
    }

    let mut monthly_means = Tally::default();
    for mean in months.iter().filter_map(Tally::mean) {
        monthly_means.add(mean);
    }
    let swing = (monthly_means.count == 12).then_some(monthly_means.max - monthly_means.min);
    let mean = all.mean().filter(|_| all.count >= WEEKS_MIN);
    let figures = mean.map(|mean| YearFigures { mean, min: all.min, max: all.max, swing });
    YearSummary { year, weeks: all.count, months: monthly_means.count, figures }
}

/// The yearly means that may be used, ascending by year.
#[derive(Clone, Debug, Default)]
pub(crate) struct Means {
    years: Vec<(i32, f64)>,
}

impl Means {
    /// Takes the usable ones of `years`, which are ascending.
    pub(crate) fn of(years: &[YearSummary]) -> Self {
        let usable = |summary: &YearSummary| Some((summary.year, summary.figures?.mean));
        Self { years: years.iter().filter_map(usable).collect() }
    }
}

/// Ten years of the calendar.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decade {
    /// The first year, such as 1960.
    pub(crate) from: i32,
    /// Usable years among the ten.
    pub(crate) years: usize,
    /// The slope of the line through their means; `None` for fewer than [`YEARS_MIN`].
    pub(crate) ppm_per_year: Option<f64>,
}

impl Decade {
    /// The decade from `from` on; `years` are its years in the record.
    pub(crate) fn of(from: i32, years: &[YearSummary]) -> Self {
        let means = Means::of(years);
        let ppm_per_year = fit_line(&means).map(|line| line.slope);
        Self { from, years: means.years.len(), ppm_per_year }
    }

    /// The last year, such as 1969.
    pub(crate) fn to(&self) -> i32 {
        self.from + 9
    }
}

/// How much the mean of a year is above that of the year before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Growth {
    pub(crate) year: i32,
    pub(crate) ppm: f64,
}

/// The year of the fastest growth, the first of equals; `None` unless two usable years are neighbours.
pub(crate) fn fastest_growth(means: &Means) -> Option<Growth> {
    let neighbours = means.years.windows(2).filter(|pair| pair[1].0 == pair[0].0 + 1);
    let growths = neighbours.map(|pair| Growth { year: pair[1].0, ppm: pair[1].1 - pair[0].1 });
    growths.reduce(|best, next| if next.ppm > best.ppm { next } else { best })
}

/// `level + slope · (year − centre)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub(crate) centre: f64,
    /// In ppm.
    pub(crate) level: f64,
    /// In ppm per year.
    pub(crate) slope: f64,
    /// Standard deviation of the residuals, with n − 2 degrees of freedom, in ppm.
    pub(crate) residual: f64,
}

/// The least squares line; `None` for fewer than [`YEARS_MIN`] means.
pub(crate) fn fit_line(means: &Means) -> Option<Line> {
    let Centred { centre, level, points } = Centred::of(means)?;
    let slope = project(&points, |t| t);
    let residual = deviation(&points, 2, |t| slope * t);
    Some(Line { centre, level, slope, residual })
}

/// `level + slope · (year − centre) + bend · (year − centre)²`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parabola {
    pub(crate) centre: f64,
    /// In ppm.
    pub(crate) level: f64,
    /// At the centre, in ppm per year.
    pub(crate) slope: f64,
    /// In ppm per year²: half of the growth of the slope.
    pub(crate) bend: f64,
    /// Standard deviation of the residuals, with n − 3 degrees of freedom, in ppm.
    pub(crate) residual: f64,
}

/// The least squares parabola; `None` for fewer than [`YEARS_MIN`] means.
pub(crate) fn fit_parabola(means: &Means) -> Option<Parabola> {
    let Centred { centre, level, points } = Centred::of(means)?;
    // Gram and Schmidt: t² − skew·t − spread is orthogonal to 1 and t over these years, so each
    // coefficient is a projection of its own and there is no system to solve.
    let skew = project_on(&points, |t, _| t * t, |t| t);
    let spread = project_on(&points, |t, _| t * t, |_| 1.0);
    let across = |t: f64| t * t - skew * t - spread;

    let line = project(&points, |t| t);
    let bend = project(&points, across);
    let residual = deviation(&points, 3, |t| line * t + bend * across(t));
    let (level, slope) = (level - bend * spread, line - bend * skew);
    Some(Parabola { centre, level, slope, bend, residual })
}

/// Means with both coordinates taken from their average.
struct Centred {
    centre: f64,
    level: f64,
    points: Vec<(f64, f64)>,
}

impl Centred {
    /// `None` for fewer than [`YEARS_MIN`] means. The years are distinct, so a fit is never singular.
    fn of(means: &Means) -> Option<Self> {
        let count = means.years.len();
        if count < YEARS_MIN {
            return None;
        }
        let centre = means.years.iter().map(|&(year, _)| f64::from(year)).sum::<f64>() / count as f64;
        let level = means.years.iter().map(|&(_, mean)| mean).sum::<f64>() / count as f64;
        let shift = |&(year, mean): &(i32, f64)| (f64::from(year) - centre, mean - level);
        Some(Self { centre, level, points: means.years.iter().map(shift).collect() })
    }
}

/// The coefficient of `basis` in the points: ⟨basis, y⟩ / ⟨basis, basis⟩.
fn project(points: &[(f64, f64)], basis: impl Fn(f64) -> f64) -> f64 {
    project_on(points, |_, y| y, basis)
}

/// The coefficient of `basis` in `value`.
fn project_on(points: &[(f64, f64)], value: impl Fn(f64, f64) -> f64, basis: impl Fn(f64) -> f64) -> f64 {
    let along: f64 = points.iter().map(|&(t, y)| basis(t) * value(t, y)).sum();
    let length: f64 = points.iter().map(|&(t, _)| basis(t) * basis(t)).sum();
    along / length
}

fn deviation(points: &[(f64, f64)], parameters: usize, fit: impl Fn(f64) -> f64) -> f64 {
    let squares: f64 = points.iter().map(|&(t, y)| (y - fit(t)).powi(2)).sum();
    (squares / (points.len() - parameters) as f64).sqrt()
}

/// Count, sum and range of some values.
#[derive(Clone, Copy)]
struct Tally {
    count: usize,
    sum: f64,
    min: f64,
    max: f64,
}

impl Default for Tally {
    fn default() -> Self {
        Self { count: 0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY }
    }
}

impl Tally {
    fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAUNA_LOA: &str = include_str!("../data/mauna_loa_co2.csv");

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
    }

    fn means(years: &[(i32, f64)]) -> Means {
        Means { years: years.to_vec() }
    }

    fn mauna_loa() -> Vec<YearSummary> {
        let record = Record::from_text(MAUNA_LOA);
        record.years().into_iter().map(|year| summarise(&record, year)).collect()
    }

    /// `weeks` values of 1961, a week apart from 1 January on: 300, 301, …
    fn weeks_of_1961(weeks: usize) -> Record {
        let mut text = String::from("date,co2\n");
        let days = (1..=12).flat_map(|month| (0..4).map(move |week| (month, 1 + 7 * week)));
        for (index, (month, day)) in days.take(weeks).enumerate() {
            text += &format!("1961{month:02}{day:02},{}\n", 300 + index);
        }
        Record::from_text(&text)
    }

    #[test]
    fn the_years_of_mauna_loa_agree_with_another_program() {
        // Computed by a separate script from the same file: year, weeks, mean, min, max, swing.
        let expected = [
            (1959, 48, 315.90625, 313.0, 318.7, 4.925000000000011),
            (1960, 53, 316.8603773584906, 313.3, 320.0, 6.0849999999999795),
            (1976, 51, 332.0686274509804, 328.4, 335.4, 5.659999999999968),
            (1998, 52, 366.5769230769231, 363.5, 369.7, 5.215000000000032),
            (2001, 52, 370.8653846153845, 367.4, 373.9, 5.919999999999959),
        ];
        let summaries = mauna_loa();
        assert_eq!(summaries.len(), 44);
        assert_eq!(summaries.iter().map(|summary| summary.weeks).sum::<usize>(), 2225);
        for (year, weeks, mean, min, max, swing) in expected {
            let summary = summaries.iter().find(|summary| summary.year == year).unwrap();
            let figures = summary.figures.unwrap();
            assert_eq!((summary.weeks, summary.months), (weeks, 12));
            assert_eq!((figures.min, figures.max), (min, max));
            close(figures.mean, mean);
            close(figures.swing.unwrap(), swing);
        }
        let unusable: Vec<i32> = summaries
            .iter()
            .filter(|summary| summary.figures.is_none())
            .map(|summary| summary.year)
            .collect();
        assert_eq!(unusable, [1958]); // 25 weeks
        let gaps = summaries.iter().find(|summary| summary.year == 1964).unwrap(); // 31 weeks of 9 months
        assert_eq!((gaps.weeks, gaps.months, gaps.figures.unwrap().swing), (31, 9, None));
    }

    #[test]
    fn too_few_weeks_are_counted_but_not_summarised() {
        let few = summarise(&weeks_of_1961(WEEKS_MIN - 1), 1961);
        assert_eq!(few.weeks, WEEKS_MIN - 1);
        assert!(few.figures.is_none());

        let enough = summarise(&weeks_of_1961(WEEKS_MIN), 1961);
        let figures = enough.figures.unwrap();
        assert_eq!((enough.weeks, enough.months), (26, 7));
        assert_eq!((figures.mean, figures.min, figures.max), (312.5, 300.0, 325.0));
        assert_eq!(figures.swing, None);

        // Monthly means 301.5, 305.5, … 345.5.
        assert_eq!(summarise(&weeks_of_1961(48), 1961).figures.unwrap().swing, Some(44.0));
        assert_eq!(summarise(&weeks_of_1961(48), 1962).weeks, 0);
    }

    #[test]
    fn a_line_agrees_with_one_computed_by_hand() {
        // t = −2 … 2, y − 3 = −2, 1, −1, 1, 1: slope (4 − 1 + 1 + 2) / 10; squares 8 − 0.6² · 10 = 4.4.
        let line =
            fit_line(&means(&[(1998, 1.0), (1999, 4.0), (2000, 2.0), (2001, 4.0), (2002, 4.0)])).unwrap();
        close(line.centre, 2000.0);
        close(line.level, 3.0);
        close(line.slope, 0.6);
        close(line.residual, (4.4_f64 / 3.0).sqrt());
    }

    #[test]
    fn a_parabola_agrees_with_one_computed_by_hand() {
        // The same points. t² − 2 = 2, −1, −2, −1, 2: bend (−4 − 1 + 2 − 1 + 2) / 14 = −1/7;
        // squares 4.4 − 2² / 14.
        let points = means(&[(1998, 1.0), (1999, 4.0), (2000, 2.0), (2001, 4.0), (2002, 4.0)]);
        let parabola = fit_parabola(&points).unwrap();
        close(parabola.centre, 2000.0);
        close(parabola.level, 3.0 + 2.0 / 7.0);
        close(parabola.slope, 0.6);
        close(parabola.bend, -1.0 / 7.0);
        close(parabola.residual, ((4.4_f64 - 4.0 / 14.0) / 2.0).sqrt());
    }

    #[test]
    fn a_parabola_is_recovered_from_uneven_years() {
        let years = [1959, 1960, 1963, 1970, 1971, 1990];
        let centre = f64::from(years.iter().sum::<i32>()) / 6.0;
        let value =
            |year| 320.0 + 1.25 * (f64::from(year) - centre) + 0.0125 * (f64::from(year) - centre).powi(2);
        let parabola = fit_parabola(&means(&years.map(|year| (year, value(year))))).unwrap();
        close(parabola.centre, centre);
        close(parabola.level, 320.0);
        close(parabola.slope, 1.25);
        close(parabola.bend, 0.0125);
        close(parabola.residual, 0.0);
    }

    #[test]
    fn a_decade_uses_its_usable_years_only() {
        let year = |year, mean: Option<f64>| YearSummary {
            year,
            weeks: if mean.is_some() { 52 } else { 25 },
            months: 12,
            figures: mean.map(|mean| YearFigures { mean, min: mean, max: mean, swing: None }),
        };
        let mut years: Vec<_> =
            (1960..1965).map(|y| year(y, Some(300.0 + 2.0 * f64::from(y - 1960)))).collect();
        years.push(year(1965, None));
        let decade = Decade::of(1960, &years);
        assert_eq!((decade.from, decade.to(), decade.years), (1960, 1969, 5));
        close(decade.ppm_per_year.unwrap(), 2.0);

        let few = Decade::of(1960, &years[1..]);
        assert_eq!((few.years, few.ppm_per_year), (4, None));
    }

    #[test]
    fn growth_compares_neighbouring_years_only() {
        let growth = fastest_growth(&means(&[(1960, 1.0), (1961, 2.0), (1963, 9.0), (1964, 10.0)]));
        assert_eq!(growth, Some(Growth { year: 1961, ppm: 1.0 })); // the first of two; 1963 has no neighbour
        assert_eq!(fastest_growth(&means(&[(1960, 1.0), (1962, 2.0)])), None);
        assert_eq!(fastest_growth(&Means::default()), None);
    }

    #[test]
    fn the_trend_of_mauna_loa_agrees_with_another_program() {
        let means = Means::of(&mauna_loa());
        let fastest = fastest_growth(&means).unwrap();
        assert_eq!(fastest.year, 1998);
        close(fastest.ppm, 2.851923076923015);

        // Computed by a separate script in exact fractions.
        let line = fit_line(&means).unwrap();
        close(line.centre, 1980.0);
        close(line.level, 340.06167020901535);
        close(line.slope, 1.3508557413036482);
        close(line.residual, 1.7673732996963525);
        let parabola = fit_parabola(&means).unwrap();
        close(parabola.level, 338.29140736547873);
        close(parabola.slope, 1.3508557413036482);
        close(parabola.bend, 0.011495213269717962);
        close(parabola.residual, 0.7148282889856744);
        let sixties: Vec<YearSummary> =
            mauna_loa().into_iter().filter(|summary| summary.year / 10 == 196).collect();
        close(Decade::of(1960, &sixties).ppm_per_year.unwrap(), 0.8116062602682462);
    }
}
