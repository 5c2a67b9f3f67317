//! Distributions, from additions, multiplications and divisions alone. The logarithm and the cosine
//! of one system's mathematical library differ from another's in the last bit, and one bit is
//! another history; these are the same everywhere, so a committed table holds on every machine.

use std::time::Duration;

use crate::base::Rng;

/// A memoryless duration with this mean.
pub fn exponential(mean: Duration, rng: &mut Rng) -> Duration {
    // `unit` may be zero, never one.
    mean.mul_f64(-ln(1.0 - rng.unit()))
}

/// A lognormal factor with median 1: `normal` is how many sigmas it lies off.
pub fn lognormal(sigma: f64, normal: f64) -> f64 {
    if sigma == 0.0 { 1.0 } else { exp(sigma * normal) }
}

/// The standard normal number below which `share` (between 0 and 1) of them lie: P. J. Acklam's
/// rational approximation, exact to nine digits.
pub fn normal(share: f64) -> f64 {
    assert!(share > 0.0 && share < 1.0, "a share of a distribution without ends");
    let tail = |share: f64| {
        let q = (-2.0 * ln(share)).sqrt();
        polynomial(&TAIL_UPPER, q) / (polynomial(&TAIL_LOWER, q) * q + 1.0)
    };
    if share < TAIL {
        tail(share)
    } else if share > 1.0 - TAIL {
        -tail(1.0 - share)
    } else {
        let q = share - 0.5;
        let r = q * q;
        polynomial(&MIDDLE_UPPER, r) * q / (polynomial(&MIDDLE_LOWER, r) * r + 1.0)
    }
}

/// A number strictly between 0 and 1 that belongs to `bits`.
pub fn unit(bits: u64) -> f64 {
    ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// Mixes 64 bits well and cheaply (the finaliser of splitmix64).
pub fn mix(bits: u64) -> u64 {
    let mut x = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The natural logarithm of a positive, normal number.
pub fn ln(x: f64) -> f64 {
    assert!(x.is_normal() && x > 0.0, "a positive number");
    let bits = x.to_bits();
    // x = mantissa * 2^exponent, with the mantissa around 1.
    let mut exponent = (bits >> 52) as f64 - 1023.0;
    let mut mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1.0;
    }
    // ln m = 2 artanh s, and s is below 0.172: nine terms are exact.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let series = (0..9).rev().fold(0.0, |sum, n| sum * square + 1.0 / f64::from(2 * n + 1));
    exponent * std::f64::consts::LN_2 + 2.0 * s * series
}

/// e to the power of `x`, which is between -700 and 700.
pub fn exp(x: f64) -> f64 {
    assert!(x.abs() < 700.0, "a power that a number can hold");
    let doublings = (x * std::f64::consts::LOG2_E).round();
    let rest = x - doublings * std::f64::consts::LN_2;
    // The rest is below 0.35: fourteen terms are exact.
    let series = (1..=14).rev().fold(1.0, |sum, n| 1.0 + sum * rest / f64::from(n));
    // Within -1010..1010, so the cast keeps it.
    let exponent = 1023 + doublings as i64;
    series * f64::from_bits(exponent.unsigned_abs() << 52)
}

fn polynomial(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().fold(0.0, |sum, c| sum * x + c)
}

const TAIL: f64 = 0.024_25;
const TAIL_UPPER: [f64; 6] = [
    -7.784_894_002_430_293e-3,
    -3.223_964_580_411_365e-1,
    -2.400_758_277_161_838,
    -2.549_732_539_343_734,
    4.374_664_141_464_968,
    2.938_163_982_698_783,
];
const TAIL_LOWER: [f64; 4] = [
    7.784_695_709_041_462e-3,
    3.224_671_290_700_398e-1,
    2.445_134_137_142_996,
    3.754_408_661_907_416,
];
const MIDDLE_UPPER: [f64; 6] = [
    -3.969_683_028_665_376e1,
    2.209_460_984_245_205e2,
    -2.759_285_104_469_687e2,
    1.383_577_518_672_69e2,
    -3.066_479_806_614_716e1,
    2.506_628_277_459_239,
];
const MIDDLE_LOWER: [f64; 5] = [
    -5.447_609_879_822_406e1,
    1.615_858_368_580_409e2,
    -1.556_989_798_598_866e2,
    6.680_131_188_771_972e1,
    -1.328_068_155_288_572e1,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_what_they_are_called() {
        for n in 1..4_000 {
            let x = f64::from(n) * 0.01;
            assert!((ln(x) - x.ln()).abs() <= 1e-14 * x.ln().abs().max(1.0), "ln {x}");
            for x in [x, -x] {
                assert!((exp(x) / x.exp() - 1.0).abs() < 1e-13, "exp {x}");
            }
        }
        for x in [1e-300, 1e-17, 1.0, 1e200] {
            assert!((ln(x) - x.ln()).abs() <= 1e-13 * x.ln().abs(), "ln {x}");
        }
        for (share, expected) in
            [(0.5, 0.0), (0.841_344_746, 1.0), (0.022_750_132, -2.0), (0.998_650_102, 3.0)]
        {
            assert!((normal(share) - expected).abs() < 1e-6, "normal {share}");
        }
    }

    #[test]
    fn draws_have_the_means_that_were_asked_for() {
        let mut rng = Rng::from_seed([5; 32]);
        let mean = Duration::from_secs(10);
        let sum: Duration = (0..20_000).map(|_| exponential(mean, &mut rng)).sum();
        assert!((9.8..10.2).contains(&(sum.as_secs_f64() / 20_000.0)), "{sum:?}");
        let normals: Vec<f64> = (0..20_000).map(|n| normal(unit(mix(n)))).collect();
        let mean = normals.iter().sum::<f64>() / 20_000.0;
        let variance = normals.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.02 && (0.97..1.03).contains(&variance), "{mean} {variance}");
    }

    // What the committed tables rest on.
    #[test]
    fn last_bit_is_the_same_on_every_machine() {
        let sum = (1..1000).map(|n| {
            let z = normal(f64::from(n) / 1000.0);
            (lognormal(0.9, z) + ln(f64::from(n))).to_bits()
        });
        assert_eq!(sum.fold(0, |hash, bits| mix(hash ^ bits)), 776_756_795_428_464_544);
    }
}
