//! Views of regions that are not slices: a pointer, a shape and strides.
//!
//! ```text
//!   VecRef   elements on a line, evenly spaced or listed      a step, a row, a diagonal, an index list
//!   MatRef   rows × columns                                  view(2..6, ..)
//!   TriRef   rows × columns, of which lo ≤ j − i ≤ hi       lower(), upper().strict(), band(2)
//! ```
//! 1. A view reads and writes its own elements only, and never makes a reference to anything between them.
//! 2. Whoever makes one promises that each of its elements is initialised, allocated, and for `'a` not written by others
//!    (`Ref`) or not touched by others (`Mut`), and that no element appears twice in a `Mut`.

use dagger_core::Grid;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Index, IndexMut, Range};

/// Where the elements of a line are.
#[derive(Clone, Copy)]
pub(super) enum Spacing<'a> {
    /// That many elements apart.
    Even(isize),
    /// At these coordinates, with the strides of the container.
    Listed(&'a [[usize; 2]], [isize; 2]),
}

impl Spacing<'_> {
    #[inline]
    fn offset(&self, index: usize) -> isize {
        match self {
            Spacing::Even(stride) => index as isize * stride,
            Spacing::Listed(list, strides) => {
                let [row, col] = list[index];
                row as isize * strides[0] + col as isize * strides[1]
            }
        }
    }
}

macro_rules! views {
    ($Vec:ident $Mat:ident $Tri:ident, $name:literal, $($ptr:tt)+) => {
        #[doc = concat!("Elements on a line, ", $name, ": evenly spaced (a step, a row, a diagonal) or listed (an index set).")]
        pub struct $Vec<'a, E> {
            pub(super) first: $($ptr)+ E,
            pub(super) len: usize,
            pub(super) spacing: Spacing<'a>,
            pub(super) life: PhantomData<&'a E>,
        }

        impl<E> $Vec<'_, E> {
            /// How many elements it has.
            pub fn len(&self) -> usize {
                self.len
            }
            /// True if it has none.
            pub fn is_empty(&self) -> bool {
                self.len == 0
            }
            #[inline]
            fn at(&self, index: usize) -> Option<$($ptr)+ E> {
                // SAFETY: an index below `len` leads to an element of the view (invariant 2), inside its allocation.
                (index < self.len).then(|| unsafe { self.first.offset(self.spacing.offset(index)) })
            }
        }

        #[doc = concat!("Rows × columns, ", $name, ".")]
        pub struct $Mat<'a, E> {
            pub(super) first: $($ptr)+ E,
            pub(super) rows: usize,
            pub(super) cols: usize,
            pub(super) strides: [isize; 2],
            pub(super) life: PhantomData<&'a E>,
        }

        impl<E> $Mat<'_, E> {
            /// How many rows it has.
            pub fn rows(&self) -> usize {
                self.rows
            }
            /// How many columns it has.
            pub fn cols(&self) -> usize {
                self.cols
            }
            /// How many elements it has.
            pub fn len(&self) -> usize {
                self.rows * self.cols
            }
            /// True if it has none.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
            /// The distance between rows, in elements, for kernels that take pointers.
            pub fn row_stride(&self) -> isize {
                self.strides[0]
            }
            /// The distance between columns, in elements, for kernels that take pointers.
            pub fn col_stride(&self) -> isize {
                self.strides[1]
            }
            #[inline]
            fn at(&self, row: usize, col: usize) -> Option<$($ptr)+ E> {
                // SAFETY: both below their bounds: an element of the view (invariant 2), inside its allocation.
                (row < self.rows && col < self.cols).then(|| unsafe {
                    self.first.offset(row as isize * self.strides[0] + col as isize * self.strides[1])
                })
            }
        }

        #[doc = concat!("A triangle, band or diagonal of a matrix, ", $name, ". Rows and columns are those of the matrix around it; outside its own elements there is nothing.")]
        pub struct $Tri<'a, E> {
            pub(super) first: $($ptr)+ E,
            pub(super) rows: usize,
            pub(super) cols: usize,
            pub(super) strides: [isize; 2],
            pub(super) grid: &'a Grid,
            pub(super) unit: bool,
            pub(super) life: PhantomData<&'a E>,
        }

        impl<E> $Tri<'_, E> {
            /// How many rows the matrix around it has.
            pub fn rows(&self) -> usize {
                self.rows
            }
            /// How many columns the matrix around it has.
            pub fn cols(&self) -> usize {
                self.cols
            }
            /// How many elements are its own.
            pub fn len(&self) -> usize {
                (0..self.cols).map(|col| self.col_range(col).len()).sum()
            }
            /// True if none is.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
            /// True if it was declared with `.unit()`: its diagonal stands for ones and is not accessed.
            pub fn is_unit(&self) -> bool {
                self.unit
            }
            /// The rows of a column whose elements are its own.
            pub fn col_range(&self, col: usize) -> Range<usize> {
                if col < self.cols { self.grid.rows(col) } else { 0..0 }
            }
            #[inline]
            fn at(&self, row: usize, col: usize) -> Option<$($ptr)+ E> {
                // SAFETY: inside the matrix and in the view's part of its column (invariant 2).
                self.col_range(col).contains(&row).then(|| unsafe {
                    self.first.offset(row as isize * self.strides[0] + col as isize * self.strides[1])
                })
            }
        }
    };
}

