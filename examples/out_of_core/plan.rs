//! How large the matrix and its tiles are.

use dagger_array::{Tile, tiled};

use crate::arguments::Settings;

/// The matrix has so many times the bytes of the memory limit.
const TIMES: u64 = 4;
/// Orders are multiples of this, where the program chooses: whole cache lines.
const MULTIPLE: usize = 16;
/// Tiles are not made smaller than this: their kernels would be mostly beginnings and ends.
const TILE_MIN: usize = 32;
/// So many tiles fit in memory, where the program chooses their size.
const TILES_WANTED: u64 = 64;
/// A task needs three tiles.
const TILES_OF_A_TASK: u64 = 3;
/// More tasks than this take longer to spawn than anybody waits.
const TASKS_MAX: u64 = 10_000_000;

/// What is factored, in tiles of which size.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) order: usize,
    pub(crate) tile: usize,
    /// Of the elements that are stored: the tiles on and below the diagonal.
    pub(crate) bytes: u64,
}

/// A matrix that cannot be factored so.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum PlanError {
    /// The workers cannot all be at work.
    #[error(
        "--memory-limit of {limit} B is too small: {threads} threads that work on three tiles of {tile} rows each need {needed} B"
    )]
    TooSmall { limit: u64, needed: u64, tile: usize, threads: usize },
    /// The graph would be mostly overhead, or take days.
    #[error("order {order} in tiles of {tile} would make {tasks} tasks, and at most {TASKS_MAX} are allowed")]
    TooManyTasks { order: usize, tile: usize, tasks: u64 },
}

impl Plan {
    /// For so many worker threads.
    pub(crate) fn new(settings: &Settings, threads: usize) -> Result<Plan, PlanError> {
        let limit = settings.memory_limit;
        let tile = settings.tile.unwrap_or_else(|| tile(limit, threads));
        let tile_bytes = u64::try_from(tile).ok().and_then(|tile| tile.checked_mul(tile)?.checked_mul(8));
        // What padding adds is known for tiles that can be.
        let tile_bytes = match tile_bytes {
            Some(bytes) if bytes <= limit => Tile::<f64>::bytes_for(tile, tile) as u64,
            bytes => bytes.unwrap_or(u64::MAX),
        };
        let needed = tile_bytes.saturating_mul(TILES_OF_A_TASK * threads as u64);
        if needed > limit {
            return Err(PlanError::TooSmall { limit, needed, tile, threads });
        }
        let order = settings.order.unwrap_or_else(|| order(limit.saturating_mul(TIMES), tile));
        let plan = Plan { order, tile, bytes: bytes(order, tile) };
        match plan.tasks() {
            tasks if tasks > TASKS_MAX => Err(PlanError::TooManyTasks { order, tile, tasks }),
            _ => Ok(plan),
        }
    }

    /// Of the factorisation.
    pub(crate) fn tasks(&self) -> u64 {
        let side = self.order.div_ceil(self.tile) as u128;
        (side.saturating_pow(3) / 6 + side * side / 2 + side / 3).try_into().unwrap_or(u64::MAX)
    }

    /// Operations of the factorisation.
    pub(crate) fn flops(&self) -> f64 {
        (self.order as f64).powi(3) / 3.0
    }

    /// No order of the operations moves fewer bytes between a memory of `limit` bytes and elsewhere, both ways together: not
    /// counting that the matrix comes from somewhere.
    pub(crate) fn least_traffic(&self, limit: u64) -> f64 {
        // n³/(3·√(2·M)) elements have to come, by Beaumont and others (2022); less what fits has to be written.
        let (n, memory) = (self.order as f64, limit as f64 / 8.0);
        let bytes = self.bytes as f64;
        let left = (bytes - limit as f64).max(0.0);
        // Of all that has to come, the matrix itself is made, not read.
        let read = if left == 0.0 {
            0.0
        } else {
            (8.0 * n.powi(3) / (3.0 * (2.0 * memory).sqrt()) - bytes).max(0.0)
        };
        read + left
    }
}

