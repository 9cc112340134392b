//! Where boxes and lines go: rows, an order within each row, places, routes.
//!
//! ```text
//!   row 0            ┌───┐            1. rows are given; a row too wide is dealt out to several
//!                    └─┬─┘            2. a link over several rows passes each by a joint; links that leave
//!   row 1     ┌───┐    ·    ┌───┐        one box (or enter one) share their joints, like branches of a tree
//!             └─┬─┘    ·    └───┘     3. sweeps down and up order each row by the mean of its neighbours
//!   row 2       └──▶ ┌───┐            4. places: least squares to the neighbours' mean, order and gaps kept
//!                    └───┘
//! ```
//! 1. Boxes do not overlap, nor does a line cross a box: between rows it bends, beside boxes it is straight.
//! 2. Lines only go down, but for those within a row, which go right.
//!
//! The method is that of Sugiyama, Tagawa and Toda, *Methods for visual understanding of hierarchical system structures*
//! (1981). Nothing here recurses over the graph.

use rustc_hash::FxHashMap;

/// Room between boxes of a row.
const GAP: f64 = 18.0;
/// The same where arrows lead through it.
const ORDERED_GAP: f64 = 30.0;
/// Room of a line that passes a row.
const JOINT: f64 = 12.0;
/// What a line needs at most to make its bends between two rows.
const BEND: (f64, f64) = (34.0, 110.0);
/// Beyond this many joints, long lines go straight instead, below the boxes.
const JOINTS_MAX: usize = 200_000;

/// A rectangle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rect {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) w: f64,
    pub(super) h: f64,
}

/// What is to be placed.
pub(super) struct Plan<'p> {
    /// Width and height of each box.
    pub(super) sizes: &'p [(f64, f64)],
    /// The row of each box.
    pub(super) rows: &'p [usize],
    /// From a row to a later one, or, if rows are in order, to the right within a row.
    pub(super) links: &'p [(usize, usize)],
    /// The boxes of a row keep their order, from left to right.
    pub(super) ordered: bool,
}

