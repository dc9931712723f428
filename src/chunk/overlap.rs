//! Which chunks of two numbers of chunks can have rows in common.
//!
//! A row's chunk is its hash modulo the number of chunks. So chunk `a` of `m` and chunk `b` of `n` share rows only where
//! `a` and `b` are equal modulo the greatest common divisor of `m` and `n`; and where `n` divides `m`, chunk `b` of `n`
//! is exactly the chunks `b`, `b + n`, `b + 2n`, … of `m`.

/// The chunks, out of `others`, that can share rows with chunk `chunk` of `chunks`.
pub fn overlap(chunk: u32, chunks: u32, others: u32) -> impl Iterator<Item = u32> {
    let step = greatest_common_divisor(chunks, others);
    (chunk % step..others).step_by(step as usize)
}

/// Whether chunks of two numbers say anything of each other.
pub fn are_nested(chunks: u32, others: u32) -> bool {
    greatest_common_divisor(chunks, others) > 1
}

/// At least 1.
fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a.max(1) } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::{are_nested, overlap};
    use crate::chunk::bucket::bucket_of;

    #[test]
    fn chunks_that_share_a_row_overlap_and_others_do_not_if_one_number_divides_the_other() {
        for chunks in 1..=24 {
            for others in 1..=24 {
                let mut shared = vec![vec![false; others as usize]; chunks as usize];
                for hash in 0..5000 {
                    shared[bucket_of(hash, chunks) as usize][bucket_of(hash, others) as usize] = true;
                }
                for (chunk, shared) in (0u32..).zip(&shared) {
                    let expected: Vec<u32> = (0u32..).zip(shared).filter(|(_, is)| **is).map(|(at, _)| at).collect();
                    assert_eq!(
                        overlap(chunk, chunks, others).collect::<Vec<_>>(),
                        expected,
                        "{chunk}: {chunks} {others}"
                    );
                }
            }
        }
        assert!(are_nested(4, 6) && are_nested(16, 4) && !are_nested(1, 8) && !are_nested(7, 16));
    }
}
