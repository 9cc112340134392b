//! Positions in equal steps, and where two such sequences meet.

use std::ops::{Bound, RangeBounds};

use super::{Axis, Outside};

/// The elements `start`, `start + step`, …, `len` of them.
///
/// A `len` of [`TO_END`](Progression::TO_END) means up to the end of an axis whose length is not known yet;
/// [`clip`](Progression::clip) makes it definite. A step of 0 counts as 1 wherever elements are compared, and is
/// refused by `clip` and [`then`](Progression::then).
///
/// ```
/// use dagger_core::Progression;
///
/// let odd = Progression { start: 1, step: 2, len: Progression::TO_END };
/// assert_eq!(odd.clip(6)?, Progression { start: 1, step: 2, len: 3 });
/// assert_eq!(odd.then(Progression::range(1, 2))?, Progression { start: 3, step: 2, len: 2 });
/// # Ok::<(), dagger_core::Outside>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Progression {
    /// The first element.
    pub start: usize,
    /// The distance between neighbours, at least 1.
    pub step: usize,
    /// How many elements, or [`Progression::TO_END`].
    pub len: usize,
}

impl Progression {
    /// The `len` of what reaches to the end of its axis.
    pub const TO_END: usize = usize::MAX;

    /// Every element of an axis: `..`.
    #[must_use]
    pub const fn all() -> Progression {
        Progression::range(0, Progression::TO_END)
    }

    /// One element.
    #[must_use]
    pub const fn one(i: usize) -> Progression {
        Progression::range(i, 1)
    }

    /// `len` neighbours from `start` on.
    #[must_use]
    pub const fn range(start: usize, len: usize) -> Progression {
        Progression { start, step: 1, len }
    }

    /// What a Rust range means on an axis: `a..b`, `a..=b`, `a..`, `..b`, `..`.
    ///
    /// # Errors
    /// [`Outside::Reversed`] if the range ends before it starts.
    pub fn from_bounds(range: impl RangeBounds<usize>) -> Result<Progression, Outside> {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start.checked_add(1).ok_or(Outside::TooLarge)?,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end.checked_add(1).ok_or(Outside::TooLarge)?,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => return Ok(Progression::range(start, Progression::TO_END)),
        };
        match end.checked_sub(start) {
            Some(Progression::TO_END) => Err(Outside::TooLarge),
            Some(len) => Ok(Progression::range(start, len)),
            None => Err(Outside::Reversed { start, end }),
        }
    }

    /// Each `step`-th of these elements, from the first on.
    ///
    /// # Errors
    /// [`Outside::Step`] if `step` is 0.
    pub fn step_by(self, step: usize) -> Result<Progression, Outside> {
        self.then(Progression { start: 0, step, len: Progression::TO_END })
    }

    /// Whether the number of elements is known.
    #[must_use]
    pub const fn is_resolved(self) -> bool {
        self.len != Progression::TO_END
    }

    /// Whether there is no element. What reaches to the end counts as endless until it is clipped.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The element at position `pos`, if there is one.
    #[must_use]
    pub fn at(self, pos: usize) -> Option<usize> {
        if pos < self.len { self.start.checked_add(pos.checked_mul(self.stride())?) } else { None }
    }

    /// The position at which `value` stands, if it is an element.
    #[must_use]
    pub fn position(self, value: usize) -> Option<usize> {
        let distance = value.checked_sub(self.start)?;
        let pos = distance / self.stride();
        (distance % self.stride() == 0 && pos < self.len).then_some(pos)
    }

    /// The elements at the positions `inner`, as a progression of the same axis as `self`.
    ///
    /// # Errors
    /// [`Outside::Bounds`] if `inner` leaves `self`, [`Outside::Step`] for a step of 0, [`Outside::TooLarge`] if
    /// an element would not fit in a `usize`.
    pub fn then(self, inner: Progression) -> Result<Progression, Outside> {
        if self.step == 0 {
            return Err(Outside::Step);
        }
        let inner = if self.is_resolved() { inner.clip(self.len)? } else { inner };
        if inner.step == 0 {
            return Err(Outside::Step);
        }
        if inner.is_empty() {
            // Nothing is nowhere: any start taken from `self` could lie behind an end that is not known yet.
            return Ok(Progression::range(0, 0));
        }
        let start = inner.start.checked_mul(self.step).and_then(|offset| offset.checked_add(self.start));
        let start = start.ok_or(Outside::TooLarge)?;
        if inner.len == 1 {
            return Ok(Progression::one(start));
        }
        let step = self.step.checked_mul(inner.step).ok_or(Outside::TooLarge)?;
        Ok(Progression { start, step, len: inner.len })
    }

    /// The same elements on an axis of length `n`: checked, and with a known `len`.
    ///
    /// As for Rust slices, an empty range may start at `n` but not behind it. What reaches to the end with a
    /// step may start up to one step later: it is then empty, as the tail of a shorter progression is.
    ///
    /// # Errors
    /// [`Outside::Bounds`] if an element is outside, [`Outside::Step`] for a step of 0.
    pub fn clip(self, n: usize) -> Result<Progression, Outside> {
        if self.step == 0 {
            return Err(Outside::Step);
        }
        let bounds = || Outside::Bounds { axis: 0, what: Axis::Step(self), len: n };
        if !self.is_resolved() {
            if self.start >= n {
                return if self.start - n < self.step { Ok(Progression::range(n, 0)) } else { Err(bounds()) };
            }
            let len = (n - self.start).div_ceil(self.step);
            // One element has no step; all of its spellings are equal.
            return Ok(Progression { step: if len == 1 { 1 } else { self.step }, len, ..self });
        }
        let end = if self.is_empty() {
            Some(self.start)
        } else {
            (self.len - 1).checked_mul(self.step).and_then(|way| way.checked_add(self.start)?.checked_add(1))
        };
        if end.is_some_and(|end| end <= n) { Ok(self) } else { Err(bounds()) }
    }

    /// The step that elements are compared with.
    pub(super) const fn stride(self) -> usize {
        if self.step == 0 { 1 } else { self.step }
    }

    /// No element lies behind this one. Only meaningful when there is an element.
    pub(super) const fn last(self) -> usize {
        if self.is_resolved() {
            self.start.saturating_add(self.len.saturating_sub(1).saturating_mul(self.stride()))
        } else {
            usize::MAX
        }
    }

    /// The elements at the positions `from..to`, which lie in `0..len`.
    pub(super) fn slice(self, from: usize, to: usize) -> Progression {
        let start = self.start.saturating_add(from.saturating_mul(self.stride()));
        let len = if to == Progression::TO_END { to } else { to.saturating_sub(from) };
        Progression { start, step: self.stride(), len }
    }

    /// Whether every element of `inner` is one of `self`.
    pub(super) fn covers(self, inner: Progression) -> bool {
        if inner.is_empty() {
            return true;
        }
        let Some(first) = self.position(inner.start) else { return false };
        if inner.len == 1 {
            return true;
        }
        let in_step = inner.stride().is_multiple_of(self.stride());
        let ends = match (self.is_resolved(), inner.is_resolved()) {
            (false, _) => true,
            (true, false) => false,
            (true, true) => first as u128 + steps(self, inner) * (inner.len as u128 - 1) < self.len as u128,
        };
        in_step && ends
    }
}