/// Bytes of the elements of the tiles on and below the diagonal.
fn bytes(order: usize, tile: usize) -> u64 {
    let (full, rest, tile) = ((order / tile) as u128, (order % tile) as u128, tile as u128);
    let elements = full * (full + 1) / 2 * tile * tile + rest * (full * tile + rest);
    elements.saturating_mul(8).try_into().unwrap_or(u64::MAX)
}

/// The smallest order whose tiles have at least so many bytes.
fn order(at_least: u64, tile: usize) -> usize {
    let (mut too_few, mut enough) = (0, 1 << 31);
    while enough - too_few > 1 {
        let middle = too_few + (enough - too_few) / 2;
        if bytes(middle, tile) < at_least { too_few = middle } else { enough = middle }
    }
    enough.next_multiple_of(MULTIPLE)
}

/// Large ones let the kernels run at full speed; of smaller ones there is room for more, and less is moved.
fn tile(limit: u64, threads: usize) -> usize {
    let wanted = TILES_WANTED.max(4 * TILES_OF_A_TASK * threads as u64);
    let fits = (limit / 8 / wanted).isqrt() as usize / MULTIPLE * MULTIPLE;
    let order = limit.isqrt() as usize; // 8 · n²/2 bytes are four times the limit
    tiled::cholesky_tile(order, threads).min(fits).max(TILE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(limit: u64, tile: Option<usize>, threads: usize) -> Result<Plan, PlanError> {
        Plan::new(&Settings { memory_limit: limit, tile, ..Settings::default() }, threads)
    }

    #[test]
    fn the_matrix_has_four_times_the_limit_and_little_more() {
        for limit in [300_000, 2 << 20, 16 << 20, 64_000_000, 256 << 20, 4 << 30] {
            for threads in [1, 2, 8].into_iter().filter(|threads| limit > 1 << 20 || *threads < 8) {
                let plan = plan(limit, None, threads).unwrap();
                let ratio = plan.bytes as f64 / limit as f64;
                assert!((4.0..4.4).contains(&ratio), "{limit}, {threads} threads: {plan:?} is {ratio} times");
                assert!(plan.order.is_multiple_of(16) && plan.tile.is_multiple_of(16), "{plan:?}");
            }
        }
        assert_eq!(plan(256 << 20, None, 2).unwrap().tile, 384);
    }

    #[test]
    fn the_bytes_are_those_of_the_tiles() {
        for (order, tile) in [(1, 1), (5, 2), (96, 32), (100, 32), (31, 32)] {
            let ends = |i: usize| order.min((i + 1) * tile) - i * tile;
            let side = usize::div_ceil(order, tile);
            let sum: usize = (0..side).map(|i| (0..=i).map(|j| ends(i) * ends(j)).sum::<usize>()).sum();
            assert_eq!(bytes(order, tile), 8 * sum as u64, "{order}, {tile}");
        }
    }

    #[test]
    fn what_cannot_be_says_both_sizes() {
        let error = plan(1 << 20, Some(512), 2).unwrap_err();
        assert!(
            matches!(error, PlanError::TooSmall { limit: 1_048_576, needed: 12_582_912, .. }),
            "{error:?}"
        );
        assert!(
            error.to_string().contains("1048576 B") && error.to_string().contains("12582912 B"),
            "{error}"
        );
        assert!(matches!(plan(1, None, 1), Err(PlanError::TooSmall { .. })));
        assert!(matches!(
            plan(1 << 40, Some(usize::MAX), 1024),
            Err(PlanError::TooSmall { needed: u64::MAX, .. })
        ));
        assert!(matches!(plan(1 << 40, Some(32), 2), Err(PlanError::TooManyTasks { .. })));
        assert!(matches!(plan(u64::MAX, None, 2), Err(PlanError::TooManyTasks { .. })));
        let huge = Settings { order: Some(usize::MAX), ..Settings::default() };
        assert!(matches!(Plan::new(&huge, 2), Err(PlanError::TooManyTasks { .. })));
    }
}