views!(VecRef MatRef TriRef, "to read", *const);
views!(VecMut MatMut TriMut, "to write", *mut);

macro_rules! clone {
    ($($View:ident)*) => {$(
        impl<E> Clone for $View<'_, E> {
            /// Another view of the same elements.
            fn clone(&self) -> Self {
                *self
            }
        }
        impl<E> Copy for $View<'_, E> {}
    )*};
}
clone!(VecRef MatRef TriRef);

impl<'a, E> VecRef<'a, E> {
    /// The element at a position.
    pub fn get(&self, index: usize) -> Option<&'a E> {
        // SAFETY: invariant 2.
        self.at(index).map(|element| unsafe { &*element })
    }
    /// Calls `f` with each element, in order.
    pub fn for_each(&self, f: impl FnMut(&E)) {
        self.iter().for_each(f);
    }
    /// The elements in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a E> + use<'a, E> {
        let this = *self;
        // SAFETY: invariant 2; the index is below `len`.
        (0..self.len).map(move |index| unsafe { &*this.first.offset(this.spacing.offset(index)) })
    }
}

impl<E> VecMut<'_, E> {
    /// The element at a position.
    pub fn get(&self, index: usize) -> Option<&E> {
        // SAFETY: invariant 2, borrowed from the view.
        self.at(index).map(|element| unsafe { &*element })
    }
    /// The element at a position.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut E> {
        // SAFETY: invariant 2, exclusively borrowed from the view.
        self.at(index).map(|element| unsafe { &mut *element })
    }
    /// Calls `f` with each element, in order.
    pub fn for_each(&self, mut f: impl FnMut(&E)) {
        for index in 0..self.len {
            f(&self[index]);
        }
    }
    /// Calls `f` with each element, in order.
    pub fn for_each_mut(&mut self, mut f: impl FnMut(&mut E)) {
        for index in 0..self.len {
            f(&mut self[index]);
        }
    }
}

impl<'a, E> MatRef<'a, E> {
    /// The element in a row and column.
    pub fn get(&self, row: usize, col: usize) -> Option<&'a E> {
        // SAFETY: invariant 2.
        self.at(row, col).map(|element| unsafe { &*element })
    }
    /// The address of the element in row 0 and column 0, for kernels that take pointers.
    pub fn as_ptr(&self) -> *const E {
        self.first
    }
    /// Calls `f` with each element, column by column.
    pub fn for_each(&self, mut f: impl FnMut(&E)) {
        for col in 0..self.cols {
            for row in 0..self.rows {
                f(&self[(row, col)]);
            }
        }
    }
}

impl<E> MatMut<'_, E> {
    /// The element in a row and column.
    pub fn get(&self, row: usize, col: usize) -> Option<&E> {
        // SAFETY: invariant 2, borrowed from the view.
        self.at(row, col).map(|element| unsafe { &*element })
    }
    /// The element in a row and column.
    pub fn get_mut(&mut self, row: usize, col: usize) -> Option<&mut E> {
        // SAFETY: invariant 2, exclusively borrowed from the view.
        self.at(row, col).map(|element| unsafe { &mut *element })
    }
    /// The address of the element in row 0 and column 0, for kernels that take pointers.
    pub fn as_mut_ptr(&mut self) -> *mut E {
        self.first
    }
    /// Calls `f` with each element, column by column.
    pub fn for_each(&self, mut f: impl FnMut(&E)) {
        for col in 0..self.cols {
            for row in 0..self.rows {
                f(&self[(row, col)]);
            }
        }
    }
    /// Calls `f` with each element, column by column.
    pub fn for_each_mut(&mut self, mut f: impl FnMut(&mut E)) {
        for col in 0..self.cols {
            for row in 0..self.rows {
                f(&mut self[(row, col)]);
            }
        }
    }
}

