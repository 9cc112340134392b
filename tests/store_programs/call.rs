//! How a task of a program is spawned: the types of its accesses are fixed in a table, all else is not.
//!
//! A body folds all that it reads into a hash, in order, and writes what follows from it: no two orders give the same.

use super::program::{Access, CHILD_LEN, End, Mode, What};
use super::run::{Env, Slot};
use dagger_async::prelude::*;
use dagger_async::store::{SizeOf, Spill};
use dagger_tests::Failure;
use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};

pub type Data = Vec<u64>;

/// Counted, and never written down.
pub struct Stuck(pub Data);

impl SizeOf for Stuck {
    fn bytes(&self) -> usize {
        self.0.capacity() * 8
    }
}

/// Written down in pieces, backwards.
pub struct Own(pub Data);

impl Spill for Own {
    fn bytes(&self) -> usize {
        self.0.capacity() * 8
    }
    fn spill(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&self.0.len().to_le_bytes())?;
        self.0.iter().rev().try_for_each(|x| to.write_all(&x.to_le_bytes()))
    }
    fn reload(from: &mut dyn Read) -> io::Result<Self> {
        let mut word = [0; 8];
        from.read_exact(&mut word)?;
        let len = usize::from_le_bytes(word);
        if len > 1 << 20 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an absurd length"));
        }
        let mut values = vec![0; len];
        for x in values.iter_mut().rev() {
            from.read_exact(&mut word)?;
            *x = u64::from_le_bytes(word);
        }
        Ok(Own(values))
    }
}

/// What a chunk holds at first.
pub fn fresh(no: usize, len: usize) -> Data {
    (0..len as u64).map(|at| (no as u64) << 32 | at).collect()
}

/// What a body does with an argument.
pub trait Cell {
    fn values(&self) -> &[u64];
    fn values_mut(&mut self) -> &mut [u64] {
        panic!("only read")
    }
    fn resize(&mut self, _: usize) {
        panic!("not whole")
    }
}

/// A vector that takes no more than it needs.
fn resized(old: &[u64], len: usize) -> Data {
    let mut new = Vec::with_capacity(len);
    new.extend((0..len).map(|at| old[at % old.len()]));
    new
}

macro_rules! cells {
    ($($type:ty, $shared:ident => $values:expr;)*) => { $(
        impl Cell for &$type {
            fn values(&self) -> &[u64] {
                let $shared = self;
                &$values[..]
            }
        }
        impl Cell for &mut $type {
            fn values(&self) -> &[u64] {
                let $shared = self;
                &$values[..]
            }
            fn values_mut(&mut self) -> &mut [u64] {
                let $shared = self;
                &mut $values[..]
            }
            fn resize(&mut self, len: usize) {
                let $shared = self;
                $values = resized(&$values[..], len);
            }
        }
    )* };
}
cells! {
    Data, x => **x;
    Stuck, x => x.0;
    Own, x => x.0;
}

impl Cell for &[u64] {
    fn values(&self) -> &[u64] {
        self
    }
}

impl Cell for &mut [u64] {
    fn values(&self) -> &[u64] {
        self
    }
    fn values_mut(&mut self) -> &mut [u64] {
        self
    }
}

/// The oracle's.
impl Cell for Data {
    fn values(&self) -> &[u64] {
        self
    }
    fn values_mut(&mut self) -> &mut [u64] {
        self
    }
    fn resize(&mut self, len: usize) {
        *self = resized(self, len);
    }
}

/// What has happened inside of bodies.
#[derive(Default)]
pub struct Log {
    /// Bodies that have begun to write.
    pub ran: Mutex<HashSet<usize>>,
    /// What the store did to children.
    pub children: Mutex<HashMap<usize, Error>>,
}

#[derive(Clone)]
pub struct Body {
    pub no: usize,
    pub modes: Vec<Mode>,
    pub end: End,
    pub resize: Option<usize>,
    pub children: usize,
    pub log: Arc<Log>,
}

pub fn fold(values: &[u64], h: u64) -> u64 {
    values.iter().fold(h, |h, &x| (h ^ x).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17))
}

