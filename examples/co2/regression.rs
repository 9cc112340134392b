//! What the tasks do: plain functions, and the sizes of the graph.
//!
//! With y the values less their mean, K their covariances with the noise on the diagonal, k those of the values with one
//! time of the forecast (Rasmussen and Williams 2006, algorithm 2.1):
//!
//! ```text
//!   K = L·Lᵀ      z = L⁻¹·y      α = L⁻ᵀ·z      v = L⁻¹·k
//!   log marginal likelihood  −½ zᵀz − ½ ln det K − n/2 ln 2π
//!   forecast                 mean kᵀα,  variance covariance(0) − vᵀv
//! ```
//! The last difference cancels: of a variance of about 4362 ppm² less than 0.01 may be left. Both sides are sums of the
//! same function's values, and vᵀv is summed from positive terms by tiles, so its rounding stays near 1e-12 of 4362, and
//! a deviation of 0.1 ppm keeps nine digits. What K itself rounds to weighs more, and is held down by the noise: at
//! least `noise²` on its diagonal.

use std::f64::consts::PI;
use std::sync::Arc;

use dagger_array::Tile;

use crate::arguments::Settings;
use crate::covariance::covariance;
use crate::record::Record;

/// More tasks than this take longer to spawn than the work they hold.
const TASKS_MAX: usize = 1_000_000;
/// How many points the curve has in a year: a season is seen, and looks smooth.
const POINTS_PER_YEAR: f64 = 12.0;
/// How far from the record the picture goes, in years: the process forgets its values within 67.
const SHOWN_YEARS_MAX: f64 = 100.0;
/// How far beyond the last year asked for the picture goes.
const MARGIN_YEARS: f64 = 2.0;

/// What is to be computed, from what, in tiles of which size.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) record: Record,
    /// The years to predict: those that were asked for, then those of the curve.
    pub(crate) years: Vec<f64>,
    /// How many of them were asked for.
    pub(crate) asked: usize,
    pub(crate) tile: usize,
    noise: f64,
}

/// Tiles so small that the graph would be mostly overhead.
#[derive(Debug, thiserror::Error)]
#[error(
    "tiles of {tile} for {values} values would make {tasks} tasks, and at most {TASKS_MAX} are allowed; take a larger --tile"
)]
pub(crate) struct TooManyTasks {
    tile: usize,
    values: usize,
    tasks: usize,
}

impl Plan {
    pub(crate) fn new(record: Record, settings: Settings) -> Result<Plan, TooManyTasks> {
        let mut years = settings.at;
        let asked = years.len();
        let curve = curve_years(&record, &years);
        years.extend(curve);
        let plan = Plan { record, years, asked, tile: settings.tile, noise: settings.noise };
        match plan.tasks() {
            tasks if tasks > TASKS_MAX => {
                Err(TooManyTasks { tile: plan.tile, values: plan.record.values.len(), tasks })
            }
            _ => Ok(plan),
        }
    }

    /// How many tasks the whole graph has, from reading the file to writing the picture.
    pub(crate) fn tasks(&self) -> usize {
        let (n, m) = (self.record.values.len().div_ceil(self.tile), self.years.len().div_ceil(self.tile));
        let triangle = n * (n + 1) / 2;
        let factor = triangle * (n + 2) / 3;
        // Each tile filled; the factorisation; two solves for α and one for each tile column of v; then ln det K, zᵀz, and
        // a mean and a vᵀv from each tile. Besides: read, parse, plan, gather, draw and save.
        (triangle + n + n * m) + factor + (2 + m) * triangle + 2 * n + 2 * n * m + 6
    }

    /// Element (i, j) of K.
    pub(crate) fn covariance(&self, i: usize, j: usize) -> f64 {
        let noise = if i == j { self.noise * self.noise } else { 0.0 };
        covariance(self.record.times[i] - self.record.times[j]) + noise
    }

    /// Element (i, 0) of y.
    pub(crate) fn value(&self, i: usize, _: usize) -> f64 {
        self.record.values[i]
    }

    /// Element (i, j) of the covariances of the values with the forecast.
    pub(crate) fn cross_covariance(&self, i: usize, j: usize) -> f64 {
        covariance(self.record.times[i] - self.years[j])
    }
}

/// A method of the plan as the function that fills tiles.
pub(crate) fn of(
    plan: &Arc<Plan>,
    element: fn(&Plan, usize, usize) -> f64,
) -> impl Fn(usize, usize) -> f64 + Clone + Send + Sync + 'static {
    let plan = plan.clone();
    move |i, j| element(&plan, i, j)
}