impl<'a, E> TriRef<'a, E> {
    /// The element in a row and column, if it is the view's own.
    pub fn get(&self, row: usize, col: usize) -> Option<&'a E> {
        // SAFETY: invariant 2.
        self.at(row, col).map(|element| unsafe { &*element })
    }
    /// Calls `f` with each element, column by column.
    pub fn for_each(&self, mut f: impl FnMut(&E)) {
        for col in 0..self.cols {
            for row in self.col_range(col) {
                f(&self[(row, col)]);
            }
        }
    }
}

impl<E> TriMut<'_, E> {
    /// The element in a row and column, if it is the view's own.
    pub fn get(&self, row: usize, col: usize) -> Option<&E> {
        // SAFETY: invariant 2, borrowed from the view.
        self.at(row, col).map(|element| unsafe { &*element })
    }
    /// The element in a row and column, if it is the view's own.
    pub fn get_mut(&mut self, row: usize, col: usize) -> Option<&mut E> {
        // SAFETY: invariant 2, exclusively borrowed from the view.
        self.at(row, col).map(|element| unsafe { &mut *element })
    }
    /// Calls `f` with each element, column by column.
    pub fn for_each(&self, mut f: impl FnMut(&E)) {
        for col in 0..self.cols {
            for row in self.col_range(col) {
                f(&self[(row, col)]);
            }
        }
    }
    /// Calls `f` with each element, column by column.
    pub fn for_each_mut(&mut self, mut f: impl FnMut(&mut E)) {
        for col in 0..self.cols {
            for row in self.col_range(col) {
                f(&mut self[(row, col)]);
            }
        }
    }
}

macro_rules! index {
    ($($View:ident $Index:ty, $key:ident => ($($arg:expr),*);)*) => {$(
        impl<E> Index<$Index> for $View<'_, E> {
            type Output = E;
            /// # Panics
            /// If the element is not the view's own.
            #[track_caller]
            #[inline]
            fn index(&self, $key: $Index) -> &E {
                match self.get($($arg),*) {
                    Some(element) => element,
                    None => panic!("{:?} is not an element of {:?}", $key, self),
                }
            }
        }
    )*};
}
index! {
    VecRef usize, key => (key);
    VecMut usize, key => (key);
    MatRef (usize, usize), key => (key.0, key.1);
    MatMut (usize, usize), key => (key.0, key.1);
    TriRef (usize, usize), key => (key.0, key.1);
    TriMut (usize, usize), key => (key.0, key.1);
}

macro_rules! index_mut {
    ($($View:ident $Index:ty, $key:ident => ($($arg:expr),*);)*) => {$(
        impl<E> IndexMut<$Index> for $View<'_, E> {
            /// # Panics
            /// If the element is not the view's own.
            #[track_caller]
            #[inline]
            fn index_mut(&mut self, $key: $Index) -> &mut E {
                let Some(element) = self.at($($arg),*) else {
                    panic!("{:?} is not an element of {:?}", $key, self)
                };
                // SAFETY: invariant 2, exclusively borrowed from the view.
                unsafe { &mut *element }
            }
        }
    )*};
}
index_mut! {
    VecMut usize, key => (key);
    MatMut (usize, usize), key => (key.0, key.1);
    TriMut (usize, usize), key => (key.0, key.1);
}

macro_rules! debug {
    ($($View:ident $this:ident => ($($text:tt)+);)*) => {$(
        impl<E> fmt::Debug for $View<'_, E> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let $this = self;
                write!(f, $($text)+)
            }
        }
        // SAFETY: a reference to elements in all but name: `&E` for `Ref`, `&mut E` for `Mut`.
        unsafe impl<E: Send + Sync> Send for $View<'_, E> {}
        // SAFETY: as above.
        unsafe impl<E: Send + Sync> Sync for $View<'_, E> {}
    )*};
}
debug! {
    VecRef v => ("VecRef({})", v.len);
    VecMut v => ("VecMut({})", v.len);
    MatRef v => ("MatRef({} x {})", v.rows, v.cols);
    MatMut v => ("MatMut({} x {})", v.rows, v.cols);
    TriRef v => ("TriRef({} of {} x {})", v.len(), v.rows, v.cols);
    TriMut v => ("TriMut({} of {} x {})", v.len(), v.rows, v.cols);
}
