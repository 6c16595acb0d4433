//! Text forms read back, with errors that say what was read and what is allowed.

use crate::{
    Align, AttentionKernel, Bias, Dtype, Family, Features, Gene, Kernel, Mask, MatrixStrides, Pages, Problem, Strides,
    Variant, Window,
};

/// Why a text is no problem, variant or kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A field of a problem is not known.
    #[error(
        "unknown field number {0} in the problem; known are b, h, hq, hk, s, sq, sk, d, dqk, dv, \
         f16|bf16|f32|e4m3, full|causal|causal-tl, bshd|bhsd, qstr|kstr|vstr|ostr, scale, window, softcap, alibi, sinks, bias|fbias, mask, packedq|packedkv, usedkv, pages"
    )]
    Field(usize),
    /// A field's number does not fit.
    #[error("field number {0} of the problem does not hold a number that fits")]
    Number(usize),
    /// A feature's value cannot be read.
    #[error("{feature}, field number {field} of the problem, reads {allowed}")]
    Feature {
        /// Its number.
        field: usize,
        /// Its name.
        feature: &'static str,
        /// What it should be, with an example.
        allowed: &'static str,
    },
    /// A field that has no default is absent.
    #[error("the problem has no {0}; give for example b1-h8-s512-d64-f16")]
    Missing(&'static str),
    /// The family is not known.
    #[error("unknown kernel family; known are tiled, mma, wgmma and decode")]
    Family,
    /// A gene is not known, not of this family, or has a value it cannot have.
    #[error("gene number {0} of the variant is unknown, not of this family, or has a value it cannot have")]
    Gene(usize),
    /// A gene of the family is absent.
    #[error("the variant has no value for gene {}", .0.name())]
    MissingGene(Gene),
    /// A kernel's text form is not `family:dtype:DQKxDV:genes`.
    #[error("a kernel reads family:dtype:DQKxDV:gene=value,... or family:dtype:DQKxDV+features:gene=value,...")]
    Kernel,
}

pub(crate) fn problem(text: &str) -> Result<Problem, ParseError> {
    let mut p = Problem::new(1, 0, 0, 0, Dtype::F16);
    let (mut bhsd, mut custom) = (false, [None; 4]);
    // "causal-tl" holds the separator, so fields are joined again where needed.
    let mut fields = text.split('-').enumerate().peekable();
    while let Some((i, field)) = fields.next() {
        if p.features.read(i + 1, field)? {
            continue;
        }
        let digits = field.find(|c: char| c.is_ascii_digit()).unwrap_or(field.len());
        let (name, number) = field.split_at(digits);
        let count = || number.parse::<u32>().map_err(|_| ParseError::Number(i + 1));
        match (name, field) {
            (_, "f16") => p.dtype = Dtype::F16,
            (_, "bf16") => p.dtype = Dtype::Bf16,
            (_, "f32") => p.dtype = Dtype::F32,
            (_, "e4m3") => p.dtype = Dtype::E4m3,
            (_, "full") => p.mask = Mask::Full,
            (_, "causal") => {
                let top_left = fields.next_if(|(_, f)| *f == "tl").is_some();
                p.mask = Mask::Causal(if top_left { Align::TopLeft } else { Align::BottomRight });
            }
            (_, "bshd") => bhsd = false,
            (_, "bhsd") => bhsd = true,
            ("b", _) => p.batch = count()?,
            ("h", _) => (p.heads_q, p.heads_kv) = (count()?, count()?),
            ("hq", _) => p.heads_q = count()?,
            ("hk", _) => p.heads_kv = count()?,
            ("s", _) => (p.seqlen_q, p.seqlen_kv) = (count()?, count()?),
            ("sq", _) => p.seqlen_q = count()?,
            ("sk", _) => p.seqlen_kv = count()?,
            ("d", _) => (p.head_dim_qk, p.head_dim_v) = (count()?, count()?),
            ("dqk", _) => p.head_dim_qk = count()?,
            ("dv", _) => p.head_dim_v = count()?,
            ("qstr" | "kstr" | "vstr" | "ostr", _) => {
                let slot = ["qstr", "kstr", "vstr", "ostr"].iter().position(|n| *n == name).unwrap_or(0);
                custom[slot] = Some(strides(number).ok_or(ParseError::Number(i + 1))?);
            }
            ("scale", _) => {
                p.scale = Some(float(number).filter(|v: &f32| v.is_finite()).ok_or(ParseError::Number(i + 1))?);
            }
            _ => return Err(ParseError::Field(i + 1)),
        }
    }
    for (missing, name) in [
        (p.heads_q == 0, "heads (h or hq)"),
        (p.seqlen_q == 0, "query length (s or sq)"),
        (p.head_dim_qk == 0, "head_dim (d or dqk)"),
    ] {
        if missing {
            return Err(ParseError::Missing(name));
        }
    }
    if p.heads_kv == 0 {
        p.heads_kv = p.heads_q;
    }
    if p.head_dim_v == 0 {
        p.head_dim_v = p.head_dim_qk;
    }
    p = if bhsd { p.in_bhsd() } else { p.in_bshd() };
    let s = &mut p.strides;
    for (tensor, given) in [&mut s.q, &mut s.k, &mut s.v, &mut s.o].into_iter().zip(custom) {
        *tensor = given.unwrap_or(*tensor);
    }
    Ok(p)
}

