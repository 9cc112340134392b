//! The region methods of chunks, of handles of tasks, and of parts.

use super::field::{Custom, Field, FieldOf, View};
use super::line::{Along, Contiguous, Line, LineKind, Listed, Positions, Ranges, Strided};
use super::matrix::{Banded, Block, Triangle, banded, sub};
use super::{Cut, Part, Source};
use crate::chunk::Chunk;
use crate::chunk::container::{Container, Linear, Matrix};
use crate::task::DTask;
use dagger_core::{Axis, Band, Grid, Progression};
use std::marker::PhantomData;
use std::sync::Arc;

impl<'c, S: Source, K> Part<'c, S, K> {
    fn with<L>(&self, kind: L) -> Part<'c, S, L> {
        Part { source: self.source, kind }
    }
}

macro_rules! line_methods {
    ($($Kind:ident)*) => {$(
        impl<'c, S: Source<Content: Container>> Part<'c, S, $Kind> {
            /// Positions of this part.
            pub fn slice<P: Positions>(&self, positions: P) -> Part<'c, S, P::Of<$Kind>> {
                self.with(positions.of(&self.kind))
            }
        }
    )*};
}
line_methods!(Contiguous Strided);

impl<'c, S: Source<Content: Container>> Part<'c, S, Listed> {
    /// Positions of this list.
    pub fn slice(&self, positions: impl Positions) -> Part<'c, S, Listed> {
        self.with(positions.of_list(&self.kind))
    }
}

impl<'c, S: Source<Content: Matrix>> Part<'c, S, Triangle> {
    /// Without the diagonal.
    pub fn strict(&self) -> Part<'c, S, Banded> {
        self.with(Banded { grid: banded(&self.kind.band.grid, self.kind.strict), unit: false })
    }
    /// With a diagonal of ones that are not stored: the same elements as [`strict`](Self::strict), and the view says
    /// [`is_unit`](crate::region::TriRef::is_unit).
    pub fn unit(&self) -> Part<'c, S, Banded> {
        self.with(Banded { unit: true, ..self.strict().kind })
    }
    fn band(&self) -> Part<'c, S, Banded> {
        self.with(self.kind.band.clone())
    }
    /// What of it lies in these rows and columns.
    pub fn view(&self, rows: impl Ranges, cols: impl Ranges) -> Part<'c, S, Banded> {
        self.band().view(rows, cols)
    }
    /// What of it lies in a row.
    pub fn row(&self, row: usize) -> Part<'c, S, Cut<Strided>> {
        self.band().row(row)
    }
    /// What of it lies in a column: of a tile as a slice.
    pub fn col(&self, col: usize) -> Part<'c, S, Cut<<S::Content as Matrix>::Column>> {
        self.band().col(col)
    }
}

impl<'c, S: Source<Content: Matrix>> Part<'c, S, Banded> {
    /// What of it lies in these rows and columns.
    pub fn view(&self, rows: impl Ranges, cols: impl Ranges) -> Part<'c, S, Banded> {
        let grid = sub(&self.kind.grid, rows.progression(), cols.progression());
        self.with(Banded { grid, unit: self.kind.unit })
    }
    /// What of it lies in a row.
    pub fn row(&self, row: usize) -> Part<'c, S, Cut<Strided>> {
        let grid = sub(&self.kind.grid, Ok(Progression::one(row)), Ok(Progression::all()));
        self.with(Cut(Strided(Line { grid, along: Along::Row })))
    }
    /// What of it lies in a column: of a tile as a slice.
    pub fn col(&self, col: usize) -> Part<'c, S, Cut<<S::Content as Matrix>::Column>> {
        let grid = sub(&self.kind.grid, Ok(Progression::all()), Ok(Progression::one(col)));
        self.with(Cut(LineKind::new(Line { grid, along: Along::Col })))
    }
}

