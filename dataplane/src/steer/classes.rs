//! FULLNAT's local ports, grouped by what they add to the Toeplitz hash of a reply.
//!
//! The hash is linear over XOR: what a reply hashes to is the hash of its other fields, XOR the hash of the local port. So the ports that
//! bring the replies of one server at one local address to one worker are those of a few classes, and the classes are the same for all
//! servers and addresses.

use super::toeplitz::Toeplitz;

/// The lowest local port: those below are the machine's own.
pub const FIRST_PORT: u16 = 1024;

/// How many local ports there are.
pub const PORTS: u32 = 65536 - FIRST_PORT as u32;

/// The local ports by class, made once for a key and a number of classes. 126 KB, read only: workers share it.
#[derive(Clone, Debug)]
pub struct PortClasses {
    /// Where a class begins in `ports`, and in the end where the last one ends.
    starts: Box<[u32]>,
    ports: Box<[u16]>,
}

impl PortClasses {
    /// Sorts the ports into `count` classes, a power of two: by the lowest bits of the hash of the port alone, as the destination's.
    pub fn new(toeplitz: &Toeplitz, count: usize) -> Self {
        let class = |port: u16| port_hash(toeplitz, port) as usize & (count - 1);
        let mut starts = vec![0u32; count + 1];
        for port in FIRST_PORT..=u16::MAX {
            starts[class(port) + 1] += 1;
        }
        for index in 1..=count {
            starts[index] += starts[index - 1];
        }
        let mut next = starts.clone();
        let mut ports = vec![0; PORTS as usize];
        for port in FIRST_PORT..=u16::MAX {
            let next = &mut next[class(port)];
            ports[*next as usize] = port;
            *next += 1;
        }
        Self {
            starts: starts.into(),
            ports: ports.into(),
        }
    }

    /// How many classes there are.
    pub fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// The ports of a class, from the lowest. With a good key all classes are of one size.
    #[inline]
    pub fn ports(&self, class: usize) -> &[u16] {
        &self.ports[self.starts[class] as usize..self.starts[class + 1] as usize]
    }

    /// Ports of the biggest class.
    pub fn biggest(&self) -> usize {
        let sizes = self.starts.windows(2).map(|pair| pair[1] - pair[0]);
        sizes.max().unwrap_or(0) as usize
    }
}

/// What a destination port adds to a hash.
fn port_hash(toeplitz: &Toeplitz, port: u16) -> u32 {
    let [high, low] = port.to_be_bytes();
    toeplitz.hash(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, high, low])
}

#[cfg(test)]
mod tests {
    use super::super::toeplitz::{KEY_LEN, Key};
    use super::*;

    #[test]
    fn every_port_is_in_one_class_and_classes_are_of_one_size() {
        for key in [Key::symmetric(KEY_LEN), Key::microsoft()] {
            let toeplitz = Toeplitz::new(key);
            for count in [1, 2, 4, 64, 128, 512] {
                let classes = PortClasses::new(&toeplitz, count);
                let mut seen = vec![false; 65536];
                for class in 0..count {
                    assert_eq!(classes.ports(class).len(), PORTS as usize / count);
                    for &port in classes.ports(class) {
                        let hash = port_hash(&toeplitz, port) as usize;
                        assert_eq!(hash & (count - 1), class);
                        assert!(!seen[usize::from(port)]);
                        seen[usize::from(port)] = true;
                    }
                }
                let (own, ours) = seen.split_at(usize::from(FIRST_PORT));
                assert!(ours.iter().all(|seen| *seen) && !own.contains(&true));
                assert_eq!(classes.biggest(), PORTS as usize / count);
            }
        }
    }

    #[test]
    fn a_key_of_zeroes_has_one_class() {
        let toeplitz = Toeplitz::new(Key::new(&[0; KEY_LEN]).unwrap());
        let classes = PortClasses::new(&toeplitz, 128);
        assert_eq!((classes.count(), classes.biggest()), (128, PORTS as usize));
        assert!((1..128).all(|class| classes.ports(class).is_empty()));
    }
}
