//! What the machine code of a kernel on Hopper's warpgroup tensor cores holds, read from its disassembly.

use serde::{Deserialize, Serialize};

/// Counts of instructions. The main loop is the shortest one with products; what is seldom taken in its midst counts too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Products of warpgroups.
    pub products: u32,
    /// Instructions of the main loop.
    pub loop_instructions: u32,
    /// Those among them that move a value from one register to another, and compute nothing.
    pub loop_moves: u32,
    /// Those that read or write local memory, where spilled registers are.
    pub loop_spills: u32,
}

/// A product of warpgroups, in PTX.
const PRODUCT: &str = "wgmma.mma_async";

/// Whether a kernel has what is counted.
pub(crate) fn has_products(ptx: &str) -> bool {
    ptx.contains(PRODUCT)
}

/// The counts, and what is not as the PTX has it, one line each.
pub(crate) fn read(ptx: &str, listing: &str) -> (Machine, Vec<String>) {
    let planned = ptx.matches(PRODUCT).count();
    let code: Vec<Instruction> = listing.lines().filter_map(Instruction::read).collect();
    let products = code.iter().filter(|instruction| instruction.is_product()).count();
    let main = main_loop(&code);
    let machine = Machine {
        products: products as u32,
        loop_instructions: main.len() as u32,
        loop_moves: main.iter().filter(|instruction| instruction.moves()).count() as u32,
        loop_spills: main.iter().filter(|instruction| instruction.spills()).count() as u32,
    };
    let mut notes = Vec::new();
    if products != planned {
        notes.push(format!("{products} products of warpgroups instead of {planned}"));
    }
    let shares = code.iter().any(|instruction| instruction.operation.starts_with("USETMAXREG"));
    if ptx.contains("setmaxnreg") && !shares {
        notes.push("registers are not shared out anew: setmaxnreg was ignored".to_owned());
    }
    (machine, notes)
}

/// The innermost loop with products, and of several the shortest; empty if there is none.
fn main_loop<'a>(code: &'a [Instruction<'a>]) -> &'a [Instruction<'a>] {
    let back = |(end, instruction): (usize, &Instruction)| {
        let start = code.binary_search_by_key(&instruction.target?, |instruction| instruction.address).ok()?;
        (start <= end).then(|| &code[start..=end])
    };
    let loops = code.iter().enumerate().filter_map(back);
    loops
        .filter(|span| span.iter().any(|instruction| instruction.is_product()))
        .min_by_key(|span| span.len())
        .unwrap_or_default()
}

/// A line of `cuobjdump -sass`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction<'a> {
    address: u32,
    operation: &'a str,
    /// Where a branch goes.
    target: Option<u32>,
}

impl<'a> Instruction<'a> {
    /// `None` for lines without an instruction.
    fn read(line: &'a str) -> Option<Self> {
        let (address, rest) = line.trim_start().strip_prefix("/*")?.split_once("*/")?;
        let address = u32::from_str_radix(address, 16).ok()?;
        let (text, _) = rest.split_once(';')?;
        let mut words = text.split_whitespace().filter(|word| !word.starts_with('@'));
        let operation = words.next()?;
        let hex = |word: &str| u32::from_str_radix(word.strip_prefix("0x")?, 16).ok();
        let target = if operation.starts_with("BRA") { words.next_back().and_then(hex) } else { None };
        Some(Self { address, operation, target })
    }

    fn is_product(&self) -> bool {
        // Of 16 bits, and of 8.
        self.operation.starts_with("HGMMA") || self.operation.starts_with("QGMMA")
    }

    fn moves(&self) -> bool {
        ["MOV", "UMOV", "IMAD.MOV", "R2UR"].iter().any(|moving| self.operation.starts_with(moving))
    }

    fn spills(&self) -> bool {
        ["LDL", "STL"].iter().any(|local| self.operation.starts_with(local))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "
	code for sm_90a
		Function : attention
        /*0000*/                   LDC R1, c[0x0][0x28] ;                 /* 0x00000a00ff017b82 */
                                                                          /* 0x000fe20000000800 */
        /*0010*/                   USETMAXREG.TRY_ALLOC.CTAPOOL UP0, 0x70 ;
        /*0020*/              @!P0 BRA 0x10 ;
        /*0030*/                   MOV R2, R3 ;
        /*0040*/                   HGMMA.64x64x16.F32 R24, gdesc[UR16], RZ, !UPT ;
        /*0050*/                   LDL R4, [R1+0x20] ;
        /*0060*/                   IMAD.MOV.U32 R5, RZ, RZ, R4 ;
        /*0070*/               @P3 BRA 0x30 ;
        /*0080*/                   HGMMA.64x64x16.F32 R24, gdesc[UR16], RZ, !UPT ;
        /*0090*/               @P4 BRA 0x30 ;
        /*00a0*/                   EXIT ;
";

    #[test]
    fn the_main_loop_is_the_innermost_with_products() {
        let (machine, notes) = read("wgmma.mma_async a; wgmma.mma_async b; setmaxnreg.inc", LISTING);
        assert_eq!(machine, Machine { products: 2, loop_instructions: 5, loop_moves: 2, loop_spills: 1 });
        assert_eq!(notes, [""; 0]);
    }

    #[test]
    fn what_is_not_as_planned_is_said() {
        let listing = LISTING.replace("USETMAXREG", "NOP");
        let (_, notes) = read("wgmma.mma_async a; setmaxnreg.inc", &listing);
        assert_eq!(
            notes,
            ["2 products of warpgroups instead of 1", "registers are not shared out anew: setmaxnreg was ignored"]
        );
    }

    #[test]
    fn other_kernels_have_no_such_code() {
        assert!(has_products("wgmma.mma_async.sync.aligned") && !has_products("mma.sync.aligned"));
    }

    #[test]
    fn code_without_a_loop_has_an_empty_one() {
        let (machine, _) = read("wgmma.mma_async a", "/*0000*/ HGMMA.64x64x16.F32 R24 ;");
        assert_eq!(machine, Machine { products: 1, loop_instructions: 0, loop_moves: 0, loop_spills: 0 });
        let (of_bytes, _) = read("wgmma.mma_async a", "/*0000*/ QGMMA.64x64x32.F32.E4M3.E4M3 R24 ;");
        assert_eq!(of_bytes.products, 1);
    }
}
