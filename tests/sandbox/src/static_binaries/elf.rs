//! Just enough of the ELF format (gABI, "ELF Header" and "Program Header", 64 bits, little-endian) to tell whether a program runs
//! by itself.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};

/// The processor a program is for: `e_machine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    /// `EM_X86_64`.
    X86_64 = 62,
    /// `EM_AARCH64`.
    Aarch64 = 183,
}

/// The kind of program header that names a loader.
const PT_INTERP: u32 = 3;
/// Headers lie right at the start of what linkers write.
const HEAD: u64 = 4096;

/// Checks that a file is a program for this processor that asks for no loader, and so for no library.
pub(super) fn ensure_static(file: &Path, machine: Machine) -> anyhow::Result<()> {
    let mut head = Vec::new();
    File::open(file)
        .and_then(|opened| opened.take(HEAD).read_to_end(&mut head))
        .with_context(|| format!("reading {}", file.display()))?;
    look(&head, machine).with_context(|| format!("looking at {}", file.display()))
}

fn look(head: &[u8], machine: Machine) -> anyhow::Result<()> {
    ensure!(
        head.starts_with(b"\x7fELF\x02\x01"),
        "it is no ELF file of 64 bits, little-endian"
    );
    let is_for = number(head, 18, 2)?;
    ensure!(
        is_for == machine as u64,
        "it is for machine {is_for}, not {machine:?}"
    );
    let (start, size, count) = (number(head, 32, 8)?, number(head, 54, 2)?, number(head, 56, 2)?);
    for header in 0..count {
        let at = usize::try_from(start + header * size)?;
        if number(head, at, 4)? == u64::from(PT_INTERP) {
            bail!("it is not static: it asks for a loader");
        }
    }
    Ok(())
}

fn number(head: &[u8], at: usize, length: usize) -> anyhow::Result<u64> {
    let bytes = at
        .checked_add(length)
        .and_then(|end| head.get(at..end))
        .context("its headers are not at its start")?;
    Ok(bytes
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of nothing but headers of these kinds.
    fn program(machine: u16, kinds: &[u32]) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01".to_vec();
        file.resize(64, 0);
        file[18..20].copy_from_slice(&machine.to_le_bytes());
        file[32] = 64;
        file[54] = 56;
        file[56] = u8::try_from(kinds.len()).unwrap();
        for kind in kinds {
            file.extend(kind.to_le_bytes());
            file.resize(file.len() + 52, 0);
        }
        file
    }

    #[test]
    fn a_program_that_asks_for_a_loader_is_not_static() {
        look(&program(62, &[1, 2]), Machine::X86_64).unwrap();
        look(&program(183, &[1]), Machine::Aarch64).unwrap();
        for (file, why) in [
            (program(62, &[1, PT_INTERP, 2]), "it is not static"),
            (program(183, &[1]), "it is for machine 183"),
            (b"#!/bin/sh\n".to_vec(), "no ELF file"),
            (program(62, &[1, 2])[..80].to_vec(), "not at its start"),
        ] {
            let error = look(&file, Machine::X86_64).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_program_of_this_machine_has_a_loader() {
        // Tests are linked against the C library here.
        let own = std::env::current_exe().unwrap();
        let machine = if cfg!(target_arch = "aarch64") {
            Machine::Aarch64
        } else {
            Machine::X86_64
        };
        let error = format!("{:#}", ensure_static(&own, machine).unwrap_err());
        assert!(error.ends_with("it asks for a loader"), "{error}");
    }
}
