//! Randomness as an argument: the system's, or a seeded sequence for simulations.

use std::sync::Arc;

use parking_lot::Mutex;

/// Cheap to clone; a source of random numbers. Key material does not come from here (the cryptographic
/// library makes its own).
#[derive(Clone, Debug)]
pub struct Random(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Seeded(Arc<Mutex<u64>>),
}

impl Random {
    /// The operating system's generator.
    pub fn system() -> Random {
        Random(Source::System)
    }

    /// A sequence that depends on the seed alone; clones share it. Not for secrets.
    pub fn seeded(seed: u64) -> Random {
        Random(Source::Seeded(Arc::new(Mutex::new(seed))))
    }

    /// Fills the buffer.
    pub fn fill(&self, buffer: &mut [u8]) {
        match &self.0 {
            Source::System => {
                aws_lc_rs::rand::fill(buffer).expect("the system's random generator never runs dry");
            }
            Source::Seeded(state) => {
                let mut state = state.lock();
                for chunk in buffer.chunks_mut(8) {
                    let word = split_mix(&mut state).to_le_bytes();
                    chunk.copy_from_slice(&word[..chunk.len()]);
                }
            }
        }
    }

    /// A number, all values equally likely.
    pub fn u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A fraction in `0.0 ..< 1.0`, for jitter.
    pub fn fraction(&self) -> f64 {
        // 53 bits are what an f64 holds exactly.
        (self.u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// 16 random bytes, for serial numbers.
    pub fn bytes16(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        bytes
    }

    /// A version 4 UUID in its usual text form.
    pub fn uuid(&self) -> String {
        let mut bytes = self.bytes16();
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let mut text = String::with_capacity(36);
        for (index, byte) in bytes.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            for digit in [byte >> 4, byte & 0x0f] {
                text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
            }
        }
        text
    }
}

/// Names one run of one control plane: its host name and four random hexadecimal digits.
pub fn instance_id(hostname: &str, random: &Random) -> String {
    format!("{hostname}-{:04x}", random.u64() & 0xffff)
}

/// SplitMix64: tiny, and good enough to spread simulated choices.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeded_sequences_repeat() {
        let (a, b) = (Random::seeded(1), Random::seeded(1));
        assert_eq!(a.uuid(), b.uuid());
        assert_ne!(a.uuid(), Random::seeded(2).uuid());
        assert!((0.0..1.0).contains(&a.fraction()));
    }

    #[test]
    fn uuid_form() {
        for random in [Random::system(), Random::seeded(3)] {
            let uuid = random.uuid();
            let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{uuid}");
            assert_eq!(uuid.as_bytes()[14], b'4', "{uuid}");
            assert!(matches!(uuid.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{uuid}");
        }
    }
}