macro_rules! matrix_methods {
    ($(<$borrow:lifetime>)? $life:lifetime, $Source:ty, $Content:ty, |$this:ident| $block:expr, $part:expr) => {
        /// These rows and columns: arrive as [`MatRef`](crate::region::MatRef) or [`MatMut`](crate::region::MatMut).
        pub fn view$(<$borrow>)?(&$($borrow)? self, rows: impl Ranges, cols: impl Ranges) -> Part<$life, $Source, Block> {
            let $this = self;
            $part(Block($block.sub(rows.progression(), cols.progression())))
        }
        /// One row: arrives as [`VecRef`](crate::region::VecRef) or [`VecMut`](crate::region::VecMut).
        pub fn row$(<$borrow>)?(&$($borrow)? self, row: usize) -> Part<$life, $Source, Strided> {
            let $this = self;
            let grid = $block.sub(Ok(Progression::one(row)), Ok(Progression::all()));
            $part(Strided(Line { grid, along: Along::Row }))
        }
        /// One column: of a tile as a slice, else as [`VecRef`](crate::region::VecRef) or [`VecMut`](crate::region::VecMut).
        pub fn col$(<$borrow>)?(&$($borrow)? self, col: usize) -> Part<$life, $Source, <$Content as Matrix>::Column> {
            let $this = self;
            let grid = $block.sub(Ok(Progression::all()), Ok(Progression::one(col)));
            $part(LineKind::new(Line { grid, along: Along::Col }))
        }
        /// The diagonal: arrives as [`VecRef`](crate::region::VecRef) or [`VecMut`](crate::region::VecMut).
        pub fn diag$(<$borrow>)?(&$($borrow)? self) -> Part<$life, $Source, Strided> {
            let $this = self;
            $part(Strided(Line { grid: $block.banded(Band::diagonal(0)), along: Along::Diagonal }))
        }
        /// The diagonal and `k` more on each side: arrives as [`TriRef`](crate::region::TriRef) or [`TriMut`](crate::region::TriMut).
        pub fn band$(<$borrow>)?(&$($borrow)? self, k: usize) -> Part<$life, $Source, Banded> {
            let $this = self;
            let k = i64::try_from(k).unwrap_or(i64::MAX - 1);
            $part(Banded { grid: $block.banded(Band::diagonals(-k, k)), unit: false })
        }
        /// The lower triangle, with the diagonal: arrives as [`TriRef`](crate::region::TriRef) or [`TriMut`](crate::region::TriMut).
        pub fn lower$(<$borrow>)?(&$($borrow)? self) -> Part<$life, $Source, Triangle> {
            let $this = self;
            let band = Banded { grid: $block.banded(Band::lower()), unit: false };
            $part(Triangle { band, strict: Band::strict_lower() })
        }
        /// The upper triangle, with the diagonal: arrives as [`TriRef`](crate::region::TriRef) or [`TriMut`](crate::region::TriMut).
        pub fn upper$(<$borrow>)?(&$($borrow)? self) -> Part<$life, $Source, Triangle> {
            let $this = self;
            let band = Banded { grid: $block.banded(Band::upper()), unit: false };
            $part(Triangle { band, strict: Band::strict_upper() })
        }
    };
}

impl<'c, S: Source<Content: Matrix>> Part<'c, S, Block> {
    matrix_methods!('c, S, S::Content, |this| this.kind, |kind| Part { source: this.source, kind });
}

macro_rules! source_methods {
    ($($Source:ident)*) => {$(
        impl<T: Linear + Send + Sync> $Source<T> {
            /// Positions `a..b`, every k-th of them ([`step`](crate::region::step)), or listed ones ([`index`](crate::region::index)). A range arrives as a slice, the
            /// others as [`VecRef`](crate::region::VecRef) or [`VecMut`](crate::region::VecMut).
            pub fn slice<P: Positions>(&self, positions: P) -> Part<'_, Self, P::Of<Contiguous>> {
                let all = Contiguous(Line { grid: Ok(Grid::line(Axis::all())), along: Along::Axis });
                Part { source: self, kind: positions.of(&all) }
            }
        }

        impl<T: Matrix + Send + Sync> $Source<T> {
            matrix_methods!(<'a> 'a, Self, T, |this| Block::all(), |kind| Part { source: this, kind });
        }

        impl<T: Send + Sync + 'static> $Source<T> {
            /// A field of the struct that it holds: `c.field(field!(Body, position.x))`. Arrives as a reference to it.
            pub fn field<F: Send + Sync + 'static>(&self, field: FieldOf<T, F>) -> Part<'_, Self, Field<F>> {
                Part { source: self, kind: Field { offset: field.offset, types: PhantomData } }
            }

            /// A region of a kind of your own.
            pub fn region<R: View<T>>(&self, region: R) -> Part<'_, Self, Custom<R>> {
                Part { source: self, kind: Custom(Arc::new(region)) }
            }
        }
    )*};
}
source_methods!(Chunk DTask);

impl<'c, S: Source, F: Send + Sync + 'static> Part<'c, S, Field<F>> {
    /// A field of this field.
    pub fn field<G: Send + Sync + 'static>(&self, field: FieldOf<F, G>) -> Part<'c, S, Field<G>> {
        self.with(Field { offset: self.kind.offset + field.offset, types: PhantomData })
    }
}
