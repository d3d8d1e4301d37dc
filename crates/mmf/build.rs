//! Defines the groups of systems that `src/sys` compiles for, so that each group is listed once:
//!
//! | cfg | systems |
//! | --- | --- |
//! | `linux_like` | Linux and Android |
//! | `apple` | macOS and the other systems of Apple |
//! | `bsd` | FreeBSD |
//! | `trap64` | 64-bit x86 and ARM on the systems whose fault handlers are implemented |
//! | `trap` | `trap64`, and 32-bit x86 with SSE2 on Linux, Android and Windows: `sys::guard::trap` |

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |key: &str| env::var(format!("CARGO_CFG_TARGET_{key}")).unwrap_or_default();
    let (os, arch) = (target("OS"), target("ARCH"));
    let linux_like = os == "linux" || os == "android";
    let windows = os == "windows";
    let bsd = os == "freebsd";
    let has_handlers = linux_like || windows || bsd || os == "macos";
    let is_64_bit = target("POINTER_WIDTH") == "64" && (arch == "x86_64" || arch == "aarch64");
    let has_sse2 = target("FEATURE").split(',').any(|feature| feature == "sse2");
    let trap64 = is_64_bit && has_handlers;
    let trap32 = arch == "x86" && has_sse2 && (linux_like || windows);
    for (name, holds) in [
        ("linux_like", linux_like),
        ("apple", target("VENDOR") == "apple"),
        ("bsd", bsd),
        ("trap64", trap64),
        ("trap", trap64 || trap32),
    ] {
        println!("cargo::rustc-check-cfg=cfg({name})");
        if holds {
            println!("cargo::rustc-cfg={name}");
        }
    }
}