/// Everything in its place, from (0, 0) on.
pub(super) struct Layout {
    pub(super) boxes: Vec<Rect>,
    pub(super) routes: Vec<Route>,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// The way of a line.
#[derive(Clone, Debug)]
pub(super) enum Route {
    /// Down through rows: straight from every even point to the next, bent from every odd one.
    Down(Vec<(f64, f64)>),
    /// To the box on the right, at this height.
    Right { from: f64, to: f64, y: f64 },
    /// Below the boxes between, from the lower edge of one to that of another further right, and `dip` deep.
    Below { from: (f64, f64), to: (f64, f64), dip: f64 },
}

pub(super) fn layout(plan: &Plan<'_>) -> Layout {
    let rows = if plan.ordered { plan.rows.to_vec() } else { deal(plan) };
    let mut grid = Grid::new(plan, &rows);
    if !plan.ordered {
        grid.order();
    } else {
        grid.seat_joints();
    }
    let x = grid.place(plan.ordered);
    grid.draw(plan, &x)
}

/// The rows of boxes, those too wide dealt out to several; each box's row.
fn deal(plan: &Plan<'_>) -> Vec<usize> {
    let count = plan.sizes.len();
    let widest = ((count as f64).sqrt() * 1.3).ceil().max(8.0) as usize;
    let mut lines = lines(plan.rows);
    if lines.iter().all(|line| line.len() <= widest) {
        return plan.rows.to_vec();
    }
    // Neighbours in a good order go to different rows of the same part of the picture.
    let (mut up, mut down) = (vec![Vec::new(); count], vec![Vec::new(); count]);
    for &(from, to) in plan.links {
        down[from].push(to);
        up[to].push(from);
    }
    let mut place = vec![0.0; count];
    let spread = |line: &[usize], place: &mut [f64]| {
        for (at, &item) in line.iter().enumerate() {
            place[item] = (at as f64 + 0.5) / line.len() as f64;
        }
    };
    lines.iter().for_each(|line| spread(line, &mut place));
    for sweep in 0..4 {
        let near = if sweep % 2 == 0 { &up } else { &down };
        let count = lines.len();
        for step in 0..count {
            let line = &mut lines[if sweep % 2 == 0 { step } else { count - 1 - step }];
            sort_by_mean(line, near, &place, |_| false);
            spread(line, &mut place);
        }
    }
    let mut row = vec![0; count];
    let mut next = 0;
    for line in &lines {
        let parts = line.len().div_ceil(widest).max(1);
        for (at, &item) in line.iter().enumerate() {
            row[item] = next + at % parts;
        }
        next += parts;
    }
    row
}

/// The items of each row.
fn lines(rows: &[usize]) -> Vec<Vec<usize>> {
    let mut lines = vec![Vec::new(); rows.iter().max().map_or(0, |row| row + 1)];
    for (item, &row) in rows.iter().enumerate() {
        lines[row].push(item);
    }
    lines
}

/// Sorts by the mean place of neighbours; who has none keeps its own. Hubs come to the middle of those with nearly the same
/// place, so that what branches off from them does so to both sides.
fn sort_by_mean(line: &mut Vec<usize>, near: &[Vec<usize>], place: &[f64], hub: impl Fn(usize) -> bool) {
    const NEARLY: f64 = 2.0;
    let mut keyed: Vec<(f64, usize)> =
        line.iter().map(|&item| (mean(&near[item], place).unwrap_or(place[item]), item)).collect();
    keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (hubs, others): (Vec<_>, Vec<_>) = keyed.into_iter().partition(|&(_, item)| hub(item));
    let mut seats: Vec<(usize, usize)> = Vec::with_capacity(hubs.len());
    for (key, item) in hubs {
        let first = others.partition_point(|other| other.0 < key - NEARLY);
        let last = others.partition_point(|other| other.0 <= key + NEARLY);
        seats.push((first.midpoint(last), item));
    }
    seats.sort_by_key(|&(seat, _)| seat);
    line.clear();
    let mut seats = seats.into_iter().peekable();
    for (at, (_, item)) in others.into_iter().enumerate() {
        while let Some((_, hub)) = seats.next_if(|&(seat, _)| seat <= at) {
            line.push(hub);
        }
        line.push(item);
    }
    line.extend(seats.map(|(_, hub)| hub));
}

fn mean(items: &[usize], place: &[f64]) -> Option<f64> {
    let sum: f64 = items.iter().map(|&item| place[item]).sum();
    (!items.is_empty()).then(|| sum / items.len() as f64)
}

/// Boxes and joints, row by row. Items below the number of boxes are boxes.
struct Grid {
    lines: Vec<Vec<usize>>,
    width: Vec<f64>,
    up: Vec<Vec<usize>>,
    down: Vec<Vec<usize>>,
    boxes: usize,
    /// The items along each link, from box to box.
    paths: Vec<Vec<usize>>,
}

impl Grid {
    fn new(plan: &Plan<'_>, rows: &[usize]) -> Self {
        let boxes = plan.sizes.len();
        let (mut long_out, mut long_in) = (vec![0usize; boxes], vec![0usize; boxes]);
        let mut joints = 0;
        for &(from, to) in plan.links.iter().filter(|link| rows[link.0] < rows[link.1]) {
            let passes = rows[to] - rows[from] - 1;
            joints += passes;
            if passes > 0 {
                long_out[from] += 1;
                long_in[to] += 1;
            }
        }
        let mut grid = Self {
            lines: lines(rows),
            width: plan
                .sizes
                .iter()
                .map(|size| size.0 + if plan.ordered { ORDERED_GAP } else { GAP })
                .collect(),
            up: vec![Vec::new(); boxes],
            down: vec![Vec::new(); boxes],
            boxes,
            paths: Vec::with_capacity(plan.links.len()),
        };
        let mut joint: FxHashMap<(usize, bool, usize), usize> = FxHashMap::default();
        let mut joined: FxHashMap<(usize, usize), ()> = FxHashMap::default();
        for &(from, to) in plan.links {
            let mut path = vec![from];
            if rows[from] == rows[to] {
                path.push(to);
                grid.paths.push(path);
                continue;
            }
            if joints <= JOINTS_MAX {
                let by_source = long_out[from] >= long_in[to];
                let owner = if by_source { from } else { to };
                for row in rows[from] + 1..rows[to] {
                    let item = *joint.entry((owner, by_source, row)).or_insert_with(|| {
                        grid.width.push(JOINT);
                        grid.up.push(Vec::new());
                        grid.down.push(Vec::new());
                        grid.lines[row].push(grid.width.len() - 1);
                        grid.width.len() - 1
                    });
                    path.push(item);
                }
            }
            path.push(to);
            for pair in path.windows(2) {
                if joined.insert((pair[0], pair[1]), ()).is_none() {
                    grid.down[pair[0]].push(pair[1]);
                    grid.up[pair[1]].push(pair[0]);
                }
            }
            grid.paths.push(path);
        }
        grid
    }

