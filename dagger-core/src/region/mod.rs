//! Which elements of a chunk an access touches, and whether two accesses meet.
//!
//! ```text
//!   Area ── Whole                      everything, also the length and what is no element
//!        ├─ Grid ── Axis × Axis × …    boxes: a progression or a list of indices along each axis
//!        │       └─ Band               in a plane: triangles, diagonals, bands
//!        ├─ Bytes                      fields of a struct, by offset
//!        └─ Custom                     a kind of region that a user adds
//! ```
//! 1. A grid is a set of index tuples; how it was written does not matter to [`Area::overlaps`] and
//!    [`Area::covers`], which compare the sets. They never say that two areas are apart which are not.
//! 2. They are exact between grids of one rank (see [`Grid::overlaps`] for what is endless), between ranges of
//!    bytes, and with `Whole`. Kinds that cannot be compared are taken to overlap and not to cover.
//! 3. What is composed with [`Grid::sub`] is the exact set, or an error.
//! 4. An axis that reaches to an end not yet known counts as endless; [`Area::clip`] makes it definite and checks
//!    all bounds. Clipping never adds an element.
//! 5. An empty area overlaps nothing and covers only empty ones; all cover it.
//!
//! It knows neither who accesses (that is the access queue) nor where the elements lie in memory.

mod axis;
mod band;
mod compare;
mod grid;
#[cfg(test)]
pub(crate) mod model;
mod outside;
mod progression;
mod show;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

pub(crate) use axis::Part;
pub use axis::{Axis, Indices};
pub use band::Band;
pub use grid::Grid;
pub use outside::{Outside, Shape};
pub use progression::Progression;

/// The largest rank of a grid and of a shape.
const MAX_RANK: usize = 6;

/// What an access touches of a chunk.
///
/// `Display` prints it as it would be written: `0..3`, `2..6, 1..4`, `lower`, `[1, 5, 9]`, `bytes 8..16`. Two
/// custom areas are equal if they share the same `Arc`.
///
/// ```
/// use dagger_core::{Area, Axis, Band, Grid, Progression};
///
/// let plane = |band| Area::Grid(Grid::plane_band(Axis::all(), Axis::all(), band));
/// let (lower, strict) = (plane(Band::lower()), plane(Band::strict_upper()));
/// assert!(!lower.overlaps(&strict));
/// assert!(lower.covers(&plane(Band::diagonal(-2))));
///
/// let line = |start, len| Area::Grid(Grid::line(Progression::range(start, len).into()));
/// assert!(line(0, 3).overlaps(&line(2, 2)) && !line(0, 3).overlaps(&line(3, 3)));
/// assert!(Area::Whole.covers(&line(0, 3)) && !line(0, 3).covers(&Area::Whole));
/// ```
#[derive(Clone, Debug)]
pub enum Area {
    /// Everything, also the length and what is no element.
    Whole,
    /// Elements of an array.
    Grid(Grid),
    /// Fields of a struct, by offset.
    Bytes(Range<usize>),
    /// A kind of region that a user added.
    Custom(Arc<dyn Region>),
}

/// A kind of region that a user adds.
///
/// Its methods meet regions that users added, of any type. With the built-in kinds it is not asked: it overlaps
/// each of them that is not empty, and covers none.
///
/// Its methods are called while a chunk is locked: they compare, and do not spawn, access chunks or wait. If one panics the
/// cautious answer counts: it overlaps, and does not cover.
pub trait Region: Debug + Send + Sync + 'static {
    /// Whether something is in both. Whoever does not know the other's type says yes: two accesses are kept apart
    /// unless both sides say no.
    fn overlaps(&self, other: &dyn Region) -> bool;

    /// Whether everything of `other` is in this one.
    fn covers(&self, other: &dyn Region) -> bool {
        let _ = other;
        false
    }

    /// To find out the type of another region.
    fn as_any(&self) -> &dyn Any;
}

/// What a user's region says, or the cautious answer if that panics.
fn or(cautious: bool, ask: impl FnOnce() -> bool) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(ask)).unwrap_or(cautious)
}

impl Area {
    /// Whether some element is in both.
    #[must_use]
    pub fn overlaps(&self, other: &Area) -> bool {
        match (self, other) {
            (Area::Whole, other) | (other, Area::Whole) => !other.is_empty(),
            (Area::Grid(a), Area::Grid(b)) => a.overlaps(b),
            (Area::Bytes(a), Area::Bytes(b)) => a.start.max(b.start) < a.end.min(b.end),
            (Area::Custom(a), Area::Custom(b)) => {
                same(a, b) || or(true, || a.overlaps(&**b)) || or(true, || b.overlaps(&**a))
            }
            (a, b) => !a.is_empty() && !b.is_empty(),
        }
    }

    /// Whether every element of `inner` is in `self`. Only `Whole` covers `Whole`.
    #[must_use]
    pub fn covers(&self, inner: &Area) -> bool {
        match (self, inner) {
            (Area::Whole, _) => true,
            (Area::Grid(a), Area::Grid(b)) => a.covers(b),
            (Area::Bytes(a), Area::Bytes(b)) => b.is_empty() || (a.start <= b.start && b.end <= a.end),
            (Area::Custom(a), Area::Custom(b)) => same(a, b) || or(false, || a.covers(&**b)),
            (_, inner) => inner.is_empty(),
        }
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Area::Whole | Area::Custom(_) => false,
            Area::Grid(grid) => grid.is_empty(),
            Area::Bytes(bytes) => bytes.is_empty(),
        }
    }

    /// The same elements of a chunk of this shape: bounds and rank of a grid are checked, and its lengths known.
    /// Other kinds have no shape and are returned as they are.
    ///
    /// # Errors
    /// Those of [`Grid::clip`].
    pub fn clip(&self, shape: &Shape) -> Result<Area, Outside> {
        match self {
            Area::Grid(grid) => grid.clip(shape).map(Area::Grid),
            other => Ok(other.clone()),
        }
    }

    /// Whether all lengths are known.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        match self {
            Area::Grid(grid) => grid.is_resolved(),
            _ => true,
        }
    }
}

impl PartialEq for Area {
    fn eq(&self, other: &Area) -> bool {
        match (self, other) {
            (Area::Whole, Area::Whole) => true,
            (Area::Grid(a), Area::Grid(b)) => a == b,
            (Area::Bytes(a), Area::Bytes(b)) => a == b,
            (Area::Custom(a), Area::Custom(b)) => same(a, b),
            _ => false,
        }
    }
}

impl Eq for Area {}

impl Hash for Area {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Area::Whole => state.write_u8(0),
            Area::Grid(grid) => grid.hash(state),
            Area::Bytes(bytes) => bytes.hash(state),
            Area::Custom(region) => Arc::as_ptr(region).cast::<()>().hash(state),
        }
    }
}

/// Whether both are the same allocation; comparing pointers to trait objects would compare vtables too.
fn same(a: &Arc<dyn Region>, b: &Arc<dyn Region>) -> bool {
    Arc::as_ptr(a).cast::<()>() == Arc::as_ptr(b).cast::<()>()
}

impl From<Grid> for Area {
    fn from(grid: Grid) -> Area {
        Area::Grid(grid)
    }
}
