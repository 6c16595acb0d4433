//! What `host attend` is asked beyond mask and scale, and the arrays of it.

use std::str::FromStr;

use anyhow::{Result, bail, ensure};
use bytemuck::pod_read_unaligned;
use safetensors::Dtype as FileDtype;
use spec::{Bias, DeviceLimits, Dtype, Extra, Features, Mask, MatrixStrides, Pages, Problem, Window};

use super::Source;
use crate::{
    attention::{self, check_problem},
    tensor::{Array, Layout, Order},
};

/// What features read, as kernels do.
pub(super) type Arrays = Vec<(Extra, Vec<u8>)>;

/// Arguments of `host attend` for features.
#[derive(Debug, clap::Args)]
pub(super) struct Asked {
    /// Row i sees the LEFT keys before its diagonal, the diagonal's own and the RIGHT after it; inf for no limit.
    #[arg(long, value_name = "LEFT/RIGHT", allow_hyphen_values = true)]
    window: Option<Sides>,
    /// Bound that scores approach, above 0.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    softcap: Option<f32>,
    /// Slopes by which keys lose with their distance, F32 [heads].
    #[arg(long, value_name = "FILE[:NAME]")]
    alibi: Option<Source>,
    /// One more logit of each head's rows, without a value, F32 [heads].
    #[arg(long, value_name = "FILE[:NAME]")]
    sinks: Option<Source>,
    /// What is added to the logits, [batch, heads, seqlen_q, seqlen_kv] of F32 or the type of Q; all but the last may be 1 or,
    /// from the left, absent.
    #[arg(long, value_name = "FILE[:NAME]")]
    bias: Option<Source>,
    /// Which keys a row sees: BOOL or U8 of the same shape, 0 where it does not.
    #[arg(long, value_name = "FILE[:NAME]")]
    mask: Option<Source>,
    /// Where the rows of each batch entry start in Q, which then is one after the other: [batch + 1], from 0 to their number.
    #[arg(long, value_name = "FILE[:NAME]")]
    starts_q: Option<Source>,
    /// The same of K and V.
    #[arg(long, value_name = "FILE[:NAME]", conflicts_with_all = ["used_kv", "pages"])]
    starts_kv: Option<Source>,
    /// How many keys of each batch entry there are, [batch], of those that K and V have room for.
    #[arg(long, value_name = "FILE[:NAME]")]
    used_kv: Option<Source>,
    /// The pages of each batch entry, [batch, pages]; K and V then are [pages, keys of a page, heads, head_dim].
    #[arg(long, value_name = "FILE[:NAME]", requires = "used_kv")]
    pages: Option<Source>,
}

/// The sides of a window.
#[derive(Clone, Copy, Debug)]
struct Sides(Window);

impl FromStr for Sides {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let side = |text: &str| if text == "inf" { Some(None) } else { text.parse().ok().map(Some) };
        let sides = text.split_once('/').and_then(|(left, right)| {
            let (left, right) = (side(left)?, side(right)?);
            Some(Self(Window { left, right }))
        });
        sides.ok_or_else(|| "LEFT/RIGHT is needed, each a number of keys from 0 on or inf, such as 127/0".into())
    }
}

