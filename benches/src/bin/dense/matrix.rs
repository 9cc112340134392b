//! The matrices, element by element, and how a result is checked: by what it does to one vector.

/// A number in 0..1 that depends on the place and on which matrix it is.
fn noise(which: usize, i: usize, j: usize) -> f64 {
    let mixed = (which as u64) << 60 ^ (i as u64) << 30 ^ j as u64;
    let mixed = mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xD1B5_4A32_D192_ED03);
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

/// Element (i, j) of a general matrix: 1 and 2 are the factors of a product.
pub(crate) fn general(which: usize, i: usize, j: usize) -> f64 {
    noise(which, i, j)
}

/// Element (i, j) of a symmetric positive definite matrix of order `n`: its diagonal outweighs its rows.
pub(crate) fn positive(n: usize, i: usize, j: usize) -> f64 {
    noise(0, i.max(j), i.min(j)) + if i == j { n as f64 } else { 0.0 }
}

/// The vector that results are tried on.
fn probe(n: usize) -> Vec<f64> {
    (0..n).map(|i| noise(3, i, 0) - 0.5).collect()
}

/// M·x, for a matrix given by its elements.
fn times(n: usize, x: &[f64], element: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let mut y = vec![0.0; n];
    for (j, x) in x.iter().enumerate() {
        for (i, y) in y.iter_mut().enumerate() {
            *y += element(i, j) * x;
        }
    }
    y
}

/// ‖actual − expected‖ ÷ ‖expected‖.
fn relative_error(actual: &[f64], expected: &[f64]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let error = norm(&mut actual.iter().zip(expected).map(|(a, b)| a - b));
    error / norm(&mut expected.iter().copied())
}

/// What is off more than this is wrong.
const ERROR_MAX: f64 = 1e-11;

/// Panics unless L·Lᵀ·x is A·x: `l` gives the lower triangle of the factor.
pub(crate) fn check_factor(who: &str, n: usize, l: impl Fn(usize, usize) -> f64) {
    let x = probe(n);
    let mut y: Vec<f64> = (0..n).map(|j| (j..n).map(|i| l(i, j) * x[i]).sum()).collect(); // Lᵀ·x
    y = times(n, &y, |i, j| if i >= j { l(i, j) } else { 0.0 });
    let error = relative_error(&y, &times(n, &x, |i, j| positive(n, i, j)));
    assert!(error < ERROR_MAX, "{who}: a wrong factor of order {n}, off by {error}");
}

/// Panics unless C·x is A·B·x.
pub(crate) fn check_product(who: &str, n: usize, c: impl Fn(usize, usize) -> f64) {
    let x = probe(n);
    let expected = times(n, &times(n, &x, |i, j| general(2, i, j)), |i, j| general(1, i, j));
    let error = relative_error(&times(n, &x, c), &expected);
    assert!(error < ERROR_MAX, "{who}: a wrong product of order {n}, off by {error}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Column by column as it is defined.
    fn factor(n: usize) -> Vec<Vec<f64>> {
        let mut l = vec![vec![0.0; n]; n];
        for j in 0..n {
            for i in j..n {
                let sum: f64 = (0..j).map(|k| l[i][k] * l[j][k]).sum();
                let rest = positive(n, i, j) - sum;
                l[i][j] = if i == j { rest.sqrt() } else { rest / l[j][j] };
            }
        }
        l
    }

    #[test]
    fn a_right_result_passes() {
        let l = factor(30);
        check_factor("loops", 30, |i, j| if i < j { f64::NAN } else { l[i][j] });
        check_product("loops", 9, |i, j| (0..9).map(|k| general(1, i, k) * general(2, k, j)).sum());
    }

    #[test]
    #[should_panic(expected = "a wrong factor of order 30")]
    fn one_wrong_element_of_a_factor_is_noticed() {
        let l = factor(30);
        check_factor("loops", 30, |i, j| l[i][j] + if (i, j) == (17, 4) { 1e-6 } else { 0.0 });
    }

    #[test]
    #[should_panic(expected = "a wrong product of order 9")]
    fn a_transposed_product_is_noticed() {
        check_product("loops", 9, |i, j| (0..9).map(|k| general(1, j, k) * general(2, k, i)).sum());
    }
}
