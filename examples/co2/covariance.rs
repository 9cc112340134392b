//! How alike two weeks are, by the years between them.
//!
//! The covariance function of Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), section 5.4.3, with
//! the values that they found for this record. Amplitudes are in ppm, lengths in years.

use std::f64::consts::PI;

/// The covariance of the noise-free function at two times that are `r` years apart, in ppm²: even in `r`, at most
/// `covariance(0.0)`.
pub(crate) fn covariance(r: f64) -> f64 {
    // The part of a year that is left, at most half of one: exact, where the sine of a large angle is not.
    let season = (PI * (r - r.round())).sin();
    let squared = r * r;
    let trend = 66f64.powi(2) * (-squared / (2.0 * 67f64.powi(2))).exp();
    let year =
        2.4f64.powi(2) * (-squared / (2.0 * 90f64.powi(2)) - 2.0 * (season * season) / 1.3f64.powi(2)).exp();
    let irregular = 0.66f64.powi(2) * (1.0 + squared / (2.0 * 0.78 * 1.2f64.powi(2))).powf(-0.78);
    let weather = 0.18f64.powi(2) * (-squared / (2.0 * (1.6f64 / 12.0).powi(2))).exp();
    trend + year + irregular + weather
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with 50 digits by another program, for the `f64` nearest to the number of years.
    const EXACT: [(f64, f64); 6] = [
        (0.0, 4362.228),
        (0.0192, 4362.2027133941465),
        (0.5, 4358.043751454686),
        (1.0, 4361.601339776802),
        (12.37, 4284.509284205571),
        (61.8, 2849.707180478048),
    ];

    #[test]
    fn it_has_the_published_values() {
        for (r, exact) in EXACT {
            assert!((covariance(r) / exact - 1.0).abs() < 1e-14, "{r}: {} for {exact}", covariance(r));
            assert_eq!(covariance(-r), covariance(r));
        }
    }
}