    /// Orders each row, and keeps the order with the fewest crossings.
    fn order(&mut self) {
        const SWEEPS: usize = 14;
        let mut place = vec![0.0; self.width.len()];
        let number = |line: &[usize], place: &mut [f64]| {
            line.iter().enumerate().for_each(|(at, &item)| place[item] = at as f64);
        };
        self.lines.iter().for_each(|line| number(line, &mut place));
        // Large graphs are not worth more sweeps: nobody follows single lines in them.
        let sweeps = if self.width.len() > 20_000 { 4 } else { SWEEPS };
        let mut best = (self.crossings(&place), self.lines.clone());
        for sweep in 0..sweeps {
            let downwards = sweep % 2 == 0;
            let count = self.lines.len();
            for step in 0..count {
                let (near, row) = if downwards { (&self.up, step) } else { (&self.down, count - 1 - step) };
                // A joint that many lines share.
                let hub =
                    |item: usize| item >= self.boxes && self.up[item].len().max(self.down[item].len()) > 5;
                let line = &mut self.lines[row];
                sort_by_mean(line, near, &place, hub);
                number(line, &mut place);
            }
            let crossings = self.crossings(&place);
            if crossings < best.0 {
                best = (crossings, self.lines.clone());
            }
        }
        self.lines = best.1;
    }

    /// Gives joints their seats among boxes that keep their order: near the box above that they come from.
    fn seat_joints(&mut self) {
        let mut place = vec![0.0; self.width.len()];
        for row in 0..self.lines.len() {
            let (own, joints): (Vec<usize>, Vec<usize>) =
                self.lines[row].iter().partition(|&&item| item < self.boxes);
            let mut keyed: Vec<(f64, usize)> = Vec::with_capacity(self.lines[row].len());
            keyed.extend(
                own.iter().enumerate().map(|(at, &item)| ((at as f64 + 0.5) / own.len() as f64, item)),
            );
            keyed.extend(joints.iter().map(|&item| (mean(&self.up[item], &place).unwrap_or(1.0), item)));
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
            keyed.iter().for_each(|&(at, item)| place[item] = at);
            self.lines[row] = keyed.into_iter().map(|(_, item)| item).collect();
        }
    }