/// The years of the curve, from before the record and what was asked for to beyond both.
fn curve_years(record: &Record, asked: &[f64]) -> Vec<f64> {
    let bounds = |years: &[f64]| {
        let min = years.iter().copied().fold(f64::INFINITY, f64::min);
        (min, years.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    };
    let ((first, last), (from, to)) = (bounds(&record.times), bounds(asked));
    let from = from.clamp(first - SHOWN_YEARS_MAX, first).floor();
    let to = (to.clamp(last, last + SHOWN_YEARS_MAX) + MARGIN_YEARS).ceil();
    // A record of millennia gets fewer points a year, lest the forecast outweigh the factorisation.
    let points = ((to - from) * POINTS_PER_YEAR).clamp(1.0, 4000.0).round();
    (0..=points as usize).map(|point| from + (to - from) * point as f64 / points).collect()
}

/// Adds the sum of the squares of each column.
pub(crate) fn add_squares(tile: &Tile<f64>, sums: &mut [f64]) {
    for (j, sum) in sums.iter_mut().enumerate() {
        *sum += tile.col(j).iter().map(|x| x * x).sum::<f64>();
    }
}

/// Adds the sum of each column's products with `weights`, a tile of one column.
pub(crate) fn add_products(tile: &Tile<f64>, weights: &Tile<f64>, sums: &mut [f64]) {
    for (j, sum) in sums.iter_mut().enumerate() {
        *sum += tile.col(j).iter().zip(weights.col(0)).map(|(x, weight)| x * weight).sum::<f64>();
    }
}

/// The noise-free function at one time, in ppm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) year: f64,
    pub(crate) mean: f64,
    pub(crate) std: f64,
}

/// What the record says about the function behind it.
#[derive(Clone, Debug)]
pub(crate) struct Posterior {
    pub(crate) log_marginal_likelihood: f64,
    /// At the years of the plan, in their order.
    pub(crate) points: Vec<Point>,
}

/// Puts the sums together: zᵀz, then for each year kᵀα and vᵀv.
pub(crate) fn gather(
    plan: Arc<Plan>,
    log_determinant: f64,
    fit: &[f64],
    products: &[f64],
    squares: &[f64],
) -> Posterior {
    let n = plan.record.values.len() as f64;
    let log_marginal_likelihood =
        -0.5 * fit.iter().sum::<f64>() - 0.5 * log_determinant - 0.5 * n * (2.0 * PI).ln();
    let points = plan.years.iter().zip(products).zip(squares).map(|((&year, product), square)| Point {
        year,
        mean: plan.record.mean + product,
        std: (covariance(0.0) - square).max(0.0).sqrt(),
    });
    Posterior { log_marginal_likelihood, points: points.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(times: &[f64]) -> Record {
        Record { times: times.to_vec(), values: vec![0.0; times.len()], mean: 300.0 }
    }

    #[test]
    fn the_curve_holds_the_record_and_what_is_asked_for_but_no_millennia() {
        let curve = |times: &[f64], asked: &[f64]| {
            let years = curve_years(&record(times), asked);
            assert!(years.is_sorted());
            (years[0], years[years.len() - 1], years.len())
        };
        assert_eq!(curve(&[1958.2, 2001.9], &[2002.0, 2020.0]), (1958.0, 2022.0, 64 * 12 + 1));
        assert_eq!(curve(&[1958.2, 2001.9], &[1940.5]), (1940.0, 2004.0, 64 * 12 + 1));
        assert_eq!(curve(&[1958.2, 2001.9], &[0.0, 9999.0]), (1858.0, 2104.0, 246 * 12 + 1));
        assert_eq!(curve(&[1.0, 9999.0], &[2002.0]), (1.0, 10001.0, 4001));
    }

    #[test]
    fn tiles_too_small_are_refused_before_anything_is_spawned() {
        let record = record(&(0..2225).map(f64::from).collect::<Vec<_>>());
        let plan = |tile| Plan::new(record.clone(), Settings { tile, ..Settings::default() });
        let refused = plan(8).unwrap_err().to_string();
        assert!(refused.starts_with("tiles of 8 for 2225 values would make "), "{refused}");
        assert!(plan(32).is_ok() && plan(usize::MAX).is_ok());
    }
}