impl Asked {
    /// The problem of attending with Q to K and V of these layouts, and the arrays that it reads, as many and as large as it
    /// may read, with no number in them that leads astray.
    pub(super) fn problem(
        &self,
        [q, k, v]: [&Layout; 3],
        order: Order,
        mask: Mask,
        scale: Option<f32>,
    ) -> Result<(Problem, Arrays)> {
        let read = |source: &Option<Source>, usual| source.as_ref().map(|source| source.array(usual)).transpose();
        let counts =
            |source: &Option<Source>, usual| read(source, usual)?.map(|array| counts(usual, &array)).transpose();
        let starts_q = counts(&self.starts_q, "starts_q")?;
        let starts_kv = counts(&self.starts_kv, "starts_kv")?;
        let used_kv = counts(&self.used_kv, "used_kv")?;
        let pages = read(&self.pages, "pages")?;

        // As if there were batch entries in memory, all of them as long as the longest.
        let (mut q, mut k, mut v) = (*q, *k, *v);
        let (mut packed, mut cache) = ([None; 2], None);
        if let Some(starts) = &starts_q {
            let [rows] = unpack("Q", "starts_q", starts, [&mut q])?;
            packed[0] = Some(rows);
        }
        if let Some(starts) = &starts_kv {
            let [keys, _] = unpack("K", "starts_kv", starts, [&mut k, &mut v])?;
            packed[1] = Some(keys);
        }
        if let Some(table) = &pages {
            let [batch, columns] = table.shape[..] else { bail!("pages is {table}; [batch, pages] is needed") };
            let [count, size, ..] = k.shape;
            ensure!(
                v.shape[..2] == k.shape[..2],
                "V has {:?} pages and keys, K has {:?}",
                &v.shape[..2],
                &k.shape[..2]
            );
            let (batch, columns) = (u32::try_from(batch)?, u32::try_from(columns)?);
            let Some(keys) = columns.checked_mul(size) else { bail!("pages is {table}: more keys than 32 bits count") };
            for of in [&mut k, &mut v] {
                (of.shape[0], of.shape[1]) = (batch, keys);
            }
            cache = Some(Pages { count, size, columns });
        }
        let mut problem = attention::problem(&q, &k, &v, mask, scale)?;
        problem.features = Features {
            window: self.window.map_or(Window::default(), |Sides(window)| window),
            softcap: self.softcap,
            packed_q: packed[0],
            packed_kv: packed[1],
            used_kv: used_kv.is_some(),
            pages: cache,
            ..Features::NONE
        };

        let mut arrays = Arrays::new();
        for (extra, starts) in [(Extra::StartsQ, starts_q), (Extra::StartsKv, starts_kv)] {
            arrays.extend(starts.map(|starts| (extra, bytes(&starts))));
        }
        if let Some(used) = used_kv {
            check_used(&problem, &used)?;
            if let (Some(cache), Some(table)) = (cache, pages) {
                let table = counts_of_any_sign("pages", &table)?;
                check_pages(cache, &used, &table)?;
                let named: Vec<_> = table.into_iter().map(|page| u32::try_from(page).unwrap_or(u32::MAX)).collect();
                arrays.push((Extra::Pages, bytes(&named)));
            }
            arrays.push((Extra::UsedKv, bytes(&used)));
        }
        for (extra, source, usual) in [(Extra::Slopes, &self.alibi, "alibi"), (Extra::Sinks, &self.sinks, "sinks")] {
            let Some(array) = read(source, usual)? else { continue };
            let heads = problem.heads_q as usize;
            let good = array.dtype == FileDtype::F32 && array.shape == [heads];
            ensure!(good, "{usual} is {array}; F32 [{heads}] is needed, a number for each query head");
            match extra {
                Extra::Slopes => problem.features.alibi = true,
                _ => problem.features.sinks = true,
            }
            arrays.push((extra, array.bytes));
        }
        if let Some(array) = read(&self.bias, "bias")? {
            let own = match problem.dtype {
                Dtype::F16 => FileDtype::F16,
                Dtype::Bf16 => FileDtype::BF16,
                Dtype::F32 => FileDtype::F32,
                Dtype::E4m3 => FileDtype::F8_E4M3,
            };
            let wide = array.dtype == FileDtype::F32;
            ensure!(wide || array.dtype == own, "bias is {array}; {own:?}, as Q, or F32 is needed");
            problem.features.bias = Some(Bias { wide, strides: matrix("the bias", &array, &problem)? });
            arrays.push((Extra::Bias, array.bytes));
        }
        if let Some(array) = read(&self.mask, "mask")? {
            let boolean = matches!(array.dtype, FileDtype::BOOL | FileDtype::U8);
            ensure!(boolean, "mask is {array}; BOOL or U8 is needed");
            problem.features.mask = Some(matrix("the mask", &array, &problem)?);
            arrays.push((Extra::Mask, array.bytes));
        }
        // Files are contiguous, also where what is in them is not one batch entry after the other.
        if packed != [None; 2] || cache.is_some() {
            problem = match order {
                Order::Bshd => problem.in_bshd(),
                Order::Bhsd => problem.in_bhsd(),
            };
        }
        check_problem(&DeviceLimits::H100, &problem)?;
        Ok((problem, arrays))
    }
}