    /// How many pairs of lines cross between neighbouring rows.
    fn crossings(&self, place: &[f64]) -> u64 {
        let mut total = 0;
        let mut tree: Vec<u64> = Vec::new();
        for pair in self.lines.windows(2) {
            tree.clear();
            tree.resize(pair[1].len() + 1, 0);
            let mut seen = 0;
            for &item in &pair[0] {
                let ends = |item: usize| self.down[item].iter().map(|&to| place[to] as usize);
                for end in ends(item) {
                    // How many of those seen end at `end` or before it.
                    let (mut at, mut before) = ((end + 1).min(pair[1].len()), 0);
                    while at > 0 {
                        before += tree[at];
                        at &= at - 1;
                    }
                    total += seen - before;
                }
                for end in ends(item) {
                    seen += 1;
                    let mut at = end + 1;
                    while at < tree.len() {
                        tree[at] += 1;
                        at += at & at.wrapping_neg();
                    }
                }
            }
        }
        total
    }

    /// The middle of each item; rows in the middle of the picture if their order is given.
    fn place(&self, ordered: bool) -> Vec<f64> {
        let mut x = vec![0.0; self.width.len()];
        for line in &self.lines {
            let total: f64 = line.iter().map(|&item| self.width[item]).sum();
            let mut at = -total / 2.0;
            for &item in line {
                x[item] = at + self.width[item] / 2.0;
                at += self.width[item];
            }
        }
        let sweeps = match self.width.len() {
            _ if ordered => 0,
            20_000.. => 4,
            _ => 16,
        };
        for sweep in 0..sweeps {
            let count = self.lines.len();
            for step in 0..count {
                let line = &self.lines[if sweep % 2 == 0 { step } else { count - 1 - step }];
                self.settle(line, sweep, sweeps, &mut x);
            }
        }
        let left = (0..x.len()).map(|item| x[item] - self.width[item] / 2.0).fold(f64::INFINITY, f64::min);
        x.iter_mut().for_each(|x| *x -= left);
        x
    }

    /// Moves the items of a row as near to their neighbours as order and gaps allow, by least squares.
    fn settle(&self, line: &[usize], sweep: usize, sweeps: usize, x: &mut [f64]) {
        /// Items that touch: their sum of weights, of weighted wishes, and how many they are.
        struct Block {
            weight: f64,
            sum: f64,
            items: usize,
        }
        let mut blocks: Vec<Block> = Vec::with_capacity(line.len());
        let mut shift = Vec::with_capacity(line.len());
        let mut offset = 0.0;
        for (at, &item) in line.iter().enumerate() {
            if at > 0 {
                offset += (self.width[line[at - 1]] + self.width[item]) / 2.0;
            }
            shift.push(offset);
            let (above, below) = (mean(&self.up[item], x), mean(&self.down[item], x));
            let wish = match (above, below) {
                // At last both sides count: no more swaying.
                (Some(above), Some(below)) if sweep + 3 >= sweeps => (above + below) / 2.0,
                (Some(above), _) if sweep.is_multiple_of(2) => above,
                (_, Some(below)) if !sweep.is_multiple_of(2) => below,
                (Some(near), _) | (_, Some(near)) => near,
                _ => x[item],
            };
            // Lines that pass are to be straight; what has no neighbours gives way.
            let alone = above.is_none() && below.is_none();
            let weight = if item >= self.boxes {
                4.0
            } else if alone {
                0.02
            } else {
                1.0
            };
            blocks.push(Block { weight, sum: weight * (wish - offset), items: 1 });
            while let [.., before, last] = &blocks[..] {
                if before.sum / before.weight <= last.sum / last.weight {
                    break;
                }
                let last = blocks.pop().expect("there are two");
                let before = blocks.last_mut().expect("there are two");
                before.weight += last.weight;
                before.sum += last.sum;
                before.items += last.items;
            }
        }
        let mut at = 0;
        for block in blocks {
            for _ in 0..block.items {
                x[line[at]] = block.sum / block.weight + shift[at];
                at += 1;
            }
        }
    }

