//! Rows in the order of their chunks.

/// Buffered rows in the order of their chunks, and within a chunk in that of the input.
#[derive(Debug)]
pub struct Order {
    /// Batch and row.
    rows: Vec<(u32, u32)>,
    /// Where each chunk's rows end in `rows`.
    ends: Vec<usize>,
}

/// So many rows of one chunk in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub chunk: u32,
    pub rows: usize,
}

impl Order {
    /// Counting-sorts the rows of batches, whose chunk numbers are given and below `chunks`.
    pub fn new(batches: &[&[u16]], chunks: u32) -> Self {
        let mut next = vec![0; chunks as usize];
        for number in batches.iter().copied().flatten() {
            next[usize::from(*number)] += 1;
        }
        let mut start = 0;
        for next in &mut next {
            (*next, start) = (start, start + *next);
        }
        let mut rows = vec![(0, 0); start];
        for (batch, numbers) in (0..).zip(batches) {
            for (row, number) in (0..).zip(numbers.iter()) {
                let next = &mut next[usize::from(*number)];
                rows[*next] = (batch, row);
                *next += 1;
            }
        }
        Self { rows, ends: next }
    }

    /// The chunks that have rows, with batch and row of each.
    pub fn chunks(&self) -> impl Iterator<Item = (u32, &[(u32, u32)])> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let chunks = (0..).zip(starts.zip(self.ends.iter().copied()));
        chunks.filter(|(_, (start, end))| start < end).map(|(chunk, (start, end))| (chunk, &self.rows[start..end]))
    }
}

#[cfg(test)]
mod tests {
    use crate::execute::split::sort::Order;

    #[test]
    fn rows_of_a_chunk_keep_their_order() {
        let order = Order::new(&[&[2, 0, 2], &[], &[0, 4, 2]], 5);
        let chunks: Vec<_> = order.chunks().collect();
        let expected: [(u32, &[(u32, u32)]); 3] =
            [(0, &[(0, 1), (2, 0)]), (2, &[(0, 0), (0, 2), (2, 2)]), (4, &[(2, 1)])];
        assert_eq!(chunks, expected);
        assert_eq!(Order::new(&[], 3).chunks().count(), 0);
    }
}