/// Numbers from 0 on.
fn counts(name: &str, array: &Array) -> Result<Vec<u32>> {
    ensure!(array.shape.len() == 1, "{name} is {array}; one dimension is needed");
    let numbers = counts_of_any_sign(name, array)?.into_iter().enumerate();
    let count = |(i, number)| {
        let Ok(count) = u32::try_from(number) else { bail!("{name}[{i}] is {number}; a number from 0 on is needed") };
        Ok(count)
    };
    numbers.map(count).collect()
}

/// Whole numbers.
fn counts_of_any_sign(name: &str, array: &Array) -> Result<Vec<i64>> {
    Ok(match array.dtype {
        FileDtype::I32 => array.bytes.chunks_exact(4).map(|word| pod_read_unaligned::<i32>(word).into()).collect(),
        FileDtype::U32 => array.bytes.chunks_exact(4).map(|word| pod_read_unaligned::<u32>(word).into()).collect(),
        FileDtype::I64 => array.bytes.chunks_exact(8).map(pod_read_unaligned).collect(),
        _ => bail!("{name} is {array}; I32, U32 or I64 is needed"),
    })
}

fn bytes(counts: &[u32]) -> Vec<u8> {
    counts.iter().flat_map(|count| count.to_ne_bytes()).collect()
}

/// Gives tensors in which batch entries lie one after the other the shape that these would have apart. Returns the rows that
/// there are of each.
fn unpack<const N: usize>(tensor: &str, name: &str, starts: &[u32], of: [&mut Layout; N]) -> Result<[u32; N]> {
    let rises = starts.windows(2).all(|pair| pair[0] <= pair[1]);
    let ends = [starts.first(), starts.last()].map(Option::<&u32>::copied);
    let total = of[0].shape[1];
    let good = starts.len() > 1 && rises && ends == [Some(0), Some(total)];
    ensure!(good, "{name} is {starts:?}; numbers that rise from 0 to {total}, the seqlen of {tensor}, are needed");
    let batch = u32::try_from(starts.len() - 1)?;
    // A kernel wants some room, also where all entries are empty.
    let most = starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0).max(1);
    let mut totals = [0; N];
    for (layout, total) in of.into_iter().zip(&mut totals) {
        ensure!(layout.shape[0] == 1, "with {name} the batch of {tensor} must be 1; it is {}", layout.shape[0]);
        *total = layout.shape[1];
        (layout.shape[0], layout.shape[1]) = (batch, most);
    }
    ensure!(totals.iter().all(|found| *found == total), "K and V have {totals:?} keys; they must be as many");
    Ok(totals)
}

fn check_used(problem: &Problem, used: &[u32]) -> Result<()> {
    let batch = problem.batch;
    ensure!(used.len() == batch as usize, "used_kv has {} numbers; {batch} are needed, the batch", used.len());
    let most = problem.seqlen_kv;
    match used.iter().position(|count| *count > most) {
        Some(i) => bail!("used_kv[{i}] is {}; 0 to {most} are allowed, as many as there is room for", used[i]),
        None => Ok(()),
    }
}

/// That all pages of keys that are used are there.
fn check_pages(Pages { count, size, columns }: Pages, used: &[u32], table: &[i64]) -> Result<()> {
    for (entry, (row, keys)) in table.chunks_exact(columns as usize).zip(used).enumerate() {
        for (column, page) in row.iter().enumerate().take(keys.div_ceil(size) as usize) {
            let good = (0..i64::from(count)).contains(page);
            ensure!(good, "pages[{entry}, {column}] is {page}; 0 to {} are allowed, the pages of K", count - 1);
        }
    }
    Ok(())
}

/// The strides of a contiguous matrix, where dimensions on the left may be absent.
fn matrix(what: &'static str, array: &Array, problem: &Problem) -> Result<MatrixStrides> {
    let absent = 4usize.checked_sub(array.shape.len());
    let Some(absent) = absent else { bail!("{what} is {array}; [batch, heads, seqlen_q, seqlen_kv] is needed") };
    let mut shape = [1; 4];
    for (to, size) in shape[absent..].iter_mut().zip(&array.shape) {
        *to = u32::try_from(*size)?;
    }
    Ok(MatrixStrides::contiguous(what, shape, problem)?)
}