fn strides(text: &str) -> Option<Strides> {
    let mut parts = text.split('/').map(|n| n.parse::<i64>());
    let strides = Strides { batch: parts.next()?.ok()?, seq: parts.next()?.ok()?, head: parts.next()?.ok()? };
    parts.next().is_none().then_some(strides)
}

impl Features {
    /// Takes up a field of a problem's text; whether it is of a feature.
    fn read(&mut self, number: usize, field: &str) -> Result<bool, ParseError> {
        let error = |feature, allowed| ParseError::Feature { field: number, feature, allowed };
        if let Some(sides) = field.strip_prefix("window") {
            const ALLOWED: &str = "LEFT/RIGHT, each a number of keys from 0 on or inf, such as window127/0";
            self.window = window(sides).ok_or(error("window", ALLOWED))?;
        } else if let Some(bound) = field.strip_prefix("softcap") {
            self.softcap = Some(float(bound).ok_or(error("softcap", "a number above 0, such as softcap30"))?);
        } else if let Some(wide) =
            [("bias", false), ("fbias", true)].into_iter().find(|(name, _)| field.starts_with(name))
        {
            let (name, wide) = wide;
            let strides =
                matrix(&field[name.len()..]).ok_or(error(name, "BATCH/HEAD/ROW strides, such as bias0/64/8"))?;
            self.bias = Some(Bias { wide, strides });
        } else if let Some(strides) = field.strip_prefix("mask") {
            self.mask = Some(matrix(strides).ok_or(error("mask", "BATCH/HEAD/ROW strides, such as mask512/0/0"))?);
        } else if let Some(total) = field.strip_prefix("packedq") {
            self.packed_q = Some(total.parse().map_err(|_| error("packedq", "a number of rows, such as packedq100"))?);
        } else if let Some(total) = field.strip_prefix("packedkv") {
            self.packed_kv =
                Some(total.parse().map_err(|_| error("packedkv", "a number of keys, such as packedkv100"))?);
        } else if let Some(numbers) = field.strip_prefix("pages") {
            self.pages = Some(pages(numbers).ok_or(error("pages", "COUNT/SIZE/COLUMNS, such as pages64/16/8"))?);
        } else {
            match field {
                "usedkv" => self.used_kv = true,
                "alibi" => self.alibi = true,
                "sinks" => self.sinks = true,
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// A number, or the bits of one.
fn float(text: &str) -> Option<f32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok().map(f32::from_bits),
        None => text.parse().ok(),
    }
}

fn pages(text: &str) -> Option<Pages> {
    let mut numbers = text.split('/').map(|number| number.parse().ok());
    let pages = Pages { count: numbers.next()??, size: numbers.next()??, columns: numbers.next()?? };
    numbers.next().is_none().then_some(pages)
}

fn matrix(text: &str) -> Option<MatrixStrides> {
    strides(text).map(|Strides { batch, seq: head, head: row }| MatrixStrides { batch, head, row })
}

fn window(text: &str) -> Option<Window> {
    let side = |text: &str| if text == "inf" { Some(None) } else { text.parse().ok().map(Some) };
    let (left, right) = text.split_once('/')?;
    Some(Window { left: side(left)?, right: side(right)? })
}

fn dtype(text: &str) -> Option<Dtype> {
    Dtype::ALL.into_iter().find(|d| d.name() == text)
}

pub(crate) fn variant(text: &str) -> Result<Variant, ParseError> {
    let (family, genes) = text.split_once(':').ok_or(ParseError::Family)?;
    let family = Family::ALL.into_iter().find(|f| f.name() == family).ok_or(ParseError::Family)?;
    with_genes(family, genes)
}

fn with_genes(family: Family, genes: &str) -> Result<Variant, ParseError> {
    let mut variant = Variant::bare(family);
    read_genes(&mut variant, genes)?;
    for domain in family.domains() {
        if variant.get(domain.gene).is_none() {
            // What is off need not be named, so that texts stay good when a family gets another switch.
            let off = (domain.values[0] == 0).then(|| variant.with(domain.gene, 0)).flatten();
            variant = off.ok_or(ParseError::MissingGene(domain.gene))?;
        }
    }
    Ok(variant)
}

fn read_genes(variant: &mut Variant, genes: &str) -> Result<(), ParseError> {
    for (i, pair) in genes.split(',').filter(|pair| !pair.is_empty()).enumerate() {
        let error = ParseError::Gene(i + 1);
        let (name, value) = pair.split_once('=').ok_or(error)?;
        let gene = Gene::ALL.into_iter().find(|g| g.name() == name).ok_or(error)?;
        let value = value.parse().map_err(|_| error)?;
        *variant = variant.with(gene, value).ok_or(error)?;
    }
    Ok(())
}

pub(crate) fn kernel(text: &str) -> Result<Kernel, ParseError> {
    if text == APPEND {
        return Ok(Kernel::Append);
    }
    let mut parts = text.splitn(4, ':');
    let mut next = || parts.next().ok_or(ParseError::Kernel);
    let (family, element, dims, genes) = (next()?, next()?, next()?, next()?);
    let family = Family::ALL.into_iter().find(|f| f.name() == family).ok_or(ParseError::Family)?;
    let dtype = dtype(element).ok_or(ParseError::Kernel)?;
    let (dims, featured) = dims.strip_suffix(FEATURED).map_or((dims, false), |dims| (dims, true));
    let (qk, v) = dims.split_once('x').ok_or(ParseError::Kernel)?;
    let dim = |text: &str| text.parse().map_err(|_| ParseError::Kernel);
    let variant = with_genes(family, genes)?;
    Ok(Kernel::Attention(AttentionKernel::from_parts(variant, dtype, [dim(qk)?, dim(v)?], featured)))
}

/// The kernel that appends to a cache.
pub(crate) const APPEND: &str = "append";

/// What follows the head_dims of a kernel with features.
pub(crate) const FEATURED: &str = "+features";

#[cfg(feature = "serde")]
pub(crate) fn deserialize<'de, D, T>(deserializer: D, expecting: &'static str) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: core::str::FromStr<Err = ParseError>,
{
    struct Text<T>(&'static str, core::marker::PhantomData<T>);
    impl<T: core::str::FromStr<Err = ParseError>> serde::de::Visitor<'_> for Text<T> {
        type Value = T;
        fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            f.write_str(self.0)
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }
    deserializer.deserialize_str(Text(expecting, core::marker::PhantomData))
}
