//! A band in a plane: triangles, diagonals and what is cut out of them.

use smallvec::SmallVec;

use super::Outside;
use super::progression::{Progression, gcd};

/// A condition on the positions `i` in the rows and `j` in the columns of a plane:
/// `lo <= col_step·j − row_step·i <= hi`.
///
/// Positions are local: they count the elements of the two axes, whatever these are. `i64::MIN` as `lo` and
/// `i64::MAX` as `hi` mean that there is no bound.
///
/// ```text
///   lower  j − i ≤ 0      strict upper  1 ≤ j − i      band(1)  1 ≤ j − i ≤ 1
///     ■ · ·                   · ■ ■                      · ■ ·
///     ■ ■ ·                   · · ■                      · · ■
///     ■ ■ ■                   · · ·                      · · ·
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Band {
    /// What `i` is multiplied with.
    pub row_step: i64,
    /// What `j` is multiplied with.
    pub col_step: i64,
    /// The lower bound.
    pub lo: i64,
    /// The upper bound.
    pub hi: i64,
}

impl Band {
    /// The diagonals `lo` to `hi`, counted from the main one to the right; both included.
    #[must_use]
    pub const fn diagonals(lo: i64, hi: i64) -> Band {
        Band { row_step: 1, col_step: 1, lo, hi }
    }

    /// The `k`-th diagonal to the right of the main one; to the left if `k` is negative.
    #[must_use]
    pub const fn diagonal(k: i64) -> Band {
        Band::diagonals(k, k)
    }

    /// The main diagonal and what is below.
    #[must_use]
    pub const fn lower() -> Band {
        Band::diagonals(i64::MIN, 0)
    }

    /// The main diagonal and what is above.
    #[must_use]
    pub const fn upper() -> Band {
        Band::diagonals(0, i64::MAX)
    }

    /// What is below the main diagonal.
    #[must_use]
    pub const fn strict_lower() -> Band {
        Band::diagonals(i64::MIN, -1)
    }

    /// What is above the main diagonal.
    #[must_use]
    pub const fn strict_upper() -> Band {
        Band::diagonals(1, i64::MAX)
    }

    pub(super) fn form(self) -> Form {
        Form {
            row: self.row_step.into(),
            col: self.col_step.into(),
            lo: if self.lo == i64::MIN { i128::MIN } else { self.lo.into() },
            hi: if self.hi == i64::MAX { i128::MAX } else { self.hi.into() },
        }
    }
}

/// A [`Band`] with room for what a composition makes of it. `i128::MIN` as `lo` and `i128::MAX` as `hi` are no bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Form {
    pub(super) row: i128,
    pub(super) col: i128,
    pub(super) lo: i128,
    pub(super) hi: i128,
}

impl Form {
    /// The same condition on positions `k`, `l` where `i = rows.at(k)` and `j = cols.at(l)`; `None` if a number
    /// gets too large.
    pub(super) fn substitute(self, rows: Progression, cols: Progression) -> Option<Form> {
        let at = |step: i128, start: usize| step.checked_mul(start as i128);
        let offset = at(self.col, cols.start)?.checked_sub(at(self.row, rows.start)?)?;
        let shift = |bound: i128| match bound {
            i128::MIN | i128::MAX => Some(bound),
            bound => bound.checked_sub(offset),
        };
        Some(Form {
            row: at(self.row, rows.stride())?,
            col: at(self.col, cols.stride())?,
            lo: shift(self.lo)?,
            hi: shift(self.hi)?,
        })
    }

    /// The same condition in its only spelling: coefficients without a common divisor, the columns' positive.
    pub(super) fn reduce(self) -> Form {
        let flip = self.col < 0 || (self.col == 0 && self.row < 0);
        let Form { row, col, lo, hi } = if flip { self.negate() } else { self };
        // Almost every band has a step of 1; a division in 128 bits is the dearest thing here.
        let g = if row == 1 || col == 1 { 1 } else { gcd(row.unsigned_abs(), col.unsigned_abs()) as i128 };
        if g <= 1 {
            return Form { row, col, lo, hi };
        }
        let lo = if lo == i128::MIN { lo } else { ceil(lo, g) };
        let hi = if hi == i128::MAX { hi } else { floor(hi, g) };
        Form { row: row / g, col: col / g, lo, hi }
    }

    fn negate(self) -> Form {
        let lo = if self.hi == i128::MAX { i128::MIN } else { -self.hi };
        let hi = if self.lo == i128::MIN { i128::MAX } else { -self.lo };
        Form { row: -self.row, col: -self.col, lo, hi }
    }

