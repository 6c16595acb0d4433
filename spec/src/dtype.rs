//! Element types of Q, K, V and O.

/// Element type of Q, K and V, and of O but for [`Dtype::E4m3`]. Scores, sums and the output accumulate in fp32 whatever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum Dtype {
    /// IEEE half precision: 1 sign, 5 exponent, 10 fraction bits.
    F16,
    /// bfloat16: 1 sign, 8 exponent, 7 fraction bits.
    Bf16,
    /// IEEE single precision: 1 sign, 8 exponent, 23 fraction bits. No tensor core multiplies it as it is.
    F32,
    /// OCP fp8: 1 sign, 4 exponent, 3 fraction bits; up to 448, no infinities. O is bfloat16.
    ///
    /// Factors by which Q and K were divided belong into the problem's scale; that of V is for the caller to multiply O by.
    E4m3,
}

impl Dtype {
    /// All dtypes, in the order of their declaration.
    pub const ALL: [Self; 4] = [Self::F16, Self::Bf16, Self::F32, Self::E4m3];

    /// Those of 16 bits, which tensor cores multiply.
    pub const HALVES: [Self; 2] = [Self::F16, Self::Bf16];

    /// Size of one element in bytes.
    pub const fn bytes(self) -> u32 {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::E4m3 => 1,
        }
    }

    /// Element type of O where Q, K and V are of this type.
    pub const fn output(self) -> Self {
        match self {
            Self::E4m3 => Self::Bf16,
            same => same,
        }
    }

    /// Name used in symbols, records and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
            Self::E4m3 => "e4m3",
        }
    }
}
