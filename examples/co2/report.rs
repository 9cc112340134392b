//! What the program prints: a table, or JSON.

use std::path::PathBuf;
use std::time::Duration;

use crate::regression::{Plan, Point, Posterior};

/// All that was found.
#[derive(Debug)]
pub(crate) struct Forecast {
    values: usize,
    /// Of the values, in ppm.
    mean: f64,
    log_marginal_likelihood: f64,
    /// What was asked for, in that order.
    points: Vec<Point>,
    tasks: usize,
    factor_time: Duration,
    picture: PathBuf,
}

impl Forecast {
    pub(crate) fn new(plan: &Plan, posterior: &Posterior, picture: PathBuf, factor_time: Duration) -> Self {
        Forecast {
            values: plan.record.values.len(),
            mean: plan.record.mean,
            log_marginal_likelihood: posterior.log_marginal_likelihood,
            points: posterior.points[..plan.asked].to_vec(),
            tasks: plan.tasks(),
            factor_time,
            picture,
        }
    }

    /// n³/3 operations over the time of the factorisation.
    fn gflops(&self) -> f64 {
        (self.values as f64).powi(3) / 3.0 / self.factor_time.as_secs_f64().max(1e-9) / 1e9
    }

    /// For people.
    pub(crate) fn table(&self, seconds: f64) -> String {
        let rows: String = self.points.iter().map(row).collect();
        format!(
            "\
CO₂ in ppm, from {} weekly values with a mean of {:.2}
log marginal likelihood {:.3}

year         mean     std   mean ± 2 std
{rows}
{} tasks in {seconds:.2} s; the factorisation ran at {:.1} GFLOP/s
picture: {}
",
            self.values,
            self.mean,
            self.log_marginal_likelihood,
            self.tasks,
            self.gflops(),
            self.picture.display(),
        )
    }

    /// For programs: one object on one line. Rust prints a finite `f64` in plain decimal digits that read back exactly.
    pub(crate) fn json(&self, seconds: f64) -> String {
        let forecast = self.points.iter().map(|Point { year, mean, std }| {
            format!(r#"{{"year":{},"mean":{},"std":{}}}"#, number(*year), number(*mean), number(*std))
        });
        format!(
            r#"{{"n":{},"mean":{},"log_marginal_likelihood":{},"forecast":[{}],"tasks":{},"seconds":{},"gflops":{}}}"#,
            self.values,
            number(self.mean),
            number(self.log_marginal_likelihood),
            forecast.collect::<Vec<_>>().join(","),
            self.tasks,
            number(seconds),
            number(self.gflops()),
        ) + "\n"
    }
}

fn row(Point { year, mean, std }: &Point) -> String {
    format!("{year:<8} {mean:>8.2} {std:>7.2}   {:.1} to {:.1}\n", mean - 2.0 * std, mean + 2.0 * std)
}

/// A JSON number, or `null` for what is none.
fn number(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { "null".to_owned() }
}
