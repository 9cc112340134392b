//! What a process with tiles occupies, as the system counts it. One test: others in the same process would be counted too.
#![cfg(target_os = "linux")]

use dagger_array::Tile;

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    4096 * pages.expect("the second number is that of resident pages")
}

#[test]
fn dropped_tiles_go_back_to_the_system_at_once() {
    const MARGIN: usize = 2 << 20;
    // Of 300 KiB, of two MiB and a little, of 8 MiB and a little: below, about and beyond a huge page.
    for (order, count) in [(190, 200), (512, 60), (1024, 20)] {
        let before = resident();
        let mut tiles: Vec<Tile<f64>> = (0..count).map(|_| Tile::zeros(order, order)).collect();
        assert!(resident() < before + MARGIN, "zeros are not touched");

        tiles.iter_mut().for_each(|tile| tile.fill(1.0));
        let bytes = count * (8 * tiles[0].ld() * order).next_multiple_of(4096);
        let full = resident() - before;
        assert!(full > bytes - MARGIN && full < bytes + MARGIN, "{full} of {bytes}, order {order}");

        // Every other one goes: the neighbours in the address space stay.
        let mut stays = false;
        tiles.retain(|_| {
            stays = !stays;
            stays
        });
        let half = resident() - before;
        assert!(half > bytes / 2 - MARGIN && half < bytes / 2 + MARGIN, "{half} of {bytes}, order {order}");
        assert!(tiles.iter().all(|tile| tile.iter().all(|&element| element == 1.0)));

        drop(tiles);
        assert!(resident() < before + MARGIN, "{} of {bytes}, order {order}", resident() - before);
    }
}
