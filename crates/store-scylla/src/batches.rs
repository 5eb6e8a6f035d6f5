//! Which rows share a batch: a function of where they belong and how large they are.
//!
//! Every request costs both sides far more than its rows, so rows travel together. Rows of one
//! partition are one mutation to a store. Rows of several are as many, which the node that gets the
//! batch passes on: so only small ones share a batch, of partitions whose first replica is the same
//! node, and never as many as a store with its default settings warns its operators about.

use crate::session::Put;

/// Most rows and bytes of one batch within a partition.
const ROWS_MAX: usize = 100;
const BYTES_MAX: usize = 48 * 1024;
/// Most partitions and bytes of one batch across partitions: Cassandra warns above 10 and 5 KiB.
const PARTITIONS_MAX: usize = 10;
const ACROSS_BYTES_MAX: usize = 4 * 1024;

/// A row with the partition and the node that it belongs to.
pub(crate) struct Placed<V> {
    pub(crate) node: u128,
    pub(crate) partition: i64,
    pub(crate) put: Put<V>,
}

/// A batch that grows.
struct Open {
    node: u128,
    partition: i64,
    partitions: usize,
    rows: usize,
    bytes: usize,
}

impl Open {
    fn new<V>(row: &Placed<V>) -> Self {
        Self {
            node: row.node,
            partition: row.partition,
            partitions: 1,
            rows: 1,
            bytes: row.put.bytes,
        }
    }

    /// Takes a row in, if it fits.
    fn take<V>(&mut self, row: &Placed<V>) -> bool {
        let partitions = self.partitions + usize::from(row.partition != self.partition);
        let bytes = self.bytes + row.put.bytes;
        let bytes_max = if partitions == 1 {
            BYTES_MAX
        } else {
            ACROSS_BYTES_MAX
        };
        let fits = row.node == self.node
            && partitions <= PARTITIONS_MAX
            && self.rows < ROWS_MAX
            && bytes <= bytes_max;
        if fits {
            (self.partition, self.partitions) = (row.partition, partitions);
            (self.rows, self.bytes) = (self.rows + 1, bytes);
        }
        fits
    }
}

/// The values of each batch. Rows of one partition keep their order.
pub(crate) fn cut<V>(mut rows: Vec<Placed<V>>) -> Vec<Vec<V>> {
    rows.sort_by_key(|row| (row.node, row.partition));
    let mut batches: Vec<Vec<V>> = Vec::new();
    let mut open: Option<Open> = None;
    for row in rows {
        let fits = open.as_mut().is_some_and(|open| open.take(&row));
        if let Some(last) = batches.last_mut().filter(|_| fits) {
            last.push(row.put.values);
        } else {
            open = Some(Open::new(&row));
            batches.push(vec![row.put.values]);
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of (node, partition, bytes); their values are their places in the list.
    fn batches(rows: impl IntoIterator<Item = (u128, i64, usize)>) -> Vec<Vec<usize>> {
        let place = |(values, (node, partition, bytes))| Placed {
            node,
            partition,
            put: Put { bytes, values },
        };
        cut(rows.into_iter().enumerate().map(place).collect())
    }

    #[test]
    fn rows_of_one_partition_share_a_batch_in_order_up_to_its_size() {
        assert_eq!(batches([(1, 1, 10), (1, 1, 10)]), [[0, 1]]);
        let full = batches(vec![(1, 1, 10); ROWS_MAX + 1]);
        assert_eq!(full.iter().map(Vec::len).collect::<Vec<_>>(), [ROWS_MAX, 1]);
        let large = batches([(1, 1, BYTES_MAX), (1, 1, 1), (1, 1, BYTES_MAX)]);
        assert_eq!(large, [[0], [1], [2]]);
        assert_eq!(batches([(1, 1, BYTES_MAX - 1), (1, 1, 1)]), [[0, 1]]);
    }

    #[test]
    fn small_rows_of_several_partitions_of_one_node_share_a_batch() {
        assert_eq!(
            batches([(2, 5, 9), (1, 4, 9), (2, 3, 9), (1, 4, 9)]),
            [[1, 3], [2, 0]]
        );
        let many = batches((0..11).map(|partition| (1, partition, 9)));
        assert_eq!(many.iter().map(Vec::len).collect::<Vec<_>>(), [10, 1]);
    }

    #[test]
    fn what_is_more_than_a_store_likes_across_partitions_travels_alone() {
        let half = ACROSS_BYTES_MAX / 2;
        assert_eq!(
            batches([(1, 1, half), (1, 2, half), (1, 3, 1)]),
            [vec![0, 1], vec![2]]
        );
        // A batch within a partition that is larger than that takes no other partition in.
        assert_eq!(
            batches([(1, 1, half), (1, 1, half + 1), (1, 2, 1)]),
            [vec![0, 1], vec![2]]
        );
    }

    #[test]
    fn nothing_is_no_batch() {
        assert!(batches([]).is_empty());
    }
}
