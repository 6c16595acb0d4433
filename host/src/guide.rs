//! The code in the guide, compiled and, where it needs no GPU, run.

macro_rules! pages {
    ($($page:ident $file:literal)*) => {
        $(
            #[doc = include_str!(concat!("../../docs/guide/", $file))]
            struct $page;
        )*
    };
}

pages! {
    Masks "masks.md"
    Scale "scale.md"
    Heads "heads.md"
    Lse "lse.md"
    Merge "merge.md"
    Shapes "shapes.md"
    Append "append.md"
    Layouts "layouts.md"
    Determinism "determinism.md"
    Plans "plans.md"
}