impl Body {
    fn before(&self) -> Result<(), Failure> {
        match self.end {
            End::FailsBefore => Err(Failure("planned".to_owned())),
            _ => Ok(()),
        }
    }

    pub fn read(&self, arg: u64, cells: &[&dyn Cell]) -> u64 {
        let read = self.modes.iter().zip(cells).filter(|(mode, _)| mode.reads());
        read.fold(arg.wrapping_add(self.no as u64), |h, (_, cell)| fold(cell.values(), h))
    }

    /// Writes what follows from `h`, which is also what the task gives.
    pub fn write(&self, h: u64, cells: &mut [&mut dyn Cell]) -> Result<u64, Failure> {
        self.log.ran.lock().unwrap().insert(self.no);
        let mut resize = self.resize;
        for (mode, cell) in self.modes.iter().zip(cells) {
            if !mode.writes() {
                continue;
            }
            if let Some(len) = resize.take() {
                cell.resize(len);
            }
            let keep = if mode.reads() { 3 } else { 0 };
            for (at, x) in (0..).zip(cell.values_mut()) {
                *x = x.wrapping_mul(keep).wrapping_add(h ^ at);
            }
        }
        match self.end {
            End::FailsAfter => Err(Failure("planned".to_owned())),
            End::Panics => panic!("planned"),
            _ => Ok(h),
        }
    }

    fn run(&self, arg: u64, cells: &mut [&mut dyn Cell]) -> Result<u64, Failure> {
        self.before()?;
        let shared: Vec<&dyn Cell> = cells.iter().map(|cell| &**cell).collect();
        let h = self.read(arg, &shared);
        self.write(h, cells)
    }

    /// Tasks on chunks of its own: while the body waits for them, what it has stays in memory.
    async fn raise(&self, h: u64) -> Result<u64, Failure> {
        if self.children == 0 {
            return Ok(h);
        }
        let no = self.no;
        let parts: Vec<_> = (0..self.children)
            .map(|nth| match (no + nth) % 2 {
                0 => Chunk::new(fresh(no + nth, CHILD_LEN)),
                _ => Chunk::lazy(8 * CHILD_LEN as u64, move || fresh(no + nth, CHILD_LEN)),
            })
            .collect();
        let sum = Chunk::new(fresh(no, CHILD_LEN));
        let add = |sum: &mut Data, part: &Data| {
            sum.iter_mut().zip(part).for_each(|(x, y)| *x = x.wrapping_mul(5).wrapping_add(*y))
        };
        let done = async {
            for part in &parts {
                spawn!((|x: &mut Data| x.iter_mut().for_each(|x| *x = x.wrapping_add(7)))(InOut(part)); name = "child");
                spawn!((add)(InOut(&sum), In(part)); name = "child");
            }
            let total = spawn!((|sum: &Data| fold(sum, 1))(In(&sum)); name = "child");
            total.await
        };
        match done.await {
            Ok(total) => Ok(h.wrapping_add(total)),
            Err(error) => {
                self.log.children.lock().unwrap().insert(no, error.clone());
                Err(Failure(format!("a child: {error}")))
            }
        }
    }
}

/// What the children of a task give.
pub fn children(no: usize, count: usize) -> u64 {
    if count == 0 {
        return 0;
    }
    let mut sum = fresh(no, CHILD_LEN);
    for nth in 0..count {
        let part = fresh(no + nth, CHILD_LEN);
        sum.iter_mut().zip(part).for_each(|(x, y)| *x = x.wrapping_mul(5).wrapping_add(y.wrapping_add(7)));
    }
    fold(&sum, 1)
}

macro_rules! arg {
    ($m:ident Whole $env:ident $x:ident) => {
        $m(&$env.vector($x.chunk))
    };
    ($m:ident Part $env:ident $x:ident) => {
        $m(&$env.vector($x.chunk).slice($x.part.clone()))
    };
    ($m:ident Stuck $env:ident $x:ident) => {
        $m(&$env.stuck($x.chunk))
    };
    ($m:ident Own $env:ident $x:ident) => {
        $m(&$env.own($x.chunk))
    };
}