    fn draw(&self, plan: &Plan<'_>, x: &[f64]) -> Layout {
        let tall: Vec<f64> = self
            .lines
            .iter()
            .map(|line| {
                line.iter()
                    .filter(|&&item| item < self.boxes)
                    .map(|&item| plan.sizes[item].1)
                    .fold(0.0, f64::max)
            })
            .collect();
        let mut row_of = vec![0; self.width.len()];
        for (row, line) in self.lines.iter().enumerate() {
            line.iter().for_each(|&item| row_of[item] = row);
        }
        // The further lines go sideways below a row, the more room they get.
        let mut top = Vec::with_capacity(tall.len());
        let mut y = 0.0;
        for (row, line) in self.lines.iter().enumerate() {
            top.push(y);
            let aside =
                line.iter().flat_map(|&item| self.down[item].iter().map(move |&to| (x[to] - x[item]).abs()));
            let aside = aside.fold(0.0, f64::max);
            y += tall[row] + (BEND.0 + aside * 0.06).min(BEND.1);
        }
        let height = top.last().zip(tall.last()).map_or(0.0, |(top, tall)| top + tall);
        let width = (0..x.len()).map(|item| x[item] + self.width[item] / 2.0).fold(0.0, f64::max);

        let boxes: Vec<Rect> = plan
            .sizes
            .iter()
            .enumerate()
            .map(|(item, &(w, h))| Rect {
                x: x[item] - w / 2.0,
                y: top[row_of[item]] + (tall[row_of[item]] - h) / 2.0,
                w,
                h,
            })
            .collect();

        // Where lines leave and enter boxes: side by side, in the order of their other ends.
        let mut leave: FxHashMap<(usize, usize), f64> = FxHashMap::default();
        let mut enter: FxHashMap<(usize, usize), f64> = FxHashMap::default();
        for item in 0..self.boxes {
            for (near, ports) in [(&self.down[item], &mut leave), (&self.up[item], &mut enter)] {
                let mut near = near.clone();
                near.sort_by(|&a, &b| x[a].total_cmp(&x[b]));
                let room = (plan.sizes[item].0 - 24.0).max(0.0);
                let step = if near.len() > 1 { (room / (near.len() - 1) as f64).min(12.0) } else { 0.0 };
                let first = x[item] - step * (near.len().saturating_sub(1)) as f64 / 2.0;
                for (at, other) in near.into_iter().enumerate() {
                    ports.insert((item, other), first + step * at as f64);
                }
            }
        }
        let routes = self.paths.iter().map(|path| {
            if let [from, to] = path[..]
                && row_of[from] == row_of[to]
            {
                return self.aside(&boxes[from], &boxes[to], &boxes, row_of[from]);
            }
            let mut points = Vec::with_capacity(2 * path.len());
            for (at, &item) in path.iter().enumerate() {
                let (above, below) = (top[row_of[item]], top[row_of[item]] + tall[row_of[item]]);
                if at == 0 {
                    let x = leave.get(&(item, path[1])).copied().unwrap_or(x[item]);
                    points.extend([(x, boxes[item].y + boxes[item].h), (x, below)]);
                } else if at + 1 == path.len() {
                    let x = enter.get(&(item, path[at - 1])).copied().unwrap_or(x[item]);
                    points.extend([(x, above), (x, boxes[item].y)]);
                } else {
                    points.extend([(x[item], above), (x[item], below)]);
                }
            }
            Route::Down(points)
        });
        let routes = routes.collect();
        Layout { boxes, routes, width, height }
    }
    /// The way to another box of the same row.
    fn aside(&self, from: &Rect, to: &Rect, boxes: &[Rect], row: usize) -> Route {
        let (right, y) = (from.x + from.w, from.y + from.h / 2.0);
        let line = self.lines[row].iter().filter(|&&item| item < self.boxes).map(|&item| &boxes[item]);
        let between = line.filter(|place| place.x > right && place.x + place.w < to.x).count();
        if between == 0 {
            return Route::Right { from: right, to: to.x, y };
        }
        let (start, end) = ((right - 9.0, from.y + from.h), (to.x + 9.0, to.y + to.h));
        Route::Below { from: start, to: end, dip: 12.0 + 3.0 * between.min(4) as f64 }
    }
}