/// How many steps of `outer` one step of `inner` is, rounded down.
fn steps(outer: Progression, inner: Progression) -> u128 {
    (inner.stride() / outer.stride()) as u128
}

/// The elements that two progressions share: where each has them, both in steps.
pub(super) struct Common {
    pub(super) left: Progression,
    pub(super) right: Progression,
}

/// The elements that are in both, if any, by the Chinese remainder theorem.
///
/// All arithmetic is in 128 bits: with steps below 2⁶⁴ neither the least common multiple nor the first common
/// element overflows.
pub(super) fn common(a: Progression, b: Progression) -> Option<Common> {
    if a.is_empty() || b.is_empty() {
        return None;
    }
    let (first, last) = (a.start.max(b.start), a.last().min(b.last()));
    if first > last {
        return None;
    }
    let (s, t) = (a.stride() as u128, b.stride() as u128);
    let g = gcd(s, t);
    let (value, lcm) = if s == 1 && t == 1 {
        (first as u128, 1)
    } else {
        // Solve a.start + s·x ≡ b.start modulo t for the smallest x ≥ 0.
        let distance = (b.start as i128 - a.start as i128).rem_euclid(t as i128) as u128;
        if !distance.is_multiple_of(g) {
            return None;
        }
        let m = t / g;
        let x = (distance / g) % m * inverse(s / g % m, m) % m;
        let (value, lcm) = (a.start as u128 + s * x, s * m);
        (value + (first as u128).saturating_sub(value).div_ceil(lcm) * lcm, lcm)
    };
    if value > last as u128 {
        return None;
    }
    let len = if a.is_resolved() || b.is_resolved() {
        ((last as u128 - value) / lcm + 1) as usize
    } else {
        Progression::TO_END
    };
    let left = Progression { start: ((value - a.start as u128) / s) as usize, step: (t / g) as usize, len };
    let right = Progression { start: ((value - b.start as u128) / t) as usize, step: (s / g) as usize, len };
    Some(Common { left, right })
}

/// The greatest common divisor; `gcd(0, b)` is `b`.
pub(super) fn gcd(mut a: u128, mut b: u128) -> u128 {
    while a != 0 {
        (a, b) = (b % a, a);
    }
    b
}

/// The inverse of `a` modulo `m`, which have no common divisor; 0 if `m` is 1.
fn inverse(a: u128, m: u128) -> u128 {
    let (mut r, mut next_r, mut x, mut next_x) = (m as i128, a as i128, 0_i128, 1_i128);
    while next_r != 0 {
        let quotient = r / next_r;
        (r, next_r) = (next_r, r - quotient * next_r);
        (x, next_x) = (next_x, x - quotient * next_x);
    }
    x.rem_euclid(m as i128) as u128
}