    /// The same condition where rows and columns have changed places.
    pub(super) fn transpose(self) -> Form {
        let Form { lo, hi, .. } = self.negate();
        Form { row: self.col, col: self.row, lo, hi }
    }

    pub(super) fn is_parallel(self, other: Form) -> bool {
        (self.row, self.col) == (other.row, other.col)
    }

    /// Back to what is stored.
    pub(super) fn band(self) -> Result<Band, Outside> {
        let band = || {
            let fit = |value: i128, none: i128, unbounded: i64| match i64::try_from(value) {
                _ if value == none => Some(unbounded),
                Ok(value) if value != unbounded => Some(value),
                _ => None,
            };
            Some(Band {
                row_step: i64::try_from(self.row).ok()?,
                col_step: i64::try_from(self.col).ok()?,
                lo: fit(self.lo, i128::MIN, i64::MIN)?,
                hi: fit(self.hi, i128::MAX, i64::MAX)?,
            })
        };
        band().ok_or(Outside::TooLarge)
    }

    /// Narrows the columns `from..to` of row `i` to those that meet the condition.
    pub(super) fn cut(self, i: usize, from: &mut usize, to: &mut usize) {
        let base = self.row.saturating_mul(i as i128);
        let lo = (self.lo != i128::MIN).then(|| self.lo.saturating_add(base));
        let hi = (self.hi != i128::MAX).then(|| self.hi.saturating_add(base));
        let (least, most) = match self.col {
            0 if lo.is_some_and(|lo| lo > 0) || hi.is_some_and(|hi| hi < 0) => return *to = *from,
            0 => return,
            1.. => (lo, hi),
            _ => (hi, lo),
        };
        if let Some(least) = least {
            *from = (*from).max(clamp(ceil(least, self.col)));
        }
        if let Some(most) = most {
            *to = (*to).min(clamp(floor(most, self.col).saturating_add(1)));
        }
    }
}

/// Conditions that all hold. Two only where triangles with different steps meet.
pub(super) type Forms = SmallVec<[Form; 2]>;

/// Adds a condition, so that no two are parallel.
pub(super) fn merge(forms: &mut Forms, form: Form) {
    let form = form.reduce();
    match forms.iter_mut().find(|known| known.is_parallel(form)) {
        Some(known) => (known.lo, known.hi) = (known.lo.max(form.lo), known.hi.min(form.hi)),
        None => forms.push(form),
    }
}

/// Whether some position of a box of `rows × cols` meets all conditions, which come from [`merge`].
///
/// Exact if a side is finite, and also in an endless quarter plane with one band of positive steps, where
/// `col·j − row·i` takes every value because the steps have no common divisor. In an endless plane with several
/// bands the answer is a cautious yes.
pub(super) fn has_point(rows: usize, cols: usize, forms: &[Form]) -> bool {
    if rows == 0 || cols == 0 || forms.iter().any(|form| form.lo > form.hi) {
        return false;
    }
    if let [form @ Form { row: 1, col: 1, .. }] = *forms {
        let least = if rows == Progression::TO_END { i128::MIN } else { 1 - rows as i128 };
        let most = if cols == Progression::TO_END { i128::MAX } else { cols as i128 - 1 };
        return form.lo.max(least) <= form.hi.min(most);
    }
    if rows == Progression::TO_END && cols == Progression::TO_END {
        return true;
    }
    let transposed: Forms;
    let (rows, cols, forms) = if rows <= cols {
        (rows, cols, forms)
    } else {
        transposed = forms.iter().map(|form| form.transpose()).collect();
        (cols, rows, &*transposed)
    };
    (0..rows).any(|i| {
        let (mut from, mut to) = (0, cols);
        forms.iter().for_each(|form| form.cut(i, &mut from, &mut to));
        from < to
    })
}

fn floor(a: i128, b: i128) -> i128 {
    if b == 1 {
        return a;
    }
    let quotient = a / b;
    if a % b != 0 && (a < 0) != (b < 0) { quotient - 1 } else { quotient }
}

fn ceil(a: i128, b: i128) -> i128 {
    if b == 1 {
        return a;
    }
    let quotient = a / b;
    if a % b != 0 && (a < 0) == (b < 0) { quotient + 1 } else { quotient }
}

fn clamp(value: i128) -> usize {
    usize::try_from(value.max(0)).unwrap_or(usize::MAX)
}