macro_rules! param {
    (In $($what:tt)+) => { &param!(@ $($what)+) };
    (Out $($what:tt)+) => { &mut param!(@ $($what)+) };
    (InOut $($what:tt)+) => { &mut param!(@ $($what)+) };
    (@ Whole) => { Data };
    (@ Part) => { [u64] };
    (@ Stuck) => { Stuck };
    (@ Own) => { Own };
}

macro_rules! rows {
    ($($name:ident: $($m:ident $k:ident $x:ident),+;)*) => {
        pub const ROWS: &[&[(Mode, What)]] = &[$( &[$((Mode::$m, What::$k)),+] ),*];

        $(
            #[allow(unused_mut, clippy::ptr_arg, reason = "one pattern for all modes")]
            async fn $name($(mut $x: param!($m $k)),+, arg: u64, body: Body) -> Result<u64, Failure> {
                body.before()?;
                tokio::task::yield_now().await;
                let h = body.read(arg, &[$(&$x),+]);
                let h = body.raise(h).await?;
                // All at once, as it may be cancelled where it waits.
                let done = body.write(h, &mut [$(&mut $x),+]);
                done
            }
        )*

        pub fn submit(
            env: &Env,
            row: usize,
            accesses: &[Access],
            arg: &DTask<u64>,
            is_async: bool,
            body: Body,
            options: Options,
        ) -> DTask<u64> {
            let mut nth = 0..;
            $(
                if nth.next() == Some(row) {
                    let [$($x),+] = accesses else { panic!("not of this row") };
                    return match is_async {
                        true => spawn!(async $name($(arg!($m $k env $x)),+, arg.clone(), body)?; ..options),
                        false => {
                            spawn!((move |$(mut $x),+, arg: u64| body.run(arg, &mut [$(&mut $x),+]))(
                                $(arg!($m $k env $x)),+, arg.clone()
                            )?; ..options)
                        }
                    };
                }
            )*
            panic!("no such row")
        }
    };
}

rows! {
    one_in: In Whole a;
    one_out: Out Whole a;
    one_inout: InOut Whole a;
    one_inout_again: InOut Whole a;
    part_in: In Part a;
    part_out: Out Part a;
    part_inout: InOut Part a;
    add: InOut Whole a, In Whole b;
    add_again: InOut Whole a, In Whole b;
    copy: Out Whole a, In Whole b;
    add_parts: InOut Part a, In Part b;
    add_whole: InOut Part a, In Whole b;
    copy_part: Out Part a, In Whole b;
    add_part: InOut Whole a, In Part b;
    sum: In Whole a, In Whole b;
    both: InOut Whole a, InOut Whole b;
    gemm: InOut Whole a, In Whole b, In Whole c;
    gemm_part: InOut Part a, In Part b, In Whole c;
    mixed: Out Whole a, In Whole b, In Part c;
    three: InOut Whole a, InOut Whole b, InOut Part c;
    stuck: InOut Stuck a;
    to_stuck: InOut Stuck a, In Whole b;
    of_stuck: InOut Whole a, In Stuck b;
    own: InOut Own a;
    to_own: InOut Own a, In Whole b;
    of_own: InOut Part a, In Own b;
    own_and_stuck: InOut Own a, In Stuck b, InOut Whole c;
}

impl Env {
    fn vector(&self, chunk: usize) -> Chunk<Data> {
        let chunks = self.chunks.lock().unwrap();
        let Some(Slot::Vector(chunk)) = chunks.get(chunk) else { panic!("no vector") };
        chunk.clone()
    }
    fn stuck(&self, chunk: usize) -> Chunk<Stuck> {
        let chunks = self.chunks.lock().unwrap();
        let Some(Slot::Stuck(chunk)) = chunks.get(chunk) else { panic!("not stuck") };
        chunk.clone()
    }
    fn own(&self, chunk: usize) -> Chunk<Own> {
        let chunks = self.chunks.lock().unwrap();
        let Some(Slot::Own(chunk)) = chunks.get(chunk) else { panic!("not the user's own") };
        chunk.clone()
    }
}
